#include "launcher/memory/memory_service.hpp"

#include <algorithm>

#include <unistd.h>

#include "launcher/memory/placement.hpp"

namespace pitcrew::launcher {
namespace {

using launcher_socket::Held;

// Several calls, one answer: ok when all are, else the first error.
struct Gather {
  size_t left = 0;
  Status status;
  void one(const Status& result) {
    if (status && !result) status = result;
    --left;
  }
};

launcher_socket::Answer answer_of(const Status& status) {
  launcher_socket::Answer answer;
  if (!status) answer.error = status.error();
  return answer;
}

// A list of a large job may not fit one line: what is not part of a checkpoint that counts is left out first.
void keep_counted_alone(std::vector<Held>& all) {
  std::vector<std::string> counted;
  for (const Held& held : all) counted.insert(counted.end(), held.counted.begin(), held.counted.end());
  const auto forgettable = [&](const std::string& file) {
    return std::find(counted.begin(), counted.end(), file.substr(0, file.find('/'))) == counted.end();
  };
  for (Held& held : all) {
    std::erase_if(held.own, forgettable);
    for (Held::Copy& copy : held.peer) std::erase_if(copy.files, forgettable);
    std::erase_if(held.peer, [](const Held::Copy& copy) { return copy.files.empty(); });
  }
}

}  // namespace

MemoryService::MemoryService(net::AsioLoop& loop, Settings settings, Handler handler, Logger log)
    : loop_(loop), settings_(std::move(settings)), handler_(std::move(handler)), log_(std::move(log)) {}

Result<std::unique_ptr<MemoryService>> MemoryService::create(net::AsioLoop& loop, Settings settings, Handler handler,
                                                             Logger log) {
  std::unique_ptr<MemoryService> service(new MemoryService(loop, std::move(settings), std::move(handler), log));
  if (!service->settings_.folder.empty()) {
    PITCREW_ASSIGN(service->folder_, MemoryFolder::open(service->settings_.folder));
  }
  MemoryFolder* folder = service->folder_ ? &*service->folder_ : nullptr;
  PITCREW_ASSIGN(service->server_, PeerServer::listen(loop, folder, service->settings_.address, log));
  service->client_ = std::make_unique<PeerClient>(loop, folder, service->settings_.client);
  MemoryService* raw = service.get();
  PITCREW_ASSIGN(service->socket_, RankSocket::listen(
                                       loop, service->settings_.socket,
                                       [raw](launcher_socket::Request request, RankSocket::Answer answer) {
                                         raw->handle(std::move(request), std::move(answer));
                                       },
                                       std::move(log)));
  return service;
}

Status MemoryService::set_epoch(Epoch epoch) {
  socket_->cut();
  if (folder_) folder_->clear_fetched();
  // The identity is sent in clear; it says which key, and is no secret.
  const net::PskKey key{epoch.job_uid.substr(0, 64) + "/" + std::to_string(epoch.id.term.value) + "." +
                            std::to_string(epoch.id.number.value),
                        epoch.key};
  pinger_.reset();
  epoch_ = std::move(epoch);
  client_->set_key(key);
  PITCREW_TRY(server_->set_key(key));
  if (epoch_->slot) {
    pinger_ = std::make_unique<Pinger>(loop_, epoch_->table, *epoch_->slot, key, [this](const Silence::Report& report) {
      if (handler_.on_silence) handler_.on_silence(report);
    });
  }
  return {};
}

PeerServer::Counters MemoryService::counters() const {
  PeerServer::Counters both = server_->counters();
  both.bytes_in += client_->bytes_in();
  both.bytes_out += client_->bytes_out();
  return both;
}

std::vector<ResumePoint> MemoryService::counted() const {
  return folder_ ? folder_->counted() : std::vector<ResumePoint>();
}

void MemoryService::handle(launcher_socket::Request request, RankSocket::Answer answer) {
  std::visit([&](const auto& r) { serve(r, std::move(answer)); }, request);
}

Status MemoryService::usable() const {
  if (!folder_) return Error(Code::kNotFound, "this pod has no memory tier (checkpoint.memory is not set)");
  if (!epoch_ || !epoch_->slot) return Error(Code::kUnavailable, "this launcher has no place in an epoch");
  return {};
}

Result<net::Address> MemoryService::address_of(Slot slot) const {
  const auto* entry = find_slot(epoch_->table, slot);
  if (entry == nullptr)
    return Error(Code::kNotFound, "slot " + std::to_string(slot.value) + " is not in the epoch's table");
  return net::Address{entry->address, static_cast<uint16_t>(entry->peer_port)};
}

void MemoryService::serve(const launcher_socket::Push& push, RankSocket::Answer answer) {
  if (const Status ready = usable(); !ready) return answer(answer_of(ready));
  for (const std::string& file : push.files) {
    if (!valid_name(push.checkpoint) || !valid_path(file)) {
      return answer(answer_of(
          Error(Code::kInvalidArgument, "push " + push.checkpoint + "/" + file + ": not a name of a file in own/")));
    }
  }
  const std::vector<Slot> holders = copy_holders(epoch_->table, *epoch_->slot, epoch_->copies);
  auto gather = std::make_shared<Gather>();
  gather->left = holders.size() * push.files.size();
  const auto finish = [gather, holders, answer] {
    auto full = answer_of(gather->status);
    if (gather->status) full.copies = holders;
    answer(std::move(full));
  };
  if (gather->left == 0) return finish();
  for (const Slot holder : holders) {
    const auto address = address_of(holder);
    for (const std::string& file : push.files) {
      client_->put(*address, *epoch_->slot, push.checkpoint, file, [gather, finish, holder, file](Status status) {
        gather->one(
            status ? status
                   : Status(status.error().with_context("copy " + file + " to slot " + std::to_string(holder.value))));
        if (gather->left == 0) finish();
      });
    }
  }
}

void MemoryService::serve(const launcher_socket::List&, RankSocket::Answer answer) {
  if (const Status ready = usable(); !ready) return answer(answer_of(ready));
  struct Lists : Gather {
    std::vector<Held> all;
  };
  auto lists = std::make_shared<Lists>();
  Held own = folder_->held();
  own.slot = *epoch_->slot;
  own.self = true;
  lists->all.push_back(std::move(own));
  lists->left = epoch_->table.size();
  const auto one = [lists, answer] {
    if (--lists->left > 0) return;
    std::sort(lists->all.begin(), lists->all.end(), [](const Held& a, const Held& b) { return a.slot < b.slot; });
    launcher_socket::Answer full{.held = std::move(lists->all)};
    if (launcher_socket::encode(full).size() > launcher_socket::kMaxLine) keep_counted_alone(full.held);
    answer(std::move(full));
  };
  for (const auto& entry : epoch_->table) {
    if (entry.slot == *epoch_->slot) {
      one();
      continue;
    }
    client_->list(*address_of(entry.slot), [this, lists, one, slot = entry.slot](Result<Held> held) {
      if (held) {
        held->slot = slot;
        held->self = false;
        lists->all.push_back(*std::move(held));
      } else {
        log_.warning("a launcher is left out of the list of memory checkpoints",
                     {{"slot", slot.value}, {"error", held.error().message}});
      }
      one();
    });
  }
}

void MemoryService::serve(const launcher_socket::Fetch& fetch, RankSocket::Answer answer) {
  if (const Status ready = usable(); !ready) return answer(answer_of(ready));
  if (fetch.slot == *epoch_->slot) return answer(answer_of(copy_from_self(fetch)));
  const auto address = address_of(fetch.slot);
  if (!address) return answer(answer_of(address.error()));
  client_->get(*address, fetch.path, fetch.ranges, fetch.into, [answer](Status status) { answer(answer_of(status)); });
}

Status MemoryService::copy_from_self(const launcher_socket::Fetch& fetch) {
  PITCREW_ASSIGN(const auto source, folder_->open_file(fetch.path));
  PITCREW_ASSIGN(const uint64_t total, peer::total_of(fetch.ranges, source.size));
  PITCREW_ASSIGN(auto incoming, folder_->receive_fetched(fetch.into, total));
  std::vector<char> buffer(peer::kPiece);
  uint64_t offset = 0;
  for (const auto& range : fetch.ranges) {
    for (uint64_t done = 0; done < range.length;) {
      const size_t piece = std::min<uint64_t>(buffer.size(), range.length - done);
      const ssize_t got = pread(source.file.get(), buffer.data(), piece, static_cast<off_t>(range.offset + done));
      if (got <= 0) return Error(Code::kDataLoss, fetch.path + " became shorter while it was read");
      PITCREW_TRY(incoming.write(buffer.data(), static_cast<size_t>(got), offset));
      done += static_cast<uint64_t>(got);
      offset += static_cast<uint64_t>(got);
    }
  }
  return incoming.commit();
}

void MemoryService::serve(const launcher_socket::Counted& counted, RankSocket::Answer answer) {
  if (const Status ready = usable(); !ready) return answer(answer_of(ready));
  const Status marked = folder_->mark_counted(counted.checkpoint);
  if (marked && handler_.on_counted) handler_.on_counted(counted.checkpoint, counted.step);
  answer(answer_of(marked));
}

void MemoryService::serve(const launcher_socket::Drop& drop, RankSocket::Answer answer) {
  if (const Status ready = usable(); !ready) return answer(answer_of(ready));
  if (const Status dropped = folder_->drop_own(drop.checkpoint); !dropped) return answer(answer_of(dropped));
  const std::vector<Slot> holders = copy_holders(epoch_->table, *epoch_->slot, epoch_->copies);
  auto gather = std::make_shared<Gather>();
  gather->left = holders.size();
  if (holders.empty()) return answer({});
  for (const Slot holder : holders) {
    client_->drop(*address_of(holder), *epoch_->slot, drop.checkpoint, [gather, answer](Status status) {
      gather->one(status);
      if (gather->left == 0) answer(answer_of(gather->status));
    });
  }
}

void MemoryService::serve(const launcher_socket::Saved& saved, RankSocket::Answer answer) {
  if (handler_.on_saved) handler_.on_saved(saved);
  answer({});
}

void MemoryService::serve(const launcher_socket::Evidence& evidence, RankSocket::Answer answer) {
  if (handler_.on_evidence) handler_.on_evidence(evidence);
  answer({});
}

}  // namespace pitcrew::launcher
