#pragma once

#include <string>

#include "operator/decide/situation.hpp"

namespace pitcrew::control {

// Whether the namespace's ResourceQuotas leave room for `count` more pods of the job, so that a gang isn't refused
// after half of it was created; the empty string, or which quota leaves too little, for people. A quota that counts
// only some pods by a selector is not judged: the API server has the last word.
std::string quota_refusal(const Situation& situation, uint32_t count);

}  // namespace pitcrew::control
