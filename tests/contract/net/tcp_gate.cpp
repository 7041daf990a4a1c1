#include "tests/contract/net/tcp_gate.hpp"

#include <algorithm>
#include <array>
#include <set>

#include <boost/asio/write.hpp>

#include "lib/net/io.hpp"

namespace pitcrew::net::testing {

namespace asio = boost::asio;
using internal::ErrorCode;
using internal::Socket;
using internal::tcp;

struct TcpGate::State : std::enable_shared_from_this<State> {
  struct Link;
  State(AsioLoop& l, Address s, Random r)
      : loop(l), server(std::move(s)), random(r), acceptor(internal::context_of(l)), next(internal::context_of(l)) {}

  AsioLoop& loop;
  Address server;
  Random random;
  asio::basic_socket_acceptor<tcp, internal::Executor> acceptor;
  Socket next;
  std::set<std::shared_ptr<Link>> links;
  bool refusing = false;
  std::array<bool, 2> stopped{};
  std::array<bool, 2> corrupting{};
  std::array<uint64_t, 2> cut_after{};
  std::array<uint64_t, 2> forwarded{};
  Duration delay{0};
  size_t slice = 0;

  void accept();
  void cut();
};

// One connection: two pumps, each of which reads from one socket and writes to the other.
struct TcpGate::State::Link : std::enable_shared_from_this<Link> {
  struct Pump {
    Socket* from = nullptr;
    Socket* to = nullptr;
    std::array<char, 16 * 1024> buffer;
    size_t begin = 0;
    size_t end = 0;
    uint64_t forwarded = 0;
    bool waiting = false;  // for the gate to open
    Loop::TimerPtr delayed;
  };

  Link(std::shared_ptr<State> g, Socket c)
      : gate(std::move(g)), client(std::move(c)), server(internal::context_of(gate->loop)) {
    pumps[0].from = pumps[1].to = &client;
    pumps[0].to = pumps[1].from = &server;
  }

  std::shared_ptr<State> gate;
  Socket client;
  Socket server;
  std::array<Pump, 2> pumps;
  std::array<bool, 2> finished{};

  void connect() {
    ErrorCode ignored;
    client.set_option(tcp::no_delay(true), ignored);
    server.async_connect(*internal::endpoint_of(gate->server), [self = shared_from_this()](const ErrorCode& error) {
      if (error) return self->reset();
      ErrorCode none;
      self->server.set_option(tcp::no_delay(true), none);
      self->read(0);
      self->read(1);
    });
  }

  void read(size_t direction) {
    Pump& pump = pumps[direction];
    pump.waiting = gate->stopped[direction];
    if (pump.waiting) return;
    pump.from->async_read_some(asio::buffer(pump.buffer),
                               [self = shared_from_this(), direction](const ErrorCode& error, size_t size) {
                                 if (error == asio::error::eof) return self->finish(direction);
                                 if (error) return self->reset();
                                 self->take(direction, size);
                               });
  }

  void take(size_t direction, size_t size) {
    Pump& pump = pumps[direction];
    pump.begin = 0;
    pump.end = size;
    if (std::exchange(gate->corrupting[direction], false)) {
      pump.buffer[gate->random.below(size)] ^= static_cast<char>(1 << gate->random.below(8));
    }
    if (gate->delay <= Duration(0)) return write(direction);
    pump.delayed = gate->loop.after(gate->delay, [this, direction] { write(direction); });
  }

  void write(size_t direction) {
    Pump& pump = pumps[direction];
    // What was read before the gate stopped is not let through either.
    pump.waiting = gate->stopped[direction];
    if (pump.waiting) return;
    size_t size = pump.end - pump.begin;
    if (gate->slice > 0) size = std::min(size, gate->slice);
    asio::async_write(*pump.to, asio::buffer(pump.buffer.data() + pump.begin, size),
                      [self = shared_from_this(), direction](const ErrorCode& error, size_t written) {
                        if (error) return self->reset();
                        self->wrote(direction, written);
                      });
  }

  void wrote(size_t direction, size_t size) {
    Pump& pump = pumps[direction];
    pump.begin += size;
    pump.forwarded += size;
    gate->forwarded[direction] += size;
    const uint64_t limit = gate->cut_after[direction];
    if (limit > 0 && pump.forwarded >= limit) return reset();
    go_on(direction);
  }

  void go_on(size_t direction) {
    if (pumps[direction].begin < pumps[direction].end) return write(direction);
    read(direction);
  }

  void finish(size_t direction) {
    ErrorCode ignored;
    pumps[direction].to->shutdown(tcp::socket::shutdown_send, ignored);
    finished[direction] = true;
    if (finished[0] && finished[1]) reset();
  }

  void reset() {
    const auto self = shared_from_this();
    ErrorCode ignored;
    for (Pump& pump : pumps) pump.delayed.reset();
    const bool in_order = finished[0] && finished[1];
    for (Socket* socket : {&client, &server}) {
      if (!in_order && socket->is_open()) socket->set_option(asio::socket_base::linger(true, 0), ignored);
      socket->close(ignored);
    }
    gate->links.erase(self);
  }
};

void TcpGate::State::accept() {
  acceptor.async_accept(next, [self = shared_from_this()](const ErrorCode& error) {
    if (error) return;
    Socket socket = std::exchange(self->next, Socket(internal::context_of(self->loop)));
    const auto link = std::make_shared<Link>(self, std::move(socket));
    self->links.insert(link);
    if (self->refusing) {
      link->reset();
    } else {
      link->connect();
    }
    self->accept();
  });
}

void TcpGate::State::cut() {
  while (!links.empty()) (*links.begin())->reset();
}

TcpGate::TcpGate(AsioLoop& loop, Address server, Random random)
    : state_(std::make_shared<State>(loop, std::move(server), random)) {
  const tcp::endpoint any(asio::ip::address_v4::loopback(), 0);
  state_->acceptor.open(any.protocol());
  state_->acceptor.bind(any);
  state_->acceptor.listen();
  state_->accept();
}

TcpGate::~TcpGate() {
  ErrorCode ignored;
  state_->acceptor.close(ignored);
  state_->cut();
}

Address TcpGate::address() const { return internal::address_of(state_->acceptor.local_endpoint()); }
size_t TcpGate::connections() const { return state_->links.size(); }
uint64_t TcpGate::forwarded(Direction direction) const { return state_->forwarded[static_cast<size_t>(direction)]; }

void TcpGate::refuse(bool on) { state_->refusing = on; }

void TcpGate::stop(Direction direction, bool on) {
  const auto index = static_cast<size_t>(direction);
  state_->stopped[index] = on;
  if (on) return;
  const auto links = state_->links;
  for (const auto& link : links) {
    if (std::exchange(link->pumps[index].waiting, false)) link->go_on(index);
  }
}

void TcpGate::stop_both(bool on) {
  stop(Direction::kToServer, on);
  stop(Direction::kToClient, on);
}

void TcpGate::delay(Duration delay) { state_->delay = delay; }
void TcpGate::slice(size_t bytes) { state_->slice = bytes; }
void TcpGate::corrupt_next(Direction direction) { state_->corrupting[static_cast<size_t>(direction)] = true; }

void TcpGate::half_close(Direction direction) {
  const auto links = state_->links;
  for (const auto& link : links) link->finish(static_cast<size_t>(direction));
}

void TcpGate::cut() { state_->cut(); }
void TcpGate::cut_after(Direction direction, uint64_t bytes) {
  state_->cut_after[static_cast<size_t>(direction)] = bytes;
}

}  // namespace pitcrew::net::testing
