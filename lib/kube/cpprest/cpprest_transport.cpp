#include "lib/kube/cpprest/cpprest_transport.hpp"

#include <condition_variable>
#include <cstdlib>
#include <map>
#include <mutex>
#include <optional>
#include <utility>  // before Asio: its coroutine header (1.74) uses std::exchange without it

#include <cpprest/http_client.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <pplx/threadpool.h>

#include "lib/kube/config/credentials.hpp"
#include "lib/kube/cpprest/body_sink_impl.hpp"
#include "lib/kube/http/answer_reader.hpp"

namespace pitcrew::kube {
namespace {

namespace web_http = web::http;
using web_http::client::http_client;
using web_http::client::http_client_config;

// What belongs to the process, before cpprestsdk's first thread. Its pool has 40 threads by default, and is 3.8 times
// slower with them. And each new connection loads the system's roots before set_roots() throws them away: 19 ms of CPU,
// unless OpenSSL is told that they are elsewhere. Who has set these variables keeps them; exec plugins don't see them.
void prepare_process(size_t threads, bool own_roots) {
  static std::once_flag once;
  std::call_once(once, [threads, own_roots] {
    if (own_roots) {
      ::setenv("SSL_CERT_FILE", "/dev/null", 0);
      ::setenv("SSL_CERT_DIR", "/dev/null", 0);
    }
    try {
      crossplat::threadpool::initialize_with_threads(threads);
    } catch (const std::exception&) {
      // Somebody else has used cpprestsdk before: its pool stays as it is.
    }
  });
}

// Believes the bundle and nothing else: by default the system's roots stay trusted beside it.
void set_roots(SSL_CTX* context, const std::string& bundle) {
  if (bundle.empty()) return;  // the system's were asked for
  X509_STORE* store = X509_STORE_new();
  SSL_CTX_set_cert_store(context, store);  // takes it over
  BIO* bio = BIO_new_mem_buf(bundle.data(), static_cast<int>(bundle.size()));
  while (X509* root = PEM_read_bio_X509(bio, nullptr, nullptr, nullptr)) {
    X509_STORE_add_cert(store, root);
    X509_free(root);
  }
  ERR_clear_error();
  BIO_free(bio);
}

http_client_config config_for(const net::TlsClientSettings& tls, bool use_tls) {
  http_client_config config;
  config.set_max_redirects(0);  // they would take the bearer token along
  // An idle limit for each step; the whole has a deadline of ours.
  config.set_timeout(std::chrono::seconds(60));
  if (!use_tls) return config;
  config.set_validate_certificates(!tls.insecure);
  config.set_ssl_context_callback([tls](boost::asio::ssl::context& context) {
    SSL_CTX_set_min_proto_version(context.native_handle(), TLS1_2_VERSION);
    set_roots(context.native_handle(), tls.ca_bundle_pem);
    if (!tls.identity) return;
    const auto buffer = [](const std::string& text) { return boost::asio::const_buffer(text.data(), text.size()); };
    context.use_certificate_chain(buffer(tls.identity->certificate_pem));
    context.use_private_key(buffer(tls.identity->key_pem), boost::asio::ssl::context::pem);
  });
  return config;
}

// What was thrown, as an error: cpprestsdk says the phase in words only.
Error to_error(std::exception_ptr thrown) {
  try {
    std::rethrow_exception(std::move(thrown));
  } catch (const web_http::http_exception& error) {
    const std::string text = error.what();
    const bool tls = text.find("SSL") != std::string::npos || text.find("handshake") != std::string::npos;
    return Error(tls ? Code::kUnauthenticated : Code::kUnavailable,
                 tls ? text + " (is the certificate authority the right one?)" : text);
  } catch (const pplx::task_canceled&) {
    return Error(Code::kCancelled, "cancelled");
  } catch (const std::exception& error) {
    return Error(Code::kUnavailable, error.what());
  } catch (...) {
    return Error(Code::kUnavailable, "cpprestsdk threw something that is no exception");
  }
}

}  // namespace

class CpprestTransport::Impl : public std::enable_shared_from_this<Impl> {
 public:
  // One call. The loop owns all of it but the token source, which is thread-safe.
  struct Exchange : std::enable_shared_from_this<Exchange> {
    Request request;
    Answer answer;
    std::unique_ptr<AnswerReader> reader;
    std::string token;
    std::shared_ptr<pplx::cancellation_token_source> cancel;
    Loop::TimerPtr limit;
    int tries = 0;
    bool head_told = false;
    std::optional<std::pair<std::string, uint64_t>> early;  // a piece that came before the head
    bool ended = false;

    void stop() {
      ended = true;
      limit.reset();
      if (cancel) cancel->cancel();
    }
  };
  using ExchangePtr = std::shared_ptr<Exchange>;

  class Held final : public Call {
   public:
    explicit Held(ExchangePtr exchange) : exchange_(std::move(exchange)) {}
    ~Held() override {
      if (!exchange_->ended) exchange_->stop();
    }

   private:
    ExchangePtr exchange_;
  };

  // What cpprestsdk's threads and the loop share: how many requests may still call back, and the pieces of bodies that
  // wait for the loop. Thread-safe.
  class Shared {
   public:
    void begin() {
      const std::lock_guard lock(mutex_);
      ++requests_;
    }
    void end() {
      const std::lock_guard lock(mutex_);
      if (--requests_ == 0) none_.notify_all();
    }
    // The number under which take() finds it; nothing once closed.
    std::optional<uint64_t> hold(BodySink::Taken taken) {
      const std::lock_guard lock(mutex_);
      if (closed_) return std::nullopt;
      waiting_[++next_] = std::move(taken);
      return next_;
    }
    BodySink::Taken take(uint64_t number) {
      const std::lock_guard lock(mutex_);
      auto node = waiting_.extract(number);
      return node ? std::move(node.mapped()) : nullptr;
    }
    // Gives up every body that waits, and waits until no request calls back any more.
    void close() {
      std::unique_lock lock(mutex_);
      closed_ = true;
      auto waiting = std::exchange(waiting_, {});
      lock.unlock();
      for (const auto& [number, taken] : waiting) taken(false);
      lock.lock();
      none_.wait(lock, [this] { return requests_ == 0; });
    }

   private:
    std::mutex mutex_;
    std::condition_variable none_;
    size_t requests_ = 0;
    bool closed_ = false;
    uint64_t next_ = 0;
    std::map<uint64_t, BodySink::Taken> waiting_;
  };

  Impl(net::AsioLoop& l, const ClusterConfig& config, ServerUrl u, CpprestSettings s, Logger g)
      : loop(l), url(std::move(u)), settings(std::move(s)), log(std::move(g)), credentials(l, config, log) {
    identity = {settings.http.user_agent.empty() ? default_user_agent() : settings.http.user_agent, url.prefix,
                config.impersonate, config.impersonate_groups};
  }

  void make_clients() {
    const std::string base = std::string(url.tls ? "https://" : "http://") + url.host + ":" + std::to_string(url.port);
    const http_client_config config = config_for(credentials.tls_settings(), url.tls);
    reads = std::make_shared<http_client>(base, config);
    writes = std::make_shared<http_client>(base, config);
    generation = credentials.tls_generation();
  }

  void authenticate(const ExchangePtr& exchange) {
    credentials.token([weak = weak_from_this(), exchange](Result<std::string> token) {
      const auto self = weak.lock();
      if (!self || exchange->ended) return;
      if (!token) return self->finish(exchange, token.error());
      exchange->token = *std::move(token);
      self->transmit(exchange);
    });
  }

  void transmit(const ExchangePtr& exchange) {
    ++exchange->tries;
    if (url.tls) {
      credentials.tls().ok();
      if (credentials.tls_generation() != generation) make_clients();
    }
    exchange->head_told = false;
    exchange->reader = std::make_unique<AnswerReader>(exchange->request, settings.http.max_object_bytes);
    exchange->cancel = std::make_shared<pplx::cancellation_token_source>();
    const Verb verb = exchange->request.verb;
    const bool read = verb == Verb::kGet || verb == Verb::kList;
    net::HttpRequest wire = wire_request(exchange->request, identity, exchange->token);
    try {
      web_http::http_request request(wire.method);
      request.set_request_uri(web::uri(wire.target));
      for (const auto& [name, value] : wire.headers) request.headers().add(name, value);
      if (!wire.body.empty()) {
        const std::string type(content_type(exchange->request));
        request.headers().remove("Content-Type");
        request.set_body(std::move(wire.body), type);
      }
      if (url.tls && credentials.tls_settings().server_name != url.host) {
        request.headers().add("Host", credentials.tls_settings().server_name);  // it checks the certificate by it
      }
      // On a kept connection that the server has closed, any request is silently sent a second time. A write therefore
      // gets a connection of its own, which isn't kept.
      if (!read) request.headers().add("Connection", "close");
      start(exchange, read ? *reads : *writes, std::move(request));
    } catch (...) {
      finish(exchange, to_error(std::current_exception()));
    }
  }

  void start(const ExchangePtr& exchange, http_client& client, web_http::http_request request) {
    const auto cancel = exchange->cancel;
    const auto call = std::make_shared<std::weak_ptr<Exchange>>(exchange);
    auto sink = std::make_shared<BodySink>([this, call, cancel](std::string piece, const BodySink::Taken& taken) {
      const auto number = shared->hold(taken);
      if (!number) return taken(false);
      loop.post([weak = weak_from_this(), call, cancel, piece = std::move(piece), number = *number] {
        const auto self = weak.lock();
        if (self) self->on_piece(call->lock(), cancel, piece, number);
      });
    });
    request.set_response_stream(Concurrency::streams::ostream(Concurrency::streams::streambuf<uint8_t>(
        std::static_pointer_cast<Concurrency::streams::details::basic_streambuf<uint8_t>>(sink))));
    shared->begin();
    client.request(request, cancel->get_token())
        .then([this, call, cancel](const web_http::http_response& response) {
          net::Headers headers;
          for (const auto& [name, value] : response.headers()) headers.emplace_back(name, value);
          loop.post([weak = weak_from_this(), call, cancel, status = static_cast<int>(response.status_code()),
                     headers = std::move(headers)] {
            if (const auto self = weak.lock()) self->on_head(call->lock(), cancel, status, headers);
          });
          return response.content_ready();
        })
        // The last task looks at whatever was thrown: one that nobody looks at ends the process.
        .then([this, call, cancel, shared = shared](const pplx::task<web_http::http_response>& task) {
          std::optional<Error> failure;
          try {
            task.get();
          } catch (...) {
            failure = to_error(std::current_exception());
          }
          loop.post([weak = weak_from_this(), call, cancel, failure] {
            const auto self = weak.lock();
            const auto current = call->lock();
            if (self && wanted(current, cancel)) self->on_end(current, failure);
          });
          shared->end();
        });
  }

  using CancelPtr = std::shared_ptr<pplx::cancellation_token_source>;
  // Whether somebody still waits for what this try brings.
  static bool wanted(const ExchangePtr& exchange, const CancelPtr& cancel) {
    return exchange && !exchange->ended && exchange->cancel == cancel;
  }

  void on_head(const ExchangePtr& exchange, const CancelPtr& cancel, int status, const net::Headers& headers) {
    if (!wanted(exchange, cancel)) return;
    exchange->reader->head(status, headers, loop.now(), log);
    exchange->head_told = true;
    if (const auto early = std::exchange(exchange->early, std::nullopt))
      on_piece(exchange, cancel, early->first, early->second);
  }

  void on_piece(const ExchangePtr& exchange, const CancelPtr& cancel, const std::string& piece, uint64_t number) {
    // The head takes another way and may come after the first piece.
    if (wanted(exchange, cancel) && !exchange->head_told) {
      exchange->early = {piece, number};
      return;
    }
    const BodySink::Taken taken = shared->take(number);
    if (!taken) return;
    if (wanted(exchange, cancel)) {
      const Status status = exchange->reader->piece(piece);
      if (!status) finish(exchange, status.error());
    }
    const bool more = wanted(exchange, cancel);
    if (!more) cancel->cancel();  // closes the connection rather than draining it
    taken(more);
  }

  void on_end(const ExchangePtr& exchange, const std::optional<Error>& failure) {
    if (failure) {
      const bool tls_refused = failure->code == Code::kUnauthenticated && exchange->tries == 1;
      if (tls_refused && credentials.reload_tls()) return authenticate(exchange);
      return finish(exchange, *failure);
    }
    if (exchange->reader->status() == 401 && exchange->tries == 1 && credentials.rejected(exchange->token))
      return authenticate(exchange);
    finish(exchange, exchange->reader->end());
  }

  void finish(const ExchangePtr& exchange, Result<Response> result) {
    if (exchange->ended) return;
    exchange->ended = true;
    exchange->limit.reset();
    if (!result && exchange->cancel) exchange->cancel->cancel();
    const Answer answer = std::move(exchange->answer);
    answer(std::move(result));
  }

  CallPtr begin(Request request, Answer answer) {
    auto exchange = std::make_shared<Exchange>();
    exchange->request = std::move(request);
    exchange->answer = std::move(answer);
    exchange->limit = loop.after(exchange->request.timeout, [weak = weak_from_this(), e = exchange.get()] {
      if (const auto self = weak.lock()) {
        self->finish(e->shared_from_this(),
                     Error(Code::kDeadlineExceeded, "no answer in " + pitcrew::to_string(e->request.timeout)));
      }
    });
    std::erase_if(exchanges, [](const auto& entry) { return entry.second.expired(); });
    exchanges[exchange.get()] = exchange;
    loop.post([weak = weak_from_this(), exchange] {
      const auto self = weak.lock();
      if (self && !exchange->ended) self->authenticate(exchange);
    });
    return std::make_unique<Held>(std::move(exchange));
  }

  void close() {
    for (const auto& [key, weak] : exchanges) {
      const auto exchange = weak.lock();
      if (exchange && !exchange->ended) exchange->stop();
    }
    shared->close();
  }

  net::AsioLoop& loop;
  ServerUrl url;
  CpprestSettings settings;
  Logger log;
  Credentials credentials;
  WireIdentity identity;
  uint64_t generation = 0;
  std::shared_ptr<http_client> reads;
  std::shared_ptr<http_client> writes;
  std::shared_ptr<Shared> shared = std::make_shared<Shared>();
  std::map<Exchange*, std::weak_ptr<Exchange>> exchanges;
  std::unique_ptr<HttpTransport> beast;  // watches
};

CpprestTransport::CpprestTransport(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

CpprestTransport::~CpprestTransport() { impl_->close(); }

Result<std::unique_ptr<CpprestTransport>> CpprestTransport::create(net::AsioLoop& loop, const ClusterConfig& config,
                                                                   CpprestSettings settings, Logger log) {
  PITCREW_TRY(config.validate());
  PITCREW_ASSIGN(ServerUrl url, parse_server_url(config.server));
  prepare_process(settings.threads, !config.ca_pem.empty() || !config.ca_file.empty());
  PITCREW_ASSIGN(auto beast, HttpTransport::create(loop, config, settings.http, log));
  auto impl = std::make_shared<Impl>(loop, config, std::move(url), std::move(settings), std::move(log));
  impl->beast = std::move(beast);
  if (impl->url.tls) {
    auto tls = impl->credentials.tls();
    if (!tls) return tls.error().with_context("cluster '" + config.name + "'");
  }
  try {
    if (impl->url.host.find(':') == std::string::npos) impl->make_clients();
  } catch (const std::exception& error) {
    return Error(Code::kInvalidArgument, "cluster '" + config.name + "': " + error.what());
  }
  return std::unique_ptr<CpprestTransport>(new CpprestTransport(std::move(impl)));
}

CallPtr CpprestTransport::send(Request request, Answer answer) {
  // Its resolver takes the brackets of an IPv6 literal for a part of the name.
  if (impl_->url.host.find(':') != std::string::npos) return impl_->beast->send(std::move(request), std::move(answer));
  return impl_->begin(std::move(request), std::move(answer));
}

CallPtr CpprestTransport::watch(Request request, WatchSink sink) {
  return impl_->beast->watch(std::move(request), std::move(sink));
}

}  // namespace pitcrew::kube
