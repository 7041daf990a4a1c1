#include "agent/app/uninstall.hpp"

#include <optional>

#include "agent/app/agent.hpp"

namespace pitcrew::agent {

int take_back_and_tell(net::AsioLoop& loop, kube::Transport& transport, uint64_t seed, TakeBackSettings settings,
                       const Logger& log, std::ostream& out) {
  std::optional<Result<TakenBack>> result;
  TakeBack take_back(loop, transport, seed, std::move(settings), log, [&](Result<TakenBack> told) {
    result = std::move(told);
    loop.stop();
  });
  take_back.start();
  while (!result) loop.run();
  if (!*result) {
    out << "nothing was taken back from nodes: " << result->error().message << "\n";
    return kExitFailed;
  }
  const TakenBack& taken = **result;
  out << taken.changed << " of " << taken.nodes << " nodes had a label, taint, annotation, condition or cordon of "
      << "agents; they are gone\n";
  for (const std::string& node : taken.kept) out << node << ": stays cordoned, somebody else has cordoned it too\n";
  for (const std::string& node : taken.held) {
    out << node << ": left as it is, because of its annotation pitcrew.dev/hold\n";
  }
  for (const std::string& node : taken.failed) out << node << "\n";
  if (!taken.failed.empty()) {
    out << "the nodes above could not be written; run this again, or take `pitcrew.dev/unhealthy` off them by "
           "kubectl\n";
    return kExitFailed;
  }
  out << "The definitions, all jobs, their pods and NodeHealth stay. To remove them too: kubectl delete crd "
      << "trainingjobs.pitcrew.dev healthpolicies.pitcrew.dev nodehealths.pitcrew.dev cordonbudgets.pitcrew.dev\n";
  return kExitStopped;
}

}  // namespace pitcrew::agent
