#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "launcher/memory/memory_folder.hpp"
#include "launcher/memory/peer_protocol.hpp"
#include "launcher/memory/rate_cap.hpp"
#include "lib/net/psk.hpp"

namespace pitcrew::launcher {

// Asks other launchers. Each call has a connection of its own; at most eight run at once, the others wait their turn. A
// peer that can't be reached or doesn't have the epoch's key yet is tried again for `retry_for` (launchers hear of an
// epoch one after another); an answer is final. On the loop; destroying it, or a new key, drops all calls: after a new
// key their functions get kCancelled.
class PeerClient {
 public:
  struct Settings {
    Duration retry_for = seconds(3);
    Duration retry_every = milliseconds(250);
    // Of all put() together; 0: no cap. What comes back at a restore is never slowed down.
    uint64_t put_bytes_per_second = 0;
    net::PskSettings connection = {};
  };
  using Done = std::function<void(Status status)>;
  using ListDone = std::function<void(Result<launcher_socket::Held> held)>;

  PeerClient(net::AsioLoop& loop, MemoryFolder* folder, Settings settings);
  ~PeerClient();

  void set_key(net::PskKey key);

  // own/<checkpoint>/<file> to the peer's peer/<of>/<checkpoint>/<file>.
  void put(net::Address peer, Slot of, std::string checkpoint, std::string file, Done done);
  // The ranges of the peer's file, one after another, into fetch/<into>.
  void get(net::Address peer, std::string path, std::vector<launcher_socket::Fetch::Range> ranges, std::string into,
           Done done);
  void list(net::Address peer, ListDone done);
  void drop(net::Address peer, Slot of, std::string checkpoint, Done done);

  size_t calls() const { return running_.size() + waiting_.size(); }
  // Of files, by get() and put().
  uint64_t bytes_in() const { return bytes_in_; }
  uint64_t bytes_out() const { return bytes_out_; }

 private:
  class Call;
  friend class Call;
  void begin(std::shared_ptr<Call> call);
  void start_next();
  void ended(uint64_t id);

  net::AsioLoop& loop_;
  MemoryFolder* folder_;
  Settings settings_;
  RateCap cap_;
  net::PskKey key_;
  std::deque<std::shared_ptr<Call>> waiting_;
  std::map<uint64_t, std::shared_ptr<Call>> running_;
  uint64_t next_ = 0;
  uint64_t bytes_in_ = 0;
  uint64_t bytes_out_ = 0;
};

}  // namespace pitcrew::launcher
