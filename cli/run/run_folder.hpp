#pragma once

#include <string>

#include "lib/base/json.hpp"

namespace pitcrew::cli {

// The folder of one `pitcrew run`: what is kept between two runs of the same command, and the lock that keeps a second
// one out.
//
//   objects.json        the API's objects: the job with its UID, epochs and history
//   events.jsonl        what happened, a line each
//   steps.jsonl         a link to the file that rank 0 writes beside the checkpoints
//   logs/               operator.log, <pod>/<container>.log and <pod>/rank-<n>.log
//   volumes/<claim>/    the volumes of the pods
//   nodes/<node>/       what the simulated nodes keep of their pods
//
// The memory of the nodes (PITCREW_MEMORY) lies in /dev/shm where it is large enough, else in memory/ below the folder.
class RunFolder {
 public:
  // Makes the folder where it isn't there, takes its lock, and removes what an earlier run that was killed has left in
  // memory. kAlreadyExists where another run holds it.
  static Result<RunFolder> open(const std::string& path);
  RunFolder(RunFolder&& other) noexcept;
  RunFolder& operator=(RunFolder&&) = delete;
  ~RunFolder();  // removes memory(), releases the lock

  const std::string& path() const { return path_; }  // absolute
  std::string objects() const { return path_ + "/objects.json"; }
  std::string events() const { return path_ + "/events.jsonl"; }
  std::string steps() const { return path_ + "/steps.jsonl"; }
  std::string logs() const { return path_ + "/logs"; }
  std::string volumes() const { return path_ + "/volumes"; }
  std::string nodes() const { return path_ + "/nodes"; }
  const std::string& memory() const { return memory_; }
  // Marks every process of this run in its environment: PITCREW_RUN.
  const std::string& run_id() const { return run_id_; }

  // Null where there are none yet.
  Result<Json> load_objects() const;
  // Durable when it returns.
  Status save_objects(const Json& snapshot) const;

 private:
  RunFolder() = default;

  std::string path_;
  std::string memory_;
  std::string run_id_;
  int lock_ = -1;
};

}  // namespace pitcrew::cli
