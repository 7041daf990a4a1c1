#include "lib/kube/config/cluster_config.hpp"

#include <fstream>
#include <map>

#include <gtest/gtest.h>

#include "lib/base/testing/temp_folder.hpp"

namespace pitcrew::kube {
namespace {

class KubeconfigTest : public ::testing::Test {
 protected:
  EnvironmentLookup environment() {
    return [this](const char* name) -> const char* {
      const auto found = variables.find(name);
      return found == variables.end() ? nullptr : found->second.c_str();
    };
  }
  TempFolder folder;
  std::map<std::string, std::string> variables;
};

constexpr char kTwoContexts[] = R"(
apiVersion: v1
kind: Config
current-context: blue
contexts:
- {name: blue, context: {cluster: one, user: alice, namespace: team-a}}
- {name: green, context: {cluster: two, user: bob}}
clusters:
- name: one
  cluster: {server: "https://10.0.0.1:6443", certificate-authority-data: Q0E=, tls-server-name: kubernetes}
- name: two
  cluster: {server: "https://[fd00::1]/k8s/", certificate-authority: pki/ca.crt}
users:
- {name: alice, user: {token: secret}}
- name: bob
  user:
    client-certificate: /abs/bob.crt
    client-key: bob.key
    as: root
    as-groups: [system:masters]
preferences: {}
)";

TEST_F(KubeconfigTest, the_current_context_or_the_one_asked_for_is_read) {
  const std::string path = folder.write("config", kTwoContexts);
  const auto blue = load_kubeconfig(path);
  ASSERT_TRUE(blue) << blue.error().message;
  EXPECT_EQ(blue->name, "blue");
  EXPECT_EQ(blue->server, "https://10.0.0.1:6443");
  EXPECT_EQ(blue->ca_pem, "CA");
  EXPECT_EQ(blue->tls_server_name, "kubernetes");
  EXPECT_EQ(blue->token, "secret");
  EXPECT_EQ(blue->ns, "team-a");
  const auto green = load_kubeconfig(path, "green");
  ASSERT_TRUE(green) << green.error().message;
  EXPECT_EQ(green->ca_file, folder.path() + "/pki/ca.crt");
  EXPECT_EQ(green->client_certificate_file, "/abs/bob.crt");
  EXPECT_EQ(green->client_key_file, folder.path() + "/bob.key");
  EXPECT_EQ(green->impersonate, "root");
  EXPECT_EQ(green->impersonate_groups, std::vector<std::string>{"system:masters"});
  EXPECT_EQ(green->ns, "default");
}

TEST_F(KubeconfigTest, of_several_files_the_first_that_says_something_counts) {
  const std::string one =
      folder.write("one", R"({"current-context": "c", "users": [{"name": "u", "user": {"token": "first"}}]})");
  const std::string two = folder.write("two", R"(
current-context: other
contexts: [{name: c, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {server: "https://a"}}]
users: [{name: u, user: {token: second}}]
)");
  const auto config = load_kubeconfig("/nowhere/config:" + one + "::" + two);
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->name, "c");
  EXPECT_EQ(config->token, "first");
}

TEST_F(KubeconfigTest, an_exec_plugin_is_taken_over_with_its_arguments) {
  const std::string path = folder.write("config", R"(
current-context: eks
contexts: [{name: eks, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {server: "https://x.eks.amazonaws.com", certificate-authority-data: Q0E=}}]
users:
- name: u
  user:
    exec:
      apiVersion: client.authentication.k8s.io/v1beta1
      command: bin/token
      args: [eks, get-token]
      env: [{name: AWS_PROFILE, value: p}]
      installHint: install it
      interactiveMode: IfAvailable
      provideClusterInfo: true
)");
  const auto config = load_kubeconfig(path);
  ASSERT_TRUE(config) << config.error().message;
  ASSERT_TRUE(config->exec);
  EXPECT_EQ(config->exec->command, folder.path() + "/bin/token");
  EXPECT_EQ(config->exec->args, (std::vector<std::string>{"eks", "get-token"}));
  EXPECT_EQ(config->exec->env.at(0).second, "p");
  EXPECT_TRUE(config->exec->provide_cluster_info);
}

// What is refused, and a word that the message must have, so that a person knows what to do.
TEST_F(KubeconfigTest, what_cannot_work_is_refused_with_a_remedy) {
  const auto message = [&](const std::string& cluster, const std::string& user, const std::string& context = "") {
    const std::string path = folder.write("config",
                                          "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
                                          "clusters: [{name: k, cluster: " +
                                              cluster +
                                              "}]\n"
                                              "users: [{name: u, user: " +
                                              user + "}]\n");
    const auto config = load_kubeconfig(path, context);
    return config ? std::string("accepted") : config.error().message;
  };
  const std::string good = R"({server: "https://a"})";
  EXPECT_EQ(message(good, "{}"), "accepted");
  const auto expect = [](const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  expect(message("{}", "{}"), "cluster.server: is missing");
  expect(message(R"({server: "a:1"})", "{}"), "https://");
  expect(message(R"({server: "https://a", proxy-url: "http://p"})", "{}"), "proxies are not supported");
  expect(message(R"({server: "https://a", certificate-authority-data: "!"})", "{}"), "no base64");
  expect(message(R"({server: "https://a", insecure-skip-tls-verify: true, certificate-authority: x})", "{}"),
         "contradict");
  expect(message(R"({server: "http://a"})", "{token: t}"), "not sent over http");
  expect(message(good, "{username: u, password: p}"), "token, a certificate or exec");
  expect(message(good, "{client-certificate: c}"), "belong together");
  expect(message(good, "{exec: {apiVersion: client.authentication.k8s.io/v1alpha1, command: aws}}"), "v1beta1");
  expect(message(good, "{exec: {apiVersion: client.authentication.k8s.io/v1, command: x, interactiveMode: Always}}"),
         "terminal");
  expect(message(good, "{}", "other"), "there are: c");
  expect(load_kubeconfig(folder.path() + "/none").error().message, "no such file");
  expect(load_kubeconfig(folder.write("bad", "a: [")).error().message, "kubeconfig");
}

TEST_F(KubeconfigTest, a_pod_finds_its_identity) {
  folder.write("token", "t\n");
  folder.write("ca.crt", "PEM");
  EXPECT_EQ(in_cluster(environment(), folder.path()).error().code, Code::kNotFound);
  variables = {{"KUBERNETES_SERVICE_HOST", "fd00::1"}, {"KUBERNETES_SERVICE_PORT", "443"}};
  auto config = in_cluster(environment(), folder.path());
  ASSERT_TRUE(config) << config.error().message;
  EXPECT_EQ(config->server, "https://[fd00::1]:443");
  EXPECT_EQ(config->token_file, folder.path() + "/token");
  EXPECT_EQ(config->ns, "default");
  folder.write("namespace", "pitcrew-system\n");
  EXPECT_EQ(in_cluster(environment(), folder.path())->ns, "pitcrew-system");
  EXPECT_EQ(in_cluster(environment(), folder.path() + "/other").error().code, Code::kNotFound);
}

TEST_F(KubeconfigTest, the_default_is_the_flag_then_KUBECONFIG_then_the_home_folder) {
  const std::string path = folder.write("config", kTwoContexts);
  EXPECT_EQ(default_cluster("", "", environment()).error().code, Code::kNotFound);
  variables["KUBECONFIG"] = path;
  EXPECT_EQ(default_cluster("", "green", environment())->name, "green");
  EXPECT_EQ(default_cluster(folder.path() + "/none", "", environment()).error().code, Code::kNotFound);
  variables = {{"HOME", folder.path()}};
  folder.make("/.kube");
  folder.write(".kube/config", kTwoContexts);
  EXPECT_EQ(default_cluster("", "", environment())->name, "blue");
}

TEST(ServerUrlTest, has_a_host_a_port_and_a_prefix) {
  const auto url = parse_server_url("https://rancher:8443/k8s/clusters/c-1/");
  ASSERT_TRUE(url);
  EXPECT_EQ(url->host, "rancher");
  EXPECT_EQ(url->port, 8443);
  EXPECT_EQ(url->prefix, "/k8s/clusters/c-1");
  EXPECT_EQ(parse_server_url("http://[::1]:8001")->host, "::1");
  EXPECT_EQ(parse_server_url("https://h")->port, 443);
  for (const char* wrong : {"", "h:1", "https://", "https://h:0", "https://h:99999", "https://::1", "https://u:p@h",
                            "https://[::1", "https://h/?a=b", "ftp://h"}) {
    EXPECT_FALSE(parse_server_url(wrong)) << wrong;
  }
}

}  // namespace
}  // namespace pitcrew::kube
