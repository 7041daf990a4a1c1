#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "crds/generate/schema.hpp"
#include "lib/base/object_meta.hpp"

namespace pitcrew::crd {

// How a kind is called and shown, beside its schema.
struct Names {
  std::string singular;
  std::string short_name;
  bool in_all = false;  // `kubectl get all` lists it
  bool status = false;  // written apart from the spec
};

Ordered column(const char* name, const char* type, const char* path, const char* description, int priority = 0);

// A CustomResourceDefinition with one version.
Ordered definition(const ResourceType& type, const Names& names, Ordered columns, Schema schema);

// The head of every object, with room for spec and status.
Schema object_schema(const ResourceType& type, std::string description);

// The definitions, as files of crds/ are called.
struct Definition {
  std::string_view file;  // "trainingjob"
  Ordered (*make)();
};
const std::vector<Definition>& definitions();

// As it is committed.
std::string to_file(const Ordered& crd);

Ordered training_job_crd();
Ordered health_policy_crd();
Ordered node_health_crd();
Ordered cordon_budget_crd();

}  // namespace pitcrew::crd
