#pragma once

#include <map>
#include <memory>

#include "trainer/cuda/cuda_device.hpp"
#include "trainer/cuda/cudnn/graphs.hpp"

namespace pitcrew::trainer::cudnn {

// Attention by cuDNN for the shapes that it was told to use it for; others are left to the own kernels. Used by the
// training thread, with one stream at a time.
class Attention final : public AttentionEngines {
 public:
  // The device outlives it.
  explicit Attention(cuda::CudaDevice& device) : device_(device) {}
  ~Attention() override;

  Result<uint64_t> use_cudnn(const AttentionShape& shape, uint64_t workspace_bytes) override;
  void use_own() override;

  // False where the shape isn't cuDNN's: nothing was enqueued.
  template <typename Op>
  bool enqueue(cudaStream_t stream, const Op& op) {
    if (graphs_.empty()) return false;
    const auto found = graphs_.find({op.sequences, op.length, op.heads, op.kv_heads, op.head_width});
    if (found == graphs_.end()) return false;
    if (stream != stream_) set_stream(handle_, stream_ = stream);
    found->second->execute(handle_, workspace_.data(), op);
    return true;
  }

 private:
  cuda::CudaDevice& device_;
  cudnnContext* handle_ = nullptr;
  cudaStream_t stream_ = nullptr;
  Buffer workspace_;
  std::map<AttentionShape, std::unique_ptr<Graphs>> graphs_;
};

}  // namespace pitcrew::trainer::cudnn
