#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include <cublasLt.h>

#include "trainer/kernels/matmul.hpp"
#include "trainer/kernels/product_plans.hpp"

namespace pitcrew::trainer::cuda {

// Matrix products by cuBLASLt: one plan per shape. Algorithms that add with atomics are left out, so that the same plan
// gives the same bits. Used by the training thread.
class Products final : public ProductPlans {
 public:
  // cuBLASLt's own workspace: `workspace_bytes` of device memory at `workspace`.
  static Result<std::unique_ptr<Products>> create(std::string gpu, void* workspace, size_t workspace_bytes);
  ~Products() override;

  // False where cuBLASLt has no algorithm for the operands' shapes, strides and alignments: nothing was enqueued.
  bool enqueue(cudaStream_t stream, const Matmul<BF16>& op);
  bool enqueue(cudaStream_t stream, const WeightGradient<BF16>& op);

  void set_tuning(bool on) override { tuning_ = on; }
  std::string text() const override;
  Status use(const std::string& text) override;

 private:
  // c = a · b by rows, as cuBLASLt sees it by columns: cᵀ = bᵀ · aᵀ.
  struct Shape {
    uint64_t m = 0, n = 0, k = 0;
    uint64_t a_stride = 0, b_stride = 0, c_stride = 0;
    uint32_t a_transposed = 0, b_transposed = 0, wide = 0, accumulate = 0, biased = 0;
    uint32_t a_alignment = 0, b_alignment = 0, c_alignment = 0;
    auto operator<=>(const Shape&) const = default;
  };
  struct Plan;
  struct Operands {
    const void *a, *b;
    void* c;
    const void* bias;
  };

  Products(std::string gpu, void* workspace, size_t workspace_bytes);
  bool run(cudaStream_t stream, const Shape& shape, const Operands& operands);
  std::unique_ptr<Plan> describe(const Shape& shape) const;
  cublasStatus_t multiply(cudaStream_t stream, const Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                          const Operands& operands) const;
  // The fastest of the library's proposals.
  size_t fastest(cudaStream_t stream, const Plan& plan, const std::vector<cublasLtMatmulHeuristicResult_t>& proposals,
                 const Operands& operands) const;

  const std::string gpu_;
  void* const workspace_;
  const size_t workspace_bytes_;
  cublasLtHandle_t handle_ = nullptr;
  bool tuning_ = false;
  std::map<Shape, std::unique_ptr<Plan>> plans_;
};

}  // namespace pitcrew::trainer::cuda
