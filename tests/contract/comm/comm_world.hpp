#pragma once

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "trainer/comm/memory_comm.hpp"
#include "trainer/comm/tcp_comm.hpp"

namespace pitcrew::trainer {

// A port that nobody listens at now.
inline uint16_t free_port() {
  Address any = *Address::parse("127.0.0.1", 0);
  return local_address(*listen_at(any))->port();
}

// Ranks as threads, each with its communicator, on the backend under test.
class CommWorld {
 public:
  virtual ~CommWorld() = default;
  // Calls body(comm) on a thread for each rank and waits for all. The communicators live until the last body returns.
  void run(const std::function<void(Comm&)>& body) {
    std::vector<std::thread> threads;
    for (auto& comm : comms_) threads.emplace_back([&body, &comm] { body(*comm); });
    for (std::thread& thread : threads) thread.join();
  }
  // This rank's process is gone.
  virtual void destroy(uint32_t rank) { comms_[rank].reset(); }
  Comm& operator[](uint32_t rank) { return *comms_[rank]; }

 protected:
  std::vector<std::unique_ptr<Comm>> comms_;
};

class MemoryWorld final : public CommWorld {
 public:
  MemoryWorld(uint32_t size, Duration timeout) {
    MemoryGroup group(size, timeout);
    for (uint32_t rank = 0; rank < size; ++rank) comms_.push_back(group.take(rank));
  }
};

class TcpWorld final : public CommWorld {
 public:
  TcpWorld(uint32_t size, Duration timeout) : comms_of_(size) {
    const uint16_t port = free_port();
    std::vector<std::thread> threads;
    for (uint32_t rank = 0; rank < size; ++rank) {
      threads.emplace_back([&, rank] {
        TcpSettings settings;
        settings.rank = rank;
        settings.size = size;
        settings.master_port = port;
        settings.collective_timeout = timeout;
        auto made = TcpComm::connect(settings);
        PITCREW_INVARIANT(made.ok(), made.ok() ? "" : made.error().message);
        comms_of_[rank] = std::move((*made)[0]);
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (auto& comm : comms_of_) comms_.push_back(std::move(comm));
  }

 private:
  std::vector<std::unique_ptr<TcpComm>> comms_of_;
};

}  // namespace pitcrew::trainer
