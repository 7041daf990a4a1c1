#include "launcher/supervise/writer.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pitcrew::launcher {
namespace {

// A pipe that polls as writable takes at least so much without blocking (pipe(7): PIPE_BUF).
constexpr size_t kPiece = 4096;

// stdout as an open file of our own, for which "not blocking" does not change what others see of it. Only where opening
// it again means the same: a regular file would be written from its start.
Descriptor reopen(int fd) {
  struct stat st {};
  if (fstat(fd, &st) != 0 || !(S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode))) return {};
  return Descriptor(
      open(("/proc/self/fd/" + std::to_string(fd)).c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
}

}  // namespace

OutputWriter::OutputWriter(Loop& loop, int stdout_fd, Settings settings, std::function<void()> on_room)
    : loop_(loop),
      settings_(settings),
      on_room_(std::make_shared<std::function<void()>>(std::move(on_room))),
      stdout_(stdout_fd),
      own_stdout_(reopen(stdout_fd)),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (own_stdout_) stdout_ = own_stdout_.get();
  // The loop's thread alone takes signals.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

OutputWriter::~OutputWriter() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(wake_.get(), &one, sizeof one);
  thread_.join();
}

void OutputWriter::to_stdout(std::string bytes) { push({nullptr, std::move(bytes)}); }
void OutputWriter::to_log(std::shared_ptr<Descriptor> log, std::string bytes) {
  push({std::move(log), std::move(bytes)});
}

void OutputWriter::push(Item item) {
  if (item.bytes.empty()) return;
  {
    std::lock_guard lock(mutex_);
    waiting_ += item.bytes.size();
    was_full_ = was_full_ || waiting_ >= settings_.high;
    queue_.push_back(std::move(item));
  }
  changed_.notify_all();
}

bool OutputWriter::full() const {
  std::lock_guard lock(mutex_);
  return was_full_;
}

size_t OutputWriter::waiting() const {
  std::lock_guard lock(mutex_);
  return waiting_;
}

bool OutputWriter::drain(Duration at_most) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, at_most, [&] { return waiting_ == 0; });
}

void OutputWriter::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    const Item item = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    if (item.log) {
      write_log(item.log->get(), item.bytes);
    } else {
      write_stdout(item.bytes);
    }
    lock.lock();
    waiting_ -= item.bytes.size();
    if (was_full_ && waiting_ <= settings_.low) {
      was_full_ = false;
      loop_.post([weak = std::weak_ptr(on_room_)] {
        if (const auto on_room = weak.lock()) (*on_room)();
      });
    }
    if (waiting_ == 0) changed_.notify_all();
  }
}

void OutputWriter::write_stdout(std::string_view bytes) {
  while (!bytes.empty()) {
    pollfd ready[2] = {{stdout_, POLLOUT, 0}, {wake_.get(), POLLIN, 0}};
    if (poll(ready, 2, -1) < 0 && errno != EINTR) return;
    if ((ready[1].revents & POLLIN) != 0) return;
    const ssize_t wrote = write(stdout_, bytes.data(), std::min(bytes.size(), own_stdout_ ? bytes.size() : kPiece));
    if (wrote > 0) {
      written_ += static_cast<uint64_t>(wrote);
      bytes.remove_prefix(static_cast<size_t>(wrote));
    } else if (errno != EINTR && errno != EAGAIN) {
      return;  // nobody reads any more: training goes on without it
    }
  }
}

void OutputWriter::write_log(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t wrote = write(fd, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) {
      lost_ += bytes.size();
      return;
    }
    bytes.remove_prefix(static_cast<size_t>(wrote));
  }
}

}  // namespace pitcrew::launcher
