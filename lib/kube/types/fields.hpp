#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/json_selection.hpp"
#include "lib/base/object_meta.hpp"

// Tolerant reading of what the API sends: a field that is absent or of another type leaves its default, since servers
// are newer and older than we are. Meant for the hot path of watches; what people write is read with ObjectReader.
namespace pitcrew::kube::fields {

// The member, or null where `json` isn't an object, has no such member or it is JSON null.
const Json* find(const Json& json, const char* key);
const Json* find(const Json& json, const char* key, const char* inner);

void read(const Json& json, const char* key, std::string& out);
void read(const Json& json, const char* key, bool& out);
void read(const Json& json, const char* key, int64_t& out);
void read(const Json& json, const char* key, int& out);
void read(const Json& json, const char* key, std::optional<Instant>& out);
void read(const Json& json, const char* key, Instant& out);
void read(const Json& json, const char* key, std::vector<std::string>& out);
void read(const Json& json, const char* key, std::map<std::string, std::string>& out);

// Calls f(element) for each element of a list.
template <typename F>
void each(const Json* list, F&& f) {
  if (list == nullptr || !list->is_array()) return;
  for (const Json& element : *list) f(element);
}

// metadata of `object`; an error where it has none, no name, or where apiVersion and kind are there and another type's.
Status read_meta(const Json& object, const ResourceType& type, ObjectMeta& meta);

// What read_meta reads, and `paths` besides.
JsonSelection with_meta(std::vector<std::string_view> paths);

// {apiVersion, kind, metadata}
Json envelope(const ResourceType& type, const ObjectMeta& meta);

}  // namespace pitcrew::kube::fields
