#pragma once

#include <string>

#include "lib/base/object_meta.hpp"

// What the API does to every object, whatever its type: pure functions of what is stored and what is asked.
namespace pitcrew::local::rules {

// RFC 1123 subdomain: what a name may be.
bool valid_name(const std::string& name);

// Makes a replacement of `next`: what a client may not change of the metadata is taken from `old`, with `keep_status`
// the status too; the generation grows where anything but metadata and status differs.
Status prepare_update(const Json& old, Json& next, bool keep_status);

// `old` with the status of `next`; nothing else changes.
Json with_status(const Json& old, const Json& next);

// A pod's spec can't be changed but for its deadline and its tolerations; binding is a subresource.
Status pod_update_allowed(const Json& old, const Json& next);

// How long a pod is given when it is deleted: what was asked, or its own; 0 where nobody would have to stop it.
int64_t pod_grace(const Json& pod, const Json* delete_options);

bool has_finalizers(const Json& object);
bool being_deleted(const Json& object);
std::string uid_of(const Json& object);
std::string version_of(const Json& object);

}  // namespace pitcrew::local::rules
