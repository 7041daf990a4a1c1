#include "agent/probe/kernel_log/bell.hpp"

#include <cerrno>
#include <ctime>
#include <utility>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

namespace pitcrew::agent::kernel_log {
namespace {

Status add(int epoll, int descriptor, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.fd = descriptor;
  if (::epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) != 0) return errno_error("watching the kernel log", errno);
  return {};
}

}  // namespace

Result<std::unique_ptr<Bell>> Bell::hang(Settings settings) {
  const int log = ::open(settings.path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (log < 0) return errno_error("opening " + settings.path, errno);
  const int epoll = ::epoll_create1(EPOLL_CLOEXEC), end = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  std::unique_ptr<Bell> bell(new Bell(log, epoll, end, settings.pause));
  if (epoll < 0 || end < 0) return errno_error("watching " + settings.path, errno);
  PITCREW_TRY(add(epoll, log, EPOLLIN | EPOLLET));
  PITCREW_TRY(add(epoll, end, EPOLLIN));
  bell->thread_ = std::thread([raw = bell.get()] { raw->stand_by(); });
  return bell;
}

Bell::Bell(int log, int epoll, int end, Duration pause) : log_(log), epoll_(epoll), end_(end), pause_(pause) {}

Bell::~Bell() {
  if (thread_.joinable()) {
    ::eventfd_write(end_, 1);
    thread_.join();
  }
  for (const int descriptor : {log_, epoll_, end_}) {
    if (descriptor >= 0) ::close(descriptor);
  }
}

void Bell::stand_by() const {
  while (true) {
    epoll_event event{};
    const int woken = ::epoll_wait(epoll_, &event, 1, -1);
    if (woken > 0 && event.data.fd == end_) return;
    // A ring meanwhile is kept by the epoll.
    pollfd end{end_, POLLIN, 0};
    if (::poll(&end, 1, static_cast<int>(pause_ / milliseconds(1))) > 0) return;
  }
}

Result<bool> Bell::rang() {
  clockid_t clock{};
  timespec time{};
  if (const int error = ::pthread_getcpuclockid(thread_.native_handle(), &clock); error != 0)
    return errno_error("asking for the processor time of the kernel log's thread", error);
  if (::clock_gettime(clock, &time) != 0) return errno_error("reading the processor time of the log's thread", errno);
  const Duration ran = seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
  return std::exchange(ran_, ran) != ran;
}

}  // namespace pitcrew::agent::kernel_log
