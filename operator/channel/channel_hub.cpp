#include "operator/channel/channel_hub.hpp"

#include <algorithm>

namespace pitcrew::control {
namespace {

using namespace api::channel;

// What the operator should look at before anything else.
bool urgent(const FromLauncher& message) {
  return std::holds_alternative<Exited>(message) || std::holds_alternative<Stalled>(message) ||
         std::holds_alternative<Unreachable>(message) || std::holds_alternative<Evidence>(message) ||
         std::holds_alternative<Aborted>(message);
}

}  // namespace

ChannelHub::ChannelHub(Loop& loop, ChannelServer& server, SessionAuth& auth, ChannelHubSettings settings,
                       Callbacks callbacks, Logger log)
    : loop_(loop),
      server_(server),
      auth_(auth),
      settings_(settings),
      callbacks_(std::move(callbacks)),
      log_(std::move(log)),
      self_(std::make_shared<ChannelHub*>(this)) {}

ChannelHub::~ChannelHub() {
  *self_ = nullptr;
  server_.stop();
}

void ChannelHub::start() { server_.start(*this); }

void ChannelHub::stop() {
  leading_ = false;
  server_.stop();
  sessions_.clear();
  launchers_.clear();
  by_job_.clear();
  tallied_ = false;
}

void ChannelHub::lead(Term term) {
  leading_ = true;
  term_ = term;
}

void ChannelHub::step_down() {
  leading_ = false;
  std::vector<SessionRef> sessions;
  for (const auto& [key, session] : sessions_) sessions.push_back(session);
  std::sort(sessions.begin(), sessions.end(),
            [](const SessionRef& a, const SessionRef& b) { return a->number < b->number; });
  for (const SessionRef& session : sessions) end(session, CloseCode::kNotLeader, "not leader");
  launchers_.clear();
  by_job_.clear();
  tallied_ = false;
}

std::vector<LauncherView> ChannelHub::launchers_of(const std::string& job_uid) const {
  std::vector<LauncherView> views;
  const auto pods = by_job_.find(job_uid);
  if (pods == by_job_.end()) return views;
  views.reserve(pods->second.size());
  for (const std::string& pod : pods->second) views.push_back(launchers_.at(pod).view);
  std::sort(views.begin(), views.end(),
            [](const LauncherView& a, const LauncherView& b) { return a.pod_name < b.pod_name; });
  return views;
}

const LauncherView* ChannelHub::launcher(const std::string& pod_uid) const {
  const auto known = launchers_.find(pod_uid);
  return known == launchers_.end() ? nullptr : &known->second.view;
}

void ChannelHub::tally() const {
  if (tallied_) return;
  tallied_ = true;
  struct NodeState {
    bool answers = false;
    std::optional<Instant> silent;
  };
  std::map<std::string, NodeState> nodes;
  for (const auto& [uid, known] : launchers_) {
    if (known.ended || known.view.sent_finish) continue;
    NodeState& node = nodes[known.view.node];
    if (known.view.connected && !known.view.silent_since) node.answers = true;
    if (known.view.silent_since) node.silent = std::max(node.silent.value_or(Instant()), *known.view.silent_since);
  }
  connected_nodes_ = 0;
  silent_nodes_.clear();
  for (const auto& [name, node] : nodes) {
    if (node.answers) ++connected_nodes_;
    if (!node.answers && node.silent) silent_nodes_.push_back({name, *node.silent});
  }
}

uint32_t ChannelHub::connected_nodes() const {
  tally();
  return connected_nodes_;
}

std::vector<SilentNode> ChannelHub::silent_nodes() const {
  tally();
  std::vector<SilentNode> shown = silent_nodes_;
  std::erase_if(shown, [&](const SilentNode& node) { return loop_.now() - node.since > settings_.silent_shown; });
  return shown;
}

bool ChannelHub::send(const std::string& pod_uid, const ToLauncher& message) {
  const auto known = launchers_.find(pod_uid);
  if (!leading_ || known == launchers_.end() || !known->second.session) return false;
  known->second.session->session->send(encode(message));
  known->second.view.sent(message);
  tallied_ = false;
  return true;
}

void ChannelHub::pod_ended(const std::string& pod_uid) {
  const auto known = launchers_.find(pod_uid);
  if (known == launchers_.end() || known->second.ended) return;
  known->second.ended = true;
  tallied_ = false;
}

void ChannelHub::forget(const std::string& pod_uid) {
  const auto known = launchers_.find(pod_uid);
  if (known == launchers_.end()) return;
  if (const SessionRef session = known->second.session) {
    end(session, CloseCode::kGoingAway, "the pod is gone");
  }
  const auto pods = by_job_.find(known->second.view.job_uid);
  if (pods != by_job_.end()) {
    pods->second.erase(pod_uid);
    if (pods->second.empty()) by_job_.erase(pods);
  }
  launchers_.erase(known);
  tallied_ = false;
}

void ChannelHub::forget_job(const std::string& job_uid) {
  const auto pods = by_job_.find(job_uid);
  if (pods == by_job_.end()) return;
  for (const std::string& pod : std::set<std::string>(pods->second)) {
    if (!launchers_.at(pod).session) forget(pod);
  }
}

void ChannelHub::opened(const ChannelSessionPtr& session) {
  ++metrics_.opened;
  if (!leading_) {
    ++metrics_.not_leader;
    session->close(CloseCode::kNotLeader, "not leader");
    return;
  }
  if (sessions_.size() >= settings_.sessions) {
    session->close(CloseCode::kTryAgain, "too many connections");
    return;
  }
  auto entry = std::make_shared<Session>();
  entry->number = ++last_session_;
  entry->session = session;
  entry->last_heard = loop_.now();
  entry->hello_timer = loop_.after(settings_.hello_timeout, [this, weak = std::weak_ptr(entry)] {
    const auto entry = weak.lock();
    if (entry && entry->stage == Stage::kOpened) end(entry, CloseCode::kProtocol, "no hello came in time");
  });
  sessions_[session.get()] = std::move(entry);
}

void ChannelHub::received(const ChannelSessionPtr& session, std::string_view text) {
  const auto found = sessions_.find(session.get());
  if (found == sessions_.end()) return;
  const SessionRef entry = found->second;
  entry->last_heard = loop_.now();
  if (text.size() > kMaxFromLauncher) {
    return end(
        entry, CloseCode::kTooBig,
        "a message of " + std::to_string(text.size()) + " bytes; the limit is " + std::to_string(kMaxFromLauncher));
  }
  switch (entry->stage) {
    case Stage::kOpened:
      return hello(entry, std::string(text));
    case Stage::kChecking:
      if (entry->waiting.size() >= settings_.waiting_messages) {
        return end(entry, CloseCode::kTryAgain, "too many messages before the token was checked");
      }
      entry->waiting.emplace_back(text);
      return;
    case Stage::kAccepted:
      return take(entry, text);
    case Stage::kClosed:
      return;
  }
}

void ChannelHub::hello(const SessionRef& session, const std::string& text) {
  auto message = decode_from_launcher(text);
  if (!message) return end(session, CloseCode::kProtocol, message.error().message);
  const Hello* said = std::get_if<Hello>(&*message);
  if (said == nullptr) return end(session, CloseCode::kProtocol, "the first message is not a hello");
  if (!understands({kProtocolMajor, kProtocolMinor}, {said->major, said->minor})) {
    ++metrics_.refused;
    return end(session, CloseCode::kProtocol,
               "the launcher speaks version " + std::to_string(said->major) + "." + std::to_string(said->minor) +
                   " of the channel, this operator " + std::to_string(kProtocolMajor) + "." +
                   std::to_string(kProtocolMinor) + "; pods of this launcher must be made anew");
  }
  session->stage = Stage::kChecking;
  session->hello_timer.reset();
  const SessionAuth::Claim claim{said->pod_name, said->pod_uid, said->job_uid};
  auth_.check(session->session->token(), claim, [self = self_, session, hello = *said](Status status) {
    ChannelHub* hub = *self;
    if (hub == nullptr || session->stage != Stage::kChecking) return;
    if (status) return hub->accept(session, hello);
    const Code code = status.error().code;
    const bool refused = code == Code::kUnauthenticated || code == Code::kForbidden;
    if (refused) ++hub->metrics_.refused;
    hub->log_.warning("a launcher was not let in",
                      {{"pod", hello.pod_name}, {"peer", session->session->peer()}, {"error", status.error().message}});
    hub->end(session, refused ? CloseCode::kUnauthorized : CloseCode::kTryAgain,
             refused ? status.error().message : "the token can't be checked now");
  });
}

void ChannelHub::accept(const SessionRef& session, const Hello& hello) {
  ++metrics_.accepted;
  session->stage = Stage::kAccepted;
  session->pod_uid = hello.pod_uid;
  Known& known = launchers_[hello.pod_uid];
  if (const SessionRef old = std::move(known.session))
    end(old, CloseCode::kReplaced, "a newer connection of the same pod");
  known.session = session;
  known.view.hello(hello, loop_.now());
  by_job_[hello.job_uid].insert(hello.pod_uid);
  tallied_ = false;
  log_.info("launcher connected", {{"pod", hello.pod_name}, {"node", hello.node}, {"boot", hello.boot}});
  if (hello.seen.term > term_ && callbacks_.higher_term) {
    callbacks_.higher_term(hello.seen.term);
    if (!leading_) return;
  }
  if (callbacks_.message) callbacks_.message(hello.job_uid, hello);
  if (callbacks_.changed) callbacks_.changed(hello.job_uid, true);
  const std::vector<std::string> waiting = std::move(session->waiting);
  for (const std::string& text : waiting) {
    if (session->stage == Stage::kAccepted) take(session, text);
  }
}

void ChannelHub::take(const SessionRef& session, std::string_view text) {
  const auto found = launchers_.find(session->pod_uid);
  if (found == launchers_.end()) return;
  auto message = decode_from_launcher(text);
  if (!message) return bad(session, message.error().message);
  if (std::holds_alternative<Hello>(*message)) return bad(session, "a second hello");
  ++metrics_.messages;
  LauncherView& view = found->second.view;
  if (view.heard()) tallied_ = false;
  const std::string job_uid = view.job_uid;
  const bool changed = view.receive(*message, loop_.now());
  if (callbacks_.message) callbacks_.message(job_uid, *message);
  if (changed && callbacks_.changed) callbacks_.changed(job_uid, urgent(*message));
}

void ChannelHub::bad(const SessionRef& session, const std::string& what) {
  ++metrics_.bad_messages;
  if (++session->bad == 1)
    log_.warning("a launcher's message was passed over", {{"peer", session->session->peer()}, {"error", what}});
  if (session->bad > settings_.bad_messages)
    end(session, CloseCode::kProtocol, "too many messages that can't be understood");
}

void ChannelHub::end(const SessionRef& session, CloseCode code, const std::string& reason) {
  if (session->stage == Stage::kClosed) return;
  session->stage = Stage::kClosed;
  session->hello_timer.reset();
  session->waiting.clear();
  session->session->close(code, reason);
  const auto known = launchers_.find(session->pod_uid);
  if (known == launchers_.end() || known->second.session != session) return;
  known->second.session = nullptr;
  known->second.view.disconnected(session->last_heard, loop_.now());
  tallied_ = false;
}

void ChannelHub::closed(const ChannelSessionPtr& session, const std::string& reason) {
  const auto found = sessions_.find(session.get());
  if (found == sessions_.end()) return;
  const SessionRef entry = found->second;
  sessions_.erase(found);
  entry->hello_timer.reset();
  entry->stage = Stage::kClosed;
  const auto known = launchers_.find(entry->pod_uid);
  if (known == launchers_.end() || known->second.session != entry) return;
  known->second.session = nullptr;
  LauncherView& view = known->second.view;
  tallied_ = false;
  log_.info("launcher disconnected", {{"pod", view.pod_name}, {"node", view.node}, {"reason", reason}});
  const std::string job_uid = view.job_uid;
  const bool fell_silent = std::string_view(reason).starts_with(kFellSilent);
  if (view.disconnected(entry->last_heard, loop_.now(), fell_silent) && callbacks_.changed)
    callbacks_.changed(job_uid, true);
}

void ChannelHub::config_changed() {
  if (callbacks_.config_changed) callbacks_.config_changed();
}

}  // namespace pitcrew::control
