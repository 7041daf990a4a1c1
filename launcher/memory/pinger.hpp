#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "launcher/memory/silence.hpp"
#include "lib/api/channel.hpp"
#include "lib/net/psk.hpp"

namespace pitcrew::launcher {

// Pings the launchers of the next two slots every 1.5 s, each over one connection that is kept, and tells who is
// silent. One per epoch. On the loop.
class Pinger {
 public:
  using Tell = std::function<void(const Silence::Report& report)>;
  Pinger(net::AsioLoop& loop, const std::vector<api::channel::TableEntry>& table, Slot self, net::PskKey key,
         Tell tell);

 private:
  struct Neighbour {
    net::Address address;
    net::PskConnection::Ptr connection;
    bool ready = false;
    bool waiting = false;  // for an answer
  };
  void tick();
  void ping(Slot slot, Neighbour& neighbour);
  void failed(Slot slot);

  net::AsioLoop& loop_;
  net::PskKey key_;
  Tell tell_;
  std::map<Slot, Neighbour> neighbours_;
  Silence silence_;
  Loop::TimerPtr timer_;
};

}  // namespace pitcrew::launcher
