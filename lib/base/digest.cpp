#include "lib/base/digest.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace pitcrew {

uint64_t xxh3(const void* data, size_t size) { return XXH3_64bits(data, size); }

std::string hex64(uint64_t value) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text(16, '0');
  for (int i = 15; i >= 0; --i, value >>= 4) text[static_cast<size_t>(i)] = kDigits[value & 15];
  return text;
}

}  // namespace pitcrew
