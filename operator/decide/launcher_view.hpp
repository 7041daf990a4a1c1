#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/api/channel.hpp"
#include "lib/base/progress_page.hpp"
#include "lib/base/strong.hpp"
#include "lib/base/time.hpp"

namespace pitcrew::control {

// The claim in a checkpoint folder's name, step-<step>-c<claim>; 0 where it has none.
uint64_t claim_of_path(std::string_view path);

template <typename T>
struct Received {
  Instant at;
  T message;
};

// What one pod's launcher has said, and how its channel stands: all that decide() knows of it. The channel's directory
// keeps one per pod UID, from the first hello until the pod is gone, across reconnects, and moves it on by the
// functions below; each of them returns whether a decision may depend on what changed, that is, whether the job is
// worth a reconcile now.
//
// A value; no thread, no clock.
class LauncherView {
 public:
  static constexpr size_t kHeld = 8;
  static constexpr size_t kEvidence = 16;
  static constexpr Duration kPingTimeout = seconds(5);
  static constexpr Duration kAssumedPace = seconds(10);  // of steps, until some were seen

  std::string pod_name;
  std::string pod_uid;
  std::string job_uid;
  std::string node;
  std::string boot;
  std::string address;
  uint32_t peer_port = 0;
  uint32_t gpus = 0;

  bool connected = false;
  Instant since;       // of `connected`: when it said hello, or when the connection ended
  Instant booted;      // the first hello of `boot`
  uint32_t boots = 0;  // how many boots this leader has seen of the pod
  // Set while a ping is overdue or there is no connection: when it was last heard. Unset: it answers.
  std::optional<Instant> silent_since;
  bool closed = false;  // the launcher ended the connection itself, so it was alive when the silence began

  EpochId seen;                   // the highest that it has seen
  bool running = false;           // ranks of `seen` run, as it last said
  std::vector<ResumePoint> held;  // newest first, at most kHeld

  // Of the epoch `seen` alone: cleared when it says that it has seen a higher one.
  std::optional<Received<api::channel::Progress>> progress;
  std::optional<Instant> advanced;  // when its step last grew
  Duration pace = kAssumedPace;     // the longest between two times that it grew, as good as forgotten after ten more
  std::optional<Instant> restored;  // the first report beyond restoring
  std::optional<Instant> training;  // the first report with a step done in this epoch, or of ranks without the page
  std::map<Rank, Received<api::channel::Exited>> exited;
  std::optional<Received<api::channel::Stalled>> stalled;
  std::map<Slot, Received<api::channel::Unreachable>> unreachable;  // what is unreachable now
  std::optional<Received<api::channel::Stopped>> stopped;
  std::optional<Received<api::channel::Aborted>> aborted;
  std::vector<Received<api::channel::Evidence>> evidence;  // the first kEvidence
  std::optional<Received<api::channel::Saved>> durable;    // the newest durable save
  std::optional<Received<api::channel::Saved>> memory;     // the newest memory checkpoint that counts
  std::map<std::string, Received<std::string>> answers;  // to requests, by id: where the stacks are, or the saved path

  // What went out on the present connection; a reconnect clears it, so that everything is said again.
  EpochId sent_epoch;
  std::optional<api::channel::Stop> sent_stop;
  bool sent_finish = false;
  std::vector<std::string> sent_requests;

  // The connection said hello (of this or a new boot), anything else, fell silent, was heard again, or ended.
  bool hello(const api::channel::Hello& hello, Instant now);
  bool receive(const api::channel::FromLauncher& message, Instant now);
  bool silent(Instant last_heard);
  bool heard();
  // `fell_silent`: nothing came any more, so it may be gone since it was last heard. A connection that was closed was
  // alive until now.
  bool disconnected(Instant last_heard, Instant now, bool fell_silent = true);
  // Called when a message has been handed to the connection.
  void sent(const api::channel::ToLauncher& message);

 private:
  void move_to(EpochId epoch);
  // Whatever a launcher says first about a newer epoch shows that it has it; true where it did.
  bool follow(EpochId epoch) {
    if (epoch <= seen) return false;
    move_to(epoch);
    return true;
  }
  bool hold(ResumePoint point);
};

}  // namespace pitcrew::control
