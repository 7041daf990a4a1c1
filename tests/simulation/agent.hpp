#pragma once

#include "tests/simulation/world.hpp"

namespace pitcrew::simulation {

// What a node's agent would write into the API of a world, in the agent's order: the Node first, then its NodeHealth.
// Borrows the world's API server.
class SimAgent {
 public:
  SimAgent(local::ApiServer& api, Instant now) : api_(api), now_(now) {}

  // Taint, label and cordon / none of them.
  void quarantine(const std::string& node, const std::string& rule);
  void release(const std::string& node);
  // The one verdict of the node's NodeHealth, raised now.
  void verdict(const std::string& node, const std::string& rule, api::HealthAction action, bool certain);
  void no_verdict(const std::string& node);

 private:
  std::optional<Json> get(const ResourceType& type, const std::string& name);
  void patch(const ResourceType& type, const std::string& name, Json body);
  void set_taint(const std::string& node, bool ours);
  void write(const std::string& node, std::vector<api::HealthVerdict> verdicts);

  local::ApiServer& api_;
  Instant now_;
};

}  // namespace pitcrew::simulation
