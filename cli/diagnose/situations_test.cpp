// Every file of situations/ is a cluster with something broken in it: the test puts it into a real API (in memory,
// behind HTTP), runs `pitcrew diagnose` and compares the likeliest cause. Times are written as "-5m": before now.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>

#include <gtest/gtest.h>

#include "cli/connect/resource_types.hpp"
#include "cli/connect/testing/kubeconfig.hpp"
#include "cli/diagnose/report.hpp"
#include "lib/base/testing/temp_folder.hpp"
#include "lib/base/yaml.hpp"
#include "lib/kube/types/event.hpp"
#include "lib/kube/types/lease.hpp"
#include "lib/kube/types/node.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/kube/types/resource_quota.hpp"
#include "lib/local/http/http_api.hpp"

namespace pitcrew::cli {
namespace {

namespace fs = std::filesystem;

constexpr char kNamespace[] = "team-a";
constexpr char kJob[] = "llama";

std::string contents(const fs::path& file) {
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

std::vector<std::string> situations() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(std::string(PITCREW_SOURCE_DIR) + "/cli/diagnose/situations"))
    names.push_back(entry.path().stem().string());
  std::sort(names.begin(), names.end());
  return names;
}

Json base_job() {
  return {{"apiVersion", "pitcrew.dev/v1alpha1"},
          {"kind", "TrainingJob"},
          {"metadata", {{"name", kJob}, {"namespace", kNamespace}}},
          {"spec",
           {{"replicas", 2},
            {"spares", 1},
            {"template",
             {{"spec",
               {{"containers", {{{"name", "train"}, {"image", "ghcr.io/team/vlm:v9"}, {"command", {"train"}}}}},
                {"volumes", {{{"name", "shared"}, {"persistentVolumeClaim", {{"claimName", "shared"}}}}}}}}}},
            {"checkpoint", {{"path", "/checkpoints/a"}, {"every", {{"steps", 100}}}}}}}};
}

// The API server's clock is late, so that what a test makes now has been there for ten minutes.
class LateLoop final : public Loop {
 public:
  explicit LateLoop(Loop& inner) : inner_(inner) {}
  Instant now() const override { return inner_.now() - minutes(10); }
  void post(Task task) override { inner_.post(std::move(task)); }
  TimerPtr after(Duration delay, Task task) override { return inner_.after(delay, std::move(task)); }

 private:
  Loop& inner_;
};

class Situation : public ::testing::TestWithParam<std::string> {
 protected:
  Situation() : late_(loop_), server_(late_) {
    server_.register_type(api::TrainingJob::type(), {});
    server_.register_type(api::NodeHealth::type(), {});
    server_.register_type(api::CordonBudget::type(), {});
    server_.register_type(types::claims(), {});
  }

  void serve() {
    local::HttpApiSettings settings;
    settings.intercept = [this](const net::HttpRequest& request) -> std::optional<net::HttpResponse> {
      const auto found = texts_.find(std::string(request.path()));
      if (found == texts_.end()) return std::nullopt;
      return net::text_response(200, found->second);
    };
    auto served = local::HttpApi::serve(loop_, server_, settings);
    ASSERT_TRUE(served.ok()) << served.error().message;
    api_ = *std::move(served);
    flags_.kubeconfig = folder_.write("kubeconfig", kubeconfig_of("http://" + net::to_string(api_->address())));
  }

  // "-5m" → that time, anywhere in the tree.
  void resolve(Json& json) const {
    if (json.is_structured()) {
      for (Json& member : json) resolve(member);
    } else if (json.is_string()) {
      const auto& text = json.get_ref<const std::string&>();
      if (text.size() < 3 || text[0] != '-' || text[1] < '0' || text[1] > '9') return;
      if (const auto before = parse_duration(text.substr(1))) json = to_rfc3339(loop_.now() - *before, 6);
    }
  }

  Json ask(kube::Verb verb, const ResourceType& type, Json object, const std::string& subresource = "") {
    kube::Request request;
    request.verb = verb;
    request.type = type;
    const Json& meta = object["metadata"];
    request.key = {type.namespaced ? meta.value("namespace", kNamespace) : "",
                   verb == kube::Verb::kCreate ? "" : meta.value("name", "")};
    request.subresource = subresource;
    if (verb != kube::Verb::kDelete) request.body = kube::Payload::of(std::move(object));
    const kube::Response response = server_.handle(request);
    EXPECT_LT(response.status, 300) << response.body.text();
    return **response.body.json();
  }

  void put(const ResourceType& type, Json object) {
    object["apiVersion"] = type.api_version();
    object["kind"] = type.kind;
    if (type.namespaced && !object["metadata"].contains("namespace")) object["metadata"]["namespace"] = kNamespace;
    const Json status = object.value("status", Json::object());
    Json stored = ask(kube::Verb::kCreate, type, object);
    if (status.empty()) return;
    stored["status"] = status;
    ask(kube::Verb::kUpdate, type, stored, "status");
  }

  void put_job(const Json& wanted) {
    Json job = base_job();
    job.merge_patch(wanted);
    Json status = job.value("status", Json::object());
    status.emplace("observedGeneration", 1);
    job["status"] = status;
    Json stored = ask(kube::Verb::kCreate, api::TrainingJob::type(), job);
    uid_ = stored["metadata"]["uid"];
    stored["status"] = status;
    ask(kube::Verb::kUpdate, api::TrainingJob::type(), stored, "status");
  }

  void put_other_job(const Json& wanted) {
    Json job = base_job();
    job["metadata"]["name"] = wanted["name"];
    Json stored = ask(kube::Verb::kCreate, api::TrainingJob::type(), job);
    stored["status"] = wanted["status"];
    ask(kube::Verb::kUpdate, api::TrainingJob::type(), stored, "status");
  }

  std::string pod_name(const Json& serial) const {
    return std::string(kJob) + "-" + uid_.substr(0, 5) + "-" + std::to_string(serial.get<int>());
  }

  void put_pod(Json wanted) {
    const std::string name = pod_name(wanted["serial"]);
    const std::string at = std::string("/api/v1/namespaces/") + kNamespace + "/pods/" + name;
    Json pod = {{"metadata",
                 {{"name", name},
                  {"namespace", kNamespace},
                  {"labels", {{api::label::kJob, kJob}, {api::label::kJobUid, uid_}}}}},
                {"spec",
                 {{"nodeName", "n" + std::to_string(wanted["serial"].get<int>() % 2)},
                  {"containers", {{{"name", "train"}, {"image", "x"}}}},
                  {"volumes", base_job()["spec"]["template"]["spec"]["volumes"]}}}};
    if (wanted.contains("metrics")) {
      pod["spec"]["containers"][0]["ports"] = {{{"name", "pitcrew-metrics"}, {"containerPort", 9400}}};
      texts_[at + "%3A9400/proxy/metrics"] = wanted["metrics"];
      texts_[at + ":9400/proxy/metrics"] = wanted["metrics"];
    }
    if (wanted.contains("log")) texts_[at + "/log"] = wanted["log"];
    Json patch = Json::object();
    for (const char* key : {"spec", "status"}) {
      if (wanted.contains(key)) patch[key] = wanted[key];
    }
    pod.merge_patch(patch);
    put(kube::Pod::type(), pod);
  }

  // A node's agent as the chart makes it.
  void put_agent(const Json& wanted) {
    const std::string name = "pitcrew-agent-" + wanted["node"].get<std::string>();
    const std::string at = "/api/v1/namespaces/pitcrew-system/pods/" + name;
    std::string page = wanted["metrics"];
    for (size_t found = 0; (found = page.find("UID", found)) != std::string::npos;)
      page.replace(found, 3, uid_.substr(0, 5));
    for (const char* colon : {"%3A", ":"}) texts_[at + colon + "9410/proxy/metrics"] = page;
    put(kube::Pod::type(),
        {{"metadata",
          {{"name", name},
           {"namespace", "pitcrew-system"},
           {"labels", {{"app.kubernetes.io/name", "pitcrew"}, {"app.kubernetes.io/component", "agent"}}}}},
         {"spec",
          {{"nodeName", wanted["node"]},
           {"containers",
            {{{"name", "agent"}, {"image", "x"}, {"ports", {{{"name", "metrics"}, {"containerPort", 9410}}}}}}}}},
         {"status", {{"phase", "Running"}}}});
  }

  void put_node(const Json& wanted) {
    const std::string ready = wanted.value("ready", "True");
    put(kube::Node::type(),
        {{"metadata", {{"name", wanted["name"]}}},
         {"spec",
          {{"unschedulable", wanted.value("unschedulable", false)}, {"taints", wanted.value("taints", Json::array())}}},
         {"status",
          {{"allocatable", wanted.value("allocatable", Json::object())},
           {"conditions",
            {{{"type", "Ready"},
              {"status", ready},
              {"reason", ready == "True" ? "KubeletReady" : "NodeStatusUnknown"},
              {"message", wanted.value("message", "")},
              {"lastTransitionTime", to_rfc3339(loop_.now() - minutes(5))}}}}}}});
  }

  void put_event(const Json& wanted, int number) {
    Json regarding = {{"kind", "TrainingJob"}, {"name", kJob}, {"namespace", kNamespace}};
    if (wanted.contains("pod")) regarding = {{"kind", "Pod"}, {"name", pod_name(wanted["pod"])}};
    if (wanted.contains("claim")) regarding = {{"kind", "PersistentVolumeClaim"}, {"name", wanted["claim"]}};
    put(types::events(), {{"metadata", {{"name", "event-" + std::to_string(number)}}},
                          {"regarding", regarding},
                          {"type", wanted["type"]},
                          {"reason", wanted["reason"]},
                          {"note", wanted["note"]},
                          {"deprecatedLastTimestamp", wanted["time"]}});
  }

  void put_health(const Json& wanted) {
    put(api::NodeHealth::type(),
        {{"metadata", {{"name", "node-u-" + wanted["node"].get<std::string>()}}},
         {"spec", {{"nodeName", wanted["node"]}, {"nodeUID", "u-" + wanted["node"].get<std::string>()}}},
         {"status",
          {{"healthy", false},
           {"needs", wanted["action"]},
           {"message", wanted["message"]},
           {"verdicts",
            {{{"rule", wanted["rule"]},
              {"device", wanted["device"]},
              {"severity", wanted["severity"]},
              {"action", wanted["action"]},
              {"certain", wanted.value("certain", true)},
              {"message", wanted["message"]},
              {"since", to_rfc3339(loop_.now() - minutes(1))},
              {"last", to_rfc3339(loop_.now())},
              {"count", 1}}}}}}});
  }

  void build(Json world) {
    resolve(world);
    put_job(world.value("job", Json::object()));
    const Json lease = world.contains("lease") ? world["lease"] : Json{{"holder", "pitcrew-operator-0"}};
    if (!lease.is_null()) {
      put(kube::Lease::type(), {{"metadata", {{"name", "pitcrew-operator"}, {"namespace", "pitcrew-system"}}},
                                {"spec",
                                 {{"holderIdentity", lease["holder"]},
                                  {"leaseDurationSeconds", 10},
                                  {"renewTime", lease.value("renewed", to_rfc3339(loop_.now(), 6))}}}});
    }
    for (const Json& node : world.value("nodes", Json::array({{{"name", "n0"}}, {{"name", "n1"}}}))) put_node(node);
    for (const Json& claim : world.value("claims", Json::array({{{"name", "shared"}}}))) {
      put(types::claims(), {{"metadata", {{"name", claim["name"]}}},
                            {"spec", {{"storageClassName", claim.value("storageClassName", "fsx")}}},
                            {"status", {{"phase", claim.value("phase", "Bound")}}}});
    }
    for (const Json& other : world.value("others", Json::array())) put_other_job(other);
    for (const Json& pod : world.value("pods", Json::array())) put_pod(pod);
    for (const Json& agent : world.value("agents", Json::array())) put_agent(agent);
    if (world.contains("budget"))
      put(api::CordonBudget::type(), {{"metadata", {{"name", "default"}}}, {"status", {{"cordons", world["budget"]}}}});
    int number = 0;
    for (const Json& event : world.value("events", Json::array())) put_event(event, number++);
    for (const Json& health : world.value("health", Json::array())) put_health(health);
    for (const Json& quota : world.value("quotas", Json::array())) {
      put(kube::ResourceQuota::type(), {{"metadata", {{"name", quota["name"]}}},
                                        {"spec", {{"hard", quota["hard"]}}},
                                        {"status", {{"hard", quota["hard"]}, {"used", quota["used"]}}}});
    }
    if (world.value("delete", false)) {
      ask(kube::Verb::kDelete, api::TrainingJob::type(), {{"metadata", {{"name", kJob}, {"namespace", kNamespace}}}});
    }
  }

  net::AsioLoop loop_;
  LateLoop late_;
  local::ApiServer server_;
  TempFolder folder_;
  std::map<std::string, std::string> texts_;  // what pods answer: logs and numbers
  std::unique_ptr<local::HttpApi> api_;
  ClusterFlags flags_;
  std::string uid_;
};

TEST_P(Situation, is_told_by_its_cause) {
  const auto documents =
      parse_yaml(contents(std::string(PITCREW_SOURCE_DIR) + "/cli/diagnose/situations/" + GetParam() + ".yaml"));
  ASSERT_TRUE(documents.ok()) << documents.error().message;
  const Json& world = documents->front().json;
  ASSERT_NO_FATAL_FAILURE(serve());
  build(world);

  auto cluster = Cluster::open(loop_, flags_);
  ASSERT_TRUE(cluster.ok()) << cluster.error().message;
  std::ostringstream out, err, text;
  const int code = diagnose(**cluster, kJob, Format::kJson, {}, out, err);
  diagnose(**cluster, kJob, Format::kText, {100, false}, text, err);
  ASSERT_EQ(err.str(), "");
  const auto document = parse_json(out.str());
  ASSERT_TRUE(document.ok()) << out.str();
  const Json& findings = (*document)["findings"];
  const std::string expected = world["expect"];
  EXPECT_EQ(code, expected.empty() ? 0 : 1) << text.str();
  EXPECT_EQ(findings.empty() ? "" : findings[0]["id"].get<std::string>(), expected) << text.str();
  EXPECT_TRUE((*document)["notSeen"].empty()) << text.str();
  if (world.contains("says")) {
    EXPECT_NE(text.str().find(world["says"].get<std::string>()), std::string::npos) << text.str();
  }
  for (const Json& finding : findings) {
    EXPECT_FALSE(finding["title"].get<std::string>().empty());
    EXPECT_FALSE(finding["command"].get<std::string>().empty()) << finding["id"];
    EXPECT_FALSE(finding["remedy"].get<std::string>().empty()) << finding["id"];
  }
  std::istringstream lines(text.str());
  for (std::string line; std::getline(lines, line);) EXPECT_LE(columns(line), 400u) << line;
}

INSTANTIATE_TEST_SUITE_P(Diagnose, Situation, ::testing::ValuesIn(situations()),
                         [](const auto& info) { return info.param; });

TEST(Diagnose, knows_at_least_twenty_broken_situations) { EXPECT_GE(situations().size(), 22u); }

}  // namespace
}  // namespace pitcrew::cli
