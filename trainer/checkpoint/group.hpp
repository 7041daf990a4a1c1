#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/base/json.hpp"
#include "trainer/comm/comm.hpp"

namespace pitcrew::trainer {

// What checkpoints say over a Comm: words, texts and JSON. Without a Comm, a group of one. Every function is a
// collective.
class Group {
 public:
  explicit Group(Comm* comm) : comm_(comm) {}
  uint32_t rank() const { return comm_ == nullptr ? 0 : comm_->rank(); }
  uint32_t size() const { return comm_ == nullptr ? 1 : comm_->size(); }

  Result<std::vector<uint64_t>> gather(uint64_t word);
  Result<std::vector<std::string>> gather(const std::string& text);
  Result<std::vector<Json>> gather(const Json& json);
  // The root's text, for everybody.
  Result<std::string> broadcast(std::string text, uint32_t root);
  // The errors of all ranks as one, with their ranks in front, or nothing: the same value everywhere. The result's own
  // error is the communicator's.
  Result<std::optional<Error>> agree(const Status& mine);
  // Each rank's block for everybody; `blocks` has the right sizes, and one's own filled.
  Status share(const std::vector<std::span<std::byte>>& blocks);
  // As Comm::exchange.
  Status exchange(std::span<const Comm::Send> sends, std::span<const Comm::Receive> receives) {
    return comm_ == nullptr ? Status() : comm_->exchange(sends, receives);
  }

 private:
  Comm* comm_;
};

}  // namespace pitcrew::trainer
