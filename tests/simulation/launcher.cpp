#include "tests/simulation/launcher.hpp"

#include <algorithm>

namespace pitcrew::simulation {

using namespace api::channel;

SimLauncher::SimLauncher(LauncherWorld& world, local::ContainerSpec spec, std::string node, PodMemory& memory)
    : world_(world),
      spec_(std::move(spec)),
      node_(std::move(node)),
      job_uid_(world.job_uid(spec_)),
      memory_(memory),
      delayed_(world.loop) {
  boot_ = "boot-" + std::to_string(++memory_.boots);
  connect_later(milliseconds(100 + world_.random.below(300)));
}

SimLauncher::~SimLauncher() {
  dead_ = true;
  leave("died", false);
}

void SimLauncher::leave(const std::string& why, bool silently) {
  if (Gang* gang = std::exchange(gang_, nullptr); gang != nullptr && slot_) gang->leave(*slot_, why, silently);
  running_ = false;
}

void SimLauncher::die(bool silently) {
  dead_ = true;
  connection_lost_ = world_.loop.now();
  if (conn_ && silently) conn_->cut();
  leave("died", silently);
  conn_.reset();
  delayed_.clear();
  connect_timer_.reset();
}

void SimLauncher::signaled() {
  // SIGTERM of the kubelet: ranks save and end with the pod.
  delayed_.after(milliseconds(200 + world_.random.below(1500)), [this] {
    leave("died", false);
    world_.exit(*this, 0);
  });
}

void SimLauncher::cut() {
  if (!conn_) return;
  connection_lost_ = world_.loop.now();
  conn_->cut();
  // Its own ping goes unanswered.
  connect_timer_ = world_.loop.after(seconds(5) + milliseconds(world_.random.below(500)), [this] {
    conn_.reset();
    connect();
  });
}

void SimLauncher::give_up() {
  if (!conn_) return;
  connection_lost_ = world_.loop.now();
  conn_.reset();
  connect_later(milliseconds(200 + world_.random.below(500)));
}

void SimLauncher::connect_later(Duration delay) {
  connect_timer_ = world_.loop.after(delay, [this] { connect(); });
}

void SimLauncher::connect() {
  if (dead_ || conn_ || world_.quiet) return;
  server_ = world_.server(node_);
  if (server_ == nullptr) return connect_later(milliseconds(700 + world_.random.below(600)));
  conn_ = server_->connect(world_.token(spec_), node_,
                           {[this](std::string text) { received(text); },
                            [this](control::CloseCode, const std::string&) {
                              connection_lost_ = world_.loop.now();
                              delayed_.after(Duration(0), [this] { conn_.reset(); });
                              connect_later(milliseconds(300 + world_.random.below(700)));
                            }});
  if (!conn_) return connect_later(milliseconds(700 + world_.random.below(600)));
  connection_lost_.reset();
  Hello hello;
  hello.job_uid = job_uid_;
  hello.pod_name = spec_.pod_name;
  hello.pod_uid = spec_.pod_uid;
  hello.node = node_;
  hello.boot = boot_;
  hello.address = "10.0.0.1";
  hello.peer_port = 7000;
  hello.seen = memory_.seen;
  hello.running = running_;
  hello.held = memory_.held;
  greeted_ = true;
  say(hello);
  for (const Exited& exit : exits_) say(exit);
  if (gang_ != nullptr) gang_->tell(*this);
}

void SimLauncher::say(const FromLauncher& message) {
  if (conn_ && !dead_ && !world_.quiet) conn_->send(encode(message));
}

void SimLauncher::rank_ended(const Exited& exit) {
  exits_.push_back(exit);
  running_ = false;
  say(exit);
}

void SimLauncher::hold(ResumePoint point) {
  memory_.held.insert(memory_.held.begin(), point);
  if (memory_.held.size() > 2) memory_.held.resize(2);
}

void SimLauncher::received(const std::string& text) {
  if (dead_) return;
  const auto message = decode_to_launcher(text);
  if (!message) return world_.trace("a launcher can't read a message: " + message.error().message);
  if (const auto* epoch = std::get_if<Epoch>(&*message)) {
    if (epoch->id <= memory_.seen) return;
    world_.accepted(*this, *message);
    return take_epoch(*epoch);
  }
  if (const auto* stop = std::get_if<Stop>(&*message)) {
    if (stop->epoch < memory_.seen) return;
    world_.accepted(*this, *message);
    return this->stop(*stop);
  }
  world_.accepted(*this, *message);
  if (const auto* save = std::get_if<Save>(&*message)) {
    if (gang_ != nullptr)
      say(Saved{memory_.seen, gang_->step(), true, "/checkpoints/step-" + std::to_string(gang_->step().value) + "-c1",
                1, save->request});
  } else if (const auto* diagnose = std::get_if<Diagnose>(&*message)) {
    say(Stacks{diagnose->request, "#0 main"});
  } else if (std::holds_alternative<Finish>(*message)) {
    delayed_.after(milliseconds(100),
                   [this, success = std::get<Finish>(*message).success] { world_.exit(*this, success ? 0 : 1); });
  }
}

void SimLauncher::take_epoch(const Epoch& epoch) {
  leave("stopped", false);
  exits_.clear();
  memory_.seen = epoch.id;
  slot_ = epoch.slot;
  if (!slot_) return;
  Gang* gang = world_.gang(epoch);
  if (gang == nullptr) return;
  gang_ = gang;
  running_ = true;
  delayed_.after(milliseconds(100 + world_.random.below(400)), [this, gang, id = epoch.id] {
    if (gang_ == gang && memory_.seen == id) gang->join(*slot_, this);
  });
}

void SimLauncher::stop(const Stop& stop) {
  if (!running_ && gang_ == nullptr) return;
  if (!stop.save) {
    leave("stopped", false);
    delayed_.after(milliseconds(200 + world_.random.below(600)), [this, id = memory_.seen] {
      if (memory_.seen == id) say(Aborted{id, true, ""});
    });
    return;
  }
  delayed_.after(milliseconds(1000 + world_.random.below(6000)), [this, id = memory_.seen] {
    if (memory_.seen != id || gang_ == nullptr) return;
    const Step step = gang_->step();
    if (slot_ == Slot(0) && !gang_->broken()) {
      say(Saved{id, step, true,
                "/checkpoints/step-" + std::to_string(step.value) + "-c" + std::to_string(id.number.value), 1, ""});
    }
    leave("stopped", false);
    say(Stopped{id, true});
  });
}

}  // namespace pitcrew::simulation
