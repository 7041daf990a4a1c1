// A deep check's result, as it comes out of a container's termination message: whoever writes to that file chooses
// these bytes. It is refused with words or taken; one that is taken reads back as it was written and fits where it
// must.
#include <cstdlib>
#include <string_view>

#include "lib/api/check_report.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pitcrew;
  const auto json = parse_json(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!json) return 0;
  const auto report = api::CheckReport::decode(*json);
  if (!report) {
    if (report.error().message.empty()) std::abort();
    return 0;
  }
  const auto again = api::CheckReport::decode(report->encode());
  if (!again || again->tests.size() != report->tests.size() || again->outcome() != report->outcome()) std::abort();
  const std::string shorter = report->encode_within(4096);
  if (!parse_json(shorter)) std::abort();
  for (const api::CheckResult& result : report->results()) {
    if (result.message.size() > 512) std::abort();
  }
  return 0;
}
