#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

#include "crds/generate/cases.hpp"
#include "crds/generate/definition.hpp"
#include "crds/generate/training_job_schema.hpp"
#include "crds/generate/yaml.hpp"
#include "lib/api/cordon_budget.hpp"
#include "lib/api/node_health.hpp"
#include "lib/api/training_job.hpp"
#include "lib/base/yaml.hpp"

namespace pitcrew::crd {
using namespace nlohmann::literals;

namespace {

const std::string kRoot = PITCREW_SOURCE_DIR;

std::string contents(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

const Ordered& root_schema() {
  static const Ordered crd = training_job_crd();
  return crd.at("spec").at("versions").at(0).at("schema").at("openAPIV3Schema");
}

// A kind's schema with metadata left open.
Ordered schema_of(std::string_view kind) {
  for (const Definition& definition : definitions()) {
    if (definition.file != kind) continue;
    Ordered schema = definition.make().at("/spec/versions/0/schema/openAPIV3Schema"_json_pointer);
    schema["properties"]["metadata"] = Schema::any().json();
    return schema;
  }
  return {};
}

// The part of the schema that is ours.
Ordered spec_and_status() {
  Ordered schema = root_schema();
  schema["properties"]["metadata"] = Schema::any().json();
  return schema;
}

// A job in which every field of spec and status is set.
api::TrainingJob full_job() {
  Problems problems;
  const auto documents = parse_yaml(contents(kRoot + "/crds/generate/testdata/full.yaml"));
  EXPECT_TRUE(documents.ok());
  api::TrainingJob job = api::decode_training_job(documents->at(0).json, problems);
  EXPECT_EQ(problems, Problems{});
  return job;
}

// The paths of every leaf that the schema describes, lists by their element.
void paths_of(const Ordered& schema, const std::string& path, std::vector<std::string>& paths) {
  if (schema.contains("items")) return paths_of(schema.at("items"), path, paths);
  if (!schema.contains("properties")) return paths.push_back(path);
  for (const auto& [name, property] : schema.at("properties").items()) paths_of(property, path + "/" + name, paths);
}

bool reaches(const Json& json, std::string_view path) {
  if (json.is_array()) {
    for (const Json& element : json) {
      if (reaches(element, path)) return true;
    }
    return false;
  }
  if (path.empty()) return true;
  const size_t end = path.find('/', 1);
  const auto found = json.find(path.substr(1, end == std::string_view::npos ? end : end - 1));
  return found != json.end() && reaches(*found, end == std::string_view::npos ? "" : path.substr(end));
}

bool refused(std::string_view path) {
  for (const char* field : {"/elastic", "/source", "/evaluation", "/dependsOn", "/tracking", "/monitoring/rules",
                            "/placement/topology", "/placement/queue", "/placement/capacity/order",
                            "/placement/capacity/reservation", "/checkpoint/memory/every/time"}) {
    if (path.starts_with(field)) return true;
  }
  return false;
}

TEST(Crd, the_committed_files_are_what_the_generator_prints) {
  for (const Definition& definition : definitions()) {
    const std::string file = std::string(definition.file) + ".yaml", wanted = to_file(definition.make());
    EXPECT_EQ(contents(kRoot + "/crds/" + file), wanted) << "run scripts/generate";
    EXPECT_EQ(contents(kRoot + "/charts/pitcrew/files/crds/" + file), wanted) << "run scripts/generate";
  }
}

TEST(Crd, what_is_printed_reads_back_as_the_same_document) {
  for (const Definition& definition : definitions()) {
    const auto documents = parse_yaml(to_yaml(definition.make()));
    ASSERT_TRUE(documents.ok()) << documents.error().message;
    EXPECT_EQ(documents->at(0).json, Json::parse(definition.make().dump()));
  }
}

TEST(Crd, nothing_that_lib_api_writes_would_be_dropped_by_an_api_server) {
  const Problems problems = compare(spec_and_status(), full_job().encode(), "");
  EXPECT_EQ(join(problems), "");
  EXPECT_EQ(join(compare(spec_and_status(), api::TrainingJob{}.encode(), "")),
            ".spec.template: is not of the schema's type: null");
}

TEST(Crd, nothing_of_health_policies_node_health_and_budgets_would_be_dropped) {
  // The good manifest of each kind's cases has every field that its type knows.
  for (const char* kind : {"healthpolicy", "nodehealth", "cordonbudget"}) {
    std::ostringstream out, err;
    ASSERT_EQ(print_cases(kind, {}, out, err), 0) << err.str();
    const Json good = Json::parse(out.str().substr(0, out.str().find('\n'))).at("object");
    Problems problems;
    Json encoded;
    if (std::string_view(kind) == "healthpolicy") encoded = api::decode_health_policy(good, problems).encode();
    if (std::string_view(kind) == "nodehealth") encoded = api::decode_node_health(good, problems).encode();
    if (std::string_view(kind) == "cordonbudget") encoded = api::decode_cordon_budget(good, problems).encode();
    EXPECT_EQ(problems, Problems{});
    EXPECT_EQ(join(compare(schema_of(kind), encoded, "")), "");
  }
}

TEST(Crd, the_built_in_policy_is_one_that_a_cluster_takes) {
  const auto documents = parse_yaml(contents(kRoot + "/agent/judge/builtin_policy.yaml"));
  ASSERT_TRUE(documents.ok()) << documents.error().message;
  EXPECT_EQ(join(compare(schema_of("healthpolicy"), documents->at(0).json, "")), "");
}

TEST(Crd, everything_that_the_schema_describes_is_read_and_written_by_lib_api_or_refused_by_name) {
  const Json encoded = full_job().encode();
  for (const char* part : {"spec", "status"}) {
    std::vector<std::string> paths;
    paths_of(root_schema().at("properties").at(part), "", paths);
    for (const std::string& path : paths) {
      if (path.starts_with("/template")) continue;
      if (std::string_view(part) == "spec" && refused(path)) continue;
      // Of the ways to say how often, a job has one: steps, here.
      if (path == "/checkpoint/every/time" || path == "/checkpoint/every/auto") continue;
      EXPECT_TRUE(reaches(encoded.at(part), path)) << part << path;
    }
  }
}

TEST(Crd, the_defaults_are_lib_apis) {
  const char text[] = R"({
    "apiVersion": "pitcrew.dev/v1alpha1", "kind": "TrainingJob", "metadata": {"name": "demo"},
    "spec": {"template": {"spec": {"containers": [{"name": "train", "command": ["x"]}]}},
             "checkpoint": {"path": "/c", "memory": {}}}})";
  Json defaulted = Json::parse(text);
  apply_defaults(root_schema(), defaulted);
  Problems problems;
  Json encoded = api::decode_training_job(Json::parse(text), problems).encode();
  EXPECT_EQ(problems, Problems{});
  // Which container is the first is for the program to say: it follows from the template.
  encoded.at("spec").erase("container");
  EXPECT_EQ(defaulted.at("spec"), encoded.at("spec"));
}

TEST(Crd, every_field_of_spec_and_status_is_explained) {
  const std::function<void(const Ordered&, const std::string&)> walk = [&](const Ordered& schema,
                                                                           const std::string& path) {
    if (schema.contains("properties")) {
      for (const auto& [name, property] : schema.at("properties").items()) {
        // Fields of Kubernetes' own that are only kept.
        if (!property.contains("type") && !property.contains("x-kubernetes-int-or-string")) continue;
        EXPECT_NE(property.value("description", ""), "") << path << "." << name;
        walk(property, path + "." + name);
      }
    }
    if (schema.contains("items")) walk(schema.at("items"), path);
  };
  for (const Definition& definition : definitions()) {
    const Ordered crd = definition.make();
    const Ordered& parts = crd.at("/spec/versions/0/schema/openAPIV3Schema/properties"_json_pointer);
    for (const char* part : {"spec", "status"}) {
      if (parts.contains(part)) walk(parts.at(part), std::string(definition.file) + "." + part);
    }
  }
}

TEST(Crd, cases_hold_what_lib_api_says) {
  std::ostringstream out, err;
  ASSERT_EQ(print_cases("trainingjob", {kRoot + "/lib/api/testdata/wrong/replicas_zero.yaml"}, out, err), 0);
  const std::string line = out.str().substr(0, out.str().find('\n'));
  const Json first = Json::parse(line);
  ASSERT_EQ(first.at("problems").size(), 1u);
  EXPECT_EQ(first.at("problems").at(0).at("path"), "spec.replicas");
  EXPECT_EQ(print_cases("trainingjob", {"/nowhere.yaml"}, out, err), 1);
  EXPECT_NE(err.str().find("can't be read"), std::string::npos);
  EXPECT_EQ(print_cases("node", {}, out, err), 1);
}

}  // namespace
}  // namespace pitcrew::crd
