#pragma once

#include <string>
#include <vector>

#include "tests/simulation/world.hpp"

namespace pitcrew::simulation {

// Injects one fault at a time into a world, drawn by the world's fault generator. Lives on the world's loop, as long as
// its run.
class Injector {
 public:
  explicit Injector(World& world) : w_(world), random_(world.fault_random_) {}

  void inject();
  static std::vector<std::string> kinds();

 private:
  struct Target {
    World::Job* job = nullptr;
    SimLauncher* launcher = nullptr;
    World::Node* node = nullptr;
  };
  // A rank that is training now.
  Target training_rank();
  World::Node* node_named(const std::string& name);
  std::set<std::string> jobs_on(const World::Node& node) const;
  void record(const std::string& kind, std::set<std::string> jobs, Duration effect = seconds(90));
  bool run(const std::string& kind);

  bool rank_exit(const std::string& kind);
  bool hang();
  bool launcher_death();
  bool node_fault(const std::string& kind);
  bool verdict(const std::string& kind);
  void quarantine(World::Node& node, Duration length);
  bool drought();
  bool pod_deleted(bool drain);
  bool herd();
  bool suspend();
  bool leader_fault(const std::string& kind);
  bool api_fault(const std::string& kind);

  void power_off(World::Node& node);
  void partition(World::Node& node, Duration length);
  void lose_spare(const std::string& job_uid);
  void cordon(World::Node& node, Duration length);

  World& w_;
  Random& random_;
};

}  // namespace pitcrew::simulation
