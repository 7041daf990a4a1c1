#include "trainer/kernels/inner.hpp"

#include "trainer/device/instructions.hpp"

namespace pitcrew::trainer {

namespace baseline {
template <typename T>
const Inner<T>& table();
}
#if defined(__x86_64__)
namespace avx2 {
template <typename T>
const Inner<T>& table();
}
namespace avx512 {
template <typename T>
const Inner<T>& table();
}
#endif

template <typename T>
const Inner<T>& inner() {
#if defined(__x86_64__)
  switch (instructions()) {
    case Instructions::kBaseline:
      break;
    case Instructions::kAvx2:
      return avx2::table<T>();
    case Instructions::kAvx512:
      return avx512::table<T>();
  }
#endif
  return baseline::table<T>();
}
template const Inner<float>& inner();
template const Inner<double>& inner();

}  // namespace pitcrew::trainer
