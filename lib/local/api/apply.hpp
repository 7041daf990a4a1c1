#pragma once

#include <string>

#include "lib/base/json.hpp"

namespace pitcrew::local {

struct ApplyRequest {
  std::string manager;
  bool force = false;
  std::string subresource;
  Instant now;
};

// What metadata.managedFields becomes when `manager` makes `next` of `old` by an update or a patch: the fields that it
// changes are its own from then on and nobody else's, those that it removes are nobody's. Pure.
Json managers_after_update(const Json& old, const Json& next, const ApplyRequest& request);

// Server-side apply: `config` laid over `stored` (null where there is none). Fields that this manager applied before
// and applies no more go, unless another manager applied them too; a field that another one applied with another value
// is a conflict (kConflict), or taken over with force. Who applied what is kept in metadata.managedFields, as the API
// does it; lists are whole but for those that are known to have keys. Pure.
Result<Json> apply_config(const Json& stored, const Json& config, const ApplyRequest& request);

}  // namespace pitcrew::local
