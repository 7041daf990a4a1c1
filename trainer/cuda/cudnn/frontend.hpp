#pragma once

// nvidia-cudnn-frontend, loading cuDNN at run time. It would load CUDA's runtime too, by the name of a shared library
// that may not be there, or not be the one that is linked here: it gets the linked one's functions instead. Where
// Windows has no dlopen(), the frontend replaces it in the same way.
#include <dlfcn.h>

namespace pitcrew::trainer::cudnn {

// dlopen() and dlsym() but for CUDA's runtime.
void* open_library(const char* name, int flags);
void* find_symbol(void* library, const char* name);

}  // namespace pitcrew::trainer::cudnn

#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#define NV_CUDNN_FRONTEND_DISABLE_LOGGING
#define dlopen(name, flags) ::pitcrew::trainer::cudnn::open_library(name, flags)
#define dlsym(library, name) ::pitcrew::trainer::cudnn::find_symbol(library, name)
#include <cudnn_frontend.h>
#undef dlopen
#undef dlsym
