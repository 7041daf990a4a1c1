#include "cli/complete/complete.hpp"

#include <CLI/CLI.hpp>
#include <gtest/gtest.h>

namespace pitcrew::cli {
namespace {

using Words = std::vector<std::string>;

Words asked(const Words& words) {
  CLI::App app{"x"};
  std::string job, output;
  CLI::App* status = app.add_subcommand("status", "");
  status->add_option("job", job)->type_name("JOB");
  status->add_option("-o,--output", output)->type_name("text|wide|json|yaml");
  CLI::App* check = app.add_subcommand("check", "");
  check->add_subcommand("node", "")->add_option("node", job)->type_name("NODE");
  app.add_subcommand("run-node", "")->group("");
  return complete(app, words, [](const std::string& kind) {
    return kind == "JOB" ? Words{"llama-8b", "llama-70b"} : Words{"n0"};
  });
}

TEST(Complete, commands_flags_words_and_names) {
  EXPECT_EQ(asked({""}), (Words{"check", "status"}));
  EXPECT_EQ(asked({"st"}), (Words{"status"}));
  EXPECT_EQ(asked({"status", ""}), (Words{"llama-70b", "llama-8b"}));
  EXPECT_EQ(asked({"status", "llama-8"}), (Words{"llama-8b"}));
  EXPECT_EQ(asked({"status", "llama-8b", ""}), (Words{}));
  EXPECT_EQ(asked({"status", "-o", ""}), (Words{"json", "text", "wide", "yaml"}));
  EXPECT_EQ(asked({"status", "-o", "json", ""}), (Words{"llama-70b", "llama-8b"}));
  EXPECT_EQ(asked({"status", "--out"}), (Words{"--output"}));
  EXPECT_EQ(asked({"check", "node", ""}), (Words{"n0"}));
}

TEST(Complete, there_are_scripts_for_bash_and_zsh) {
  EXPECT_NE(completion_script("bash").find("complete -o default -F _pitcrew pitcrew"), std::string::npos);
  EXPECT_NE(completion_script("zsh").find("#compdef pitcrew"), std::string::npos);
  EXPECT_EQ(completion_script("tcsh"), "");
}

}  // namespace
}  // namespace pitcrew::cli
