#include "lib/net/asio_loop.hpp"

#include <atomic>
#include <cerrno>
#include <csignal>
#include <limits>
#include <map>
#include <mutex>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/net/io.hpp"

namespace pitcrew::net {

namespace asio = boost::asio;
using internal::ErrorCode;

namespace {

using Key = std::pair<Instant, uint64_t>;

// The tasks in the order of the Loop's contract; Asio's own timers and posts keep no order among one another.
struct Tasks {
  std::mutex mutex;
  std::map<Key, Loop::Task> tasks;
  uint64_t next_sequence = 0;
  bool drain_posted = false;

  using Node = decltype(tasks)::node_type;
  Node take(const Key& key) {
    std::lock_guard lock(mutex);
    return tasks.extract(key);
  }
  Node take_due(Instant until) {
    std::lock_guard lock(mutex);
    if (tasks.empty() || tasks.begin()->first.first > until) {
      drain_posted = false;
      return {};
    }
    return tasks.extract(tasks.begin());
  }
};

class LoopTimer final : public Loop::Timer {
 public:
  LoopTimer(std::weak_ptr<Tasks> tasks, Key key) : tasks_(std::move(tasks)), key_(key) {}
  ~LoopTimer() override {
    // The task may own this timer: it leaves the map before it is destroyed, outside the lock.
    if (const auto tasks = tasks_.lock()) auto node = tasks->take(key_);
  }

 private:
  std::weak_ptr<Tasks> tasks_;
  Key key_;
};

template <typename Source, typename Function>
struct WatchState {
  template <typename... Args>
  explicit WatchState(Function f, Args&&... args) : source(std::forward<Args>(args)...), function(std::move(f)) {}
  Source source;
  Function function;
  bool ended = false;
};

using SignalState = WatchState<asio::signal_set, std::function<void(int)>>;
using FdState = WatchState<asio::posix::basic_stream_descriptor<internal::Executor>, std::function<void()>>;

template <typename State>
class WatchOf final : public AsioLoop::Watch {
 public:
  explicit WatchOf(std::shared_ptr<State> state) : state_(std::move(state)) {}
  ~WatchOf() override {
    state_->ended = true;
    ErrorCode ignored;
    if constexpr (std::is_same_v<State, FdState>) {
      state_->source.close(ignored);
    } else {
      state_->source.clear(ignored);
      state_->source.cancel(ignored);
    }
  }

 private:
  std::shared_ptr<State> state_;
};

void wait_for_signal(const std::shared_ptr<SignalState>& state) {
  state->source.async_wait([state](const ErrorCode& error, int signal) {
    if (error || state->ended) return;
    state->function(signal);
    if (!state->ended) wait_for_signal(state);
  });
}

void wait_for_fd(const std::shared_ptr<FdState>& state, asio::posix::descriptor_base::wait_type type) {
  state->source.async_wait(type, [state, type](const ErrorCode& error) {
    if (state->ended || error == asio::error::operation_aborted) return;
    state->function();
    if (!state->ended && !error) wait_for_fd(state, type);
  });
}

}  // namespace

struct AsioLoop::Impl {
  RealClock clock;
  asio::io_context context{1};
  asio::executor_work_guard<internal::Executor> work{context.get_executor()};
  asio::steady_timer timer{context};
  Instant armed_for{Duration::max()};
  std::shared_ptr<Tasks> tasks = std::make_shared<Tasks>();

  Key add(Instant when, Task task) {
    std::lock_guard lock(tasks->mutex);
    const Key key{when, tasks->next_sequence++};
    tasks->tasks.emplace(key, std::move(task));
    return key;
  }

  void arm(Instant when) {
    if (when >= armed_for) return;
    armed_for = when;
    timer.expires_after(std::max(when - clock.now(), Duration(0)));
    timer.async_wait([this](const ErrorCode& error) {
      if (error) return;
      armed_for = Instant(Duration::max());
      drain();
    });
  }

  void drain() {
    const Instant until = clock.now();
    while (auto node = tasks->take_due(until)) {
      node.mapped()();
      if (context.stopped()) {
        asio::post(context, [this] { drain(); });
        return;
      }
    }
    std::optional<Instant> next;
    {
      std::lock_guard lock(tasks->mutex);
      if (!tasks->tasks.empty()) next = tasks->tasks.begin()->first.first;
    }
    if (next) arm(*next);
  }
};

AsioLoop::AsioLoop() : impl_(std::make_unique<Impl>()) {}

AsioLoop::~AsioLoop() {
  // Tasks may own objects whose timers reach back into the map.
  for (;;) {
    auto node = impl_->tasks->take_due(Instant(Duration::max()));
    if (!node) break;
  }
}

Instant AsioLoop::now() const { return impl_->clock.now(); }

void AsioLoop::post(Task task) {
  bool wake = false;
  {
    std::lock_guard lock(impl_->tasks->mutex);
    impl_->tasks->tasks.emplace(Key{impl_->clock.now(), impl_->tasks->next_sequence++}, std::move(task));
    wake = !std::exchange(impl_->tasks->drain_posted, true);
  }
  if (wake) asio::post(impl_->context, [impl = impl_.get()] { impl->drain(); });
}

Loop::TimerPtr AsioLoop::after(Duration delay, Task task) {
  const Instant start = now();
  delay = std::clamp(delay, Duration(0), Instant(Duration::max()) - start);
  const Key key = impl_->add(start + delay, std::move(task));
  impl_->arm(key.first);
  return std::make_unique<LoopTimer>(impl_->tasks, key);
}

void AsioLoop::run() {
  impl_->context.run();
  impl_->context.restart();
}

void AsioLoop::stop() { impl_->context.stop(); }

bool AsioLoop::run_until(const std::function<bool()>& condition, Duration cap) {
  bool too_late = false;
  const TimerPtr timer = after(cap, [&] { too_late = true; });
  while (!condition() && !too_late) {
    if (impl_->context.run_one() == 0) break;
  }
  if (impl_->context.stopped()) impl_->context.restart();
  return condition();
}

Result<AsioLoop::WatchPtr> AsioLoop::on_signal(std::initializer_list<int> signals, std::function<void(int)> function) {
  auto state = std::make_shared<SignalState>(std::move(function), impl_->context);
  for (const int signal : signals) {
    ErrorCode error;
    state->source.add(signal, error);
    if (error) return internal::io_error("watch signal " + std::to_string(signal), error);
  }
  wait_for_signal(state);
  return WatchPtr(std::make_unique<WatchOf<SignalState>>(std::move(state)));
}

Result<AsioLoop::WatchPtr> AsioLoop::watch_fd(int fd, Ready ready, std::function<void()> function) {
  const std::string what = "watch file descriptor " + std::to_string(fd);
  struct stat info {};
  if (::fstat(fd, &info) != 0) return errno_error(what, errno);
  if (S_ISREG(info.st_mode) || S_ISDIR(info.st_mode)) {
    return Error(Code::kUnsupported, what + ": it is a file on a disk, which is always ready; read it directly");
  }
  const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 3);
  if (copy < 0) return errno_error(what, errno);
  auto state = std::make_shared<FdState>(std::move(function), impl_->context);
  ErrorCode error;
  state->source.assign(copy, error);
  if (error) {
    ::close(copy);
    return internal::io_error(what, error);
  }
  using Descriptor = asio::posix::descriptor_base;
  wait_for_fd(state, ready == Ready::kRead ? Descriptor::wait_read : Descriptor::wait_write);
  return WatchPtr(std::make_unique<WatchOf<FdState>>(std::move(state)));
}

namespace internal {

asio::io_context& context_of(AsioLoop& loop) { return loop.impl().context; }

Error io_error(std::string_view what, const ErrorCode& error) {
  if (error.category() == boost::system::system_category()) return errno_error(what, error.value());
  return Error(Code::kUnavailable, std::string(what) + ": " + error.message());
}

}  // namespace internal
}  // namespace pitcrew::net
