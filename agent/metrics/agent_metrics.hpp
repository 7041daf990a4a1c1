#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/act/actor.hpp"
#include "agent/judge/judge.hpp"
#include "agent/probe/pods/gpu_users.hpp"

namespace prometheus {
class Registry;
}

namespace pitcrew::agent {

// What a GPU is called where people look.
struct GpuPlace {
  unsigned index = 0;
  std::string pci;  // 0000:b9:00.0
  std::string model;
  std::string driver;
};

// What /metrics shows of an agent: the newest readings under the names of the description's rows, and what is told by
// the functions below. Lives on the loop.
class AgentMetrics {
 public:
  // `clock` tells how old a reading is; it outlives this.
  explicit AgentMetrics(const Clock& clock);
  ~AgentMetrics();

  void set_node(const std::string& name);
  // GPUs by UUID.
  void set_gpu(const std::string& uuid, const GpuPlace& place);
  void set_users(const std::map<std::string, GpuUser>& users);
  // Readings, XIDs and other events, and how probes do.
  void observed(const Observation& observation);
  void judged(const std::vector<Match>& matches, const std::vector<Verdict>& verdicts);
  void cordoned(Duration after);
  void kernel_log_lines(uint64_t total);
  void policy_problems(size_t count);
  // Asked at each collection; unset it before what it asks goes.
  void set_actor(std::function<ActorNumbers()> numbers);

  std::shared_ptr<prometheus::Registry> registry() const;

 private:
  class Collected;
  std::shared_ptr<Collected> collected_;
};

}  // namespace pitcrew::agent
