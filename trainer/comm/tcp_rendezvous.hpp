#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "trainer/comm/tcp_socket.hpp"

namespace pitcrew::trainer {

// Where the ranks of an epoch meet and which epoch that is.
struct TcpSettings {
  uint32_t rank = 0;
  uint32_t size = 1;
  std::string master_address = "127.0.0.1";  // numeric; rank 0 listens there
  uint16_t master_port = 0;
  // The fence: a process of another job or epoch is refused, whatever it says about its rank. It keeps out strays and
  // zombies, not attackers: the epoch's key is the launchers', who talk over TLS.
  std::string job;
  uint64_t term = 0;
  uint64_t epoch = 0;
  Duration connect_timeout = minutes(5);      // until all ranks have met
  Duration collective_timeout = minutes(30);  // no byte moved; longer than any launcher's stall limit
  std::function<bool()> cancelled;            // asked while connecting

  Status validate() const;
};

// One socket to every peer, for each channel; the own place is not open.
struct TcpMesh {
  std::vector<std::vector<Socket>> channels;  // [channel][rank]
};

// Meets the other ranks at the master's address and connects everybody with everybody: rank 0 gathers where each
// listens and tells all; then the higher rank of each pair connects to the lower. Blocks; every rank calls it once per
// epoch with the same number of channels. Errors: kConflict (another job's, epoch's or world's master answered),
// kDeadlineExceeded (says who is missing), kUnavailable, kCancelled.
Result<TcpMesh> tcp_rendezvous(const TcpSettings& settings, uint32_t channels);

}  // namespace pitcrew::trainer
