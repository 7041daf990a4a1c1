#include "crds/generate/cases.hpp"

#include <fstream>
#include <ostream>
#include <sstream>

#include "crds/generate/change.hpp"
#include "lib/api/training_job.hpp"
#include "lib/base/yaml.hpp"

namespace pitcrew::crd {
namespace {

constexpr char kGood[] = R"(
apiVersion: pitcrew.dev/v1alpha1
kind: TrainingJob
metadata: {name: demo}
spec:
  replicas: 4
  spares: 1
  template:
    metadata: {labels: {team: a}}
    spec:
      securityContext: {runAsNonRoot: true}
      containers:
        - name: helper
          image: example/helper
          env: [{name: RANK, value: "0"}]
        - name: train
          image: example/train
          command: [python, train.py]
          env: [{name: A, value: "1"}, {name: B, value: "2"}]
          volumeMounts: [{name: scratch, mountPath: /}, {name: shared, mountPath: /checkpoints/}]
      volumes: [{name: shared, persistentVolumeClaim: {claimName: fsx}}, {name: scratch, emptyDir: {}}]
  container: train
  checkpoint:
    path: /checkpoints/demo
    every: {steps: 100}
    memory: {every: {steps: 10}, copies: 1, size: 16Gi}
    keep: 2
  recovery:
    limit: {restarts: 9, window: 3h}
    rules: [{match: {exitCodes: [3]}, action: Fail}, {match: {log: "illegal memory access"}, action: Restart}]
  monitoring: {progress: {stallAfter: 45s, startWithin: 12m, slowBelow: 60%}}
  lifecycle: {suspend: false, activeDeadline: 1d12h, startDeadline: 1.5h, warnBefore: 10m, ttlAfterFinished: "0"}
)";

Json good() { return (*parse_yaml(kGood))[0].json; }

Problems problems_of(const Json& manifest) {
  Problems problems;
  const api::TrainingJob job = api::decode_training_job(manifest, problems);
  api::validate(job, problems);
  return problems;
}

// At every limit, on both of its sides, and what people write.
constexpr Change kChanges[] = {
    {"/metadata/name", R"("a.b")"},
    {"/metadata/name", R"("a-name-of-fifty-characters-that-fits-just-so-12345")"},
    {"/metadata/name", R"("a-name-of-fifty-one-characters-that-does-not-fit-12")"},
    {"/spec", "null"},
    {"/spec/replicas", "4096"},
    {"/spec/replicas", "4097"},
    {"/spec/replicas", "5000000000"},
    {"/spec/replicas", "1.5"},
    {"/spec/spares", "-1"},
    {"/spec/spares", "5000"},
    {"/spec/spares", "5000000000"},
    {"/spec/processesPerReplica", "8"},
    {"/spec/processesPerReplica", "128"},
    {"/spec/processesPerReplica", "129"},
    {"/spec/processesPerReplica", "0"},
    {"/spec/processesPerReplica", "-1"},
    {"/spec/processesPerReplica", R"("8")"},
    {"/spec/processesPerReplica", R"("auto")"},
    {"/spec/container", "null"},
    {"/spec/container", R"("")"},
    {"/spec/container", R"("nobody")"},
    {"/spec/template/spec", "null"},
    {"/spec/template/spec/containers", "null"},
    {"/spec/template/spec/containers", "[]"},
    {"/spec/template/spec/containers/0/name", "null"},
    {"/spec/template/spec/containers/1/command", "[]"},
    {"/spec/template/spec/containers/1/command", "null"},
    {"/spec/template/spec/containers/1/env/1/name", R"("PITCREW_JOB")"},
    {"/spec/template/spec/containers/1/env/0/name", R"("WORLD_SIZE")"},
    {"/spec/template/spec/containers/1/volumeMounts/0/mountPath", R"("/pitcrew")"},
    {"/spec/template/spec/containers/1/volumeMounts/1/mountPath", R"("/checkpoints/demo")"},
    {"/spec/template/spec/containers/1/volumeMounts/1/mountPath", R"("/checkpoints/other")"},
    {"/spec/template/spec/containers/1/volumeMounts/1/name", R"("elsewhere")"},
    {"/spec/template/spec/containers/1/volumeMounts", "null"},
    {"/spec/template/spec/volumes", "null"},
    {"/spec/template/spec/volumes", "[]"},
    {"/spec/template/spec/hostPID", "false"},
    {"/spec/template/spec/hostPID", "true"},
    {"/spec/template/spec/shareProcessNamespace", "true"},
    {"/spec/template/spec/nodeName", R"("n1")"},
    {"/spec/template/spec/restartPolicy", R"("OnFailure")"},
    {"/spec/template/spec/restartPolicy", R"("Always")"},
    {"/spec/checkpoint", "null"},
    {"/spec/checkpoint/path", "null"},
    {"/spec/checkpoint/path", R"("")"},
    {"/spec/checkpoint/path", R"("demo")"},
    {"/spec/checkpoint/path", R"("s3://bucket/demo")"},
    {"/spec/checkpoint/path", R"("s3://bucket")"},
    {"/spec/checkpoint/path", R"("s3://")"},
    {"/spec/checkpoint/path", R"("s3:///demo")"},
    {"/spec/checkpoint/path", R"("s3://Bucket/demo")"},
    {"/spec/checkpoint/path", R"("s3://bucket/../demo")"},
    {"/spec/checkpoint/path", R"("/checkpoints/../demo")"},
    {"/spec/checkpoint/path", R"("/checkpoints/..")"},
    {"/spec/checkpoint/path", R"("/checkpoints")"},
    {"/spec/checkpoint/path", R"("/checkpoints-of-others")"},
    {"/spec/checkpoint/every", "null"},
    {"/spec/checkpoint/every", "{}"},
    {"/spec/checkpoint/every/steps", "1"},
    {"/spec/checkpoint/every/steps", "0"},
    {"/spec/checkpoint/every/steps", "-5"},
    {"/spec/checkpoint/every", R"({"time": "10s"})"},
    {"/spec/checkpoint/every", R"({"time": "9.9s"})"},
    {"/spec/checkpoint/every", R"({"time": "often"})"},
    {"/spec/checkpoint/every", R"({"time": "1m", "steps": 3})"},
    {"/spec/checkpoint/every", R"({"auto": true})"},
    {"/spec/checkpoint/every", R"({"auto": false})"},
    {"/spec/checkpoint/every", R"({"auto": false, "steps": 5})"},
    {"/spec/checkpoint/every", R"({"auto": true, "steps": 5})"},
    {"/spec/checkpoint/every", R"({"auto": true, "time": "1m"})"},
    {"/spec/checkpoint/keep", "1"},
    {"/spec/checkpoint/keep", "0"},
    {"/spec/checkpoint/keep", "-1"},
    {"/spec/checkpoint/keep", "5000000000"},
    {"/spec/checkpoint/memory", "{}"},
    {"/spec/checkpoint/memory/every/steps", "0"},
    {"/spec/checkpoint/memory/every/steps", "-1"},
    {"/spec/checkpoint/memory/every", R"({"time": "1m"})"},
    {"/spec/checkpoint/memory/copies", "3"},
    {"/spec/checkpoint/memory/copies", "4"},
    {"/spec/checkpoint/memory/copies", "-1"},
    {"/spec/checkpoint/memory/copies", "5000000000"},
    {"/spec/checkpoint/memory/size", R"("auto")"},
    {"/spec/checkpoint/memory/size", "1048576"},
    {"/spec/checkpoint/memory/size", "1048575"},
    {"/spec/checkpoint/memory/size", "-1"},
    {"/spec/checkpoint/memory/size", R"("1Mi")"},
    {"/spec/checkpoint/memory/size", R"("1023Ki")"},
    {"/spec/checkpoint/memory/size", R"("2M")"},
    {"/spec/checkpoint/memory/size", R"("16GiB")"},
    {"/spec/checkpoint/memory/size", R"("much")"},
    {"/spec/checkpoint/memory/size", R"("999999999999Ti")"},
    {"/spec/recovery", "{}"},
    {"/spec/recovery/limit/restarts", "0"},
    {"/spec/recovery/limit/restarts", "10000"},
    {"/spec/recovery/limit/restarts", "10001"},
    {"/spec/recovery/limit/restarts", "-1"},
    {"/spec/recovery/limit/restarts", "5000000000"},
    {"/spec/recovery/limit/window", R"("60s")"},
    {"/spec/recovery/limit/window", R"("59s")"},
    {"/spec/recovery/limit/window", R"("soon")"},
    {"/spec/recovery/limit/window", R"("")"},
    {"/spec/recovery/limit/window", R"("1e3s")"},
    {"/spec/recovery/limit/window", R"(".m")"},
    {"/spec/recovery/limit/window", R"("5.m")"},
    {"/spec/recovery/limit/window", R"("99999999999h")"},
    {"/spec/recovery/inPlace", R"({"limit": 1000})"},
    {"/spec/recovery/inPlace", R"({"limit": 1001})"},
    {"/spec/recovery/inPlace", R"({"limit": -1})"},
    {"/spec/recovery/inPlace", R"({"limit": 5000000000})"},
    {"/spec/recovery/inPlace", R"({"window": "30s"})"},
    {"/spec/recovery/inPlace", R"({"window": "30"})"},
    {"/spec/recovery/waitInPlace", R"("10s")"},
    {"/spec/recovery/waitInPlace", R"("9999ms")"},
    {"/spec/recovery/waitInPlace", R"("10 s")"},
    {"/spec/recovery/avoidNodes", R"({"afterFailures": 0})"},
    {"/spec/recovery/avoidNodes", R"({"afterFailures": -1})"},
    {"/spec/recovery/avoidNodes", R"({"afterFailures": 5000000000})"},
    {"/spec/recovery/avoidNodes", R"({"limit": -1})"},
    {"/spec/recovery/avoidNodes", R"({"limit": 5000000000})"},
    {"/spec/recovery/rules/0/action", "null"},
    {"/spec/recovery/rules/0/action", R"("Report")"},
    {"/spec/recovery/rules/0/match", "null"},
    {"/spec/recovery/rules/0/match", R"({"exitCodes": [], "log": ""})"},
    {"/spec/recovery/rules/0/match/exitCodes", "[1, 255]"},
    {"/spec/recovery/rules/0/match/exitCodes", "[0, 256, -1]"},
    {"/spec/recovery/rules/1/match/log", R"_("(unclosed")_"},
    {"/spec/recovery/rules/1/match/log", R"_("(?P<name>loss)=([0-9.]+)")_"},
    {"/spec/monitoring/progress/stallAfter", R"("auto")"},
    {"/spec/monitoring/progress/stallAfter", R"("5s")"},
    {"/spec/monitoring/progress/stallAfter", R"("4s")"},
    {"/spec/monitoring/progress/stallAfter", R"("never")"},
    {"/spec/monitoring/progress/startWithin", R"("9s")"},
    {"/spec/monitoring/progress/startWithin", R"("x")"},
    {"/spec/monitoring/progress/slowBelow", R"("99.9%")"},
    {"/spec/monitoring/progress/slowBelow", R"("0%")"},
    {"/spec/monitoring/progress/slowBelow", R"("100%")"},
    {"/spec/monitoring/progress/slowBelow", R"("-5%")"},
    {"/spec/monitoring/progress/slowBelow", R"("half")"},
    {"/spec/monitoring/progress/slowBelow", "0.7"},
    {"/spec/placement", R"({"gangTimeout": "9s"})"},
    {"/spec/placement", R"({"gangTimeout": "9"})"},
    {"/spec/placement", R"({"capacity": {"mode": "Existing"}, "priorityClassName": "research"})"},
    {"/spec/placement", R"({"capacity": {"mode": "existing"}})"},
    {"/spec/lifecycle/activeDeadline", R"("59s")"},
    {"/spec/lifecycle/activeDeadline", R"("10m")"},
    {"/spec/lifecycle/activeDeadline", R"("10m0.5s")"},
    {"/spec/lifecycle/activeDeadline", R"("a day")"},
    {"/spec/lifecycle/startDeadline", R"("9s")"},
    {"/spec/lifecycle/startDeadline", R"("9x")"},
    {"/spec/lifecycle/warnBefore", R"("40h")"},
    {"/spec/lifecycle/warnBefore", R"("five")"},
    {"/spec/lifecycle/ttlAfterFinished", R"("-1h")"},
    {"/spec/lifecycle/suspend", R"("yes")"},
    {"/spec/elastic", R"({"minReplicas": 2, "growAfter": "10m"})"},
    {"/spec/dependsOn", R"([{"job": "pretrain", "condition": "Succeeded"}])"},
};

// Updates of the good manifest; the last of each changes while the job is suspended.
constexpr Change kUpdates[] = {
    {"/spec/template/spec/containers/1/image", R"("example/other")"},
    {"/spec/template/spec/containers/1/env/0/value", R"("3")"},
    {"/spec/template/metadata/labels/team", R"("b")"},
    {"/spec/template/spec/volumes/0", R"({"name": "shared", "hostPath": {"path": "/fsx"}})"},
    {"/spec/template/spec/securityContext", "null"},
    {"/spec/template/spec/containers/1",
     R"({"name": "train", "workingDir": "example/train", "command": ["python", "train.py"],
      "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
      "volumeMounts": [{"name": "scratch", "mountPath": "/"}, {"name": "shared", "mountPath": "/checkpoints/"}]})"},
    {"/spec/container", R"("helper")"},
    {"/spec/processesPerReplica", "2"},
    {"/spec/processesPerReplica", R"("auto")"},
    {"/spec/checkpoint/path", R"("/checkpoints/other")"},
    {"/spec/checkpoint", "null"},
    {"/spec/replicas", "8"},
    {"/spec/spares", "0"},
    {"/spec/checkpoint/keep", "7"},
    {"/spec/lifecycle/suspend", "true"},
    {"/spec/recovery/rules", "null"},
};

void print_job_changes(std::ostream& out) {
  print_changes(out, good(), std::begin(kChanges), std::end(kChanges), problems_of);
  Json many = good();
  for (int i = 0; i < 65; ++i)
    many["spec"]["recovery"]["rules"][i] = {{"match", {{"exitCodes", {3}}}}, {"action", "Fail"}};
  print_case(out, "65 rules", many, problems_of(many));
  many = good();
  many["spec"]["recovery"]["rules"][1]["match"]["log"] = std::string(1025, 'x');
  print_case(out, "a long pattern", many, problems_of(many));
}

void print_updates(std::ostream& out) {
  for (const bool suspended : {false, true}) {
    Json before = good();
    before["spec"]["lifecycle"]["suspend"] = suspended;
    for (const Change& change : kUpdates) {
      const Json after = changed(before, change);
      Problems problems = problems_of(after);
      Problems ignored;
      api::validate_update(api::decode_training_job(before, ignored), api::decode_training_job(after, ignored),
                           problems);
      out << Json{{"name", std::string("update ") + (suspended ? "of a suspended job " : "") + change.pointer},
                  {"old", before},
                  {"object", after},
                  {"problems", problems_json(problems)}}
                 .dump()
          << "\n";
    }
  }
}

}  // namespace

int print_cases(const std::string& kind, const std::vector<std::string>& files, std::ostream& out, std::ostream& err) {
  if (print_health_cases(kind, out)) return 0;
  if (kind != "trainingjob") {
    err << "error: there is no kind '" << kind << "'; say trainingjob, healthpolicy, nodehealth or cordonbudget\n";
    return 1;
  }
  for (const std::string& file : files) {
    std::ifstream in(file);
    std::stringstream text;
    text << in.rdbuf();
    if (!in) {
      err << "error: " << file << " can't be read; name manifests that are there\n";
      return 1;
    }
    const auto documents = parse_yaml(text.str());
    Json line{{"name", file}, {"text", text.str()}};
    if (!documents) {
      line["problems"] = {{{"path", ""}, {"message", documents.error().message}}};
      out << line.dump() << "\n";
      continue;
    }
    for (const YamlDocument& document : *documents) {
      // Other objects of a file are somebody else's.
      if (documents->size() > 1 && document.json.value("kind", "") != "TrainingJob") continue;
      line["problems"] = problems_json(problems_of(document.json));
      if (documents->size() > 1) {
        line.erase("text");
        line["object"] = document.json;
      }
      out << line.dump() << "\n";
    }
  }
  print_job_changes(out);
  print_updates(out);
  return 0;
}

}  // namespace pitcrew::crd
