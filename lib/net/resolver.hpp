#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "lib/net/address.hpp"
#include "lib/net/asio_loop.hpp"

namespace pitcrew::net {

// A name being looked up; destroying it drops its function.
class Lookup {
 public:
  virtual ~Lookup() = default;
};

// Looks a DNS name up through the system's resolver, on a thread of Asio's own; a numeric address is its own answer,
// without a thread. `done` is called on the loop, with at least one address or an error. Programs that are linked
// statically must not use it (glibc's resolver is loaded).
[[nodiscard]] std::unique_ptr<Lookup> look_up(AsioLoop& loop, const std::string& host, uint16_t port,
                                              std::function<void(Result<std::vector<Address>>)> done);

}  // namespace pitcrew::net
