#include "trainer/comm/tcp_comm.hpp"

#include <cerrno>
#include <cstring>

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

namespace pitcrew::trainer {
namespace {

constexpr uint32_t kData = 1;
constexpr uint32_t kGoodbye = 2;  // nothing follows; closing is no failure
constexpr uint32_t kLost = 3;     // the sender's communicator died of rank `word`

std::string name_of(uint32_t rank) { return "rank " + std::to_string(rank); }

}  // namespace

Result<std::vector<std::unique_ptr<TcpComm>>> TcpComm::connect(const TcpSettings& settings, uint32_t channels) {
  auto mesh = tcp_rendezvous(settings, channels);
  if (!mesh) {
    return mesh.error().with_context("connect rank " + std::to_string(settings.rank) + " of " +
                                     std::to_string(settings.size));
  }
  std::vector<std::unique_ptr<TcpComm>> comms;
  for (std::vector<Socket>& sockets : mesh->channels) {
    Socket wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!wake.open()) return errno_error("make an eventfd", errno);
    comms.emplace_back(new TcpComm(settings, std::move(sockets), std::move(wake)));
  }
  return comms;
}

TcpComm::TcpComm(const TcpSettings& settings, std::vector<Socket> sockets, Socket wake)
    : ExchangeComm(settings.rank, settings.size),
      links_(settings.size),
      timeout_(settings.collective_timeout),
      wake_(std::move(wake)) {
  for (uint32_t peer = 0; peer < size(); ++peer) links_[peer].socket = std::move(sockets[peer]);
}

TcpComm::~TcpComm() {
  if (!failure_ && !aborted_) tell(kGoodbye, rank());
}

void TcpComm::abort() {
  aborted_ = true;
  const uint64_t one = 1;
  // It can only fail where the counter is full, and then poll() wakes anyway.
  [[maybe_unused]] const ssize_t written = ::write(wake_.fd(), &one, sizeof one);
}

Status TcpComm::exchange(std::span<const Send> sends, std::span<const Receive> receives) {
  if (failure_) return *failure_;
  Status done = enqueue(sends, receives);
  if (done) done = move();
  if (!done) {
    failure_ = done.error();
    if (lost_) tell(kLost, *lost_);
  }
  return done;
}

Result<TcpComm::Glance> TcpComm::glance() {
  if (failure_) return *failure_;
  bool moved = false;
  Glance glance;
  for (uint32_t peer = 0; peer < size(); ++peer) {
    Link& link = links_[peer];
    if (peer == rank()) continue;
    if (link.in_frame && !link.closed) {
      if (const Status seen = read(peer, moved); !seen) {
        failure_ = seen.error();
        if (lost_) tell(kLost, *lost_);
        return *failure_;
      }
    }
    if (link.goodbye) glance.left.push_back(peer);
    if (!link.in_frame) glance.waiting.push_back(peer);
  }
  return glance;
}

Status TcpComm::enqueue(std::span<const Send> sends, std::span<const Receive> receives) {
  std::deque<std::span<const std::byte>> own;
  for (const Send& send : sends) {
    if (send.peer >= size()) return Error(Code::kInvalidArgument, "no " + name_of(send.peer) + " to send to");
    if (send.peer == rank()) {
      own.push_back(send.data);
    } else {
      links_[send.peer].out.push_back({{kData, 0, send.data.size()}, send.data});
    }
  }
  for (const Receive& receive : receives) {
    if (receive.peer >= size())
      return Error(Code::kInvalidArgument, "no " + name_of(receive.peer) + " to receive from");
    if (receive.peer != rank()) {
      links_[receive.peer].in.push_back(receive.data);
      continue;
    }
    if (own.empty() || own.front().size() != receive.data.size()) {
      return Error(Code::kInvalidArgument,
                   "a message of " + name_of(rank()) + " to itself has no counterpart of its size");
    }
    if (!receive.data.empty()) std::memmove(receive.data.data(), own.front().data(), own.front().size());
    own.pop_front();
  }
  return {};
}

Status TcpComm::move() {
  using Clock = std::chrono::steady_clock;
  Clock::time_point last_moved = Clock::now();
  bool moved = false;
  // An empty message whose frame came during an earlier call is complete: no further byte would wake us for it.
  for (uint32_t peer = 0; peer < size(); ++peer) {
    if (!links_[peer].in_frame) PITCREW_TRY(read(peer, moved));
  }
  std::vector<pollfd> entries;
  std::vector<uint32_t> peers;
  for (;;) {
    if (aborted_) return Error(Code::kCancelled, "the communicator was aborted");
    entries.assign(1, {wake_.fd(), POLLIN, 0});
    peers.assign(1, rank());
    bool pending = false;
    for (uint32_t peer = 0; peer < size(); ++peer) {
      const Link& link = links_[peer];
      if (peer == rank()) continue;
      pending = pending || !link.in.empty() || !link.out.empty();
      // A link from which nothing is wanted is still listened to, for its end; unless a message of a later call stands
      // there.
      const bool listen = !link.closed && (link.in_frame || !link.in.empty());
      const short events = static_cast<short>((listen ? POLLIN : 0) | (link.out.empty() ? 0 : POLLOUT));
      if (events == 0) continue;
      entries.push_back({link.socket.fd(), events, 0});
      peers.push_back(peer);
    }
    if (!pending) return {};

    const auto left = std::chrono::duration_cast<milliseconds>(timeout_ - (Clock::now() - last_moved)).count();
    if (left <= 0) return late();
    const int ready = poll(entries.data(), entries.size(), static_cast<int>(std::min<int64_t>(left + 1, 60'000)));
    if (ready < 0 && errno != EINTR) return errno_error("wait for peers", errno);
    if (ready <= 0) continue;

    moved = false;
    for (size_t i = 1; i < entries.size(); ++i) {
      if ((entries[i].revents & ~POLLOUT) != 0) PITCREW_TRY(read(peers[i], moved));
    }
    for (size_t i = 1; i < entries.size(); ++i) {
      if ((entries[i].revents & (POLLOUT | POLLERR | POLLHUP)) != 0) PITCREW_TRY(write(peers[i], moved));
    }
    if (moved) last_moved = Clock::now();
  }
}

Status TcpComm::read(uint32_t peer, bool& moved) {
  Link& link = links_[peer];
  while (!link.closed) {
    if (!link.in_frame && link.in.empty()) return {};
    if (!link.in_frame && link.in.front().size() != link.frame.bytes) {
      return Error(Code::kInternal, name_of(peer) + " sent " + std::to_string(link.frame.bytes) + " bytes where " +
                                        std::to_string(link.in.front().size()) + " were expected: the ranks disagree");
    }
    std::span<std::byte> room = link.in_frame ? std::as_writable_bytes(std::span(&link.frame, 1)) : link.in.front();
    room = room.subspan(link.heard);
    if (!room.empty()) {
      const ssize_t got = recv(link.socket.fd(), room.data(), room.size(), 0);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && errno == EAGAIN) return {};
      if (got < 0) return closed(peer, std::strerror(errno));
      if (got == 0) return closed(peer, "it closed the connection");
      moved = true;
      link.heard += static_cast<size_t>(got);
      if (static_cast<size_t>(got) < room.size()) continue;
    }
    link.heard = 0;
    if (!link.in_frame) {
      link.in.pop_front();
      link.in_frame = true;
      continue;
    }
    switch (link.frame.kind) {
      case kData:
        link.in_frame = false;
        break;
      case kGoodbye:
        link.goodbye = true;
        break;
      case kLost:
        if (link.frame.word >= size() || link.frame.word == rank()) return lost(peer, "it lost this rank");
        return lost(link.frame.word, "reported by " + name_of(peer));
      default:
        return lost(peer, "it sent something that is no message");
    }
  }
  return {};
}

Status TcpComm::write(uint32_t peer, bool& moved) {
  Link& link = links_[peer];
  while (!link.out.empty()) {
    Outgoing& message = link.out.front();
    const size_t total = sizeof(Frame) + message.data.size();
    iovec parts[2];
    size_t count = 0;
    if (message.sent < sizeof(Frame)) {
      parts[count++] = {reinterpret_cast<char*>(&message.frame) + message.sent, sizeof(Frame) - message.sent};
    }
    const size_t of_data = message.sent < sizeof(Frame) ? 0 : message.sent - sizeof(Frame);
    if (of_data < message.data.size()) {
      parts[count++] = {const_cast<std::byte*>(message.data.data()) + of_data, message.data.size() - of_data};
    }
    msghdr header{};
    header.msg_iov = parts;
    header.msg_iovlen = count;
    const ssize_t sent = sendmsg(link.socket.fd(), &header, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) return {};
    if (sent < 0) {
      const std::string how = std::strerror(errno);
      // Its last words may say whom it died of.
      PITCREW_TRY(read(peer, moved));
      return lost(peer, how);
    }
    moved = true;
    message.sent += static_cast<size_t>(sent);
    if (message.sent == total) link.out.pop_front();
  }
  return {};
}

Status TcpComm::closed(uint32_t peer, const std::string& how) {
  Link& link = links_[peer];
  link.closed = true;
  if (link.goodbye && link.in.empty() && link.out.empty()) return {};
  return lost(peer, link.goodbye ? "it left" : how);
}

Error TcpComm::lost(uint32_t peer, std::string how) {
  lost_ = peer;
  return Error(Code::kUnavailable, name_of(peer) + " is gone (" + std::move(how) + ")");
}

Error TcpComm::late() {
  for (const bool receiving : {true, false}) {
    for (uint32_t peer = 0; peer < size(); ++peer) {
      if (receiving ? links_[peer].in.empty() : links_[peer].out.empty()) continue;
      lost_ = peer;
      return Error(Code::kDeadlineExceeded, name_of(peer) + " did not come within " + to_string(timeout_));
    }
  }
  return Error(Code::kDeadlineExceeded, "nobody came within " + to_string(timeout_));
}

// To all peers, as far as it goes without waiting: a link in the middle of a message, or full, or broken, is left out.
void TcpComm::tell(uint32_t kind, uint32_t word) {
  const Frame frame{kind, word, 0};
  for (uint32_t peer = 0; peer < size(); ++peer) {
    Link& link = links_[peer];
    if (!link.socket.open() || link.closed || peer == word) continue;
    if (!link.out.empty() && link.out.front().sent > 0) continue;
    link.out.clear();
    [[maybe_unused]] const ssize_t sent = send(link.socket.fd(), &frame, sizeof frame, MSG_NOSIGNAL);
  }
}

}  // namespace pitcrew::trainer
