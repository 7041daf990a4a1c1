#include "agent/app/kernel_feed.hpp"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

namespace pitcrew::agent {
namespace {

constexpr char kProbe[] = "kernel.log";
constexpr Duration kTellEvery = seconds(30);

Result<int> open_log(const std::string& path) {
  struct stat about {};
  if (::stat(path.c_str(), &about) != 0) return errno_error("opening the kernel log " + path, errno);
  // A pipe is held open for writing too, so that it has no end when its writer goes.
  const int how = (S_ISFIFO(about.st_mode) ? O_RDWR : O_RDONLY) | O_NONBLOCK | O_CLOEXEC;
  const int descriptor = ::open(path.c_str(), how);
  if (descriptor < 0) {
    Error error = errno_error("opening the kernel log " + path, errno);
    if (errno == EPERM && path == "/dev/kmsg")
      error.message += "; the device cgroup of an unprivileged container refuses it: use syslog";
    return error;
  }
  return descriptor;
}

}  // namespace

KernelFeed::KernelFeed(net::AsioLoop& loop, KernelFeedSettings settings, std::optional<kernel_log::Position> position,
                       Found found)
    : loop_(loop), settings_(std::move(settings)), position_(std::move(position)), found_(std::move(found)) {}

std::optional<kernel_log::Position> KernelFeed::position() const {
  return reader_ ? std::optional(reader_->position()) : position_;
}

void KernelFeed::arm(Duration after) {
  timer_ = loop_.after(after, [this] {
    if (reader_) {
      look();
    } else {
      open();
    }
  });
}

void KernelFeed::open() {
  std::unique_ptr<kernel_log::Source> source;
  if (settings_.source == "syslog") {
    source = kernel_log::syslog_source();
  } else {
    const auto descriptor = open_log(settings_.source == "kmsg" ? "/dev/kmsg" : settings_.source);
    if (!descriptor) {
      report(descriptor.error(), loop_.now());
      return arm(settings_.retry);
    }
    // What can't be watched is a file: it is looked at again and again.
    auto watch = loop_.watch_fd(*descriptor, net::AsioLoop::Ready::kRead, [this] { look(); });
    if (watch) watch_ = *std::move(watch);
    source = kernel_log::descriptor_source(*descriptor);
  }
  reader_.emplace(std::move(source), settings_.reader, position_.value_or(kernel_log::Position{}));
  look();
}

void KernelFeed::look() {
  if (!reader_) return;
  const Instant began = loop_.now();
  auto found = reader_->poll(began);
  if (!found) {
    // Opened anew, so that a device that has gone bad is not asked for ever.
    position_ = reader_->position();
    lines_before_ += reader_->lines();
    watch_.reset();
    reader_.reset();
    report(found.error(), began);
    return arm(settings_.retry);
  }
  report({}, began);
  if (!watch_) arm(settings_.every);
  if (!found->empty()) found_(*std::move(found));
}

void KernelFeed::report(const Status& status, Instant began) {
  const Instant now = loop_.now();
  if (well_ == status.ok() && now - told_ < kTellEvery) return;
  well_ = status.ok();
  told_ = now;
  Observation observation;
  observation.kind = kinds::kProbe;
  observation.values = {
      {"probe", std::string(kProbe)}, {"ok", status.ok() ? 1.0 : 0.0}, {"seconds", to_seconds(now - began)}};
  if (!status.ok()) observation.text = std::string(kProbe) + ": " + status.error().message;
  observation.time = now;
  found_({std::move(observation)});
}

}  // namespace pitcrew::agent
