#pragma once

#include <vector>

#include "trainer/device/device.hpp"
#include "trainer/kernels/kernels.hpp"
#include "trainer/parallel/piece_memory.hpp"

namespace pitcrew::trainer {

// A reducer's pieces in a device's memory, added by the device: nothing passes through the host. T: as the kernels'.
template <typename T>
class DevicePieces final : public PieceMemory {
 public:
  DevicePieces(Device& device, Kernels<T>& kernels, Stream& stream)
      : device_(device), kernels_(kernels), stream_(stream) {}

  Status reserve(size_t pieces, size_t elements) override {
    for (Buffer& piece : pieces_) {
      if (piece.bytes() >= elements * sizeof(float)) continue;
      PITCREW_ASSIGN(piece, device_.allocate("a piece of gradients from a peer", elements * sizeof(float)));
    }
    while (pieces_.size() < pieces) {
      PITCREW_ASSIGN(Buffer piece, device_.allocate("a piece of gradients from a peer", elements * sizeof(float)));
      pieces_.push_back(std::move(piece));
    }
    return {};
  }
  float* piece(size_t index) override { return pieces_[index].template as<float>(); }
  void copy(float* to, const float* from, size_t count) override {
    if (count > 0) stream_.copy(to, from, count * sizeof(float));
  }
  void add(float* into, const float* from, size_t count) override {
    if (count > 0) kernels_.enqueue(stream_, Add<float>{count, into, from});
  }
  void zero(float* data, size_t count) override {
    if (count > 0) stream_.zero(data, count * sizeof(float));
  }
  void finish() override { stream_.synchronize(); }

 private:
  Device& device_;
  Kernels<T>& kernels_;
  Stream& stream_;
  std::vector<Buffer> pieces_;
};

}  // namespace pitcrew::trainer
