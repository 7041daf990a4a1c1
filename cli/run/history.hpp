#pragma once

#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "cli/run/view.hpp"
#include "lib/api/training_job.hpp"

namespace pitcrew::cli {

// By when each was detected: the epoch that it leads to isn't known at once.
using Recoveries = std::map<Instant, api::Recovery>;

// What has happened to the job so far, over all runs of the same command: told to the view as it becomes known, and
// kept in events.jsonl. On the loop.
class History {
 public:
  // Reads what earlier runs have left in the file, and appends to it.
  History(View& view, const std::string& file);
  ~History();
  History(const History&) = delete;

  void note(Instant time, const std::string& text, Json fields);
  // Compares with the status before and tells what is new: phases, recoveries that were decided or are over,
  // conditions.
  void status(Instant time, const api::TrainingJob& job);

  const Recoveries& recoveries() const { return recoveries_; }

 private:
  void recovery(Instant time, const api::Recovery& recovery);

  View& view_;
  std::FILE* file_;
  std::string phase_;
  std::string reason_;
  Recoveries recoveries_;
};

// {finished, steps, epochs, recoveries […], goodput {…}, loss {first, last}}
Json make_report(const api::TrainingJob& job, const Recoveries& recoveries, const std::string& steps_file);

// The recoveries as a table, for people.
std::string recovery_table(const Recoveries& recoveries);

}  // namespace pitcrew::cli
