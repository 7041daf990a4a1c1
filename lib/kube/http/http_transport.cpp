#include "lib/kube/http/http_transport.hpp"

#include <charconv>

#include "lib/kube/config/credentials.hpp"
#include "lib/kube/http/answer_reader.hpp"
#include "lib/kube/http/json_slicer.hpp"
#include "lib/kube/types/fields.hpp"
#include "lib/net/http_pool.hpp"

namespace pitcrew::kube {
namespace {

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
    std::optional<AnswerReader> reader;  // of a call, and of a watch that is refused
    std::optional<JsonSlicer> events;    // of a watch
    std::string event_object;

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
        identity{settings.user_agent.empty() ? default_user_agent() : settings.user_agent, url.prefix,
                 config.impersonate, config.impersonate_groups},
        pool(l, pool_settings()) {}

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

  void transmit(const ExchangePtr& exchange) {
    ++exchange->tries;
    exchange->limit.reset();
    exchange->reader.emplace(exchange->request, settings.max_object_bytes);
    exchange->events.reset();
    if (url.tls) {
      credentials.tls().ok();  // looks at the files; an error comes up where a connection needs it
      if (std::exchange(tls_generation, credentials.tls_generation()) != credentials.tls_generation()) pool.renew();
    }
    net::HttpPoolCall call;
    call.request = wire_request(exchange->request, identity, exchange->token);
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
    handler.on_piece = [e = exchange.get()](std::string_view piece) { return on_piece(e->shared_from_this(), piece); };
    handler.on_end = [this, e = exchange.get()](Status status) { on_end(e->shared_from_this(), std::move(status)); };
    exchange->http = pool.send(std::move(call), std::move(handler));
  }

  void on_head(const ExchangePtr& exchange, int status, const net::Headers& headers) {
    exchange->reader->head(status, headers, loop.now(), log);
    if (status == 429) ++counted.throttled;
    if (!exchange->watching || status != 200) return;
    slice_events(exchange);
    if (const auto asked = asked_timeout(exchange->request)) {
      limit(exchange, *asked + settings.watch_grace,
            Error(Code::kUnavailable, "the server didn't end the watch in time"));
    }
  }

  void slice_events(const ExchangePtr& exchange) {
    Exchange* e = exchange.get();
    const JsonSlicer::Settings slicing{.slice = JsonSlicer::Slice::kObject,
                                       .max_value_bytes = settings.max_object_bytes,
                                       .drop_managed_fields = e->request.reduce != nullptr};
    e->events.emplace(
        slicing,
        JsonSlicer::Sink{[e](std::string value) { e->event_object = std::move(value); },
                         [e](const std::string& envelope) {
                           if (e->ended) return;
                           WatchEvent event{type_of_event(envelope), Payload::text(std::exchange(e->event_object, {}))};
                           if (e->request.reduce && has_object(event.type)) e->request.reduce(event.object);
                           const auto on_event = e->sink.on_event;
                           on_event(std::move(event));
                         }});
  }

  static Status on_piece(const ExchangePtr& exchange, std::string_view piece) {
    return exchange->events ? exchange->events->feed(piece) : exchange->reader->piece(piece);
  }

  void on_end(const ExchangePtr& exchange, Status status) {
    const auto self = shared_from_this();
    const auto http = std::move(exchange->http);
    const int code = exchange->reader->status();
    if (!status) {
      // A rotated root: nothing was sent yet, so that writes may be repeated too.
      const bool tls_refused = status.error().code == Code::kUnauthenticated && exchange->tries == 1 && url.tls;
      if (tls_refused && code == 0 && credentials.reload_tls()) return authenticate(exchange);
      return finish(exchange, status.error());
    }
    if (code == 401) {
      ++counted.unauthorized;
      if (exchange->tries == 1 && credentials.rejected(exchange->token)) return authenticate(exchange);
    }
    if (exchange->events) {
      if (exchange->events->complete()) return finish_watch(exchange, {});
      return finish_watch(exchange, Error(Code::kUnavailable, "the watch ends in the middle of an event"));
    }
    finish(exchange, exchange->reader->end());
  }

  void finish(const ExchangePtr& exchange, Result<Response> result) {
    if (exchange->ended) return;
    if (exchange->watching) return finish_watch(exchange, why_no_watch(exchange->request, result));
    exchange->stop();
    const Answer answer = std::move(exchange->answer);
    answer(std::move(result));
  }

  // A watch that got a whole answer, or none.
  static Error why_no_watch(const Request& request, const Result<Response>& result) {
    if (!result) return result.error();
    if (auto error = error_of(request, *result)) return *std::move(error);
    return Error(Code::kUnavailable, "a watch was answered with status " + std::to_string(result->status));
  }

  void finish_watch(const ExchangePtr& exchange, Status status) {
    if (exchange->ended) return;
    exchange->stop();
    const auto on_end = std::move(exchange->sink.on_end);
    on_end(std::move(status));
  }

  net::AsioLoop& loop;
  ServerUrl url;
  HttpTransportSettings settings;
  Logger log;
  Credentials credentials;
  WireIdentity identity;
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
