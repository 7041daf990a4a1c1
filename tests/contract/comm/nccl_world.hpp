#pragma once

#include <cstdlib>
#include <fstream>
#include <string>

#include <unistd.h>

#include "lib/base/testing/temp_folder.hpp"
#include "tests/contract/comm/comm_world.hpp"
#include "trainer/comm/nccl/nccl_comm.hpp"
#include "trainer/device/cpu_device.hpp"

namespace pitcrew::trainer {

// Where the build puts the libnccl.so.2 for tests.
inline std::string fake_nccl() { return std::string(PITCREW_BIN_DIR) + "/../lib/fake-nccl/libnccl.so.2"; }

// What the fake NCCL does wrong (fake_nccl.cpp lists it), while it lives.
class NcclFaults {
 public:
  explicit NcclFaults(const std::string& rules) {
    setenv("PITCREW_FAKE_NCCL", folder_.write("faults", rules).c_str(), 1);
  }
  ~NcclFaults() { unsetenv("PITCREW_FAKE_NCCL"); }

 private:
  const TempFolder folder_;
};

// What one rank has: host channels to the others, a device, and NCCL's communicator over both.
struct NcclRank {
  // Collective over the ranks that meet at `port`.
  static Result<NcclRank> meet(uint32_t rank, uint32_t size, uint16_t port, NcclSettings nccl,
                               Duration patience = milliseconds(200)) {
    TcpSettings settings;
    settings.rank = rank;
    settings.size = size;
    settings.master_port = port;
    NcclRank made;
    PITCREW_ASSIGN(auto channels, TcpComm::connect(settings, 2));
    made.meeting = std::move(channels[0]);
    made.watch = std::make_unique<PeerWatch>(std::move(channels[1]), patience);
    made.device = std::make_unique<CpuDevice>(CpuDeviceOptions{.threads = 1});
    PITCREW_ASSIGN(const auto api, nccl::load(fake_nccl()));
    PITCREW_ASSIGN(made.comm, NcclComm::create(api, *made.meeting, *made.device, made.watch.get(), std::move(nccl)));
    return made;
  }

  std::unique_ptr<TcpComm> meeting;
  std::unique_ptr<PeerWatch> watch;
  std::unique_ptr<CpuDevice> device;
  std::unique_ptr<NcclComm> comm;
};

// NCCL's communicators between threads, on the fake library.
class NcclWorld final : public CommWorld {
 public:
  explicit NcclWorld(uint32_t size, Duration timeout = minutes(5), Duration end_timeout = milliseconds(200))
      : ranks_(size) {
    const uint16_t port = free_port();
    std::vector<std::thread> threads;
    for (uint32_t rank = 0; rank < size; ++rank) {
      threads.emplace_back([&, rank] {
        NcclSettings settings;
        settings.collective_timeout = timeout;
        settings.end_timeout = end_timeout;
        auto made = NcclRank::meet(rank, size, port, std::move(settings));
        PITCREW_INVARIANT(made.ok(), made.ok() ? "" : made.error().message);
        ranks_[rank] = std::move(*made);
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (NcclRank& rank : ranks_) comms_.push_back(std::move(rank.comm));
  }
  ~NcclWorld() override { comms_.clear(); }

  void destroy(uint32_t rank) override {
    CommWorld::destroy(rank);
    ranks_[rank] = {};
  }
  NcclComm& nccl(uint32_t rank) { return static_cast<NcclComm&>(*comms_[rank]); }
  CpuDevice& device(uint32_t rank) { return *ranks_[rank].device; }
  PeerWatch& watch(uint32_t rank) { return *ranks_[rank].watch; }

 private:
  std::vector<NcclRank> ranks_;
};

}  // namespace pitcrew::trainer
