#pragma once

#include <cstdio>
#include <memory>
#include <string>

#include "lib/base/json.hpp"
#include "lib/base/loop.hpp"

namespace pitcrew::cli {

// What a person sees of the job now.
struct Standing {
  std::string job;
  std::string phase;
  uint64_t step = 0;
  uint64_t total_steps = 0;
  std::optional<double> loss;
  double tokens_per_second = 0;
  uint32_t ready = 0;
  uint32_t replicas = 0;
  uint32_t spares = 0;
  double goodput = 0;
  size_t recoveries = 0;
};

// Where `pitcrew run` shows what happens: lines as they come, and where the job stands. On the loop.
class View {
 public:
  virtual ~View() = default;
  // Something happened: a line for people, and the same as fields.
  virtual void event(Instant time, const std::string& text, const Json& fields) = 0;
  // Called at least once a second while the job runs.
  virtual void standing(Instant time, const Standing& standing) = 0;
};

// A terminal gets one line that is written over; a pipe gets a line every ten seconds or fifty steps.
std::unique_ptr<View> make_text_view(std::FILE* out, bool terminal, Instant start);
// Every event and standing is one JSON object a line.
std::unique_ptr<View> make_json_view(std::FILE* out);

// "step 120/400 (30%) · loss 2.3104 · 41.2k tokens/s · 2/2 replicas, 1 spare · goodput 93%"
std::string describe(const Standing& standing);

}  // namespace pitcrew::cli
