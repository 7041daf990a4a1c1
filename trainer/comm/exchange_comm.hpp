#pragma once

#include "trainer/comm/comm.hpp"

namespace pitcrew::trainer {

// The collectives that are made of exchange(), for backends that only move messages. Who calls what: see Comm.
class ExchangeComm : public Comm {
 public:
  uint32_t rank() const final { return rank_; }
  uint32_t size() const final { return size_; }

  // Dissemination: ceil(log2 size) rounds of one empty message to a rank twice as far each time.
  Status barrier() final;
  // A binomial tree below the root.
  Status broadcast(std::span<std::byte> data, uint32_t root) final;
  // Everybody sends to everybody at once: the links are a full mesh, so this moves no more bytes than a ring.
  Status all_gather(std::span<const std::byte> mine, std::span<std::byte> all) final;

 protected:
  ExchangeComm(uint32_t rank, uint32_t size) : rank_(rank), size_(size) {}

 private:
  const uint32_t rank_;
  const uint32_t size_;
};

}  // namespace pitcrew::trainer
