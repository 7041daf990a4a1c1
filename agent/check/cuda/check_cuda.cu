// The check's work on GPUs, behind the plain C of abi.h. Every function sets its own device, takes and frees its own
// memory, and may run beside the same function of other devices. One file, since all of it is one job: give a GPU work
// whose result is known, and compare.
#include <algorithm>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "agent/check/cuda/abi.h"
#include "agent/check/cuda/nccl.hpp"

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// Where a failure's words go, and which failure it is.
struct Words {
  char* text;
  size_t length;

  int say(int code, const char* format, ...) const __attribute__((format(printf, 3, 4))) {
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, length, format, arguments);
    va_end(arguments);
    return code;
  }
  int cuda(cudaError_t error, const char* what) const {
    int code = PITCREW_CHECK_UNAVAILABLE;
    switch (error) {
      // What a sound GPU does not say of these programs.
      case cudaErrorECCUncorrectable:
      case cudaErrorNvlinkUncorrectable:
      case cudaErrorHardwareStackError:
      case cudaErrorIllegalInstruction:
      case cudaErrorIllegalAddress:
      case cudaErrorInvalidPc:
      case cudaErrorLaunchFailure:
      case cudaErrorLaunchTimeout:
      case cudaErrorMisalignedAddress:
        code = PITCREW_CHECK_BROKEN;
        break;
      default:
        break;
    }
    return say(code, "%s: %s (CUDA %d)", what, cudaGetErrorString(error), static_cast<int>(error));
  }
};

#define CHECK_CUDA(expression)                                                                                  \
  do {                                                                                                          \
    if (const cudaError_t error_ = (expression); error_ != cudaSuccess) return words.cuda(error_, #expression); \
  } while (false)

struct FreeDevice {
  void operator()(void* memory) const { cudaFree(memory); }
};
struct FreeHost {
  void operator()(void* memory) const { cudaFreeHost(memory); }
};
template <typename T>
using OnDevice = std::unique_ptr<T[], FreeDevice>;
template <typename T>
using Pinned = std::unique_ptr<T[], FreeHost>;

template <typename T>
cudaError_t take(OnDevice<T>& out, size_t count) {
  void* memory = nullptr;
  const cudaError_t error = cudaMalloc(&memory, count * sizeof(T));
  if (error == cudaSuccess) out.reset(static_cast<T*>(memory));
  return error;
}

// Time between two places of the default stream.
class Stopwatch {
 public:
  Stopwatch() {
    cudaEventCreate(&begin_);
    cudaEventCreate(&end_);
  }
  ~Stopwatch() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
  void start(cudaStream_t stream = nullptr) { cudaEventRecord(begin_, stream); }
  // Waits for what was started since.
  cudaError_t stop(double& seconds, cudaStream_t stream = nullptr) {
    cudaEventRecord(end_, stream);
    if (const cudaError_t error = cudaEventSynchronize(end_); error != cudaSuccess) return error;
    float milliseconds = 0;
    const cudaError_t error = cudaEventElapsedTime(&milliseconds, begin_, end_);
    seconds = milliseconds * 1e-3;
    return error;
  }

 private:
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
};

// SplitMix64's mix, as lib/base has it: the same patterns as the check on threads.
__host__ __device__ inline uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

__host__ __device__ inline uint64_t pattern(uint64_t seed, uint64_t pass, uint64_t place) {
  const uint64_t word = mix(mix(seed + pass / 2) ^ place);
  return pass % 2 == 0 ? word : ~word;
}

constexpr int kThreads = 256;
constexpr int kBlocks = 4096;

__global__ void write_pattern(uint64_t* words, size_t count, uint64_t seed, uint64_t pass) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    words[i] = pattern(seed, pass, i);
  }
}

struct Found {
  unsigned long long wrong, first, flipped;
};

__global__ void read_pattern(const uint64_t* words, size_t count, uint64_t seed, uint64_t pass, Found* found) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    const uint64_t flipped = words[i] ^ pattern(seed, pass, i);
    if (flipped == 0) continue;
    atomicAdd(&found->wrong, 1ull);
    atomicMin(&found->first, static_cast<unsigned long long>(i));
    atomicOr(&found->flipped, static_cast<unsigned long long>(flipped));
  }
}

__global__ void fill_matrix(__nv_bfloat16* values, size_t count, uint64_t seed) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    values[i] = __float2bfloat16(static_cast<float>(mix(seed ^ (i * 2 + 1)) >> 40) * 0x1p-23f - 1.0f);
  }
}

// One square product of BF16 matrices on the tensor cores, planned once: what cuBLASLt chooses depends on the GPU's
// model and the library alone, so GPUs of one machine do the same sums in the same order.
class Product {
 public:
  ~Product() {
    if (layout_ != nullptr) cublasLtMatrixLayoutDestroy(layout_);
    if (operation_ != nullptr) cublasLtMatmulDescDestroy(operation_);
    if (handle_ != nullptr) cublasLtDestroy(handle_);
  }
  Product() = default;
  Product(const Product&) = delete;
  Product& operator=(const Product&) = delete;

  int plan(int side, const Words& words) {
    cublasStatus_t status = cublasLtCreate(&handle_);
    if (status == CUBLAS_STATUS_SUCCESS) {
      status = cublasLtMatmulDescCreate(&operation_, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    }
    const cublasOperation_t transposed = CUBLAS_OP_T;
    if (status == CUBLAS_STATUS_SUCCESS) {
      status = cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed);
    }
    if (status == CUBLAS_STATUS_SUCCESS) {
      status = cublasLtMatrixLayoutCreate(&layout_, CUDA_R_16BF, static_cast<uint64_t>(side),
                                          static_cast<uint64_t>(side), side);
    }
    cublasLtMatmulPreference_t preference = nullptr;
    if (status == CUBLAS_STATUS_SUCCESS) status = cublasLtMatmulPreferenceCreate(&preference);
    const size_t most = kWorkspace;
    if (status == CUBLAS_STATUS_SUCCESS) {
      status = cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most,
                                                    sizeof most);
    }
    int found = 0;
    if (status == CUBLAS_STATUS_SUCCESS) {
      status = cublasLtMatmulAlgoGetHeuristic(handle_, operation_, layout_, layout_, layout_, layout_, preference, 1,
                                              &chosen_, &found);
    }
    if (preference != nullptr) cublasLtMatmulPreferenceDestroy(preference);
    if (status != CUBLAS_STATUS_SUCCESS || found == 0) {
      return words.say(PITCREW_CHECK_UNAVAILABLE, "cuBLASLt plans no BF16 product (%d)", static_cast<int>(status));
    }
    if (const cudaError_t error = take(workspace_, kWorkspace); error != cudaSuccess)
      return words.cuda(error, "take a workspace");
    return 0;
  }

  cublasStatus_t run(const void* a, const void* b, void* c) {
    const float one = 1, zero = 0;
    return cublasLtMatmul(handle_, operation_, &one, a, layout_, b, layout_, &zero, c, layout_, c, layout_,
                          &chosen_.algo, workspace_.get(), kWorkspace, nullptr);
  }

 private:
  static constexpr size_t kWorkspace = size_t{32} << 20;
  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatrixLayout_t layout_ = nullptr;
  cublasLtMatmulHeuristicResult_t chosen_{};
  OnDevice<char> workspace_;
};

// A sum of mixed words and places: whole numbers, so that the order in which threads add does not matter.
__global__ void digest(const uint64_t* words, size_t count, unsigned long long* out) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  unsigned long long sum = 0;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    sum += mix(words[i] ^ mix(i));
  }
  for (int lane = 16; lane > 0; lane /= 2) sum += __shfl_down_sync(0xffffffffu, sum, lane);
  if (threadIdx.x % 32 == 0) atomicAdd(out, sum);
}

// Small whole numbers: their sum over all GPUs is exact in whatever order it is taken.
__host__ __device__ inline float addend(uint64_t seed, int rank, size_t place) {
  return static_cast<float>(mix(seed + static_cast<uint64_t>(rank) * 7919 + place) % 64);
}

__global__ void fill_addends(float* values, size_t count, uint64_t seed, int rank) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    values[i] = addend(seed, rank, i);
  }
}

__global__ void compare_sums(const float* values, size_t count, uint64_t seed, int ranks, unsigned long long* wrong) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) {
    float sum = 0;
    for (int rank = 0; rank < ranks; ++rank) sum += addend(seed, rank, i);
    if (values[i] != sum) atomicAdd(wrong, 1ull);
  }
}

}  // namespace

extern "C" {

int pitcrew_check_abi(void) { return PITCREW_CHECK_ABI; }

int pitcrew_check_count(int* count, char* error, size_t length) {
  const Words words{error, length};
  *count = 0;
  CHECK_CUDA(cudaGetDeviceCount(count));
  return 0;
}

int pitcrew_check_device(int device, PitcrewCheckDevice* out, char* error, size_t length) {
  const Words words{error, length};
  cudaDeviceProp properties{};
  CHECK_CUDA(cudaGetDeviceProperties(&properties, device));
  const auto* id = reinterpret_cast<const unsigned char*>(properties.uuid.bytes);
  std::snprintf(out->uuid, sizeof out->uuid, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                id[0], id[1], id[2], id[3], id[4], id[5], id[6], id[7], id[8], id[9], id[10], id[11], id[12], id[13],
                id[14], id[15]);
  std::snprintf(out->model, sizeof out->model, "%s", properties.name);
  out->memory = properties.totalGlobalMem;
  return 0;
}

int pitcrew_check_memory(int device, double share, double seconds, uint64_t seed, PitcrewCheckMemory* out, char* error,
                         size_t length) {
  const Words words{error, length};
  CHECK_CUDA(cudaSetDevice(device));
  size_t free = 0, total = 0;
  CHECK_CUDA(cudaMemGetInfo(&free, &total));
  // As much as there is in one piece: what the driver keeps for itself is not known before.
  OnDevice<uint64_t> buffer;
  size_t count = static_cast<size_t>(static_cast<double>(free) * share) / sizeof(uint64_t);
  cudaError_t taken = take(buffer, count);
  for (int tries = 0; taken == cudaErrorMemoryAllocation && tries < 10; ++tries) {
    cudaGetLastError();
    count -= count / 20;
    taken = take(buffer, count);
  }
  CHECK_CUDA(taken);
  OnDevice<Found> found;
  CHECK_CUDA(take(found, 1));
  *out = {};
  out->bytes = count * sizeof(uint64_t);
  Stopwatch watch;
  double copying = 0, copied = 0;
  const auto begin = Clock::now();
  do {
    Found here{0, ~0ull, 0};
    CHECK_CUDA(cudaMemcpy(found.get(), &here, sizeof here, cudaMemcpyHostToDevice));
    write_pattern<<<kBlocks, kThreads>>>(buffer.get(), count, seed, out->passes);
    read_pattern<<<kBlocks, kThreads>>>(buffer.get(), count, seed, out->passes, found.get());
    CHECK_CUDA(cudaGetLastError());
    CHECK_CUDA(cudaMemcpy(&here, found.get(), sizeof here, cudaMemcpyDeviceToHost));
    if (here.wrong > 0 && out->wrong_words == 0) out->first_wrong = here.first * sizeof(uint64_t);
    out->wrong_words += here.wrong;
    out->flipped_bits |= here.flipped;
    const size_t half = count / 2;
    watch.start();
    CHECK_CUDA(cudaMemcpyAsync(buffer.get(), buffer.get() + half, half * sizeof(uint64_t), cudaMemcpyDeviceToDevice));
    double took = 0;
    CHECK_CUDA(watch.stop(took));
    // The first copy finds clocks and caches cold.
    if (out->passes > 0 || seconds_since(begin) >= seconds) {
      copying += took;
      copied += 2.0 * static_cast<double>(half * sizeof(uint64_t));
    }
    ++out->passes;
  } while (seconds_since(begin) < seconds);
  out->copy_bandwidth = copied / std::max(copying, 1e-9);
  return 0;
}

int pitcrew_check_burn(int device, double seconds, uint64_t seed, uint64_t* digests, size_t most, size_t* count,
                       double* flops, char* error, size_t length) {
  const Words words{error, length};
  constexpr int kSide = 8192;
  constexpr size_t kElements = static_cast<size_t>(kSide) * kSide;
  CHECK_CUDA(cudaSetDevice(device));
  OnDevice<__nv_bfloat16> a, b, c;
  OnDevice<unsigned long long> sum;
  CHECK_CUDA(take(a, kElements));
  CHECK_CUDA(take(b, kElements));
  CHECK_CUDA(take(c, kElements));
  CHECK_CUDA(take(sum, 1));
  fill_matrix<<<kBlocks, kThreads>>>(a.get(), kElements, seed);
  fill_matrix<<<kBlocks, kThreads>>>(b.get(), kElements, seed + 1);
  CHECK_CUDA(cudaGetLastError());
  Product product;
  if (const int code = product.plan(kSide, words); code != 0) return code;
  Stopwatch watch;
  double multiplying = 0;
  size_t timed = 0;
  *count = 0;
  const auto begin = Clock::now();
  for (size_t repetition = 0; repetition < 2 || seconds_since(begin) < seconds; ++repetition) {
    if (repetition == most) break;
    // What the last product left must not stand for this one's.
    CHECK_CUDA(cudaMemsetAsync(c.get(), 0xff, kElements * sizeof(__nv_bfloat16)));
    CHECK_CUDA(cudaMemsetAsync(sum.get(), 0, sizeof(unsigned long long)));
    watch.start();
    const cublasStatus_t status = product.run(a.get(), b.get(), c.get());
    if (status != CUBLAS_STATUS_SUCCESS) {
      return words.say(status == CUBLAS_STATUS_EXECUTION_FAILED ? PITCREW_CHECK_BROKEN : PITCREW_CHECK_UNAVAILABLE,
                       "cublasLtMatmul failed with %d", static_cast<int>(status));
    }
    double took = 0;
    CHECK_CUDA(watch.stop(took));
    if (repetition > 0) multiplying += took, ++timed;
    digest<<<kBlocks, kThreads>>>(reinterpret_cast<const uint64_t*>(c.get()), kElements * sizeof(__nv_bfloat16) / 8,
                                  sum.get());
    CHECK_CUDA(cudaGetLastError());
    unsigned long long value = 0;
    CHECK_CUDA(cudaMemcpy(&value, sum.get(), sizeof value, cudaMemcpyDeviceToHost));
    digests[(*count)++] = value;
  }
  *flops = 2.0 * kSide * kSide * kSide * static_cast<double>(timed) / std::max(multiplying, 1e-9);
  return 0;
}

int pitcrew_check_host(int device, double seconds, uint64_t seed, PitcrewCheckHost* out, char* error, size_t length) {
  const Words words{error, length};
  constexpr size_t kBytes = size_t{256} << 20;
  constexpr size_t kWords = kBytes / sizeof(uint64_t);
  CHECK_CUDA(cudaSetDevice(device));
  OnDevice<uint64_t> there;
  CHECK_CUDA(take(there, kWords));
  Pinned<uint64_t> sent, back;
  for (Pinned<uint64_t>* buffer : {&sent, &back}) {
    void* memory = nullptr;
    CHECK_CUDA(cudaHostAlloc(&memory, kBytes, cudaHostAllocDefault));
    buffer->reset(static_cast<uint64_t*>(memory));
  }
  for (size_t i = 0; i < kWords; ++i) sent[i] = pattern(seed, 0, i);
  *out = {};
  Stopwatch watch;
  double to = 0, from = 0, copies = 0;
  const auto begin = Clock::now();
  do {
    double took = 0;
    watch.start();
    CHECK_CUDA(cudaMemcpyAsync(there.get(), sent.get(), kBytes, cudaMemcpyHostToDevice));
    CHECK_CUDA(watch.stop(took));
    to += took;
    watch.start();
    CHECK_CUDA(cudaMemcpyAsync(back.get(), there.get(), kBytes, cudaMemcpyDeviceToHost));
    CHECK_CUDA(watch.stop(took));
    from += took;
    ++copies;
    if (std::memcmp(sent.get(), back.get(), kBytes) != 0) {
      for (size_t i = 0; i < kWords; ++i) out->wrong_bytes += sent[i] != back[i] ? sizeof(uint64_t) : 0;
    }
  } while (seconds_since(begin) < seconds);
  out->to_device = copies * static_cast<double>(kBytes) / std::max(to, 1e-9);
  out->from_device = copies * static_cast<double>(kBytes) / std::max(from, 1e-9);
  return 0;
}

int pitcrew_check_all_reduce(int devices, double seconds, uint64_t seed, PitcrewCheckCollective* out, char* error,
                             size_t length) {
  const Words words{error, length};
  if (devices < 2) return words.say(PITCREW_CHECK_UNSUPPORTED, "an all-reduce needs two GPUs");
  namespace abi = pitcrew::nccl;
  std::string why;
  const abi::Api* nccl = pitcrew::check::load_nccl(why);
  if (nccl == nullptr) return words.say(PITCREW_CHECK_UNAVAILABLE, "%s", why.c_str());
  // 1 GiB: large enough for the bandwidth to be the links', as nccl-tests measures it.
  constexpr size_t kCount = (size_t{1} << 30) / sizeof(float);
  struct Rank {
    OnDevice<float> values;
    OnDevice<unsigned long long> wrong;
    cudaStream_t stream = nullptr;
    abi::CommHandle comm = nullptr;
  };
  std::vector<Rank> ranks(static_cast<size_t>(devices));
  struct Cleaner {
    std::vector<Rank>& ranks;
    const abi::Api* nccl;
    ~Cleaner() {
      for (size_t i = 0; i < ranks.size(); ++i) {
        cudaSetDevice(static_cast<int>(i));
        if (ranks[i].comm != nullptr) nccl->CommDestroy(ranks[i].comm);
        if (ranks[i].stream != nullptr) cudaStreamDestroy(ranks[i].stream);
      }
    }
  } cleaner{ranks, nccl};
  const auto failed = [&](int code, const char* what) {
    // A system error is a link or device that did not answer; what was asked for wrongly is our own matter.
    const bool broken = code == abi::kUnhandledCudaError || code == abi::kSystemError || code == abi::kRemoteError;
    return words.say(broken ? PITCREW_CHECK_BROKEN : PITCREW_CHECK_UNAVAILABLE, "%s: %s (NCCL %d)", what,
                     nccl->GetErrorString(code), code);
  };
  std::vector<abi::CommHandle> comms(ranks.size());
  if (const int code = nccl->CommInitAll(comms.data(), devices, nullptr); code != 0)
    return failed(code, "ncclCommInitAll");
  for (size_t i = 0; i < ranks.size(); ++i) {
    ranks[i].comm = comms[i];
    CHECK_CUDA(cudaSetDevice(static_cast<int>(i)));
    CHECK_CUDA(cudaStreamCreateWithFlags(&ranks[i].stream, cudaStreamNonBlocking));
    CHECK_CUDA(take(ranks[i].values, kCount));
    CHECK_CUDA(take(ranks[i].wrong, 1));
    CHECK_CUDA(cudaMemset(ranks[i].wrong.get(), 0, sizeof(unsigned long long)));
  }
  *out = {};
  double reducing = 0, rounds = 0;
  const auto begin = Clock::now();
  for (int round = 0; round < 2 || seconds_since(begin) < seconds; ++round) {
    for (size_t i = 0; i < ranks.size(); ++i) {
      CHECK_CUDA(cudaSetDevice(static_cast<int>(i)));
      fill_addends<<<kBlocks, kThreads, 0, ranks[i].stream>>>(ranks[i].values.get(), kCount,
                                                              seed + static_cast<uint64_t>(round), static_cast<int>(i));
      CHECK_CUDA(cudaGetLastError());
      CHECK_CUDA(cudaStreamSynchronize(ranks[i].stream));
    }
    const auto start = Clock::now();
    if (const int code = nccl->GroupStart(); code != 0) return failed(code, "ncclGroupStart");
    for (Rank& rank : ranks) {
      const int code = nccl->AllReduce(rank.values.get(), rank.values.get(), kCount, abi::kFloat32, abi::kSum,
                                       rank.comm, rank.stream);
      if (code != 0) return failed(code, "ncclAllReduce");
    }
    if (const int code = nccl->GroupEnd(); code != 0) return failed(code, "ncclGroupEnd");
    for (size_t i = 0; i < ranks.size(); ++i) {
      CHECK_CUDA(cudaSetDevice(static_cast<int>(i)));
      CHECK_CUDA(cudaStreamSynchronize(ranks[i].stream));
    }
    // The first one sets up connections.
    if (round > 0) reducing += seconds_since(start), ++rounds;
    for (size_t i = 0; i < ranks.size(); ++i) {
      CHECK_CUDA(cudaSetDevice(static_cast<int>(i)));
      compare_sums<<<kBlocks, kThreads, 0, ranks[i].stream>>>(
          ranks[i].values.get(), kCount, seed + static_cast<uint64_t>(round), devices, ranks[i].wrong.get());
      CHECK_CUDA(cudaGetLastError());
    }
  }
  for (size_t i = 0; i < ranks.size(); ++i) {
    CHECK_CUDA(cudaSetDevice(static_cast<int>(i)));
    CHECK_CUDA(cudaStreamSynchronize(ranks[i].stream));
    unsigned long long wrong = 0;
    CHECK_CUDA(cudaMemcpy(&wrong, ranks[i].wrong.get(), sizeof wrong, cudaMemcpyDeviceToHost));
    out->wrong_elements += wrong;
  }
  const double bytes = static_cast<double>(kCount * sizeof(float)) * rounds;
  out->bus_bandwidth = 2.0 * (devices - 1) / devices * bytes / std::max(reducing, 1e-9);
  return 0;
}

}  // extern "C"
