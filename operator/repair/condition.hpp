#pragma once

#include <string>

#include "operator/repair/order.hpp"

namespace pitcrew::control {

inline constexpr char kAcceleratedHardwareReady[] = "AcceleratedHardwareReady";
inline constexpr char kRepairManager[] = "pitcrew-operator";  // in managedFields

// Who else writes the condition, by the Node's managedFields: its manager; "somebody" where the condition is there and
// managedFields don't say whose it is. Empty: nobody. Two writers of one condition overwrite each other for ever (EKS'
// node monitoring agent writes its own copy every 15 s), and a repair then never begins or never ends.
std::string condition_writer(const Json& node);

// Whether the condition says that already.
bool condition_says(const kube::Node& node, bool ready, const std::string& reason);

// What is applied to the Node's status: the whole of what is ours there. lastTransitionTime stays where the status
// does.
Json condition_of(const kube::Node& node, bool ready, const std::string& reason, const std::string& message,
                  Instant now);

}  // namespace pitcrew::control
