// A message from the other end of the control channel. What decodes must encode to something that decodes to the same.
#include <cstdlib>
#include <string>

#include "lib/api/channel.hpp"

namespace {

template <typename Decode>
void check(std::string_view text, Decode decode) {
  using pitcrew::api::channel::encode;
  const auto message = decode(text);
  if (!message) return;
  const std::string once = encode(*message);
  const auto again = decode(once);
  // Encoding may be longer than a message may be (escapes); then it is refused, which is fine.
  if (again.ok() && encode(*again) != once) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check(text, pitcrew::api::channel::decode_from_launcher);
  check(text, pitcrew::api::channel::decode_to_launcher);
  (void)pitcrew::api::channel::decode_config(text).ok();
  return 0;
}
