// A manifest of a stranger: YAML, then a TrainingJob. What decodes without a problem must encode to something that
// decodes to the same.
#include <cstdlib>
#include <string>

#include "lib/api/training_job.hpp"
#include "lib/base/yaml.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace pitcrew;
  const auto documents = parse_yaml(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!documents) return 0;
  for (const YamlDocument& document : *documents) {
    Problems problems;
    const api::TrainingJob job = api::decode_training_job(document.json, problems);
    api::validate(job, problems);
    for (const Problem& problem : problems) {
      if (document.line_of(problem.path) < 0) std::abort();
    }
    if (!problems.empty()) continue;
    const auto again = api::TrainingJob::decode(job.encode());
    if (!again.ok() || again->encode() != job.encode()) std::abort();
  }
  return 0;
}
