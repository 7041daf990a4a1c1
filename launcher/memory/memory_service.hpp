#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "launcher/memory/memory_folder.hpp"
#include "launcher/memory/peer_client.hpp"
#include "launcher/memory/peer_server.hpp"
#include "launcher/memory/pinger.hpp"
#include "launcher/memory/rank_socket.hpp"

namespace pitcrew::launcher {

// The memory tier of one pod, and what its ranks ask of their launcher: copies to and from other pods, lists, marks,
// drops. Lives as long as the launcher; an epoch is set whenever one begins. On the loop.
class MemoryService {
 public:
  struct Settings {
    std::string folder;    // PITCREW_MEMORY; empty: the tier is off
    std::string socket;    // PITCREW_LAUNCHER
    net::Address address;  // where peers connect; port 0: any
    PeerClient::Settings client = {};
  };
  // What the ranks say that is for the operator.
  struct Handler {
    std::function<void(const launcher_socket::Saved& saved)> on_saved;
    std::function<void(const launcher_socket::Evidence& evidence)> on_evidence;
    std::function<void(const std::string& checkpoint, Step step)> on_counted;
    std::function<void(const Silence::Report& report)> on_silence;
  };
  struct Epoch {
    EpochId id;
    std::string job_uid;
    std::optional<Slot> slot;  // unset: a spare; it is pinged and asked, and asks nobody
    std::vector<api::channel::TableEntry> table;
    std::string key;  // 32 bytes
    uint32_t copies = 1;
  };

  static Result<std::unique_ptr<MemoryService>> create(net::AsioLoop& loop, Settings settings, Handler handler,
                                                       Logger log);

  // From now on this epoch's launchers are asked and answered, and no others. What ranks had fetched is removed.
  Status set_epoch(Epoch epoch);

  const std::string& socket_path() const { return socket_->path(); }
  uint16_t peer_port() const { return server_->address().port; }
  std::vector<ResumePoint> counted() const;
  // Between this launcher and its peers, whoever of the two has asked.
  PeerServer::Counters counters() const;
  bool has_folder() const { return folder_.has_value(); }

  void handle(launcher_socket::Request request, RankSocket::Answer answer);

 private:
  MemoryService(net::AsioLoop& loop, Settings settings, Handler handler, Logger log);
  void serve(const launcher_socket::Push& push, RankSocket::Answer answer);
  void serve(const launcher_socket::List& list, RankSocket::Answer answer);
  void serve(const launcher_socket::Fetch& fetch, RankSocket::Answer answer);
  void serve(const launcher_socket::Counted& counted, RankSocket::Answer answer);
  void serve(const launcher_socket::Drop& drop, RankSocket::Answer answer);
  void serve(const launcher_socket::Saved& saved, RankSocket::Answer answer);
  void serve(const launcher_socket::Evidence& evidence, RankSocket::Answer answer);
  // Why the tier can't be used now.
  Status usable() const;
  Result<net::Address> address_of(Slot slot) const;
  Status copy_from_self(const launcher_socket::Fetch& fetch);

  net::AsioLoop& loop_;
  Settings settings_;
  Handler handler_;
  Logger log_;
  std::optional<MemoryFolder> folder_;
  std::optional<Epoch> epoch_;
  std::unique_ptr<PeerServer> server_;
  std::unique_ptr<PeerClient> client_;
  std::unique_ptr<RankSocket> socket_;
  std::unique_ptr<Pinger> pinger_;
};

}  // namespace pitcrew::launcher
