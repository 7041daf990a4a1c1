#include "lib/local/api/requests.hpp"

#include <charconv>

namespace pitcrew::local {

std::optional<uint64_t> number(const std::string& text) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool dry_run(const kube::Request& request) { return request.parameter("dryRun") == "All"; }

Result<Json> body_of(const kube::Request& request) {
  kube::Payload body = request.body;
  auto json = std::move(body).take();
  if (!json) return json.error();
  if (!json->is_object()) return Error(Code::kInvalidArgument, "the body must be an object");
  return json;
}

}  // namespace pitcrew::local
