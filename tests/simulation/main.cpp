// pitcrew-simulation: the real operator in a simulated cluster and in virtual time, with faults drawn from a seed.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <thread>

#include <CLI/CLI.hpp>

#include "tests/simulation/coverage.hpp"

namespace {

using namespace pitcrew::simulation;

struct Options {
  std::optional<uint64_t> seed;
  uint64_t from = 1;
  uint64_t seeds = 100;
  uint32_t threads = 2;
  bool trace = false;
  bool logs = false;
  bool cells = false;
  bool keep_going = false;
  std::string until;
};

bool report(uint64_t seed, const World& world, const char* program) {
  const auto& violations = world.invariants().violations();
  if (violations.empty()) return true;
  for (const auto& violation : violations) {
    std::printf("seed %llu at %s: %s: %s\n", static_cast<unsigned long long>(seed),
                pitcrew::to_rfc3339(violation.at, 3).substr(11).c_str(), violation.invariant.c_str(),
                violation.what.c_str());
  }
  std::printf("replay: %s --seed %llu --trace\n", program, static_cast<unsigned long long>(seed));
  std::fflush(stdout);
  return false;
}

bool broke(const World& world, const std::string& invariant) {
  const auto& violations = world.invariants().violations();
  return std::any_of(violations.begin(), violations.end(),
                     [&](const auto& violation) { return violation.invariant == invariant; });
}

int run_one(const Options& options, const char* program) {
  WorldSettings settings;
  settings.seed = *options.seed;
  if (options.trace) settings.trace = [](const std::string& line) { std::puts(line.c_str()); };
  settings.operator_logs = options.logs;
  World world(settings);
  world.run();
  std::printf("seed %llu: %s; %zu faults, %zu recoveries, %llu epochs\n",
              static_cast<unsigned long long>(settings.seed), world.outcome().c_str(), world.faults().size(),
              world.invariants().recoveries().size(), static_cast<unsigned long long>(world.invariants().epochs()));
  return report(settings.seed, world, program) ? 0 : 1;
}

int run_many(const Options& options, const char* program) {
  std::atomic<uint64_t> next{options.from};
  std::atomic<uint64_t> failed{0}, done{0}, faults{0}, recoveries{0};
  std::mutex mutex;
  Coverage coverage;
  const auto begin = std::chrono::steady_clock::now();
  {
    std::vector<std::jthread> workers;
    for (uint32_t i = 0; i < options.threads; ++i) {
      workers.emplace_back([&] {
        Coverage mine;
        while (options.keep_going || failed == 0) {
          const uint64_t seed = next++;
          if (seed >= options.from + options.seeds) break;
          World world({.seed = seed, .trace = {}, .operator_logs = false});
          world.run();
          mine.add(world);
          ++done;
          faults += world.faults().size();
          recoveries += world.invariants().recoveries().size();
          const std::lock_guard lock(mutex);
          if (report(seed, world, program)) continue;
          if (options.until.empty() || broke(world, options.until)) ++failed;
        }
        const std::lock_guard lock(mutex);
        coverage.merge(mine);
      });
    }
  }
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  std::fputs(coverage.table().c_str(), stdout);
  std::printf("%llu seeds in %.1f s (%.1f a second), %llu faults, %llu recoveries, %llu seeds failed\n",
              static_cast<unsigned long long>(done), seconds, static_cast<double>(done) / seconds,
              static_cast<unsigned long long>(faults), static_cast<unsigned long long>(recoveries),
              static_cast<unsigned long long>(failed));
  if (failed > 0) return 1;
  if (!options.cells) return 0;
  const auto below = coverage.below(10);
  for (const std::string& cell : below) std::printf("hit less than ten times: %s\n", cell.c_str());
  return below.empty() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("Runs the operator in a simulated cluster, one virtual hour a seed");
  app.add_option("--seed", options.seed, "run this seed alone");
  app.add_flag("--trace", options.trace, "show what happens (with --seed)");
  app.add_flag("--logs", options.logs, "show the operators' logs too (with --trace)");
  app.add_option("--from", options.from, "the first seed");
  app.add_option("--seeds", options.seeds, "how many seeds");
  app.add_option("--threads", options.threads, "seeds at a time");
  app.add_flag("--cells", options.cells, "require that every possible cell of fault x rung is hit ten times");
  app.add_option("--until", options.until, "stop at a seed that breaks this invariant, not at any");
  app.add_flag("--keep-going", options.keep_going, "go on after a seed that fails");
  CLI11_PARSE(app, argc, argv);
  return options.seed ? run_one(options, argv[0]) : run_many(options, argv[0]);
}
