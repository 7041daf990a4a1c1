#pragma once

#include <memory>
#include <string>

#include "cli/run/chaos.hpp"
#include "cli/run/history.hpp"
#include "cli/run/local_cluster.hpp"
#include "cli/run/options.hpp"
#include "cli/run/run_folder.hpp"
#include "cli/run/serving.hpp"
#include "cli/run/view.hpp"
#include "lib/api/training_job.hpp"
#include "lib/net/asio_loop.hpp"
#include "operator/app/operator.hpp"

namespace pitcrew::control {
class WebSocketChannelServer;
}

namespace pitcrew::cli {

// One `pitcrew run`: the cluster, the operator on it, the job, its failures and its end. Made and run on the thread of
// the loop.
class Session {
 public:
  Session(net::AsioLoop& loop, const RunOptions& options, RunFolder& folder, api::TrainingJob job, ChaosPlan chaos,
          View& view, Logger log);
  ~Session();
  Session(const Session&) = delete;

  // Until the job is over or was stopped; the exit code of add_run().
  Result<int> run();

  // After run().
  Json report() const;
  std::string recoveries_for_people() const;

 private:
  enum class Stopping { kNo, kSaving, kNow };

  Status start();
  Status restore();
  void save();
  void apply();
  void update(const api::TrainingJob& stored);
  void on_status(const api::TrainingJob& job);
  void on_message(const api::channel::FromLauncher& message);
  void make_failures(Step step);
  std::string make_failure(const ChaosEvent& event);
  void interrupt();
  void tick();
  void finish(int code, const std::string& error = "");
  void wind_down();
  Standing standing() const;

  net::AsioLoop& loop_;
  const RunOptions& options_;
  RunFolder& folder_;
  api::TrainingJob wanted_;  // as the manifest says
  ChaosPlan chaos_;
  View& view_;
  Logger log_;
  History history_;
  Random random_;
  std::unique_ptr<LocalCluster> cluster_;
  std::unique_ptr<control::WebSocketChannelServer> channel_;
  std::unique_ptr<Serving> serving_;  // null unless asked for
  std::unique_ptr<control::Operator> operator_;
  std::unique_ptr<kube::Client> client_;
  api::TrainingJob job_;  // as last stored
  Step live_step_;
  std::optional<double> live_loss_;
  double live_rate_ = 0;
  uint64_t live_total_ = 0;
  bool save_due_ = false;
  Stopping stopping_ = Stopping::kNo;
  std::optional<int> code_;
  std::string error_;
  Loop::TimerPtr tick_;
  Loop::TimerPtr stop_deadline_;
  net::AsioLoop::WatchPtr signals_;
};

}  // namespace pitcrew::cli
