#include "crds/generate/cel.hpp"
#include "crds/generate/training_job_schema.hpp"

namespace pitcrew::crd {
namespace {

// Enough for any pod that trains; they keep the rules' estimated cost finite.
constexpr size_t kMaxContainers = 16;
// Of a DNS label: what containers and volumes are called.
constexpr size_t kMaxLabel = 63;
constexpr size_t kMaxEnv = 512;
constexpr size_t kMaxMounts = 64;
constexpr size_t kMaxVolumes = 64;

// Fields that no rule looks into are named all the same: of two fields that it doesn't know, an API server doesn't see
// that one took the other's place, and a changed template must be noticed.
Schema with_known(Schema schema, const std::vector<std::string>& names) {
  for (const std::string& name : names) schema.field(name, Schema::any());
  return std::move(schema).keep_unknown();
}

Schema container_schema() {
  Schema env = Schema::object("One variable of the environment.")
                   .field("name", Schema::text("Its name. RANK, WORLD_SIZE, MASTER_ADDR, PITCREW_* and the like are "
                                               "the launcher's own in the training container.",
                                               kMaxName));
  Schema mount = Schema::object("Where a volume is mounted.")
                     .field("name", Schema::text("The volume's name.", kMaxLabel))
                     .field("mountPath", Schema::text("Where; /pitcrew belongs to the launcher.", kMaxPath));
  Schema container =
      Schema::object("A container, as Kubernetes knows it.")
          .field("name", Schema::text("Its name; spec.container refers to it.", kMaxLabel))
          .field("command", Schema::list("What to run; required of the container that trains, since the launcher takes "
                                         "the place of the image's entry point.",
                                         Schema::text("", 1 << 17)))
          .field("env", Schema::list("Variables of the environment.",
                                     with_known(std::move(env), {"value", "valueFrom"}), kMaxEnv))
          .field("volumeMounts",
                 Schema::list("The volumes that the container sees.",
                              with_known(std::move(mount), {"mountPropagation", "readOnly", "recursiveReadOnly",
                                                            "subPath", "subPathExpr"}),
                              kMaxMounts));
  return with_known(std::move(container), {"args",
                                           "envFrom",
                                           "image",
                                           "imagePullPolicy",
                                           "lifecycle",
                                           "livenessProbe",
                                           "ports",
                                           "readinessProbe",
                                           "resizePolicy",
                                           "resources",
                                           "restartPolicy",
                                           "restartPolicyRules",
                                           "securityContext",
                                           "startupProbe",
                                           "stdin",
                                           "stdinOnce",
                                           "terminationMessagePath",
                                           "terminationMessagePolicy",
                                           "tty",
                                           "volumeDevices",
                                           "workingDir"});
}

Schema volume_schema() {
  Schema volume = Schema::object("A volume, as Kubernetes knows it.")
                      .field("name", Schema::text("Its name.", kMaxLabel))
                      .field("emptyDir", Schema::object("A folder that dies with its pod.").keep_unknown());
  return with_known(std::move(volume), {"awsElasticBlockStore",
                                        "azureDisk",
                                        "azureFile",
                                        "cephfs",
                                        "cinder",
                                        "configMap",
                                        "csi",
                                        "downwardAPI",
                                        "ephemeral",
                                        "fc",
                                        "flexVolume",
                                        "flocker",
                                        "gcePersistentDisk",
                                        "gitRepo",
                                        "glusterfs",
                                        "hostPath",
                                        "image",
                                        "iscsi",
                                        "nfs",
                                        "persistentVolumeClaim",
                                        "photonPersistentDisk",
                                        "portworxVolume",
                                        "projected",
                                        "quobyte",
                                        "rbd",
                                        "scaleIO",
                                        "secret",
                                        "storageos",
                                        "vsphereVolume"});
}

constexpr char kPidOne[] = "must not be set: the launcher must be PID 1 to see every process of its container";

Schema pod_schema() {
  Schema pod =
      Schema::object("The pod's spec, as Kubernetes knows it; Pitcrew looks at these fields and keeps all others.")
          .field("containers", Schema::list("The containers; the one that trains needs `command`.", container_schema(),
                                            kMaxContainers))
          .field("volumes", Schema::list("The volumes.", volume_schema(), kMaxVolumes))
          .field("restartPolicy", Schema::text("OnFailure, or left out.", 64)
                                      .rule({.cel = "self == '' || self == 'OnFailure'",
                                             .message = "must be OnFailure (or left out): a launcher that dies comes "
                                                        "back in its pod, anything else is Pitcrew's work"}))
          .field("hostPID", Schema::boolean("Must not be set.").rule({.cel = "!self", .message = kPidOne}))
          .field("shareProcessNamespace",
                 Schema::boolean("Must not be set.").rule({.cel = "!self", .message = kPidOne}))
          .field("nodeName", Schema::text("Must not be set: Pitcrew chooses the node.", kMaxName));
  pod.rule({.cel = "!has(self.nodeName)",
            .message = "must not be set: Pitcrew chooses the node; use nodeSelector or affinity",
            .field_path = ".nodeName",
            .reason = Rule::Reason::kForbidden});
  pod.rule({.cel = "has(self.containers) && self.containers.size() > 0",
            .message = "needs at least the training container",
            .field_path = ".containers",
            .reason = Rule::Reason::kRequired});
  return with_known(std::move(pod), {"activeDeadlineSeconds",
                                     "affinity",
                                     "automountServiceAccountToken",
                                     "dnsConfig",
                                     "dnsPolicy",
                                     "enableServiceLinks",
                                     "ephemeralContainers",
                                     "hostAliases",
                                     "hostIPC",
                                     "hostNetwork",
                                     "hostUsers",
                                     "hostname",
                                     "hostnameOverride",
                                     "imagePullSecrets",
                                     "initContainers",
                                     "nodeSelector",
                                     "os",
                                     "overhead",
                                     "preemptionPolicy",
                                     "priority",
                                     "priorityClassName",
                                     "readinessGates",
                                     "resourceClaims",
                                     "resources",
                                     "runtimeClassName",
                                     "schedulerName",
                                     "schedulingGates",
                                     "securityContext",
                                     "serviceAccount",
                                     "serviceAccountName",
                                     "setHostnameAsFQDN",
                                     "subdomain",
                                     "terminationGracePeriodSeconds",
                                     "tolerations",
                                     "topologySpreadConstraints",
                                     "workloadRef"});
}

const std::string kContainers = "self.template.spec.containers";
const std::string kNone =
    "!has(self.template) || !has(self.template.spec) || !has(self.template.spec.containers) || "
    "self.template.spec.containers.size() == 0";
const std::string kNamed = "(has(self.container) && self.container != '')";
// Whether `c` is the container that spec.container names.
const std::string kIsNamed = "(has(c.name) && c.name == self.container)";
// The index of the container that trains; -1 where spec.container names none of them. The estimated cost of a rule is
// finite only where every text's length follows from the schema, so rules go over lists where they are, and numbers
// are written out digit by digit.
const std::string kIndex = "(" + kNamed + " ? " + kContainers + ".map(c, " + kIsNamed + ").indexOf(true) : 0)";

// A rule on the training container, `c` in the condition; in the message, an expression, `i` is its index.
Rule on_training_container(const std::string& condition, const std::string& fallback, const std::string& message) {
  std::string first = condition;
  for (size_t at = 0; (at = first.find("c.", at)) != std::string::npos;) {
    const bool variable =
        at == 0 || (std::isalnum(static_cast<unsigned char>(first[at - 1])) == 0 && first[at - 1] != '.');
    if (variable) first.replace(at, 2, kContainers + "[0].");
    at += variable ? kContainers.size() + 4 : 2;
  }
  return {.cel = kNone + " || (" + kNamed + " ? " + kContainers + ".all(c, !" + kIsNamed + " || " + condition +
                 ") : " + first + ")",
          .message = fallback,
          .message_expression = message.empty() ? "" : "[" + kIndex + "].map(i, " + message + ")[0]",
          .field_path = ".template.spec.containers"};
}

std::string decimal(const std::string& n) {
  const auto digit = [](const std::string& of) { return "'0123456789'.substring(" + of + ", " + of + " + 1)"; };
  return "(" + n + " < 10 ? " + digit(n) + " : " + n + " < 100 ? " + digit(n + " / 10") + " + " + digit(n + " % 10") +
         " : " + digit(n + " / 100") + " + " + digit(n + " / 10 % 10") + " + " + digit(n + " % 10") + ")";
}

std::string at_container() { return "'spec.template.spec.containers[' + " + decimal("i") + " + "; }

void add_environment_rule(Schema& spec) {
  const std::string ours =
      "(has(e.name) && (e.name.startsWith('PITCREW_') || e.name in ['RANK', 'LOCAL_RANK', 'WORLD_SIZE', "
      "'LOCAL_WORLD_SIZE', 'GROUP_RANK', 'GROUP_WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT', 'ROLE_RANK', "
      "'ROLE_WORLD_SIZE']))";
  spec.rule(on_training_container("(!has(c.env) || !c.env.exists(e, " + ours + "))",
                                  "env sets a variable that is set by the launcher; remove it",
                                  "[" + kContainers + "[i].env.map(e, " + ours + ").indexOf(true)].map(k, " +
                                      at_container() + "'].env[' + " + decimal("k") + " + '].name: ' + " + kContainers +
                                      "[i].env[k].name + ' is set by the launcher; remove it')[0]"));
}

void add_mount_rule(Schema& spec) {
  const std::string ours = "(has(m.mountPath) && (m.mountPath == '/pitcrew' || m.mountPath.startsWith('/pitcrew/')))";
  spec.rule(on_training_container("(!has(c.volumeMounts) || !c.volumeMounts.exists(m, " + ours + "))",
                                  "/pitcrew is where the launcher lives; mount elsewhere",
                                  "[" + kContainers + "[i].volumeMounts.map(m, " + ours + ").indexOf(true)].map(k, " +
                                      at_container() + "'].volumeMounts[' + " + decimal("k") +
                                      " + '].mountPath: /pitcrew is where the launcher lives; mount elsewhere')[0]"));
}

// Rules on the volume that holds spec.checkpoint.path: it is the one whose mount covers the path and is longest.
void add_checkpoint_rules(Schema& spec) {
  const std::string covers =
      "(has(m.mountPath) && m.mountPath != '' && (self.checkpoint.path == m.mountPath || self.checkpoint.path + '/' == "
      "m.mountPath || self.checkpoint.path.startsWith(m.mountPath.endsWith('/') ? m.mountPath : m.mountPath + '/')))";
  const std::string unless =
      "!has(self.checkpoint) || !has(self.checkpoint.path) || !self.checkpoint.path.startsWith('/') || ";
  const std::string volumes = "self.template.spec.volumes";
  // Whether `c` mounts the path from a volume whose name `n` satisfies the condition; true where it mounts it from
  // none.
  const auto held_by = [&](const std::string& condition) {
    const std::string longest = "c.volumeMounts.map(m, " + covers + ", m.mountPath.size()).max()";
    return "(!has(c.volumeMounts) || !c.volumeMounts.exists(m, " + covers + ") || [" + longest +
           "].all(longest, c.volumeMounts.all(m, !" + covers + " || m.mountPath.size() != longest || " + condition +
           ")))";
  };
  const auto rule = [&](std::string condition, std::string message, std::string expression) {
    Rule made = on_training_container("(" + condition + ")", message, expression);
    made.cel = unless + made.cel;
    made.field_path = ".checkpoint.path";
    spec.rule(std::move(made));
  };
  rule("has(c.volumeMounts) && c.volumeMounts.exists(m, " + covers + ")",
       "lies on no volume of the container; mount one that all replicas share, or checkpoints die with the pod", "");
  const std::string is_its = "has(v.name) && has(m.name) && v.name == m.name";
  rule("!has(" + volumes + ") || " + held_by("!" + volumes + ".exists(v, " + is_its + " && has(v.emptyDir))"),
       "lies on an emptyDir, which dies with its pod; use a volume that all replicas share",
       "[" + kContainers + "[i].volumeMounts.map(m, " + covers + ", m.mountPath.size()).max()].map(longest, " +
           kContainers + "[i].volumeMounts.map(m, " + covers +
           " && m.mountPath.size() == longest, \"lies on the emptyDir '\" + m.name + \"', which dies with its pod; use "
           "a "
           "volume that all replicas share\")[0])[0]");
  rule("!has(" + volumes + ") || " + held_by(volumes + ".exists(v, " + is_its + ")"),
       "lies on a volume which the template does not define",
       "[" + kContainers + "[i].volumeMounts.map(m, " + covers + ", m.mountPath.size()).max()].map(longest, " +
           kContainers + "[i].volumeMounts.map(m, " + covers +
           " && m.mountPath.size() == longest, \"lies on the volume '\" + m.name + \"', which the template does not "
           "define\")[0])[0]");
}

}  // namespace

Schema template_schema() {
  return Schema::object(
             "The pod template of a replica. The launcher is injected; everything else is kept as it is. Immutable.")
      .field("metadata", Schema::object("Labels and annotations of the pods.").keep_unknown())
      .field("spec", pod_schema())
      .rule({.cel = "has(self.spec)",
             .message = "is missing; give the pod's spec",
             .field_path = ".spec",
             .reason = Rule::Reason::kRequired})
      .rule({.cel = "self == oldSelf",
             .message = "can't be changed; delete the job and apply it again (its checkpoints stay)",
             .reason = Rule::Reason::kForbidden})
      .keep_unknown();
}

void add_template_rules(Schema& spec) {
  const std::string nameless = kContainers + ".map(c, !has(c.name) || c.name == '')";
  spec.rule(
      {.cel = kNone + " || " + kContainers + ".all(c, has(c.name) && c.name != '')",
       .message = "a container's name is missing",
       .message_expression = "[" + nameless + ".indexOf(true)].map(i, " + at_container() + "'].name: is missing')[0]",
       .field_path = ".template.spec.containers",
       .reason = Rule::Reason::kRequired});
  spec.rule({.cel = kNone + " || !" + kNamed + " || " + kContainers + ".exists(c, " + kIsNamed + ")",
             .message = "is no container of the template",
             .message_expression = "\"'\" + self.container + \"' is no container of the template\"",
             .field_path = ".container"});
  Rule command = on_training_container(
      "(has(c.command) && c.command.size() > 0)",
      "command is missing; the launcher replaces the image's entry point, so say what to run",
      at_container() + "\"].command: is missing; the launcher replaces the image's entry point, so say what to run\"");
  command.reason = Rule::Reason::kRequired;
  spec.rule(std::move(command));
  add_environment_rule(spec);
  add_mount_rule(spec);
  add_checkpoint_rules(spec);
}

}  // namespace pitcrew::crd
