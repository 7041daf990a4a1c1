#include "lib/net/resolver.hpp"

#include <algorithm>

#include "lib/net/io.hpp"

namespace pitcrew::net {

namespace {

using internal::tcp;

struct State {
  explicit State(AsioLoop& loop) : resolver(internal::context_of(loop)) {}
  boost::asio::ip::basic_resolver<tcp, internal::Executor> resolver;
  std::function<void(Result<std::vector<Address>>)> done;
};

class Held final : public Lookup {
 public:
  explicit Held(std::shared_ptr<State> state) : state_(std::move(state)) {}
  ~Held() override {
    state_->done = nullptr;
    state_->resolver.cancel();
  }

 private:
  std::shared_ptr<State> state_;
};

void finish(State& state, Result<std::vector<Address>> result) {
  const auto done = std::exchange(state.done, nullptr);
  if (done) done(std::move(result));
}

}  // namespace

std::unique_ptr<Lookup> look_up(AsioLoop& loop, const std::string& host, uint16_t port,
                                std::function<void(Result<std::vector<Address>>)> done) {
  auto state = std::make_shared<State>(loop);
  state->done = std::move(done);
  if (internal::endpoint_of({host, port}) && !host.empty()) {
    loop.post([state, address = Address{host, port}] { finish(*state, std::vector<Address>{address}); });
    return std::make_unique<Held>(state);
  }
  state->resolver.async_resolve(
      host, std::to_string(port), tcp::resolver::numeric_service,
      [state, host](const internal::ErrorCode& error, const tcp::resolver::results_type& results) {
        if (error) {
          return finish(*state, Error(Code::kUnavailable, "look up '" + host + "': " + error.message() +
                                                              " (is the name right, and does DNS answer here?)"));
        }
        std::vector<Address> addresses;
        for (const auto& entry : results) {
          Address address = internal::address_of(entry.endpoint());
          if (std::find(addresses.begin(), addresses.end(), address) == addresses.end())
            addresses.push_back(std::move(address));
        }
        if (addresses.empty()) return finish(*state, Error(Code::kUnavailable, "look up '" + host + "': no address"));
        finish(*state, std::move(addresses));
      });
  return std::make_unique<Held>(state);
}

}  // namespace pitcrew::net
