#pragma once

#include <memory>
#include <optional>
#include <string>

#include "lib/base/result.hpp"
#include "trainer/checkpoint/storage.hpp"

namespace pitcrew::trainer::s3 {

// Loads libpitcrew_s3.so (from beside the program, ../lib, or where the system looks) and opens the storage at an s3://
// path. kUnsupported: no library, or one of another build; the message names the remedy. The rest: see locate().
Result<std::unique_ptr<Storage>> open(const std::string& path);

// The library's only symbol. The two sides are built together; `interface` says so.
using OpenFunction = void (*)(const char* interface, const std::string* path,
                              std::optional<Result<std::unique_ptr<Storage>>>* opened);
inline constexpr const char* kOpenSymbol = "pitcrew_s3_open";
// The version, and a number that grows whenever a class that crosses the border changes.
std::string interface_name();

}  // namespace pitcrew::trainer::s3
