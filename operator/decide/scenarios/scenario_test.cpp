// Runs the scenario files of this folder: commands in, decide()'s plans out, word for word. The README of
// operator/decide says how to read and write one. With PITCREW_REWRITE=1 the files are written anew with what was seen.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "operator/decide/scenarios/stage.hpp"

namespace pitcrew::control {
namespace {

namespace fs = std::filesystem;

const fs::path kFolder = fs::path(PITCREW_SOURCE_DIR) / "operator/decide/scenarios";
const Instant kStart = *parse_rfc3339("2026-03-01T00:00:00Z");

std::vector<std::string> scenarios() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(kFolder)) {
    if (entry.path().extension() == ".txt" && entry.path().stem() != "CMakeLists") names.push_back(entry.path().stem());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// What the file should say, given its commands.
std::string play(const std::string& text) {
  Stage stage(kStart);
  std::ostringstream out;
  std::istringstream in(text);
  const auto show = [&](const std::vector<std::string>& lines) {
    for (const std::string& line : lines) out << "    " << line << "\n";
  };
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("    ")) continue;
    out << line << "\n";
    if (line.empty() || line[0] == '#') continue;
    std::string command = line;
    if (line.starts_with("at ")) {
      const size_t colon = line.find(": ");
      const auto when = parse_duration(line.substr(3, colon - 3));
      if (!when || colon == std::string::npos) {
        show({"NOT UNDERSTOOD: " + (when ? std::string("no command after the time") : when.error().message)});
        continue;
      }
      show(stage.advance(kStart + *when));
      command = line.substr(colon + 2);
    }
    if (const Status ran = stage.run(parse_command(command)); !ran) {
      show({"NOT UNDERSTOOD: " + ran.error().message});
      continue;
    }
    if (line.starts_with("at ")) show(stage.settle());
  }
  return out.str();
}

class Scenario : public testing::TestWithParam<std::string> {};

TEST_P(Scenario, is_decided_as_it_says) {
  const fs::path path = kFolder / (GetParam() + ".txt");
  std::ifstream file(path);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const std::string played = play(text);
  EXPECT_EQ(played.find("NOT UNDERSTOOD"), std::string::npos) << played;
  EXPECT_EQ(played.find("DOES NOT SETTLE"), std::string::npos) << played;
  EXPECT_EQ(played.find("WAKES WITHOUT END"), std::string::npos) << played;
  if (std::getenv("PITCREW_REWRITE") != nullptr) {
    std::ofstream(path) << played;
    return;
  }
  EXPECT_EQ(text, played) << path;
}

INSTANTIATE_TEST_SUITE_P(Files, Scenario, testing::ValuesIn(scenarios()), [](const auto& info) { return info.param; });

TEST(Scenarios, are_at_least_thirty) { EXPECT_GE(scenarios().size(), 30u); }

}  // namespace
}  // namespace pitcrew::control
