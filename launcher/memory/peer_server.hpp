#pragma once

#include <map>
#include <memory>
#include <vector>

#include "launcher/memory/memory_folder.hpp"
#include "lib/base/log.hpp"
#include "lib/net/psk.hpp"

namespace pitcrew::launcher {

// Answers the job's other launchers (peer_protocol.hpp) from the memory folder. One port for the launcher's whole life;
// who may connect changes with every epoch's key, and then all connections of the epoch before are cut. On the loop.
class PeerServer {
 public:
  struct Counters {
    uint64_t bytes_in = 0;
    uint64_t bytes_out = 0;
    uint64_t refused = 0;  // requests that were answered with an error
  };

  // `folder` may be null: pings are answered, and the rest with kNotFound (the memory tier is off). It outlives the
  // server.
  static Result<std::unique_ptr<PeerServer>> listen(net::AsioLoop& loop, MemoryFolder* folder, net::Address address,
                                                    Logger log);
  ~PeerServer();

  net::Address address() const { return server_->address(); }
  Status set_key(net::PskKey key);
  const Counters& counters() const { return counters_; }
  uint64_t refused_handshakes() const { return server_->refused_handshakes(); }

 private:
  class Session;
  PeerServer(net::AsioLoop& loop, MemoryFolder* folder, Logger log)
      : loop_(loop), folder_(folder), log_(std::move(log)) {}
  void end(uint64_t session);

  net::AsioLoop& loop_;
  MemoryFolder* folder_;
  Logger log_;
  std::unique_ptr<net::PskServer> server_;
  std::map<uint64_t, std::shared_ptr<Session>> sessions_;
  uint64_t next_session_ = 0;
  Counters counters_;
};

}  // namespace pitcrew::launcher
