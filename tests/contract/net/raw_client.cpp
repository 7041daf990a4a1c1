#include "tests/contract/net/raw_client.hpp"

#include <array>

#include <boost/asio/write.hpp>

#include "lib/net/io.hpp"

namespace pitcrew::net::testing {

namespace asio = boost::asio;
using internal::ErrorCode;

struct RawClient::State : std::enable_shared_from_this<State> {
  explicit State(AsioLoop& loop) : socket(internal::context_of(loop)) {}
  internal::Socket socket;
  std::array<char, 4096> buffer;
  std::string received;
  bool finished = false;

  void read() {
    socket.async_read_some(asio::buffer(buffer), [self = shared_from_this()](const ErrorCode& error, size_t size) {
      self->received.append(self->buffer.data(), size);
      self->finished = static_cast<bool>(error);
      if (!error) self->read();
    });
  }
};

RawClient::RawClient(AsioLoop& loop, const Address& address) : state_(std::make_shared<State>(loop)) {
  ErrorCode error;
  state_->socket.connect(*internal::endpoint_of(address), error);
  state_->finished = static_cast<bool>(error);
  if (!error) state_->read();
}

RawClient::~RawClient() {
  ErrorCode ignored;
  state_->socket.close(ignored);
}

void RawClient::send(std::string bytes) {
  auto held = std::make_shared<std::string>(std::move(bytes));
  asio::async_write(state_->socket, asio::buffer(*held), [held, state = state_](const ErrorCode&, size_t) {});
}

const std::string& RawClient::received() const { return state_->received; }
bool RawClient::finished() const { return state_->finished; }

}  // namespace pitcrew::net::testing
