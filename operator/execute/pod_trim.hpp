#pragma once

#include <string>

#include "lib/kube/client/client.hpp"
#include "lib/kube/types/pod.hpp"

namespace pitcrew::control {

// What the cache keeps of a pod: of everybody's, what it takes of which node; of our jobs' pods also their state, our
// labels and owner, and in the place of channel.json its mark. 50,000 pods then take some tens of megabytes.
kube::Ptr<kube::Pod> trim_pod(const kube::Ptr<kube::Pod>& pod);

// Stands for a channel.json in the cache: two are the same where their marks are.
std::string channel_mark(const std::string& channel_json);

}  // namespace pitcrew::control
