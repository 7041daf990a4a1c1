#pragma once

#include "lib/kube/types/pod.hpp"

namespace pitcrew::kube {

// The shortest usual form of an amount in thousandths: "1500m", "8".
std::string format_quantity(int64_t thousandths);

// Adds an object of quantities to `out`; what can't be read is left out.
void add_quantities(const Json& json, Resources& out);
Json quantities_json(const Resources& resources);

}  // namespace pitcrew::kube
