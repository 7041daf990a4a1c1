#include "operator/app/webhook.hpp"

#include <charconv>

#include "lib/base/file.hpp"
#include "lib/net/http_client.hpp"
#include "lib/net/resolver.hpp"

namespace pitcrew::control {
namespace {

constexpr uint64_t kRootsLimit = 4 << 20;

}  // namespace

struct Webhook::Call {
  WebhookUrl url;
  std::string body;
  std::function<void(Status)> done;
  std::unique_ptr<net::Lookup> lookup;
  net::HttpExchangePtr exchange;
};

Webhook::Webhook(net::AsioLoop& loop, WebhookSettings settings)
    : loop_(loop),
      settings_(std::move(settings)),
      calls_(std::make_shared<std::map<uint64_t, std::shared_ptr<Call>>>()) {}

Webhook::~Webhook() = default;

Result<WebhookUrl> parse_webhook(const std::string& url) {
  WebhookUrl made;
  const Error wrong(Code::kInvalidArgument, "'" + url + "' is no URL; write it like https://host/path");
  std::string_view rest = url;
  if (rest.starts_with("https://")) {
    made.tls = true;
    rest.remove_prefix(8);
  } else if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else {
    return wrong;
  }
  const size_t slash = rest.find('/');
  made.target = slash == std::string_view::npos ? "/" : std::string(rest.substr(slash));
  std::string_view host = rest.substr(0, slash);
  made.port = made.tls ? 443 : 80;
  const size_t bracket = host.rfind(']'), colon = host.rfind(':');
  if (colon != std::string_view::npos && (bracket == std::string_view::npos || colon > bracket)) {
    const std::string_view port = host.substr(colon + 1);
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), made.port);
    if (error != std::errc() || end != port.data() + port.size() || made.port == 0) return wrong;
    host = host.substr(0, colon);
  }
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (host.empty() || host.find_first_of(" @?#") != std::string_view::npos) return wrong;
  made.host = host;
  return made;
}

void Webhook::post(const std::string& url, const std::string& body, std::function<void(Status)> done) {
  auto parsed = parse_webhook(url);
  if (!parsed) {
    loop_.post([done = std::move(done), error = parsed.error()] { done(error); });
    return;
  }
  auto call = std::make_shared<Call>();
  call->url = *std::move(parsed);
  call->body = body;
  const uint64_t id = next_++;
  call->done = [calls = std::weak_ptr(calls_), id, done = std::move(done)](Status status) {
    const auto known = calls.lock();
    if (!known) return;
    const auto ended = known->extract(id);  // destroyed once this has returned
    done(std::move(status));
  };
  calls_->emplace(id, call);
  const std::weak_ptr<Call> weak = call;
  call->lookup =
      net::look_up(loop_, call->url.host, call->url.port, [this, weak](Result<std::vector<net::Address>> at) {
        const auto call = weak.lock();
        if (!call) return;
        if (!at) return call->done(at.error());
        net::HttpClientSettings settings;
        settings.address = at->front();
        settings.host = call->url.host;
        settings.timeout = settings_.timeout;
        settings.max_body_bytes = 64 * 1024;
        if (call->url.tls) {
          auto roots = read_file(posix_file_system(), settings_.roots, kRootsLimit);
          if (!roots) return call->done(roots.error());
          settings.trust = net::TlsTrust{*std::move(roots), call->url.host};
        }
        net::HttpRequest request;
        request.method = "POST";
        request.target = call->url.target;
        request.headers = {{"Content-Type", "application/json"}};
        request.body = call->body;
        call->exchange = net::http_request(
            loop_, settings, std::move(request), {[weak](Result<net::HttpResponse> answer) {
              const auto call = weak.lock();
              if (!call) return;
              if (!answer) return call->done(answer.error());
              if (answer->status / 100 == 2) return call->done({});
              call->done(Error(Code::kUnavailable, "the webhook answered " + std::to_string(answer->status)));
            }});
      });
}

}  // namespace pitcrew::control
