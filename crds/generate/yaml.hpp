#pragma once

#include <string>

#include "crds/generate/schema.hpp"

namespace pitcrew::crd {

// Block-style YAML with fields in their order; texts are quoted wherever a reader could take them for something else.
std::string to_yaml(const Ordered& json);

}  // namespace pitcrew::crd
