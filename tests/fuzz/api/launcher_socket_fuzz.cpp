// A line on the launcher's socket, from either side.
#include <cstdlib>
#include <string>

#include "lib/base/launcher_socket.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pitcrew::launcher_socket;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto request = decode_request(text)) {
    const std::string once = encode(request->first, request->second);
    const auto again = decode_request(once);
    if (again.ok() && encode(again->first, again->second) != once) std::abort();
  }
  if (const auto answer = decode_answer(text)) (void)encode(*answer);
  return 0;
}
