#include "lib/local/node/pod_files.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "lib/base/yaml.hpp"
#include "lib/local/node/pod_text.hpp"

namespace pitcrew::local {
namespace {

namespace fs = std::filesystem;

std::string read(const fs::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct Folder {
  Folder() {
    std::string name = (fs::temp_directory_path() / "pod-files-XXXXXX").string();
    PITCREW_INVARIANT(::mkdtemp(name.data()) != nullptr, "a folder can be made");
    path = name;
  }
  ~Folder() { fs::remove_all(path); }
  std::string path;
};

TEST(PodText, maps_paths_where_one_begins) {
  const std::map<std::string, std::string> paths{{"/data", "/dir/d"}, {"/data/fast", "/dir/f"}};
  EXPECT_EQ(map_paths("/data", paths), "/dir/d");
  EXPECT_EQ(map_paths("--in=/data/x,/data/fast/y", paths), "--in=/dir/d/x,/dir/f/y");
  EXPECT_EQ(map_paths("cat \"/data/x\" > '/data/y'", paths), "cat \"/dir/d/x\" > '/dir/d/y'");
  EXPECT_EQ(map_paths("/database /my/data", paths), "/database /my/data") << "neither is below a mount";
}

TEST(PodText, expands_variables_as_kubernetes_does) {
  const std::map<std::string, std::string> variables{{"A", "1"}};
  EXPECT_EQ(expand_variables("$(A) $(B) $$(A) $A", variables), "1 $(B) $(A) $A");
}

constexpr char kPod[] = R"yaml(
metadata:
  name: p
  namespace: a
  uid: u1
  annotations: {note: first}
spec:
  initContainers:
    - {name: pitcrew-launcher, image: l, volumeMounts: [{name: bin, mountPath: /pitcrew/bin}]}
  containers:
    - name: c
      image: i
      command: [/pitcrew/bin/pitcrew-launcher, run, --, train, --out, /ckpt/run1]
      args: ["$(NAME)"]
      env:
        - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        - {name: CACHE, value: /memory/cache}
      volumeMounts:
        - {name: bin, mountPath: /pitcrew/bin}
        - {name: ckpt, mountPath: /ckpt}
        - {name: mem, mountPath: /memory}
        - {name: meta, mountPath: /meta}
        - {name: token, mountPath: /token}
  volumes:
    - {name: bin, emptyDir: {}}
    - {name: ckpt, persistentVolumeClaim: {claimName: shared}}
    - {name: mem, emptyDir: {medium: Memory}}
    - {name: meta, downwardAPI: {items: [{path: note, fieldRef: {fieldPath: "metadata.annotations['note']"}}]}}
    - {name: token, projected: {sources: [{serviceAccountToken: {audience: pitcrew, path: token, expirationSeconds: 600}}]}}
)yaml";

class PodFilesTest : public testing::Test {
 protected:
  PodFilesTest() {
    std::ofstream(folder_.path + "/launcher") << "binary";
    settings_.pods_folder = folder_.path + "/pods";
    settings_.volumes_folder = folder_.path + "/volumes";
    settings_.memory_folder = folder_.path + "/memory";
    settings_.logs_folder = folder_.path + "/logs";
    settings_.launcher_binary = folder_.path + "/launcher";
    settings_.working_folder = "/";
    pod_ = (*parse_yaml(kPod))[0].json;
    files_.emplace(settings_, pod_, PodFacts{"127.1.1.1", "127.1.1.254", "n1"});
    const Status made =
        files_->make([](const std::string& audience, Duration) { return "token for " + audience; }, true);
    EXPECT_TRUE(made.ok());
  }
  Folder folder_;
  PodFilesSettings settings_;
  Json pod_;
  std::optional<PodFiles> files_;
};

TEST_F(PodFilesTest, volumes_become_folders_and_paths_below_mounts_follow_them) {
  const auto spec = files_->container(pod_["spec"]["containers"][0], "u1/c/0");
  ASSERT_TRUE(spec.ok()) << spec.error().message;
  EXPECT_EQ(spec->argv[0], folder_.path + "/pods/u1/bin/pitcrew-launcher");
  EXPECT_EQ(spec->argv[5], folder_.path + "/volumes/shared/run1");
  EXPECT_EQ(spec->argv[6], "p");
  EXPECT_EQ(spec->env.at("CACHE"), folder_.path + "/memory/u1/mem/cache");
  EXPECT_EQ(parse_json(spec->env.at("PITCREW_PATH_MAP"))->at("/ckpt"), folder_.path + "/volumes/shared");
  ASSERT_TRUE(files_->install_launcher().ok());
  EXPECT_EQ(read(spec->argv[0]), "binary");
}

TEST_F(PodFilesTest, files_from_annotations_follow_their_changes) {
  EXPECT_EQ(read(folder_.path + "/pods/u1/meta/note"), "first");
  pod_["metadata"]["annotations"]["note"] = "second";
  ASSERT_TRUE(files_->refresh(pod_).ok());
  EXPECT_EQ(read(folder_.path + "/pods/u1/meta/note"), "second");
}

TEST_F(PodFilesTest, the_token_is_for_its_audience_and_renewed_in_time) {
  EXPECT_EQ(read(folder_.path + "/pods/u1/token/token"), "token for pitcrew");
  EXPECT_EQ(files_->token_life(), seconds(480));
}

TEST_F(PodFilesTest, what_is_shared_outlives_the_pod) {
  std::ofstream(folder_.path + "/volumes/shared/x") << "1";
  files_->remove();
  EXPECT_FALSE(fs::exists(folder_.path + "/pods/u1"));
  EXPECT_FALSE(fs::exists(folder_.path + "/memory/u1"));
  EXPECT_EQ(read(folder_.path + "/volumes/shared/x"), "1");
}

TEST(LocalCheck, refuses_what_needs_a_cluster_and_says_what_to_do) {
  const Json pod_template = (*parse_yaml(R"(
spec:
  containers:
    - {name: c, image: i, resources: {limits: {nvidia.com/gpu: 8, cpu: 4}}, env: [{name: K, valueFrom: {secretKeyRef: {name: s, key: k}}}]}
  volumes: [{name: v, hostPath: {path: /}}, {name: w, secret: {secretName: s}}, {name: x, emptyDir: {}}]
)"))[0]
                                .json;
  const Problems problems = check_runnable_locally(pod_template);
  ASSERT_EQ(problems.size(), 5u) << join(problems);
  EXPECT_EQ(problems[0].path, "spec.template.spec.containers[0].command");
  EXPECT_EQ(problems[1].path, "spec.template.spec.containers[0].resources.limits");
  EXPECT_EQ(problems[2].path, "spec.template.spec.containers[0].env[0]");
  EXPECT_EQ(problems[3].path, "spec.template.spec.volumes[0].hostPath");
  EXPECT_EQ(problems[4].path, "spec.template.spec.volumes[1].secret");
}

}  // namespace
}  // namespace pitcrew::local
