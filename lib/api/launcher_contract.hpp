#pragma once

// What the operator puts into a pod for its launcher, and the launcher finds there. The operator's pod builder writes
// it, the launcher reads it; nothing else of the two meets inside a pod. All paths below are as the container sees
// them.
namespace pitcrew::api::launcher {

// Volumes that the operator adds, all below one folder so that they collide with nothing of the image.
inline constexpr char kBinary[] = "/pitcrew/bin/pitcrew-launcher";  // emptyDir, filled by the init container
inline constexpr char kBinaryFolder[] = "/pitcrew/bin";
inline constexpr char kChannelFolder[] = "/pitcrew/channel";  // downward API: channel.json, from annotation::kChannel
inline constexpr char kChannelFile[] = "/pitcrew/channel/channel.json";
inline constexpr char kTokenFolder[] = "/pitcrew/token";  // projected service-account token, audience kAudience
inline constexpr char kTokenFile[] = "/pitcrew/token/token";
inline constexpr char kMemoryFolder[] = "/pitcrew/memory";  // emptyDir {medium: Memory}: becomes PITCREW_MEMORY
inline constexpr char kRunFolder[] = "/pitcrew/run";        // emptyDir: socket, progress page, the launcher's state
inline constexpr char kInitContainer[] = "pitcrew-launcher";

// The container's command becomes [kBinary, "run", "--", <command…>, <args…>].

// Environment of the launcher.
inline constexpr char kPodName[] = "PITCREW_POD_NAME";            // downward API
inline constexpr char kPodUid[] = "PITCREW_POD_UID";              // downward API
inline constexpr char kPodNamespace[] = "PITCREW_POD_NAMESPACE";  // downward API
inline constexpr char kPodIp[] = "PITCREW_POD_IP";                // downward API
inline constexpr char kNodeName[] = "PITCREW_NODE_NAME";          // downward API
inline constexpr char kJobUid[] = "PITCREW_JOB_UID";
inline constexpr char kProcesses[] = "PITCREW_PROCESSES";       // ranks of this pod
inline constexpr char kMetricsPort[] = "PITCREW_METRICS_PORT";  // unset or 0: no /metrics
// The folders above where they are not at their usual places. The kubelet of lib/local, which has no mount namespaces,
// replaces path prefixes in command, args and env by itself; for paths that arrive over the channel (checkpoint.path)
// it sets kPathMap to a JSON object {mount path: local folder}.
inline constexpr char kChannelFileVariable[] = "PITCREW_CHANNEL_FILE";
inline constexpr char kTokenFileVariable[] = "PITCREW_TOKEN_FILE";
inline constexpr char kMemoryFolderVariable[] = "PITCREW_MEMORY_FOLDER";
inline constexpr char kRunFolderVariable[] = "PITCREW_RUN_FOLDER";
inline constexpr char kPathMap[] = "PITCREW_PATH_MAP";
// Where set, every rank's output also goes, without its prefix, to <folder>/rank-<n>.log (appended).
inline constexpr char kRankLogs[] = "PITCREW_RANK_LOGS";

// Set by people in their template, so without the prefix that is the launcher's own there: megabytes (10^6) a second
// that a launcher sends into peers' memory at most. Unset or 0: no cap.
inline constexpr char kPeerCopyRate[] = "LAUNCHER_PEER_COPY_MB_PER_SECOND";

// The launcher's exit codes, as the container's last state shows them.
inline constexpr int kExitFinished = 0;      // told to finish, with success
inline constexpr int kExitFailed = 1;        // told to finish, without
inline constexpr int kExitBadContract = 78;  // something of the above is missing or wrong; the message says what

}  // namespace pitcrew::api::launcher
