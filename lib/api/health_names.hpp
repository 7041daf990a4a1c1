#pragma once

// What the node agent writes onto its node, and people and other programs read there.
namespace pitcrew::api::health {

inline constexpr char kCondition[] = "PitcrewHealthy";         // node condition
inline constexpr char kUnhealthy[] = "pitcrew.dev/unhealthy";  // label (value: the rule), and taint (NoSchedule)
inline constexpr char kCordoned[] = "pitcrew.dev/cordoned";    // annotation: when and for what the agent cordoned
inline constexpr char kHold[] = "pitcrew.dev/hold";            // annotation, people's: nothing is taken back
// Annotation, people's: "<id>", "<id> <rule>" or "<id> <rule> <device>": what holds is cleared by hand, once for each
// id.
inline constexpr char kRequestClear[] = "pitcrew.dev/request-clear";
inline constexpr char kFieldManager[] = "pitcrew-agent";                                 // in managedFields
inline constexpr char kHyperPodStatus[] = "sagemaker.amazonaws.com/node-health-status";  // label, HyperPod's

}  // namespace pitcrew::api::health
