#pragma once

#include <cstdint>
#include <string>

#include "lib/base/result.hpp"

namespace pitcrew::trainer::cudnn {

// The oldest cuDNN that is used: the first whose deterministic backward runs on Blackwell too (nvidia-cudnn-frontend
// 1.32, scaled_dot_product_flash_attention.h).
constexpr uint64_t kOldest = 91800;

// cuDNN, loaded. It stays loaded.
struct Library {
  void* handle = nullptr;  // dlopen()'s
  uint64_t version = 0;    // cudnnGetVersion()'s: 91901 is 9.19.1
};

// Loads the file that `name` names, else PITCREW_CUDNN_LIBRARY, else libcudnn.so.9 from where the system looks; its
// other libraries lie beside it. Nothing is linked with it. kNotFound: not there, or not cuDNN; kUnsupported: too old;
// each with the remedy.
Result<Library> load(const std::string& name = "");

}  // namespace pitcrew::trainer::cudnn
