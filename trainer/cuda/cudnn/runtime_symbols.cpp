// CUDA's runtime for nvidia-cudnn-frontend: the one that is linked here.
#include <cstring>
#include <string_view>

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include "trainer/cuda/cudnn/library.hpp"

// The frontend's: cuDNN's handle. One library is loaded in a process.
namespace cudnn_frontend {
void* cudnn_dlhandle = nullptr;
}

namespace pitcrew::trainer::cudnn {

void* open_library(const char* name, int flags);
void* find_symbol(void* library, const char* name);

namespace {

const char kRuntime = 0;  // its address stands for the runtime

struct Symbol {
  std::string_view name;
  void* function;
};

#define PITCREW_SYMBOL(name) \
  Symbol { #name, reinterpret_cast<void*>(static_cast<decltype(&::name)>(&::name)) }

// What the frontend's code for attention, and for asking what GPU there is, calls (cudnn_frontend_shim.h). Graph
// capture is not used here.
const Symbol kSymbols[] = {
    PITCREW_SYMBOL(cudaRuntimeGetVersion),
    PITCREW_SYMBOL(cudaGetDevice),
    Symbol{"cudaGetDeviceProperties",
           reinterpret_cast<void*>(static_cast<cudaError_t (*)(cudaDeviceProp*, int)>(&::cudaGetDeviceProperties))},
    PITCREW_SYMBOL(cudaDeviceGetAttribute),
    PITCREW_SYMBOL(cudaGetErrorString),
    PITCREW_SYMBOL(cudaGetLastError),
    PITCREW_SYMBOL(cudaMemcpyAsync),
    PITCREW_SYMBOL(cudaMemsetAsync),
    PITCREW_SYMBOL(cudaDeviceSynchronize),
    PITCREW_SYMBOL(cudaStreamSynchronize),
    PITCREW_SYMBOL(cudaStreamIsCapturing),
    Symbol{"cudaPointerGetAttributes", reinterpret_cast<void*>(&::cudaPointerGetAttributes)},
};
#undef PITCREW_SYMBOL

}  // namespace

void* open_library(const char* name, int flags) {
  const std::string_view asked(name);
  if (asked == "libcudart.so.13") return const_cast<char*>(&kRuntime);
  if (asked.starts_with("libcudart.so")) return nullptr;  // of another major version
  return dlopen(name, flags);
}

void* find_symbol(void* library, const char* name) {
  if (library != &kRuntime) return dlsym(library, name);
  for (const Symbol& symbol : kSymbols) {
    if (symbol.name == name) return symbol.function;
  }
  return nullptr;
}

}  // namespace pitcrew::trainer::cudnn
