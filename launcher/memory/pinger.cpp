#include "launcher/memory/pinger.hpp"

#include "launcher/memory/peer_protocol.hpp"
#include "launcher/memory/placement.hpp"

namespace pitcrew::launcher {
namespace {

constexpr Duration kPing = milliseconds(1500);

}  // namespace

Pinger::Pinger(net::AsioLoop& loop, const std::vector<api::channel::TableEntry>& table, Slot self, net::PskKey key,
               Tell tell)
    : loop_(loop), key_(std::move(key)), tell_(std::move(tell)), silence_(watched_slots(table, self), loop.now()) {
  for (const Slot slot : watched_slots(table, self)) {
    const auto* entry = find_slot(table, slot);
    neighbours_[slot].address = {entry->address, static_cast<uint16_t>(entry->peer_port)};
  }
  if (!neighbours_.empty()) tick();
}

void Pinger::tick() {
  for (auto& [slot, neighbour] : neighbours_) ping(slot, neighbour);
  for (const Silence::Report& report : silence_.look(loop_.now())) tell_(report);
  timer_ = loop_.after(kPing, [this] { tick(); });
}

void Pinger::ping(Slot slot, Neighbour& neighbour) {
  if (neighbour.waiting) return;
  if (!neighbour.connection) {
    neighbour.waiting = true;
    // Shorter than the silence that is told: a packet that was lost must not make one.
    net::PskSettings settings{.handshake_timeout = seconds(2), .io_timeout = seconds(2)};
    neighbour.connection =
        net::PskConnection::connect(loop_, neighbour.address, key_, settings, [this, slot](Status status) {
          Neighbour& connected = neighbours_.at(slot);
          connected.waiting = false;
          if (!status) return failed(slot);
          connected.ready = true;
          ping(slot, connected);
        });
    return;
  }
  if (!neighbour.ready) return;
  neighbour.waiting = true;
  neighbour.connection->send(peer::encode(peer::Ping{}));
  neighbour.connection->read([this, slot](Result<std::string> frame) {
    Neighbour& answered = neighbours_.at(slot);
    answered.waiting = false;
    if (!frame) return failed(slot);
    silence_.answered(slot, loop_.now());
  });
}

void Pinger::failed(Slot slot) {
  Neighbour& neighbour = neighbours_.at(slot);
  neighbour.ready = false;
  // Its own function is still running.
  loop_.post([kept = std::shared_ptr<net::PskConnection>(std::move(neighbour.connection))] {});
}

}  // namespace pitcrew::launcher
