#pragma once

#include <string>
#include <string_view>

#include "lib/base/result.hpp"

namespace pitcrew::net {

// Raw bytes in strings. All of these are OpenSSL's; a failure of the library itself ends the process.

std::string sha256(std::string_view bytes);                             // 32 bytes
std::string hmac_sha256(std::string_view key, std::string_view bytes);  // 32 bytes
std::string random_bytes(size_t count);                                 // for keys and tokens
uint64_t random_seed();                                                 // for a Random in a program's main

std::string hex(std::string_view bytes);  // lower case
std::string base64_encode(std::string_view bytes);
Result<std::string> base64_decode(std::string_view text);  // padded, no line breaks

// Takes the same time wherever the two differ.
bool equal_in_constant_time(std::string_view a, std::string_view b);

}  // namespace pitcrew::net
