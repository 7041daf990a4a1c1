#include "launcher/supervise/output.hpp"

#include <cerrno>

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace pitcrew::launcher {
namespace {

constexpr size_t kReadBytes = 32 * 1024;
// A rank that has ended leaves at most a pipe full (pipe(7): 64 KiB unless it was asked for more); a descendant that
// holds the pipe and writes on must not keep us here.
constexpr int kMostReadsAtEnd = 32;

}  // namespace

std::string LinePrefixer::add(std::string_view bytes) {
  std::string out;
  open_.append(bytes);
  size_t begin = 0;
  for (size_t i = 0; i < open_.size(); ++i) {
    const char c = open_[i];
    if (c == '\n') {
      emit(out, std::string_view(open_).substr(begin, i + 1 - begin));
      continued_ = false;
      begin = i + 1;
    } else if (c == '\r') {
      if (i + 1 == open_.size()) break;  // a line feed may follow
      if (open_[i + 1] == '\n') continue;
      emit(out, std::string_view(open_).substr(begin, i + 1 - begin));
      continued_ = false;
      begin = i + 1;
    } else if (i + 1 - begin >= longest_) {
      emit(out, std::string_view(open_).substr(begin, i + 1 - begin));
      continued_ = true;
      begin = i + 1;
    }
  }
  open_.erase(0, begin);
  return out;
}

std::string LinePrefixer::finish() {
  std::string out;
  if (!open_.empty()) emit(out, open_);
  open_.clear();
  continued_ = false;
  return out;
}

void LinePrefixer::emit(std::string& out, std::string_view line) {
  out += name_;
  out += continued_ ? "+ " : " ";
  out += line;
  if (line.back() != '\n') out += '\n';
}

Status Output::add(Rank rank, Descriptor pipe, const std::string& log_path) {
  auto stream = std::make_unique<Stream>(rank, std::move(pipe));
  if (!log_path.empty()) {
    Descriptor log(open(log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
    if (!log) return errno_error("open the rank's log " + log_path, errno);
    stream->log = std::make_shared<Descriptor>(std::move(log));
  }
  streams_.push_back(std::move(stream));
  if (!paused_) watch(*streams_.back());
  return {};
}

void Output::watch(Stream& stream) {
  if (stream.ended) return;
  auto watch = loop_.watch_fd(stream.pipe.get(), net::AsioLoop::Ready::kRead, [this, &stream] { on_readable(stream); });
  PITCREW_INVARIANT(watch.ok(), "watch a rank's output: " + (watch.ok() ? "" : watch.error().message));
  stream.watch = std::move(*watch);
}

void Output::on_readable(Stream& stream) {
  read_some(stream);
  if (!paused_ && writer_.full()) {
    paused_ = true;
    ++pauses_;
    for (const auto& other : streams_) other->watch.reset();
  }
}

bool Output::read_some(Stream& stream) {
  char buffer[kReadBytes];
  const ssize_t got = read(stream.pipe.get(), buffer, sizeof buffer);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (got <= 0) {
    stream.ended = true;
    stream.watch.reset();
    writer_.to_stdout(stream.prefixer.finish());
    return false;
  }
  const std::string_view bytes(buffer, static_cast<size_t>(got));
  stream.tail.append(bytes);
  writer_.to_stdout(stream.prefixer.add(bytes));
  if (stream.log) writer_.to_log(stream.log, std::string(bytes));
  return true;
}

void Output::finish(size_t local) {
  Stream& stream = *streams_[local];
  for (int i = 0; i < kMostReadsAtEnd && !stream.ended && read_some(stream); ++i) {
  }
  writer_.to_stdout(stream.prefixer.finish());
}

void Output::resume() {
  if (!paused_ || writer_.full()) return;
  paused_ = false;
  for (const auto& stream : streams_) watch(*stream);
}

bool Output::blocked(size_t local) const {
  if (!paused_ || streams_[local]->ended) return false;
  const int fd = streams_[local]->pipe.get();
  int waiting = 0;
  const int capacity = fcntl(fd, F_GETPIPE_SZ);
  // Each write that does not fit into the rest of a page takes a new one: a pipe can be full when half of its bytes are
  // used.
  return ioctl(fd, FIONREAD, &waiting) == 0 && capacity > 0 && waiting >= capacity / 2;
}

}  // namespace pitcrew::launcher
