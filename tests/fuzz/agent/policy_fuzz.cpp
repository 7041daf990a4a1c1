// A cluster's HealthPolicy: whoever may write one chooses these bytes. It is refused with words or taken; one that is
// taken reads back as it was written, and judgement and explanation work by it.
#include <cstdlib>
#include <string_view>

#include "agent/judge/explain.hpp"
#include "agent/judge/judge.hpp"
#include "lib/api/health_policy.hpp"
#include "lib/base/yaml.hpp"

namespace {

using namespace pitcrew;
using namespace pitcrew::agent;

Observation seen(const char* kind, std::optional<uint32_t> code, double value, int64_t second) {
  Observation observation;
  observation.kind = kind;
  observation.code = code;
  observation.device = "fuzz";
  observation.reading = !code;
  observation.values = {{"a", value}, {"b", 2.0}, {"link", 3.0}, {"reg0", value}, {"text", std::string("word")}};
  observation.id = code ? std::to_string(second) : "";
  observation.time = Instant(seconds(1'700'000'000 + second));
  return observation;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto documents = parse_yaml(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!documents) {
    if (documents.error().message.empty()) std::abort();
    return 0;
  }
  for (const auto& document : *documents) {
    const auto policy = api::HealthPolicy::decode(document.json);
    if (!policy) {
      if (policy.error().message.empty()) std::abort();
      continue;
    }
    const auto again = api::HealthPolicy::decode(policy->encode());
    if (!again || !(*again == *policy)) std::abort();
    std::vector<Observation> stream;
    for (int64_t i = 0; i < 8; ++i) {
      stream.push_back(seen("xid", 74 + i % 3, static_cast<double>(i), 10 * i));
      stream.push_back(seen("gpu.ecc", std::nullopt, static_cast<double>(i * i), 10 * i));
    }
    const Judgement judgement = judge(stream, *policy, {}, Instant(seconds(1'700'001'000)));
    if (judgement.history.sightings.size() > History::kMaxSightings) std::abort();
    if (!recall(remember(judgement.history))) std::abort();
    (void)explain(*policy, "xid", 74);
  }
  return 0;
}
