#include "lib/kube/config/credentials.hpp"

#include <gtest/gtest.h>

#include "lib/base/file.hpp"
#include "lib/base/testing/temp_folder.hpp"
#include "lib/kube/config/command.hpp"

namespace pitcrew::kube {
namespace {

constexpr Duration kCap = seconds(60);

class ExecPluginTest : public ::testing::Test {
 protected:
  // A plugin that counts its runs, then does what `script` says.
  void plugin(const std::string& script, const std::string& hint = "") {
    config.name = "exec";
    config.server = "https://10.0.0.1:6443";
    config.ca_pem = "unused";
    config.exec = ExecPlugin{.api_version = "client.authentication.k8s.io/v1",
                             .command = folder.write_program("plugin", "#!/bin/sh\necho run >> \"$RUNS\"\n" + script),
                             .args = {"get-token"},
                             .env = {{"RUNS", folder.path() + "/runs"}},
                             .install_hint = hint,
                             .provide_cluster_info = true};
    credentials = std::make_unique<Credentials>(loop, config, Logger());
  }
  static std::string credential(const std::string& token, const std::string& expires) {
    return "cat <<'END'\n{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"kind\": \"ExecCredential\", "
           "\"status\": {\"token\": \"" +
           token + "\"" + (expires.empty() ? "" : ", \"expirationTimestamp\": \"" + expires + "\"") + "}}\nEND\n";
  }
  Result<std::string> token() {
    std::optional<Result<std::string>> answer;
    credentials->token([&](Result<std::string> result) { answer.emplace(std::move(result)); });
    if (!loop.run_until([&] { return answer.has_value(); }, kCap)) return Error(Code::kInternal, "never answered");
    return *std::move(answer);
  }
  size_t runs() const {
    const auto text = read_file(posix_file_system(), folder.path() + "/runs", 10'000);
    return text ? text->size() / 4 : 0;
  }

  TempFolder folder;
  net::AsioLoop loop;
  ClusterConfig config;
  std::unique_ptr<Credentials> credentials;
};

TEST_F(ExecPluginTest, a_credential_is_kept_until_it_expires) {
  plugin(credential("t1", "2999-01-01T00:00:00Z"));
  EXPECT_EQ(*token(), "t1");
  EXPECT_EQ(*token(), "t1");
  EXPECT_EQ(runs(), 1u);
  plugin(credential("t2", "2001-01-01T00:00:00Z"));
  EXPECT_EQ(*token(), "t2");
  EXPECT_EQ(*token(), "t2");
  EXPECT_EQ(runs(), 3u);
}

TEST_F(ExecPluginTest, one_run_serves_all_who_wait_and_a_refused_credential_is_replaced) {
  plugin(credential("t", ""));
  int answered = 0;
  for (int i = 0; i < 5; ++i) credentials->token([&](const Result<std::string>& result) { answered += result.ok(); });
  ASSERT_TRUE(loop.run_until([&] { return answered == 5; }, kCap));
  EXPECT_EQ(runs(), 1u);
  EXPECT_TRUE(credentials->rejected("older"));  // somebody else has replaced it already
  EXPECT_EQ(*token(), "t");
  EXPECT_EQ(runs(), 1u);
  EXPECT_TRUE(credentials->rejected("t"));
  EXPECT_EQ(*token(), "t");
  EXPECT_EQ(runs(), 2u);
}

TEST_F(ExecPluginTest, it_is_told_about_the_cluster_and_may_answer_in_yaml) {
  plugin(
      "printf '%s' \"$KUBERNETES_EXEC_INFO $1\" > \"$RUNS.info\"\n"
      "printf 'apiVersion: client.authentication.k8s.io/v1\\nkind: ExecCredential\\nstatus: {token: y}\\n'\n");
  EXPECT_EQ(*token(), "y");
  const auto info = read_file(posix_file_system(), folder.path() + "/runs.info", 10'000);
  ASSERT_TRUE(info);
  EXPECT_NE(info->find("\"server\":\"https://10.0.0.1:6443\""), std::string::npos) << *info;
  EXPECT_NE(info->find("certificate-authority-data"), std::string::npos);
  EXPECT_NE(info->find(" get-token"), std::string::npos);
}

TEST_F(ExecPluginTest, what_goes_wrong_is_said_with_the_plugins_own_words) {
  const auto message = [&](const std::string& script) {
    plugin(script, "install the AWS CLI");
    const auto result = token();
    return result ? std::string("accepted") : result.error().message;
  };
  const auto expect = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  expect(message("echo no session >&2; exit 3\n"), "code 3: no session; install the AWS CLI");
  expect(message("kill -9 $$\n"), "code 137");
  expect(message("echo hello\n"), "no ExecCredential");
  expect(message("echo '{\"apiVersion\": \"client.authentication.k8s.io/v1beta1\"}'\n"), "asked was");
  expect(message("echo '{\"apiVersion\": \"client.authentication.k8s.io/v1\", \"status\": {}}'\n"), "neither a token");
  config.exec->command = folder.path() + "/absent";
  credentials = std::make_unique<Credentials>(loop, config, Logger());
  expect(token().error().message, "No such file");
}

TEST_F(ExecPluginTest, one_that_hangs_or_says_too_much_is_killed) {
  const std::string program =
      folder.write_program("sleeper", "#!/bin/sh\nif [ \"$1\" = talk ]; then cat /dev/zero; fi\nsleep 1000\n");
  std::vector<Code> codes;
  const auto ended = [&](const Result<CommandResult>& result) { codes.push_back(result.error().code); };
  const auto hangs = Command::run(loop, {.argv = {program}, .timeout = milliseconds(50)}, ended);
  ASSERT_TRUE(loop.run_until([&] { return codes.size() == 1; }, kCap));
  const auto talks = Command::run(loop, {.argv = {program, "talk"}, .max_output = 1000}, ended);
  ASSERT_TRUE(loop.run_until([&] { return codes.size() == 2; }, kCap));
  EXPECT_EQ(codes, (std::vector<Code>{Code::kDeadlineExceeded, Code::kResourceExhausted}));
}

TEST_F(ExecPluginTest, one_that_nobody_waits_for_any_more_is_dropped) {
  plugin("sleep 1000\n");
  bool told = false;
  credentials->token([&](const Result<std::string>&) { told = true; });
  // Nothing on the loop tells that the plugin has begun.
  Loop::TimerPtr ticker;
  std::function<void()> tick = [&] { ticker = loop.after(milliseconds(5), tick); };
  tick();
  ASSERT_TRUE(loop.run_until([&] { return runs() == 1; }, kCap));
  credentials.reset();
  loop.run_until([] { return false; }, milliseconds(20));
  EXPECT_FALSE(told);
}

TEST(WatchedFileTest, the_last_content_is_kept_where_the_file_goes_away) {
  TempFolder folder;
  WatchedFile file(folder.path() + "/token");
  const Instant start{hours(1)};
  EXPECT_FALSE(file.content(start, seconds(10)));
  folder.write("token", "a");
  EXPECT_EQ(*file.content(start, seconds(10)), "a");
  folder.write("token", "b");
  EXPECT_EQ(*file.content(start + seconds(9), seconds(10)), "a");
  EXPECT_EQ(*file.content(start + seconds(10), seconds(10)), "b");
  folder.write("token", "");
  EXPECT_EQ(*file.content(start + seconds(30), seconds(10)), "b");
  folder.write("token", "c");
  EXPECT_EQ(*file.content(start + seconds(30), seconds(10)), "c");
}

}  // namespace
}  // namespace pitcrew::kube
