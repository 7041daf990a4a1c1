#include "trainer/cuda/products.hpp"

#include <algorithm>
#include <cstring>
#include <limits>

#include <cuda_runtime_api.h>

#include "lib/base/json.hpp"
#include "trainer/cuda/failure.hpp"

namespace pitcrew::trainer::cuda {

namespace {

constexpr int kProposals = 16;
constexpr int kRepeats = 5;

std::string to_hex(const void* data, size_t bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (size_t i = 0; i < bytes; ++i) {
    const auto byte = static_cast<const unsigned char*>(data)[i];
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

bool from_hex(const std::string& text, void* data, size_t bytes) {
  if (text.size() != 2 * bytes) return false;
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  for (size_t i = 0; i < bytes; ++i) {
    const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || high > 15 || low < 0 || low > 15) return false;
    static_cast<unsigned char*>(data)[i] = static_cast<unsigned char>(high << 4 | low);
  }
  return true;
}

// What pointer and stride are both multiples of, up to 16 bytes.
uint32_t alignment_of(const void* data, size_t stride_bytes) {
  const uintptr_t both = reinterpret_cast<uintptr_t>(data) | stride_bytes | 16;
  return static_cast<uint32_t>(both & (~both + 1));
}

void require(cublasStatus_t status, const char* what) {
  PITCREW_INVARIANT(status == CUBLAS_STATUS_SUCCESS,
                    std::string("cuBLASLt could not ") + what + ": " + cublasLtGetStatusString(status));
}

}  // namespace

// Descriptors of one shape and the algorithm that was chosen.
struct Products::Plan {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t a = nullptr, b = nullptr, c = nullptr;  // as cuBLASLt names them: its a is our b
  float beta = 0;
  cublasLtMatmulAlgo_t algorithm{};
  bool exists = false;

  ~Plan() {
    if (product != nullptr) cublasLtMatmulDescDestroy(product);
    for (cublasLtMatrixLayout_t layout : {a, b, c}) {
      if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
    }
  }
};

Products::Products(std::string gpu, void* workspace, size_t workspace_bytes)
    : gpu_(std::move(gpu)), workspace_(workspace), workspace_bytes_(workspace_bytes) {}

Result<std::unique_ptr<Products>> Products::create(std::string gpu, void* workspace, size_t workspace_bytes) {
  std::unique_ptr<Products> products(new Products(std::move(gpu), workspace, workspace_bytes));
  const cublasStatus_t status = cublasLtCreate(&products->handle_);
  if (status != CUBLAS_STATUS_SUCCESS)
    return Error(Code::kUnavailable, std::string("open cuBLASLt: ") + cublasLtGetStatusString(status));
  return products;
}

Products::~Products() {
  plans_.clear();
  if (handle_ != nullptr) cublasLtDestroy(handle_);
}

bool Products::enqueue(cudaStream_t stream, const Matmul<BF16>& op) {
  const Shape shape{.m = op.m,
                    .n = op.n,
                    .k = op.k,
                    .a_stride = op.a_stride,
                    .b_stride = op.b_stride,
                    .c_stride = op.c_stride,
                    .a_transposed = op.a_transposed,
                    .b_transposed = op.b_transposed,
                    .wide = 0,
                    .accumulate = op.accumulate,
                    .biased = op.bias != nullptr,
                    .a_alignment = alignment_of(op.a, op.a_stride * sizeof(BF16)),
                    .b_alignment = alignment_of(op.b, op.b_stride * sizeof(BF16)),
                    .c_alignment = alignment_of(op.c, op.c_stride * sizeof(BF16))};
  return run(stream, shape, {op.a, op.b, op.c, op.bias});
}

bool Products::enqueue(cudaStream_t stream, const WeightGradient<BF16>& op) {
  const Shape shape{.m = op.out,
                    .n = op.in,
                    .k = op.rows,
                    .a_stride = op.out,
                    .b_stride = op.in,
                    .c_stride = op.in,
                    .a_transposed = 1,
                    .b_transposed = 0,
                    .wide = 1,
                    .accumulate = op.accumulate,
                    .biased = 0,
                    .a_alignment = alignment_of(op.d_out, op.out * sizeof(BF16)),
                    .b_alignment = alignment_of(op.x, op.in * sizeof(BF16)),
                    .c_alignment = alignment_of(op.gradient, op.in * sizeof(float))};
  return run(stream, shape, {op.d_out, op.x, op.gradient, nullptr});
}

std::unique_ptr<Products::Plan> Products::describe(const Shape& shape) const {
  auto plan = std::make_unique<Plan>();
  require(cublasLtMatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "describe a product");
  const auto set = [&](cublasLtMatmulDescAttributes_t attribute, const auto& value) {
    require(cublasLtMatmulDescSetAttribute(plan->product, attribute, &value, sizeof value), "describe a product");
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, shape.b_transposed != 0 ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(CUBLASLT_MATMUL_DESC_TRANSB, shape.a_transposed != 0 ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (shape.biased != 0) set(CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
  const auto layout = [&](cublasLtMatrixLayout_t& to, cudaDataType type, bool turned, uint64_t rows, uint64_t columns,
                          uint64_t stride) {
    if (turned) std::swap(rows, columns);
    require(cublasLtMatrixLayoutCreate(&to, type, rows, columns, static_cast<int64_t>(stride)), "describe a matrix");
  };
  layout(plan->a, CUDA_R_16BF, shape.b_transposed != 0, shape.n, shape.k, shape.b_stride);
  layout(plan->b, CUDA_R_16BF, shape.a_transposed != 0, shape.k, shape.m, shape.a_stride);
  layout(plan->c, shape.wide != 0 ? CUDA_R_32F : CUDA_R_16BF, false, shape.n, shape.m, shape.c_stride);
  plan->beta = shape.accumulate != 0 ? 1.0f : 0.0f;
  return plan;
}

cublasStatus_t Products::multiply(cudaStream_t stream, const Plan& plan, const cublasLtMatmulAlgo_t& algorithm,
                                  const Operands& operands) const {
  const float one = 1;
  return cublasLtMatmul(handle_, plan.product, &one, operands.b, plan.a, operands.a, plan.b, &plan.beta, operands.c,
                        plan.c, operands.c, plan.c, &algorithm, workspace_, workspace_bytes_, stream);
}

bool Products::run(cudaStream_t stream, const Shape& shape, const Operands& operands) {
  std::unique_ptr<Plan>& plan = plans_[shape];
  const bool known = plan != nullptr;
  if (!known) plan = describe(shape);
  if (operands.bias != nullptr) {
    require(cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &operands.bias,
                                           sizeof operands.bias),
            "describe a bias");
  }
  if (!known) {
    cublasLtMatmulPreference_t preference = nullptr;
    require(cublasLtMatmulPreferenceCreate(&preference), "state a preference");
    const auto set = [&](cublasLtMatmulPreferenceAttributes_t attribute, const auto& value) {
      require(cublasLtMatmulPreferenceSetAttribute(preference, attribute, &value, sizeof value), "state a preference");
    };
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes_);
    // Split products may be added up in the workspace, in order; never in place by atomics.
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE});
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, shape.b_alignment);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, shape.a_alignment);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, shape.c_alignment);
    set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, shape.c_alignment);
    std::vector<cublasLtMatmulHeuristicResult_t> proposals(kProposals);
    int found = 0;
    const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
        handle_, plan->product, plan->a, plan->b, plan->c, plan->c, preference, kProposals, proposals.data(), &found);
    cublasLtMatmulPreferenceDestroy(preference);
    proposals.resize(status == CUBLAS_STATUS_SUCCESS ? static_cast<size_t>(found) : 0);
    plan->exists = !proposals.empty();
    if (plan->exists) plan->algorithm = proposals[tuning_ ? fastest(stream, *plan, proposals, operands) : 0].algo;
  }
  if (!plan->exists) return false;
  require(multiply(stream, *plan, plan->algorithm, operands), "multiply");
  return true;
}

size_t Products::fastest(cudaStream_t stream, const Plan& plan,
                         const std::vector<cublasLtMatmulHeuristicResult_t>& proposals,
                         const Operands& operands) const {
  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaEventCreate(&begin), "make an event");
  check(cudaEventCreate(&end), "make an event");
  size_t best = 0;
  float best_time = std::numeric_limits<float>::infinity();
  for (size_t i = 0; i < proposals.size(); ++i) {
    if (proposals[i].state != CUBLAS_STATUS_SUCCESS || proposals[i].workspaceSize > workspace_bytes_) continue;
    if (multiply(stream, plan, proposals[i].algo, operands) != CUBLAS_STATUS_SUCCESS) continue;  // and warm
    float least = std::numeric_limits<float>::infinity();
    for (int repeat = 0; repeat < kRepeats; ++repeat) {
      check(cudaEventRecord(begin, stream), "record an event");
      require(multiply(stream, plan, proposals[i].algo, operands), "multiply");
      check(cudaEventRecord(end, stream), "record an event");
      check(cudaEventSynchronize(end), "multiply");
      float milliseconds = 0;
      check(cudaEventElapsedTime(&milliseconds, begin, end), "time a product");
      least = std::min(least, milliseconds);
    }
    if (least < best_time) {
      best_time = least;
      best = i;
    }
  }
  check(cudaEventDestroy(begin), "give back an event");
  check(cudaEventDestroy(end), "give back an event");
  return best;
}

std::string Products::text() const {
  Json plans = Json::array();
  for (const auto& [s, plan] : plans_) {
    if (!plan->exists) continue;
    plans.push_back({{"shape",
                      {s.m, s.n, s.k, s.a_stride, s.b_stride, s.c_stride, s.a_transposed, s.b_transposed, s.wide,
                       s.accumulate, s.biased, s.a_alignment, s.b_alignment, s.c_alignment}},
                     {"algorithm", to_hex(&plan->algorithm, sizeof plan->algorithm)}});
  }
  return Json{{"library", cublasLtGetVersion()}, {"gpu", gpu_}, {"plans", plans}}.dump();
}

Status Products::use(const std::string& text) {
  const Error damaged(Code::kDataLoss, "read the plans of matrix products: not what an earlier run has written");
  auto json = parse_json(text);
  if (!json || !json->is_object() || !json->contains("library") || !json->contains("gpu") || !json->contains("plans"))
    return damaged;
  if ((*json)["library"] != cublasLtGetVersion() || (*json)["gpu"] != gpu_) {
    return Error(Code::kUnsupported, "the plans of matrix products were made with cuBLASLt " +
                                         (*json)["library"].dump() + " on " + (*json)["gpu"].dump() + ", this is " +
                                         std::to_string(cublasLtGetVersion()) + " on " + gpu_);
  }
  std::map<Shape, std::unique_ptr<Plan>> plans;
  for (const Json& each : (*json)["plans"]) {
    if (!each.is_object() || !each.contains("shape") || !each["shape"].is_array() || each["shape"].size() != 14 ||
        !each.contains("algorithm") || !each["algorithm"].is_string())
      return damaged;
    uint64_t n[14];
    for (size_t i = 0; i < 14; ++i) {
      if (!each["shape"][i].is_number_unsigned()) return damaged;
      n[i] = each["shape"][i].get<uint64_t>();
    }
    const auto flag = [&](size_t i) { return static_cast<uint32_t>(n[i]); };
    const Shape shape{n[0],    n[1],    n[2],    n[3],     n[4],     n[5],     flag(6),
                      flag(7), flag(8), flag(9), flag(10), flag(11), flag(12), flag(13)};
    auto plan = describe(shape);
    if (!from_hex(each["algorithm"].get<std::string>(), &plan->algorithm, sizeof plan->algorithm)) return damaged;
    plan->exists = true;
    plans[shape] = std::move(plan);
  }
  plans_ = std::move(plans);
  return {};
}

}  // namespace pitcrew::trainer::cuda
