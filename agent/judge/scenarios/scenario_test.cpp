// Runs the cases of this folder's files: what was observed in, what judgement changes out, word for word. agent/judge's
// README says how to read and write one. With PITCREW_REWRITE=1 the files are written anew with what was seen.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "agent/judge/builtin_policy.hpp"
#include "agent/judge/judge.hpp"
#include "agent/probe/kernel_log/parse.hpp"
#include "lib/base/yaml.hpp"

namespace pitcrew::agent {
namespace {

namespace fs = std::filesystem;

const fs::path kFolder = fs::path(PITCREW_SOURCE_DIR) / "agent/judge/scenarios";
const Instant kStart = *parse_rfc3339("2026-03-01T00:00:00Z");

// One case: a node, its policy and what judgement knows.
class Stage {
 public:
  explicit Stage(std::ostream& out) : out_(out), policy_(builtin_policy()) {}

  Status run(std::string line) {
    if (line.starts_with("at ")) {
      const size_t colon = line.find(':');
      if (colon == std::string::npos) return Error(Code::kInvalidArgument, "no colon after the time");
      PITCREW_ASSIGN(const Duration when, parse_duration(line.substr(3, colon - 3)));
      advance(kStart + when);
      line = colon + 2 <= line.size() ? line.substr(colon + 2) : "";
    }
    std::istringstream words(line);
    std::string command;
    if (!(words >> command)) return {};
    if (command == "rule") return change_policy(line.substr(5));
    if (command == "restart") return restart();
    if (command == "node") return show_node();
    Observation observation;
    observation.time = now_;
    if (command == "log") {
      const auto parsed = kernel_log::parse(line.substr(4));
      if (!parsed) return {};
      observation = *parsed;
      observation.time = now_;
    } else if (command == "xid" || command == "sxid") {
      uint32_t code = 0;
      words >> code;
      observation.kind = command;
      observation.code = code;
    } else if (command == "read" || command == "event") {
      words >> observation.kind;
      observation.reading = command == "read";
    } else {
      observation.kind = command == "start" ? kinds::kAgentStart : command == "driver" ? kinds::kDriverStart : command;
    }
    read_values(words, observation);
    if (command != "log" && observation.code && observation.id.empty()) observation.id = std::to_string(++serial_);
    judge_now({observation});
    return {};
  }

 private:
  static void read_values(std::istringstream& words, Observation& observation) {
    for (std::string word; words >> word;) {
      const size_t equals = word.find('=');
      if (equals == std::string::npos) continue;
      const std::string name = word.substr(0, equals), value = word.substr(equals + 1);
      if (name == "gpu" || name == "device") {
        observation.device = value;
      } else if (name == "id") {
        observation.id = value;
      } else if (char* end = nullptr; !value.empty() && (std::strtod(value.c_str(), &end), *end == 0)) {
        observation.values[name] = std::strtod(value.c_str(), nullptr);
      } else {
        observation.values[name] = value;
      }
    }
  }

  Status change_policy(const std::string& yaml) {
    PITCREW_ASSIGN(const auto documents, parse_yaml("{apiVersion: pitcrew.dev/v1alpha1, kind: HealthPolicy, metadata: "
                                                    "{name: cluster}, spec: {rules: [" +
                                                    yaml + "]}}"));
    PITCREW_ASSIGN(const auto over, api::HealthPolicy::decode(documents.front().json));
    policy_ = api::merge(policy_, over);
    judge_now({});
    return {};
  }

  // The agent dies and starts anew with what NodeHealth holds.
  Status restart() {
    PITCREW_ASSIGN(history_, recall(remember(history_)));
    Observation start;
    start.kind = kinds::kAgentStart;
    start.time = now_;
    judge_now({start});
    return {};
  }

  Status show_node() {
    std::vector<Verdict> verdicts;
    for (const History::Open& open : history_.open) verdicts.push_back(open.verdict);
    const Assessment node = assess(verdicts);
    out_ << "    node " << (node.healthy ? "healthy" : "unhealthy: " + node.reason) << ", needs "
         << to_string(node.needs) << (node.certain ? ", certain" : "") << "\n";
    return {};
  }

  void advance(Instant to) {
    while (wake_ && *wake_ <= to) {
      now_ = std::max(now_, *wake_);
      const auto before = wake_;
      judge_now({});
      if (wake_ == before) {
        out_ << "    WAKES WITHOUT END\n";
        return;
      }
    }
    now_ = to;
  }

  void judge_now(const std::vector<Observation>& observations) {
    Judgement judgement = judge(observations, policy_, std::move(history_), now_);
    history_ = std::move(judgement.history);
    wake_ = judgement.wake;
    for (const Match& match : judgement.matches) {
      const api::HealthRule* rule = policy_.find(match.rule);
      if (rule->severity == api::HealthSeverity::kInfo) out_ << "    . " << name(match.rule, match.device) << "\n";
    }
    for (const Change& change : judgement.changes) {
      const Verdict& verdict = change.verdict;
      if (change.change == api::HealthChange::kCleared) {
        out_ << "    - " << name(verdict.rule, verdict.device) << ": " << change.why << "\n";
        continue;
      }
      out_ << "    + " << name(verdict.rule, verdict.device) << ": " << to_string(verdict.severity) << ", "
           << to_string(verdict.action) << (verdict.certain ? ", certain" : "")
           << (verdict.count > 1 ? ", " + std::to_string(verdict.count) + " times" : "") << "\n";
    }
  }

  static std::string name(const std::string& rule, const std::string& device) {
    return rule + " on " + (device.empty() ? "node" : device);
  }

  std::ostream& out_;
  api::HealthPolicy policy_;
  History history_;
  Instant now_ = kStart;
  std::optional<Instant> wake_;
  int serial_ = 0;
};

std::string play(const std::string& text) {
  std::ostringstream out;
  std::istringstream in(text);
  std::unique_ptr<Stage> stage;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("    ")) continue;
    out << line << "\n";
    if (line.empty() || line[0] == '#') continue;
    if (line.starts_with("case ")) {
      stage = std::make_unique<Stage>(out);
      continue;
    }
    const Status ran = stage ? stage->run(line) : Error(Code::kInvalidArgument, "no case before it");
    if (!ran) out << "    NOT UNDERSTOOD: " << ran.error().message << "\n";
  }
  return out.str();
}

std::vector<std::string> files() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kFolder)) {
    if (entry.path().extension() == ".txt" && entry.path().stem() != "CMakeLists") names.push_back(entry.path().stem());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string content(const std::string& name) {
  std::ifstream file(kFolder / (name + ".txt"));
  return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
}

class Scenario : public testing::TestWithParam<std::string> {};

TEST_P(Scenario, is_judged_as_it_says) {
  const std::string text = content(GetParam());
  const std::string played = play(text);
  EXPECT_EQ(played.find("NOT UNDERSTOOD"), std::string::npos) << played;
  EXPECT_EQ(played.find("WAKES WITHOUT END"), std::string::npos) << played;
  if (std::getenv("PITCREW_REWRITE") != nullptr) {
    std::ofstream(kFolder / (GetParam() + ".txt")) << played;
    return;
  }
  EXPECT_EQ(text, played) << GetParam();
}

INSTANTIATE_TEST_SUITE_P(Files, Scenario, testing::ValuesIn(files()), [](const auto& info) { return info.param; });

TEST(Scenarios, hold_at_least_150_cases_with_every_xid_of_the_catalogue) {
  size_t cases = 0;
  for (const std::string& name : files()) {
    const std::string text = "\n" + content(name);
    for (size_t at = 0; (at = text.find("\ncase ", at)) != std::string::npos; ++at) ++cases;
  }
  EXPECT_GE(cases, 150u);
  const std::string xids = content("xids");
  for (int code = 1; code <= 172; ++code) {
    EXPECT_NE(xids.find("\nat 1s: xid " + std::to_string(code) + " gpu=A\n"), std::string::npos) << code;
  }
}

}  // namespace
}  // namespace pitcrew::agent
