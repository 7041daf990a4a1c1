#pragma once

#include "lib/kube/transport/transport.hpp"

namespace pitcrew::local {

// The object that a patch makes of `object`: RFC 7386 merge, RFC 6902 operations, or a strategic merge as far as maps
// go (lists are replaced). An error where it can't be applied, a failed `test` included.
Result<Json> apply_patch(const Json& object, kube::PatchKind kind, const Json& patch);

}  // namespace pitcrew::local
