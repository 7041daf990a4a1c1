#include "operator/execute/epoch_key.hpp"

#include "lib/net/crypto.hpp"

namespace pitcrew::control {

std::string epoch_key(const std::string& secret, const std::string& job_uid, EpochId epoch) {
  const std::string about = job_uid + "|" + std::to_string(epoch.term.value) + "|" + std::to_string(epoch.number.value);
  return net::base64_encode(net::hmac_sha256(secret, about));
}

}  // namespace pitcrew::control
