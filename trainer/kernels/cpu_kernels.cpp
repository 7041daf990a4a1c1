#include "trainer/kernels/cpu_kernels.hpp"

#include <mutex>

#include "trainer/kernels/bf16.hpp"

namespace pitcrew::trainer {

namespace {

template <typename T>
class CpuKernels : public Kernels<T> {
 public:
  explicit CpuKernels(CpuDevice& device) : workers_(device.workers()) {}

  void enqueue(Stream& stream, const Matmul<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const WeightGradient<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const ColumnSum<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const EmbeddingForward<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const EmbeddingBackward<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const LayerNormForward<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const LayerNormBackward<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const RmsNormForward<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const RmsNormBackward<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const HeadNormForward<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const HeadNormBackward<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const Rope<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const AttentionForward<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const AttentionBackward<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const SwiGluForward<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const SwiGluBackward<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const GeluForward<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const GeluBackward<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const CrossEntropyPart<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const CrossEntropy<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const SumParts<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const Add<Wide<T>>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const Sum<Wide<T>>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const SquareSum<Wide<T>>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const Summarize& op) override { call(stream, op); }
  void enqueue(Stream& stream, const AdamW<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const Cast<T>& op) override { call(stream, op); }
  void enqueue(Stream& stream, const SplitMasters& op) override { call(stream, op); }
  void enqueue(Stream& stream, const JoinMasters& op) override { call(stream, op); }
  void enqueue(Stream& stream, const Digest& op) override { call(stream, op); }
  void enqueue(Stream& stream, const DigestList& op) override { call(stream, op); }

 private:
  template <typename Op>
  void call(Stream& stream, const Op& op) {
    stream.call([this, op] {
      std::lock_guard one_at_a_time(workers_.kernel());
      run(workers_, op);
    });
  }

  WorkerPool& workers_;
};

}  // namespace

template <typename T>
std::unique_ptr<Kernels<T>> create_cpu_kernels(CpuDevice& device) {
  return std::make_unique<CpuKernels<T>>(device);
}
template std::unique_ptr<Kernels<float>> create_cpu_kernels(CpuDevice&);
template std::unique_ptr<Kernels<double>> create_cpu_kernels(CpuDevice&);
template std::unique_ptr<Kernels<BF16>> create_cpu_kernels(CpuDevice&);

}  // namespace pitcrew::trainer
