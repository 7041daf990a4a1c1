#include "lib/local/api/memory_transport.hpp"

#include <algorithm>
#include <deque>
#include <list>

#include "lib/local/api/answers.hpp"

namespace pitcrew::local {

using kube::Request;
using kube::Response;
using kube::WatchEvent;

kube::Response too_many_requests(Duration retry_after) {
  Response response =
      answers::status(429, "TooManyRequests", "the server has received too many requests; try again later");
  response.retry_after = retry_after;
  return response;
}

kube::Response gone(const std::string& message) { return answers::status(410, "Expired", message); }

namespace {

// One request under way. It stays alive until the server has seen it, whoever still waits for the answer.
struct Exchange {
  Request request;
  kube::Transport::Answer answer;
  RequestFault fault;
  bool answered = false;
  Loop::TimerPtr travel;
  Loop::TimerPtr timeout;

  void finish(Result<Response> response) {
    if (answered) return;
    answered = true;
    // The callback may destroy the call.
    const auto callback = std::move(answer);
    if (callback) callback(std::move(response));
  }
};

class ExchangeCall final : public kube::Call {
 public:
  explicit ExchangeCall(std::shared_ptr<Exchange> exchange) : exchange_(std::move(exchange)) {}
  ~ExchangeCall() override { exchange_->answered = true; }

 private:
  std::shared_ptr<Exchange> exchange_;
};

Error no_answer(const Request& request) {
  return Error(Code::kDeadlineExceeded, "no answer within " + to_string(request.timeout));
}

}  // namespace

class MemoryTransport::Impl : public std::enable_shared_from_this<Impl> {
 public:
  class Stream;

  Impl(Loop& loop, ApiServer& server) : loop(loop), server(server) {}

  RequestFault fault_of(const Request& request) {
    ++requests;
    return request_faults ? request_faults(request) : RequestFault{};
  }

  void begin(const std::shared_ptr<Exchange>& exchange) {
    const RequestFault& fault = exchange->fault;
    if (fault.black_hole || fault.request_delay + fault.reply_delay >= exchange->request.timeout) arm_timeout(exchange);
    if (fault.black_hole) return;
    exchange->travel = travel(fault.request_delay, [self = shared_from_this(), exchange] { self->arrive(exchange); });
  }

  void arrive(const std::shared_ptr<Exchange>& exchange) {
    RequestFault& fault = exchange->fault;
    if (!connected) return arm_timeout(exchange);
    if (fault.before) return reply(exchange, *std::move(fault.before));
    if (fault.answer) return reply(exchange, *std::move(fault.answer));
    Response response = server.handle(exchange->request);
    if (fault.lost_reply) return reply(exchange, *std::move(fault.lost_reply));
    reply(exchange, std::move(response));
  }

  void reply(const std::shared_ptr<Exchange>& exchange, Result<Response> response) {
    if (exchange->fault.reply_delay <= Duration(0)) return exchange->finish(std::move(response));
    exchange->travel =
        loop.after(exchange->fault.reply_delay, [self = shared_from_this(), exchange, response = std::move(response)] {
          if (!self->connected) return self->arm_timeout(exchange);
          exchange->finish(response);
        });
  }

  void arm_timeout(const std::shared_ptr<Exchange>& exchange) {
    if (exchange->timeout || exchange->answered) return;
    exchange->timeout =
        loop.after(exchange->request.timeout, [exchange] { exchange->finish(no_answer(exchange->request)); });
  }

  Loop::TimerPtr travel(Duration delay, Loop::Task task) {
    if (delay > Duration(0)) return loop.after(delay, std::move(task));
    loop.post(std::move(task));
    return nullptr;
  }

  Loop& loop;
  ApiServer& server;
  RequestFaults request_faults;
  WatchFaults watch_faults;
  bool connected = true;
  uint64_t requests = 0;
  std::list<std::weak_ptr<Stream>> streams;
};

// One watch: what the server says goes through a queue, so that a late event holds up those behind it.
class MemoryTransport::Impl::Stream : public std::enable_shared_from_this<Stream> {
 public:
  Stream(std::shared_ptr<Impl> transport, Request request, WatchSink sink)
      : transport_(std::move(transport)), request_(std::move(request)), sink_(std::move(sink)) {}

  void begin() {
    fault_ = transport_->fault_of(request_);
    if (fault_.black_hole) return arm_timeout();
    timer_ = transport_->travel(fault_.request_delay, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->open();
    });
  }

  void close() {
    closed_ = true;
    server_call_.reset();
    timer_.reset();
  }

  void break_off(const std::string& why) {
    if (!opened_ || closed_) return;
    server_call_.reset();
    push_end(Error(Code::kUnavailable, why));
  }

 private:
  struct Pending {
    Instant at;
    std::optional<WatchEvent> event;  // none: the end
    Status end;
  };

  void arm_timeout() {
    timer_ = transport_->loop.after(request_.timeout, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->deliver_end(no_answer(self->request_));
    });
  }

  void open() {
    if (closed_) return;
    if (!transport_->connected) return arm_timeout();
    if (fault_.before) return deliver_end(*fault_.before);
    if (fault_.lost_reply) return deliver_end(*fault_.lost_reply);
    if (fault_.answer) {
      auto error = kube::error_of(request_, *fault_.answer);
      return deliver_end(error ? Status(*std::move(error)) : Status());
    }
    opened_ = true;
    auto call = transport_->server.watch(request_, {[weak = weak_from_this()](WatchEvent event) {
                                                      if (const auto self = weak.lock())
                                                        self->on_event(std::move(event));
                                                    },
                                                    [weak = weak_from_this()](Status status) {
                                                      if (const auto self = weak.lock())
                                                        self->push_end(std::move(status));
                                                    }});
    if (!call) return deliver_end(call.error());
    server_call_ = *std::move(call);
  }

  void on_event(WatchEvent event) {
    if (!transport_->connected) silent_ = true;
    if (closed_ || silent_ || ended_) return;
    const WatchFault fault = transport_->watch_faults ? transport_->watch_faults(request_, event) : WatchFault{};
    if (fault.cut) return push_end(Error(Code::kUnavailable, "the connection broke"), fault.delay);
    if (fault.gone) {
      Json status = answers::status_json(410, "Expired", "too old resource version");
      push({{}, WatchEvent{kube::WatchEventType::kError, kube::Payload::of(std::move(status))}, {}}, fault.delay);
      return push_end({});
    }
    if (fault.repeat) push({{}, event, {}}, fault.delay);
    push({{}, std::move(event), {}}, fault.delay);
  }

  void push_end(Status status, Duration delay = Duration(0)) {
    if (!transport_->connected) silent_ = true;
    if (closed_ || silent_ || ended_) return;
    push({{}, std::nullopt, std::move(status)}, delay);
    ended_ = true;
  }

  void push(Pending pending, Duration delay) {
    const Instant now = transport_->loop.now();
    pending.at = now + std::max(delay, Duration(0));
    if (!queue_.empty()) pending.at = std::max(pending.at, queue_.back().at);
    queue_.push_back(std::move(pending));
    schedule();
  }

  void schedule() {
    if (scheduled_ || queue_.empty() || closed_) return;
    scheduled_ = true;
    timer_ = transport_->travel(queue_.front().at - transport_->loop.now(), [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->deliver();
    });
  }

  void deliver() {
    scheduled_ = false;
    const Instant now = transport_->loop.now();
    while (!closed_ && !queue_.empty() && queue_.front().at <= now) {
      if (!transport_->connected) silent_ = true;
      if (silent_) return queue_.clear();
      Pending next = std::move(queue_.front());
      queue_.pop_front();
      if (!next.event) return deliver_end(std::move(next.end));
      sink_.on_event(*std::move(next.event));
    }
    schedule();
  }

  void deliver_end(Status status) {
    if (closed_) return;
    close();
    sink_.on_end(std::move(status));
  }

  std::shared_ptr<Impl> transport_;
  Request request_;
  WatchSink sink_;
  RequestFault fault_;
  kube::CallPtr server_call_;
  Loop::TimerPtr timer_;
  std::deque<Pending> queue_;
  bool scheduled_ = false;
  bool opened_ = false;
  bool ended_ = false;
  bool silent_ = false;
  bool closed_ = false;
};

namespace {

template <typename Stream>
class StreamCall final : public kube::Call {
 public:
  explicit StreamCall(std::shared_ptr<Stream> stream) : stream_(std::move(stream)) {}
  ~StreamCall() override { stream_->close(); }

 private:
  std::shared_ptr<Stream> stream_;
};

}  // namespace

MemoryTransport::MemoryTransport(Loop& loop, ApiServer& server) : impl_(std::make_shared<Impl>(loop, server)) {}
MemoryTransport::~MemoryTransport() = default;

void MemoryTransport::set_faults(RequestFaults requests, WatchFaults watches) {
  impl_->request_faults = std::move(requests);
  impl_->watch_faults = std::move(watches);
}

void MemoryTransport::set_connected(bool connected) { impl_->connected = connected; }
bool MemoryTransport::connected() const { return impl_->connected; }

void MemoryTransport::break_watches() {
  for (const auto& weak : impl_->streams) {
    if (const auto stream = weak.lock()) stream->break_off("the connection was reset");
  }
}

kube::CallPtr MemoryTransport::send(Request request, Answer answer) {
  auto exchange = std::make_shared<Exchange>();
  exchange->fault = impl_->fault_of(request);
  exchange->request = std::move(request);
  exchange->answer = std::move(answer);
  impl_->begin(exchange);
  return std::make_unique<ExchangeCall>(std::move(exchange));
}

kube::CallPtr MemoryTransport::watch(Request request, WatchSink sink) {
  impl_->streams.remove_if([](const auto& weak) { return weak.expired(); });
  auto stream = std::make_shared<Impl::Stream>(impl_, std::move(request), std::move(sink));
  impl_->streams.push_back(stream);
  stream->begin();
  return std::make_unique<StreamCall<Impl::Stream>>(std::move(stream));
}

uint64_t MemoryTransport::requests() const { return impl_->requests; }

}  // namespace pitcrew::local
