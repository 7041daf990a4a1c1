#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace pitcrew {

// XXH3-64 with seed 0: the digest of checkpoint chunks and of configurations. It finds damage, not malice.
uint64_t xxh3(const void* data, size_t size);
inline uint64_t xxh3(std::string_view text) { return xxh3(text.data(), text.size()); }

// 16 lower-case hexadecimal digits.
std::string hex64(uint64_t value);

}  // namespace pitcrew
