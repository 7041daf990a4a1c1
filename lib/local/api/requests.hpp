#pragma once

#include <optional>
#include <string>

#include "lib/kube/transport/transport.hpp"

namespace pitcrew::local {

// What several verbs ask of a request.
std::optional<uint64_t> number(const std::string& text);
bool dry_run(const kube::Request& request);
// The body, which must be an object.
Result<Json> body_of(const kube::Request& request);

}  // namespace pitcrew::local
