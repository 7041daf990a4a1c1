#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "lib/base/loop.hpp"
#include "lib/kube/client/client.hpp"

namespace pitcrew::contract {

// One API server and a way to it, for one test.
class Cluster {
 public:
  virtual ~Cluster() = default;
  virtual Loop& loop() = 0;
  virtual kube::Transport& transport() = 0;
  // A namespace that nobody else uses.
  virtual std::string ns() = 0;
  // Runs the loop until the condition holds; false where it does not within a generous time.
  virtual bool run_until(const std::function<bool()>& condition) = 0;

  virtual bool collects_garbage() const = 0;
};

struct ClusterKind {
  std::string name;
  std::function<std::unique_ptr<Cluster>()> make;
  std::string missing = {};  // why it can't be had on this machine: its tests are skipped
  friend std::ostream& operator<<(std::ostream& out, const ClusterKind& kind) { return out << kind.name; }
};

// The kinds, each in a file of its own.
std::unique_ptr<Cluster> make_memory_cluster();
std::vector<ClusterKind> http_clusters();
std::vector<ClusterKind> cpprest_clusters();
std::vector<ClusterKind> real_clusters();

// All of them.
const std::vector<ClusterKind>& clusters();

// A test on one kind of cluster, with a client of it whose calls are waited for.
class KubeContract : public testing::TestWithParam<ClusterKind> {
 protected:
  KubeContract()
      : cluster(GetParam().missing.empty() ? GetParam().make() : make_memory_cluster()),
        client(cluster->loop(), cluster->transport(), 1),
        ns(cluster->ns()) {}
  void SetUp() override {
    if (!GetParam().missing.empty()) GTEST_SKIP() << GetParam().missing;
  }

  // Calls `start(callback)` and runs the loop until the callback has its answer.
  template <typename T>
  Result<T> wait(const std::function<void(kube::Callback<T>)>& start) {
    auto answer = std::make_shared<std::optional<Result<T>>>();
    start([answer](Result<T> result) { answer->emplace(std::move(result)); });
    if (!cluster->run_until([&] { return answer->has_value(); }))
      return Error(Code::kDeadlineExceeded, "no answer in this test");
    return std::move(**answer);
  }
  template <typename T>
  Result<kube::Ptr<T>> get(const std::string& name) {
    return wait<kube::Ptr<T>>([&](auto done) { client.get<T>({ns, name}, done); });
  }
  Result<kube::Payload> get_raw(const ResourceType& type, const std::string& name) {
    return wait<kube::Payload>([&](auto done) { client.get_raw(type, {ns, name}, done); });
  }
  Result<kube::Payload> create(const ResourceType& type, Json object) {
    return wait<kube::Payload>([&](auto done) { client.create_raw(type, std::move(object), done); });
  }
  Result<kube::Payload> update(const ResourceType& type, Json object, const std::string& subresource = "") {
    return wait<kube::Payload>([&](auto done) { client.update_raw(type, std::move(object), subresource, done); });
  }
  Result<kube::Payload> patch(const ResourceType& type, const std::string& name, kube::Patch patch) {
    return wait<kube::Payload>([&](auto done) { client.patch_raw(type, {ns, name}, std::move(patch), done); });
  }
  Status remove(const ResourceType& type, const std::string& name, kube::RemoveOptions options = {}) {
    auto answer = std::make_shared<std::optional<Status>>();
    client.remove_raw(type, {ns, name}, options, [answer](Status status) { answer->emplace(std::move(status)); });
    if (!cluster->run_until([&] { return answer->has_value(); }))
      return Error(Code::kDeadlineExceeded, "no answer in this test");
    return **answer;
  }

  Json config_map(const std::string& name, Json data = Json::object(), Json labels = Json::object()) {
    return {{"metadata", {{"name", name}, {"namespace", ns}, {"labels", std::move(labels)}}},
            {"data", std::move(data)}};
  }
  Json pod(const std::string& name) {
    return {{"metadata", {{"name", name}, {"namespace", ns}}},
            {"spec", {{"containers", Json::array({{{"name", "main"}, {"image", "none"}}})}}}};
  }
  static const ResourceType& config_maps() {
    static const ResourceType kType{"", "v1", "ConfigMap", "configmaps", true};
    return kType;
  }

  std::unique_ptr<Cluster> cluster;
  kube::Client client;
  std::string ns;
};

}  // namespace pitcrew::contract
