// `pitcrew logs` and `pitcrew stacks --last-hang` against an API in memory, behind HTTP, whose pods have said
// something.
#include <algorithm>
#include <sstream>

#include <gtest/gtest.h>

#include "cli/connect/testing/kubeconfig.hpp"
#include "cli/logs/logs.hpp"
#include "lib/base/testing/temp_folder.hpp"
#include "lib/kube/types/pod.hpp"
#include "lib/local/http/http_api.hpp"

namespace pitcrew::cli {
namespace {

constexpr char kLauncher0[] =
    R"({"time":"2026-03-01T02:14:05Z","level":"info","message":"a new epoch","program":"pitcrew-launcher","pod":"p-0"})";
constexpr char kLauncher1[] =
    R"({"time":"2026-03-01T02:14:06Z","level":"info","message":"connected","program":"pitcrew-launcher","pod":"p-1"})";

class ShowLogs : public ::testing::Test {
 protected:
  ShowLogs() : server_(loop_) {
    server_.register_type(api::TrainingJob::type(), {});
    local::HttpApiSettings settings;
    settings.intercept = [this](const net::HttpRequest& request) { return log_of(request); };
    api_ = *local::HttpApi::serve(loop_, server_, settings);
    flags_.kubeconfig = folder_.write("kubeconfig", kubeconfig_of("http://" + net::to_string(api_->address())));
    cluster_ = *Cluster::open(loop_, flags_);
    put_job();
  }

  void put(const ResourceType& type, Json object, const std::string& subresource = "") {
    kube::Request request;
    request.verb = subresource.empty() ? kube::Verb::kCreate : kube::Verb::kUpdate;
    request.type = type;
    request.key = {"team-a", subresource.empty() ? "" : object["metadata"].value("name", "")};
    request.subresource = subresource;
    request.body = kube::Payload::of(std::move(object));
    const kube::Response response = server_.handle(request);
    ASSERT_LT(response.status, 300) << response.body.text();
    stored_ = **response.body.json();
  }

  // Two slots of two ranks each.
  void put_job() {
    put(api::TrainingJob::type(), Json::parse(R"({
      "apiVersion": "pitcrew.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "llama", "namespace": "team-a"},
      "spec": {"replicas": 2, "template": {"spec": {"containers": [{"name": "train", "image": "x"}]}}}})"));
    uid_ = stored_["metadata"]["uid"];
    Json job = stored_;
    job["status"] = {{"phase", "Running"},
                     {"slots",
                      {{{"slot", 0}, {"serial", 0}, {"podUid", "u-0"}, {"firstRank", 0}},
                       {{"slot", 1}, {"serial", 1}, {"podUid", "u-1"}, {"firstRank", 2}}}}};
    put(api::TrainingJob::type(), job, "status");
  }

  std::string pod(int serial) const { return "llama-" + uid_.substr(0, 5) + "-" + std::to_string(serial); }

  // A pod of the job that has said so, with times as its kubelet writes them.
  void says(int serial, const std::vector<std::string>& lines) {
    std::string text;
    for (const std::string& line : lines) text += line + "\n";
    logs_[pod(serial)] = text;
    put(kube::Pod::type(), {{"apiVersion", "v1"},
                            {"kind", "Pod"},
                            {"metadata",
                             {{"name", pod(serial)},
                              {"namespace", "team-a"},
                              {"labels", {{api::label::kJob, "llama"}, {api::label::kJobUid, uid_}}}}},
                            {"spec", {{"nodeName", "n" + std::to_string(serial)}}}});
  }

  std::optional<net::HttpResponse> log_of(const net::HttpRequest& request) {
    const std::string path(request.path());
    if (!path.ends_with("/log")) return std::nullopt;
    const size_t from = path.find("/pods/") + 6;
    const std::string name = path.substr(from, path.size() - from - 4);
    asked_[name] = std::string(request.query());
    const auto found = logs_.find(name);
    if (found == logs_.end() || found->second == "gone\n") return net::text_response(500, "the kubelet is away");
    return net::text_response(200, found->second);
  }

  int show(const LogOptions& options) {
    out_.str("");
    err_.str("");
    return show_logs(*cluster_, "llama", options, {200, false}, out_, err_);
  }

  // Ranks and launchers of two pods, one after the other and across.
  void both_speak() {
    says(0, {std::string("2026-03-01T02:14:05.000000000Z ") + kLauncher0, "2026-03-01T02:14:07.100000000Z [rank 0] one",
             "2026-03-01T02:14:07.300000000Z [rank 1] three", "2026-03-01T02:14:09.000000000Z [rank 0] five"});
    says(1, {std::string("2026-03-01T02:14:06.000000000Z ") + kLauncher1, "2026-03-01T02:14:07.200000000Z [rank 2] two",
             "2026-03-01T02:14:08.000000000Z [rank 3] four"});
  }

  net::AsioLoop loop_;
  local::ApiServer server_;
  TempFolder folder_;
  std::map<std::string, std::string> logs_, asked_;  // by pod: what it has said, what it was asked with last
  std::unique_ptr<local::HttpApi> api_;
  ClusterFlags flags_;
  std::unique_ptr<Cluster> cluster_;
  Json stored_;
  std::string uid_;
  std::ostringstream out_, err_;
};

TEST_F(ShowLogs, ranks_of_all_pods_are_told_in_the_order_of_time_without_launchers) {
  both_speak();
  EXPECT_EQ(show({}), 0);
  EXPECT_EQ(out_.str(), "rank 0   one\nrank 2   two\nrank 1   three\nrank 3   four\nrank 0   five\n");
  EXPECT_EQ(err_.str(), "");
  EXPECT_NE(asked_[pod(0)].find("tailLines=200"), std::string::npos) << asked_[pod(0)];
  EXPECT_NE(asked_[pod(0)].find("container=train"), std::string::npos) << asked_[pod(0)];
}

TEST_F(ShowLogs, all_puts_launchers_words_among_those_of_the_ranks) {
  both_speak();
  EXPECT_EQ(show({.all = true}), 0);
  const auto rank = [&](int number, const std::string& text) {
    std::string mark = "rank " + std::to_string(number);
    mark.resize(pod(0).size(), ' ');
    return mark + " " + text + "\n";
  };
  EXPECT_EQ(out_.str(), pod(0) + " " + kLauncher0 + "\n" + pod(1) + " " + kLauncher1 + "\n" + rank(0, "one") +
                            rank(2, "two") + rank(1, "three") + rank(3, "four") + rank(0, "five"));
}

TEST_F(ShowLogs, launcher_tells_launchers_alone_with_their_times_where_asked) {
  both_speak();
  EXPECT_EQ(show({.launcher = true}), 0);
  EXPECT_EQ(out_.str(), pod(0) + " " + kLauncher0 + "\n" + pod(1) + " " + kLauncher1 + "\n");
  EXPECT_EQ(show({.launcher = true, .timestamps = true}), 0);
  EXPECT_TRUE(out_.str().starts_with("2026-03-01T02:14:05.000Z " + pod(0))) << out_.str();
}

TEST_F(ShowLogs, where_only_launchers_have_spoken_it_says_how_to_see_them) {
  says(0, {std::string("2026-03-01T02:14:05.000000000Z ") + kLauncher0});
  says(1, {std::string("2026-03-01T02:14:06.000000000Z ") + kLauncher1});
  EXPECT_EQ(show({}), 0);
  EXPECT_EQ(out_.str(), "");
  EXPECT_EQ(err_.str(),
            "logs llama: of the last 200 lines of each pod none is a rank's; --launcher shows what the launchers say, "
            "--tail reads more\n");
  EXPECT_EQ(show({.tail = -1}), 0);
  EXPECT_EQ(err_.str(), "logs llama: no rank has said anything yet; --launcher shows what the launchers say\n");
  EXPECT_EQ(asked_[pod(0)].find("tailLines"), std::string::npos) << asked_[pod(0)];
  EXPECT_EQ(show({.all = true}), 0);
  EXPECT_EQ(out_.str(), pod(0) + " " + kLauncher0 + "\n" + pod(1) + " " + kLauncher1 + "\n");
  EXPECT_EQ(err_.str(), "");
}

TEST_F(ShowLogs, where_nobody_has_spoken_it_says_so) {
  says(0, {});
  EXPECT_EQ(show({}), 0);
  EXPECT_EQ(out_.str(), "");
  EXPECT_EQ(err_.str(), "logs llama: its pods have said nothing yet\n");
  EXPECT_EQ(show({.previous = true}), 0);
  EXPECT_EQ(err_.str(), "logs llama: the containers before these said nothing\n");
}

TEST_F(ShowLogs, of_one_rank_only_its_pod_is_asked) {
  both_speak();
  EXPECT_EQ(show({.rank = 3, .previous = true}), 0);
  EXPECT_EQ(out_.str(), "four\n");
  EXPECT_EQ(asked_.count(pod(0)), 0u);
  EXPECT_NE(asked_[pod(1)].find("previous=true"), std::string::npos) << asked_[pod(1)];
}

TEST_F(ShowLogs, a_pod_that_can_not_be_asked_is_told_and_the_others_are_shown) {
  both_speak();
  logs_[pod(0)] = "gone\n";
  EXPECT_EQ(show({}), 0);
  EXPECT_EQ(out_.str(), "rank 2   two\nrank 3   four\n");
  EXPECT_TRUE(err_.str().starts_with("logs of " + pod(0) + ": ")) << err_.str();
  logs_[pod(1)] = "gone\n";
  EXPECT_NE(show({}), 0);
}

TEST_F(ShowLogs, stacks_of_the_last_hang_are_read_from_what_launchers_wrote) {
  says(0, {"==== pitcrew stacks begin: no progress for 9 s ====", "old",
           "==== pitcrew stacks end ====", "==== pitcrew stacks begin: no progress for 11 s ====", "rank 0, pid 4",
           "  all_reduce", "==== pitcrew stacks end ====", "==== pitcrew stacks begin: request cli-7 ====", "asked for",
           "==== pitcrew stacks end ===="});
  says(1, {"[rank 2] step 7"});
  EXPECT_EQ(show_last_hang(*cluster_, "llama", {200, false}, out_, err_), 0);
  EXPECT_EQ(out_.str(), "== " + pod(0) + " ==\nrank 0, pid 4\n  all_reduce\n");
}

TEST_F(ShowLogs, where_no_log_has_stacks_of_a_hang_the_timeline_is_named) {
  both_speak();
  EXPECT_EQ(show_last_hang(*cluster_, "llama", {200, false}, out_, err_), 1);
  EXPECT_NE(err_.str().find("timeline llama"), std::string::npos) << err_.str();
}

}  // namespace
}  // namespace pitcrew::cli
