#include "trainer/cuda/emulation/emulated_kernels.hpp"

#include "trainer/cuda/kernels/launch.hpp"

namespace pitcrew::trainer {

namespace {

class EmulatedKernels final : public Kernels<BF16> {
 public:
  explicit EmulatedKernels(Buffer workspace) : workspace_(std::move(workspace)) {}

  void enqueue(Stream& stream, const Matmul<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const WeightGradient<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const ColumnSum<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const EmbeddingForward<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const EmbeddingBackward<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const LayerNormForward<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const LayerNormBackward<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const RmsNormForward<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const RmsNormBackward<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const HeadNormForward<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const HeadNormBackward<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const Rope<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const AttentionForward<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const AttentionBackward<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const SwiGluForward<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const SwiGluBackward<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const GeluForward<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const GeluBackward<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const CrossEntropyPart<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const CrossEntropy<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const SumParts<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const Add<float>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const Sum<float>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const SquareSum<float>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const Summarize& op) override { call(stream, op); }
  void enqueue(Stream& stream, const AdamW<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const Cast<BF16>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const SplitMasters& op) override { call(stream, op); }
  void enqueue(Stream& stream, const JoinMasters& op) override { call(stream, op); }
  void enqueue(Stream& stream, const Digest& op) override { call(stream, op); }
  void enqueue(Stream& stream, const DigestList& op) override { call(stream, op); }

 private:
  template <typename Op>
  void call(Stream& stream, const Op& op) {
    stream.call([this, op] { cuda::Launcher{{workspace_.data(), workspace_.bytes()}, nullptr}(op); });
  }

  Buffer workspace_;
};

}  // namespace

std::unique_ptr<Kernels<BF16>> create_emulated_kernels(Device& device, size_t workspace_bytes) {
  auto workspace = device.allocate("workspace", workspace_bytes);
  PITCREW_INVARIANT(workspace.ok(), "the machine has too little memory for a test");
  return std::make_unique<EmulatedKernels>(std::move(*workspace));
}

}  // namespace pitcrew::trainer
