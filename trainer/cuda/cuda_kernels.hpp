#pragma once

#include <memory>

#include "trainer/cuda/cuda_device.hpp"
#include "trainer/cuda/cudnn/attention.hpp"
#include "trainer/cuda/kernels/launch.hpp"
#include "trainer/cuda/products.hpp"
#include "trainer/kernels/kernels.hpp"

namespace pitcrew::trainer::cuda {

// The operations on a GPU: products by cuBLASLt where it has an algorithm, attention by cuDNN where it was chosen,
// everything else by our own kernels. All of it shares one workspace, so it goes to one stream.
class CudaKernels final : public Kernels<BF16> {
 public:
  static Result<std::unique_ptr<CudaKernels>> create(CudaDevice& device, size_t workspace_bytes);

  ProductPlans& plans() { return *products_; }
  AttentionEngines& attention() { return attention_; }

  void enqueue(Stream& stream, const Matmul<BF16>& op) override { multiply(stream, op); }
  void enqueue(Stream& stream, const WeightGradient<BF16>& op) override { multiply(stream, op); }
  void enqueue(Stream& stream, const ColumnSum<BF16>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const EmbeddingForward<BF16>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const EmbeddingBackward<BF16>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const LayerNormForward<BF16>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const LayerNormBackward<BF16>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const RmsNormForward<BF16>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const RmsNormBackward<BF16>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const HeadNormForward<BF16>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const HeadNormBackward<BF16>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const Rope<BF16>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const AttentionForward<BF16>& op) override { attend(stream, op); }
  void enqueue(Stream& stream, const AttentionBackward<BF16>& op) override { attend(stream, op); }
  void enqueue(Stream& stream, const SwiGluForward<BF16>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const SwiGluBackward<BF16>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const GeluForward<BF16>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const GeluBackward<BF16>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const CrossEntropyPart<BF16>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const CrossEntropy<BF16>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const SumParts<BF16>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const Add<float>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const Sum<float>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const SquareSum<float>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const Summarize& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const AdamW<BF16>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const Cast<BF16>& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const SplitMasters& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const JoinMasters& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const Digest& op) override { launch(stream, op); }
  void enqueue(Stream& stream, const DigestList& op) override { launch(stream, op); }

 private:
  CudaKernels(CudaDevice& device, Buffer workspace, std::unique_ptr<Products> products);

  template <typename Op>
  void launch(Stream& stream, const Op& op) {
    Launcher{own_, static_cast<CudaStream&>(stream).use()}(op);
  }
  template <typename Op>
  void multiply(Stream& stream, const Op& op) {
    if (!products_->enqueue(static_cast<CudaStream&>(stream).use(), op)) launch(stream, op);
  }

  template <typename Op>
  void attend(Stream& stream, const Op& op) {
    if (!attention_.enqueue(static_cast<CudaStream&>(stream).use(), op)) launch(stream, op);
  }

  Buffer workspace_;
  Workspace own_;  // what is left of it
  std::unique_ptr<Products> products_;
  cudnn::Attention attention_;
};

}  // namespace pitcrew::trainer::cuda
