#pragma once

#include <string>

#include "lib/base/strong.hpp"

namespace pitcrew::control {

// What launchers of one epoch prove to one another: base64 of HMAC-SHA256(secret, "job UID|term|epoch"). A new leader
// derives it again, so it is stored nowhere; it goes over the channel alone, never into status, events or logs.
std::string epoch_key(const std::string& secret, const std::string& job_uid, EpochId epoch);

}  // namespace pitcrew::control
