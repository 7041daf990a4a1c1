#include "lib/local/http/http_api.hpp"

#include <set>

#include "lib/base/version.hpp"
#include "lib/local/api/answers.hpp"

namespace pitcrew::local {
namespace {

constexpr size_t kMaxBody = 3 * 1024 * 1024;  // apiserver's limit of a request's body

net::HttpResponse http_response(kube::Response response) {
  std::string text;
  if (response.items.empty()) {
    text = response.body.text();
  } else {
    text = response.body.text();
    PITCREW_INVARIANT(!text.empty() && text.back() == '}', "a list's envelope is no object");
    text.pop_back();
    text += ",\"items\":[";
    bool first = true;
    for (const kube::Payload& item : response.items) {
      if (!std::exchange(first, false)) text += ',';
      text += item.text();
    }
    text += "]}";
  }
  net::HttpResponse made = net::json_response(response.status, std::move(text));
  if (response.retry_after) {
    made.headers.emplace_back("Retry-After", std::to_string(std::chrono::ceil<seconds>(*response.retry_after).count()));
  }
  return made;
}

std::string bearer_token(const net::HttpRequest& request) {
  const std::string* value = net::find_header(request.headers, "Authorization");
  if (value == nullptr || value->rfind("Bearer ", 0) != 0) return "";
  return value->substr(7);
}

std::string line_of(const kube::WatchEvent& event) {
  std::string line = "{\"type\":\"";
  line += to_string(event.type);
  line += "\",\"object\":";
  line += event.object.text();
  line += "}\n";
  return line;
}

}  // namespace

class HttpApi::Impl : public std::enable_shared_from_this<Impl> {
 public:
  // A watch of one client: what the server says before the head is sent waits in `early`.
  struct Stream {
    net::StreamingResponderPtr responder;
    kube::CallPtr call;
    std::string early;
    bool ended = false;
  };

  Impl(ApiServer& s, HttpApiSettings settings) : server(s), settings(std::move(settings)) {}

  Status listen(net::AsioLoop& loop, Logger log) {
    net::HttpServerSettings http_settings;
    http_settings.address = settings.address;
    http_settings.identity = settings.identity;
    http_settings.max_connections = settings.max_connections;
    http_settings.max_body_bytes = kMaxBody;
    http_settings.max_stream_queue_bytes = settings.max_stream_queue_bytes;
    PITCREW_ASSIGN(http, net::HttpServer::listen(
                             loop, http_settings,
                             [this](net::HttpRequest request, net::HttpResponderPtr responder) {
                               handle(std::move(request), std::move(responder));
                             },
                             std::move(log)));
    return {};
  }

  void handle(net::HttpRequest request, net::HttpResponderPtr responder) {
    if (settings.intercept) {
      if (auto answer = settings.intercept(request)) return responder->respond(*std::move(answer));
    }
    if (request.path() == "/healthz" || request.path() == "/readyz" || request.path() == "/livez")
      return responder->respond(net::text_response(200, "ok"));
    if (settings.authenticate && !settings.authenticate(bearer_token(request)))
      return responder->respond(http_response(answers::status(401, "Unauthorized", "Unauthorized")));
    if (request.path() == "/version") {
      return responder->respond(
          net::json_response(200, Json({{"major", "1"}, {"minor", "30"}, {"gitVersion", "v1.30.0-pitcrew"}}).dump()));
    }
    if (settings.pods) {
      auto shared = std::make_shared<net::HttpResponderPtr>(std::move(responder));
      const auto answer = [shared](net::HttpResponse response) {
        if (const auto once = std::exchange(*shared, nullptr)) once->respond(std::move(response));
      };
      if (settings.pods(request, answer)) return;
      responder = std::move(*shared);
    }
    auto parsed = parse_request(request);
    if (!parsed) return responder->respond(http_response(answers::refused(parsed.error())));
    if (parsed->verb == kube::Verb::kWatch) return watch(*parsed, std::move(responder));
    responder->respond(http_response(server.handle(*parsed)));
  }

  void watch(const kube::Request& request, net::HttpResponderPtr responder) {
    auto stream = std::make_shared<Stream>();
    // Weak: the watch, and with it these, belongs to the stream.
    auto call = server.watch(request, {[weak = std::weak_ptr(stream)](const kube::WatchEvent& event) {
                                         const auto stream = weak.lock();
                                         if (!stream) return;
                                         if (!stream->responder) {
                                           stream->early += line_of(event);
                                         } else {
                                           stream->responder->write(line_of(event));
                                         }
                                       },
                                       [api = weak_from_this(), weak = std::weak_ptr(stream)](const Status&) {
                                         const auto stream = weak.lock();
                                         if (!stream) return;
                                         stream->ended = true;
                                         if (stream->responder) stream->responder->finish();
                                         if (const auto self = api.lock()) self->streams.erase(stream);
                                       }});
    if (!call) {
      kube::Response refused = answers::refused(call.error());
      refused.retry_after = call.error().retry_after;
      return responder->respond(http_response(std::move(refused)));
    }
    stream->call = *std::move(call);
    net::HttpResponse head = net::json_response(200, std::exchange(stream->early, {}));
    stream->responder = responder->stream(std::move(head));
    if (stream->ended) return stream->responder->finish();
    if (!stream->responder->open()) return;  // the client has gone meanwhile
    streams.insert(stream);
    stream->responder->on_closed([this, weak = std::weak_ptr<Stream>(stream)] {
      if (const auto closed = weak.lock()) streams.erase(closed);
    });
  }

  ApiServer& server;
  HttpApiSettings settings;
  std::set<std::shared_ptr<Stream>> streams;
  std::unique_ptr<net::HttpServer> http;
};

Result<std::unique_ptr<HttpApi>> HttpApi::serve(net::AsioLoop& loop, ApiServer& server, HttpApiSettings settings,
                                                Logger log) {
  auto impl = std::make_shared<Impl>(server, std::move(settings));
  PITCREW_TRY(impl->listen(loop, std::move(log)));
  return std::unique_ptr<HttpApi>(new HttpApi(std::move(impl)));
}

HttpApi::~HttpApi() {
  impl_->http.reset();
  impl_->streams.clear();
}

net::Address HttpApi::address() const { return impl_->http->address(); }
Status HttpApi::set_identity(const net::TlsServerIdentity& identity) { return impl_->http->set_identity(identity); }
size_t HttpApi::watches() const { return impl_->streams.size(); }

}  // namespace pitcrew::local
