#pragma once

#include <cstddef>
#include <vector>

#include "lib/base/result.hpp"

namespace pitcrew::trainer {

// Where a GradientReducer's pieces lie, and who adds them: the host, or a device whose memory the communicator moves.
// Of one thread. Work may be queued, in the order of the calls, until finish().
class PieceMemory {
 public:
  virtual ~PieceMemory() = default;
  // Room for `pieces` pieces of up to `elements` each. What they held is lost where there was not enough.
  virtual Status reserve(size_t pieces, size_t elements) = 0;
  virtual float* piece(size_t index) = 0;
  virtual void copy(float* to, const float* from, size_t count) = 0;
  virtual void add(float* into, const float* from, size_t count) = 0;
  virtual void zero(float* data, size_t count) = 0;
  // All of it is done when it returns.
  virtual void finish() = 0;
};

class HostPieces final : public PieceMemory {
 public:
  Status reserve(size_t pieces, size_t elements) override;
  float* piece(size_t index) override { return pieces_[index].data(); }
  void copy(float* to, const float* from, size_t count) override;
  void add(float* into, const float* from, size_t count) override;
  void zero(float* data, size_t count) override;
  void finish() override {}

 private:
  std::vector<std::vector<float>> pieces_;
};

}  // namespace pitcrew::trainer
