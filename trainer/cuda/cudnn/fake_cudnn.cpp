// A libcudnn.so.9 for tests of loading: it tells the version that PITCREW_FAKE_CUDNN_VERSION says.
#include <cstddef>
#include <cstdlib>

extern "C" size_t cudnnGetVersion() {
  const char* version = std::getenv("PITCREW_FAKE_CUDNN_VERSION");
  return version != nullptr ? std::strtoull(version, nullptr, 10) : 91901;
}

extern "C" int cudnnBackendExecute() { return 1; }
