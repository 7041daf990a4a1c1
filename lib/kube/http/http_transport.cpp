#include "lib/kube/http/http_transport.hpp"

#include <charconv>

#include "lib/base/version.hpp"
#include "lib/kube/config/credentials.hpp"
#include "lib/kube/http/json_slicer.hpp"
#include "lib/kube/http/retry_after.hpp"
#include "lib/kube/types/fields.hpp"
#include "lib/net/http_pool.hpp"

namespace pitcrew::kube {
namespace {

std::string default_user_agent() {
  const std::string text = version();  // "0.1.0 (commit …)"
  return "pitcrew/" + text.substr(0, text.find(' ')) + " (linux)";
}

// What the server was asked for, or none.
std::optional<Duration> asked_timeout(const Request& request) {
  const std::string& text = request.parameter("timeoutSeconds");
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return seconds(number);
}

WatchEventType type_of_event(const std::string& envelope) {
  auto tree = parse_json(envelope);
  std::string type;
  if (tree) fields::read(*tree, "type", type);
  return parse_watch_event_type(type);
}

bool has_object(WatchEventType type) {
  return type == WatchEventType::kAdded || type == WatchEventType::kModified || type == WatchEventType::kDeleted;
}

}  // namespace

class HttpTransport::Impl : public std::enable_shared_from_this<Impl> {
 public:
  // One call or watch, from its beginning to its last callback. Kept by its Call; what runs holds it meanwhile.
  struct Exchange : std::enable_shared_from_this<Exchange> {
    Request request;
    Answer answer;   // of a call
    WatchSink sink;  // of a watch
    bool watching = false;
    bool ended = false;
    int tries = 0;
    std::string token;
    net::HttpExchangePtr http;
    Loop::TimerPtr limit;
    Response response;
    std::string body;
    std::string event_object;
    std::optional<JsonSlicer> slicer;

    void stop() {
      ended = true;
      http.reset();
      limit.reset();
    }
  };
  using ExchangePtr = std::shared_ptr<Exchange>;

  class Held final : public Call {
   public:
    explicit Held(ExchangePtr exchange) : exchange_(std::move(exchange)) {}
    ~Held() override { exchange_->stop(); }

   private:
    ExchangePtr exchange_;
  };

  Impl(net::AsioLoop& l, const ClusterConfig& config, ServerUrl u, HttpTransportSettings s, Logger log)
      : loop(l),
        url(std::move(u)),
        settings(std::move(s)),
        log(std::move(log)),
        credentials(l, config, this->log),
        impersonate(config.impersonate),
        impersonate_groups(config.impersonate_groups),
        pool(l, pool_settings()) {
    if (settings.user_agent.empty()) settings.user_agent = default_user_agent();
  }

  net::HttpPoolSettings pool_settings() {
    net::HttpPoolSettings made;
    made.host = url.host;
    made.port = url.port;
    made.connect_timeout = settings.connect_timeout;
    made.max_busy = settings.max_busy;
    if (url.tls) made.tls = [this] { return credentials.tls(); };
    return made;
  }

  CallPtr begin(ExchangePtr exchange) {
    loop.post([weak = weak_from_this(), exchange] {
      const auto self = weak.lock();
      if (self && !exchange->ended) self->authenticate(exchange);
    });
    return std::make_unique<Held>(std::move(exchange));
  }

  void authenticate(const ExchangePtr& exchange) {
    if (!exchange->limit) {
      const Duration timeout = exchange->request.timeout;
      limit(exchange, timeout, Error(Code::kDeadlineExceeded, "no credentials in " + pitcrew::to_string(timeout)));
    }
    credentials.token([this, exchange](Result<std::string> token) {
      if (exchange->ended) return;
      if (!token) return finish(exchange, token.error());
      exchange->token = *std::move(token);
      transmit(exchange);
    });
  }

  void limit(const ExchangePtr& exchange, Duration after, Error error) {
    exchange->limit = loop.after(after, [weak = weak_from_this(), e = exchange.get(), error = std::move(error)] {
      if (const auto self = weak.lock()) self->finish(e->shared_from_this(), error);
    });
  }

  net::HttpRequest wire_request(const Exchange& exchange) const {
    const Request& request = exchange.request;
    net::HttpRequest wire;
    wire.method = method(request);
    wire.target = url.prefix + target(request);
    wire.headers.emplace_back("User-Agent", settings.user_agent);
    wire.headers.emplace_back("Accept", "application/json");
    if (!exchange.token.empty()) wire.headers.emplace_back("Authorization", "Bearer " + exchange.token);
    if (!impersonate.empty()) wire.headers.emplace_back("Impersonate-User", impersonate);
    for (const std::string& group : impersonate_groups) wire.headers.emplace_back("Impersonate-Group", group);
    if (!request.body.empty()) {
      wire.headers.emplace_back("Content-Type", std::string(content_type(request)));
      wire.body = request.body.text();
    }
    return wire;
  }

  void transmit(const ExchangePtr& exchange) {
    ++exchange->tries;
    exchange->limit.reset();
    exchange->response = {};
    exchange->body.clear();
    exchange->slicer.reset();
    if (url.tls) {
      credentials.tls().ok();  // looks at the files; an error comes up where a connection needs it
      if (std::exchange(tls_generation, credentials.tls_generation()) != credentials.tls_generation()) pool.renew();
    }
    net::HttpPoolCall call;
    call.request = wire_request(*exchange);
    const Verb verb = exchange->request.verb;
    call.repeatable = verb == Verb::kGet || verb == Verb::kList || verb == Verb::kWatch;
    call.long_lived = exchange->watching;
    call.timeout = exchange->request.timeout;
    call.idle_limit = exchange->watching ? settings.watch_idle_limit : Duration(0);
    // The pool drops these functions with the exchange that it hands out, which `exchange` holds.
    net::HttpPoolHandler handler;
    handler.on_head = [this, e = exchange.get()](int status, const net::Headers& headers) {
      on_head(e->shared_from_this(), status, headers);
    };
    handler.on_piece = [this, e = exchange.get()](std::string_view piece) {
      return on_piece(e->shared_from_this(), piece);
    };
    handler.on_end = [this, e = exchange.get()](Status status) { on_end(e->shared_from_this(), std::move(status)); };
    exchange->http = pool.send(std::move(call), std::move(handler));
  }

  void on_head(const ExchangePtr& exchange, int status, const net::Headers& headers) {
    exchange->response.status = status;
    if (const std::string* after = net::find_header(headers, "Retry-After"))
      exchange->response.retry_after = parse_retry_after(*after, loop.now());
    for (const auto& [name, value] : headers) {
      if (name.size() == 7 && net::find_header({{name, value}}, "Warning") != nullptr)
        log.warning("the API server warns", {{"request", describe(exchange->request)}, {"warning", value}});
    }
    if (status == 429) {
      ++counted.throttled;
      const std::string* schema = net::find_header(headers, "X-Kubernetes-PF-FlowSchema-UID");
      log.debug("throttled by the API server",
                {{"request", describe(exchange->request)}, {"flowSchema", schema == nullptr ? "" : *schema}});
    }
    if (status != 200) return;
    if (exchange->watching) {
      slice_events(exchange);
      if (const auto asked = asked_timeout(exchange->request)) {
        limit(exchange, *asked + settings.watch_grace,
              Error(Code::kUnavailable, "the server didn't end the watch in time"));
      }
    } else if (exchange->request.verb == Verb::kList) {
      slice_items(exchange);
    }
  }

  JsonSlicer::Settings slicer_settings(const Exchange& exchange, JsonSlicer::Slice slice) const {
    return {.slice = slice,
            .max_value_bytes = settings.max_object_bytes,
            .drop_managed_fields = exchange.request.reduce != nullptr};
  }

  void slice_items(const ExchangePtr& exchange) {
    Exchange* e = exchange.get();
    e->slicer.emplace(slicer_settings(*e, JsonSlicer::Slice::kItems),
                      JsonSlicer::Sink{[e](std::string value) {
                                         Payload item = Payload::text(std::move(value));
                                         if (e->request.reduce) e->request.reduce(item);
                                         e->response.items.push_back(std::move(item));
                                       },
                                       [e](std::string envelope) { e->body = std::move(envelope); }});
  }

  void slice_events(const ExchangePtr& exchange) {
    Exchange* e = exchange.get();
    e->slicer.emplace(
        slicer_settings(*e, JsonSlicer::Slice::kObject),
        JsonSlicer::Sink{[e](std::string value) { e->event_object = std::move(value); },
                         [e](const std::string& envelope) {
                           if (e->ended) return;
                           WatchEvent event{type_of_event(envelope), Payload::text(std::exchange(e->event_object, {}))};
                           if (e->request.reduce && has_object(event.type)) e->request.reduce(event.object);
                           const auto on_event = e->sink.on_event;
                           on_event(std::move(event));
                         }});
  }

  Status on_piece(const ExchangePtr& exchange, std::string_view piece) {
    if (exchange->slicer) return exchange->slicer->feed(piece);
    if (exchange->body.size() + piece.size() > settings.max_object_bytes) {
      return Error(Code::kResourceExhausted,
                   "the answer has more than " + std::to_string(settings.max_object_bytes) + " bytes");
    }
    exchange->body.append(piece);
    return {};
  }

  void on_end(const ExchangePtr& exchange, Status status) {
    const auto self = shared_from_this();
    const auto http = std::move(exchange->http);
    if (!status) return finish(exchange, status.error());
    const int code = exchange->response.status;
    if (code == 401) {
      ++counted.unauthorized;
      if (exchange->tries == 1 && credentials.rejected(exchange->token)) return authenticate(exchange);
    }
    if (code >= 300 && code < 400) {
      return finish(exchange, Error(Code::kInvalidArgument,
                                    "the server answers with a redirect (" + std::to_string(code) +
                                        "), which is not followed, as it would take the credentials along; give the "
                                        "address of the API server itself"));
    }
    if (exchange->slicer && !exchange->slicer->complete())
      return finish(exchange, Error(Code::kDataLoss, "the answer ends in the middle of an object"));
    if (exchange->slicer && !exchange->watching && exchange->slicer->documents() != 1)
      return finish(exchange, Error(Code::kDataLoss, "the answer is not one list"));
    finish(exchange, {});
  }

  void finish(const ExchangePtr& exchange, Status status) {
    if (exchange->ended) return;
    exchange->stop();
    if (!exchange->watching) {
      const Answer answer = std::move(exchange->answer);
      if (!status) return answer(status.error());
      if (!exchange->body.empty()) exchange->response.body = Payload::text(std::move(exchange->body));
      return answer(std::move(exchange->response));
    }
    const auto on_end = std::move(exchange->sink.on_end);
    if (status && exchange->response.status != 200) {
      exchange->response.body = Payload::text(std::move(exchange->body));
      auto error = error_of(exchange->request, exchange->response);
      status = error ? *std::move(error)
                     : Error(Code::kUnavailable,
                             "a watch was answered with status " + std::to_string(exchange->response.status));
    }
    on_end(std::move(status));
  }

  net::AsioLoop& loop;
  ServerUrl url;
  HttpTransportSettings settings;
  Logger log;
  Credentials credentials;
  std::string impersonate;
  std::vector<std::string> impersonate_groups;
  HttpTransportMetrics counted;
  uint64_t tls_generation = 0;
  net::HttpPool pool;
};

Result<std::unique_ptr<HttpTransport>> HttpTransport::create(net::AsioLoop& loop, const ClusterConfig& config,
                                                             HttpTransportSettings settings, Logger log) {
  PITCREW_TRY(config.validate());
  PITCREW_ASSIGN(ServerUrl url, parse_server_url(config.server));
  auto impl = std::make_shared<Impl>(loop, config, std::move(url), std::move(settings), std::move(log));
  if (impl->url.tls) {
    auto tls = impl->credentials.tls();
    if (!tls) return tls.error().with_context("cluster '" + config.name + "'");
    impl->tls_generation = impl->credentials.tls_generation();
  }
  return std::unique_ptr<HttpTransport>(new HttpTransport(std::move(impl)));
}

HttpTransport::~HttpTransport() = default;

CallPtr HttpTransport::send(Request request, Answer answer) {
  auto exchange = std::make_shared<Impl::Exchange>();
  exchange->request = std::move(request);
  exchange->answer = std::move(answer);
  return impl_->begin(std::move(exchange));
}

CallPtr HttpTransport::watch(Request request, WatchSink sink) {
  auto exchange = std::make_shared<Impl::Exchange>();
  exchange->request = std::move(request);
  exchange->sink = std::move(sink);
  exchange->watching = true;
  return impl_->begin(std::move(exchange));
}

HttpTransportMetrics HttpTransport::metrics() const {
  HttpTransportMetrics metrics = impl_->counted;
  const net::HttpPoolMetrics& pool = impl_->pool.metrics();
  metrics.connections = pool.opened;
  metrics.reused = pool.reused;
  metrics.repeated = pool.repeated;
  return metrics;
}

Result<std::unique_ptr<Transport>> connect(net::AsioLoop& loop, const ClusterConfig& config,
                                           HttpTransportSettings settings, Logger log) {
  PITCREW_ASSIGN(auto transport, HttpTransport::create(loop, config, std::move(settings), std::move(log)));
  return std::unique_ptr<Transport>(std::move(transport));
}

}  // namespace pitcrew::kube
