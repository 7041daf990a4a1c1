#include "trainer/comm/tcp_rendezvous.hpp"

#include <array>
#include <bit>
#include <cstring>

#include <poll.h>

#include "lib/base/digest.hpp"

namespace pitcrew::trainer {
namespace {

static_assert(std::endian::native == std::endian::little, "the handshake is little-endian");

constexpr uint64_t kMagic = 0x314d4d4f43574350ull;  // "PCWCOMM1"
constexpr uint32_t kRendezvous = ~uint32_t{0};      // the channel of the first meeting

// What whoever connects says first.
struct Hello {
  uint64_t magic;
  uint32_t rank;
  uint32_t size;
  uint32_t channel;
  uint32_t channels;
  uint64_t job;
  uint64_t term;
  uint64_t epoch;
  uint32_t port;  // where the sender listens; of the first meeting alone
  uint32_t reserved;
};
static_assert(sizeof(Hello) == 56);

enum class Verdict : uint32_t { kWelcome = 0, kOtherJob, kOtherEpoch, kOtherWorld, kNoSuchChannel };

struct Reply {
  uint32_t verdict;
  uint32_t size;
  uint64_t term;
  uint64_t epoch;
};
static_assert(sizeof(Reply) == 24);

// Where a rank listens: an address of 16 bytes (IPv4 in the first four) and a port. Family 0: where the master is.
struct Entry {
  std::array<std::byte, 16> address;
  uint32_t family;
  uint32_t port;
};
static_assert(sizeof(Entry) == 24);

template <typename T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}
template <typename T>
std::span<std::byte> writable_bytes_of(T& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}

Entry entry_of(const Address& address, uint16_t port) {
  Entry entry{{}, address.storage.ss_family, port};
  if (entry.family == AF_INET6) {
    std::memcpy(entry.address.data(), &reinterpret_cast<const sockaddr_in6&>(address.storage).sin6_addr, 16);
  } else {
    std::memcpy(entry.address.data(), &reinterpret_cast<const sockaddr_in&>(address.storage).sin_addr, 4);
  }
  return entry;
}

Address address_of(const Entry& entry, const Address& master) {
  Address address = master;
  if (entry.family == AF_INET6) {
    std::memcpy(&reinterpret_cast<sockaddr_in6&>(address.storage).sin6_addr, entry.address.data(), 16);
  } else if (entry.family == AF_INET) {
    std::memcpy(&reinterpret_cast<sockaddr_in&>(address.storage).sin_addr, entry.address.data(), 4);
  }
  address.set_port(static_cast<uint16_t>(entry.port));
  return address;
}

// Takes connections at one listener and hears each one's hello, however slow or silent some of them are.
class Door {
 public:
  Door(const TcpSettings& settings, uint32_t channels, Socket listener)
      : settings_(settings), channels_(channels), job_(xxh3(settings.job)), listener_(std::move(listener)) {}

  const Socket& listener() const { return listener_; }

  struct Guest {
    Hello hello;
    Socket socket;
  };

  // The next welcome guest; refused ones are told why and closed.
  Result<Guest> next(const Deadline& deadline, const std::string& what) {
    for (;;) {
      PITCREW_ASSIGN(const int wait, deadline.slice(what));
      std::vector<pollfd> entries{{listener_.fd(), POLLIN, 0}};
      for (const Pending& pending : pending_) entries.push_back({pending.socket.fd(), POLLIN, 0});
      if (poll(entries.data(), entries.size(), wait) <= 0) continue;
      for (size_t i = pending_.size(); i-- > 0;) {
        if (entries[i + 1].revents == 0) continue;
        const Heard heard = hear(pending_[i]);
        if (heard == Heard::kMore) continue;
        Pending done = std::move(pending_[i]);
        pending_.erase(pending_.begin() + static_cast<ptrdiff_t>(i));
        if (heard == Heard::kAll && welcome(done)) return Guest{done.hello, std::move(done.socket)};
      }
      if (entries[0].revents != 0) {
        PITCREW_ASSIGN(Socket socket, accept_from(listener_));
        // Strays that never speak: the oldest makes room.
        if (pending_.size() >= settings_.size + 64) pending_.erase(pending_.begin());
        if (socket.open()) pending_.push_back({std::move(socket), {}, 0});
      }
    }
  }

 private:
  struct Pending {
    Socket socket;
    Hello hello;
    size_t heard;
  };
  enum class Heard { kMore, kAll, kGone };

  static Heard hear(Pending& pending) {
    const auto room = writable_bytes_of(pending.hello).subspan(pending.heard);
    const ssize_t got = recv(pending.socket.fd(), room.data(), room.size(), 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return Heard::kMore;
    if (got <= 0) return Heard::kGone;
    pending.heard += static_cast<size_t>(got);
    return pending.heard == sizeof(Hello) ? Heard::kAll : Heard::kMore;
  }

  bool welcome(const Pending& pending) const {
    const Hello& hello = pending.hello;
    if (hello.magic != kMagic) return false;
    Verdict verdict = Verdict::kWelcome;
    if (hello.job != job_) {
      verdict = Verdict::kOtherJob;
    } else if (hello.term != settings_.term || hello.epoch != settings_.epoch) {
      verdict = Verdict::kOtherEpoch;
    } else if (hello.size != settings_.size || hello.rank >= settings_.size || hello.rank == settings_.rank ||
               hello.channels != channels_) {
      verdict = Verdict::kOtherWorld;
    } else if (hello.channel != kRendezvous && hello.channel >= channels_) {
      verdict = Verdict::kNoSuchChannel;
    }
    const Reply reply{static_cast<uint32_t>(verdict), settings_.size, settings_.term, settings_.epoch};
    const bool told = send_all(pending.socket, bytes_of(reply), Deadline::in(seconds(1))).ok();
    return told && verdict == Verdict::kWelcome;
  }

  const TcpSettings& settings_;
  const uint32_t channels_;
  const uint64_t job_;
  Socket listener_;
  std::vector<Pending> pending_;
};

Status hear_reply(const TcpSettings& settings, const Socket& socket, const std::string& who, const Deadline& deadline) {
  Reply reply{};
  PITCREW_TRY(receive_all(socket, writable_bytes_of(reply), deadline));
  switch (static_cast<Verdict>(reply.verdict)) {
    case Verdict::kWelcome:
      return {};
    case Verdict::kOtherJob:
      return Error(Code::kConflict, who + " belongs to another job; MASTER_ADDR and MASTER_PORT are not this job's");
    case Verdict::kOtherEpoch:
      return Error(Code::kConflict, who + " belongs to epoch " + std::to_string(reply.epoch) + " of term " +
                                        std::to_string(reply.term) + ", this process to epoch " +
                                        std::to_string(settings.epoch) + " of term " + std::to_string(settings.term) +
                                        ": it is a leftover and must end");
    case Verdict::kOtherWorld:
      return Error(Code::kConflict, who + " has a world of " + std::to_string(reply.size) + " ranks and refused rank " +
                                        std::to_string(settings.rank) + " of " + std::to_string(settings.size) +
                                        "; RANK and WORLD_SIZE must fit");
    case Verdict::kNoSuchChannel:
      break;
  }
  return Error(Code::kConflict, who + " refused the connection; all ranks must run the same version");
}

Hello hello_of(const TcpSettings& settings, uint32_t channels, uint32_t channel, uint16_t port) {
  return {kMagic,        settings.rank,  settings.size, channel, channels, xxh3(settings.job),
          settings.term, settings.epoch, port,          0};
}

Result<Socket> listen_anywhere(const Address& like) {
  Address any;
  any.storage.ss_family = like.storage.ss_family;  // all zeroes: any address, any port
  any.length = like.length;
  return listen_at(any);
}

Result<Socket> listen_as_master(const Address& master) {
  auto listener = listen_at(master);
  if (listener) return listener;
  // The address may be one that is only routed here (a NAT's).
  Address any;
  any.storage.ss_family = master.storage.ss_family;
  any.length = master.length;
  any.set_port(master.port());
  auto fallback = listen_at(any);
  if (fallback) return fallback;
  return Error(listener.error().code, "rank 0 can't listen at MASTER_ADDR:MASTER_PORT: " + listener.error().message +
                                          "; give each epoch a port of its own");
}

std::string missing(const std::vector<Entry>& table) {
  std::string names;
  size_t count = 0;
  for (size_t rank = 0; rank < table.size(); ++rank) {
    if (table[rank].port != 0) continue;
    if (++count <= 8) names += (names.empty() ? "" : ", ") + std::to_string(rank);
  }
  return std::to_string(count) + " of " + std::to_string(table.size()) + " ranks did not come: " + names +
         (count > 8 ? ", …" : "");
}

// Rank 0's part of the first meeting: who listens where.
Result<std::vector<Entry>> gather_table(const TcpSettings& settings, uint32_t channels, const Address& master,
                                        uint16_t own_port, const Deadline& deadline) {
  PITCREW_ASSIGN(Socket listener, listen_as_master(master));
  Door door(settings, channels, std::move(listener));
  std::vector<Entry> table(settings.size, Entry{{}, 0, 0});
  std::vector<Socket> members(settings.size);
  table[0].port = own_port;
  for (uint32_t present = 1; present < settings.size;) {
    auto guest = door.next(deadline, "wait for the ranks at " + master.text());
    if (!guest) return Error(guest.error().code, guest.error().message + " (" + missing(table) + ")");
    const Hello& hello = guest->hello;
    if (hello.channel != kRendezvous || hello.port == 0) continue;
    PITCREW_ASSIGN(const Address from, peer_address(guest->socket));
    if (table[hello.rank].port == 0) ++present;  // a rank that tries again takes its own place
    table[hello.rank] = entry_of(from, static_cast<uint16_t>(hello.port));
    members[hello.rank] = std::move(guest->socket);
  }
  for (uint32_t rank = 1; rank < settings.size; ++rank) {
    Status sent = send_all(members[rank], std::as_bytes(std::span(table)), deadline);
    if (!sent) return sent.error().with_context("tell rank " + std::to_string(rank) + " where the others are");
  }
  // Held open until everybody has read it: each says so with one byte.
  for (uint32_t rank = 1; rank < settings.size; ++rank) {
    std::byte read{};
    Status heard = receive_all(members[rank], std::span(&read, 1), deadline);
    if (!heard) return heard.error().with_context("rank " + std::to_string(rank) + " at the meeting");
  }
  return table;
}

Result<std::vector<Entry>> fetch_table(const TcpSettings& settings, uint32_t channels, const Address& master,
                                       uint16_t own_port, const Deadline& deadline) {
  const std::string who = "rank 0 at " + master.text();
  for (;;) {
    PITCREW_ASSIGN(Socket socket, connect_to(master, deadline));
    PITCREW_TRY(send_all(socket, bytes_of(hello_of(settings, channels, kRendezvous, own_port)), deadline));
    Status welcome = hear_reply(settings, socket, who, deadline);
    // Closed without a word: a master that is just going, or its backlog was full.
    if (!welcome && welcome.error().code == Code::kUnavailable) {
      PITCREW_ASSIGN(const int wait, deadline.slice("meet " + who));
      poll(nullptr, 0, wait);
      continue;
    }
    PITCREW_TRY(welcome);
    std::vector<Entry> table(settings.size);
    Status got = receive_all(socket, std::as_writable_bytes(std::span(table)), deadline);
    if (!got) return got.error().with_context(who);
    const std::byte read{1};
    PITCREW_TRY(send_all(socket, std::span(&read, 1), deadline));
    return table;
  }
}

}  // namespace

Status TcpSettings::validate() const {
  if (size == 0 || rank >= size)
    return Error(Code::kInvalidArgument,
                 "rank " + std::to_string(rank) + " is not one of " + std::to_string(size) + " ranks");
  if (size > 1 && master_port == 0)
    return Error(Code::kInvalidArgument, "several ranks need MASTER_ADDR and MASTER_PORT to meet");
  return {};
}

Result<TcpMesh> tcp_rendezvous(const TcpSettings& settings, uint32_t channels) {
  PITCREW_TRY(settings.validate());
  TcpMesh mesh;
  for (uint32_t channel = 0; channel < channels; ++channel) mesh.channels.emplace_back(settings.size);
  if (settings.size == 1) return mesh;

  const Deadline deadline = Deadline::in(settings.connect_timeout, settings.cancelled);
  PITCREW_ASSIGN(const Address master, Address::parse(settings.master_address, settings.master_port));
  PITCREW_ASSIGN(Socket listener, listen_anywhere(master));
  PITCREW_ASSIGN(const Address own, local_address(listener));
  Door door(settings, channels, std::move(listener));
  PITCREW_ASSIGN(const std::vector<Entry> table, settings.rank == 0
                                                     ? gather_table(settings, channels, master, own.port(), deadline)
                                                     : fetch_table(settings, channels, master, own.port(), deadline));

  // Everybody calls first and listens after, so that nobody waits for one who waits.
  for (uint32_t peer = 0; peer < settings.rank; ++peer) {
    for (uint32_t channel = 0; channel < channels; ++channel) {
      auto socket = connect_to(address_of(table[peer], master), deadline);
      if (!socket) return socket.error().with_context("rank " + std::to_string(peer));
      PITCREW_TRY(send_all(*socket, bytes_of(hello_of(settings, channels, channel, 0)), deadline));
      mesh.channels[channel][peer] = std::move(*socket);
    }
  }
  for (uint32_t expected = (settings.size - 1 - settings.rank) * channels; expected > 0;) {
    PITCREW_ASSIGN(Door::Guest guest, door.next(deadline, "wait for the connections of higher ranks"));
    if (guest.hello.channel == kRendezvous || guest.hello.rank <= settings.rank) continue;
    Socket& place = mesh.channels[guest.hello.channel][guest.hello.rank];
    if (place.open()) continue;
    place = std::move(guest.socket);
    --expected;
  }
  for (uint32_t peer = 0; peer < settings.rank; ++peer) {
    for (uint32_t channel = 0; channel < channels; ++channel) {
      PITCREW_TRY(hear_reply(settings, mesh.channels[channel][peer], "rank " + std::to_string(peer), deadline));
    }
  }
  return mesh;
}

}  // namespace pitcrew::trainer
