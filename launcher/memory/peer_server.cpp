#include "launcher/memory/peer_server.hpp"

#include <unistd.h>

#include "launcher/memory/peer_protocol.hpp"

namespace pitcrew::launcher {
namespace {

// Between requests a neighbour pings every 1.5 s, and a copy is one request: more connections than these are no
// launcher's.
constexpr size_t kMostConnections = 128;

}  // namespace

// One connection of another launcher. Owned by the server; its callbacks are dropped with the connection.
class PeerServer::Session {
 public:
  Session(PeerServer& server, uint64_t id, net::PskConnection::Ptr connection)
      : server_(server), id_(id), connection_(std::move(connection)) {}

  void next_request() {
    connection_->read_idle([this](Result<std::string> frame) {
      if (!frame) return end();
      const auto request = peer::decode_request(*frame);
      if (!request) return answer({.error = request.error()});
      std::visit([this](const auto& r) { serve(r); }, *request);
    });
  }

 private:
  void end() { server_.end(id_); }

  void answer(peer::Answer answer) {
    if (answer.error) ++server_.counters_.refused;
    connection_->send(peer::encode(answer));
    next_request();
  }
  void answer(const Status& status) {
    answer(peer::Answer{.error = status ? std::nullopt : std::optional(status.error())});
  }

  bool without_folder() {
    if (server_.folder_ != nullptr) return false;
    answer({.error = Error(Code::kNotFound, "this pod has no memory tier")});
    return true;
  }

  void serve(const peer::Ping&) { answer(peer::Answer{}); }

  void serve(const peer::List&) {
    if (without_folder()) return;
    answer({.held = server_.folder_->held()});
  }

  void serve(const peer::Drop& drop) {
    if (without_folder()) return;
    answer(server_.folder_->drop_copy(drop.of, drop.checkpoint));
  }

  void serve(const peer::Put& put) {
    if (without_folder()) return;
    auto incoming = server_.folder_->receive_copy(put.of, put.checkpoint, put.file, put.size);
    if (!incoming) return answer({.error = incoming.error()});
    incoming_.emplace(*std::move(incoming));
    left_ = put.size;
    offset_ = 0;
    failed_ = {};
    connection_->send(peer::encode(peer::Answer{}));
    receive();
  }

  // A body whose bytes can't be kept is still read to its end: the stream goes on after it.
  void receive() {
    if (left_ == 0) {
      buffer_ = {};
      Status status = failed_ ? incoming_->commit() : failed_;
      incoming_.reset();
      return answer(status);
    }
    buffer_.resize(std::min<uint64_t>(left_, peer::kPiece));
    connection_->read_bytes(buffer_, [this](Status status) {
      if (!status) return end();
      if (failed_) failed_ = incoming_->write(buffer_.data(), buffer_.size(), offset_);
      server_.counters_.bytes_in += buffer_.size();
      offset_ += buffer_.size();
      left_ -= buffer_.size();
      receive();
    });
  }

  void serve(const peer::Get& get) {
    if (without_folder()) return;
    auto file = server_.folder_->open_file(get.path);
    if (!file) return answer({.error = file.error()});
    const auto total = peer::total_of(get.ranges, file->size);
    if (!total) return answer({.error = total.error()});
    file_ = std::move(file->file);
    ranges_ = get.ranges;
    range_ = 0;
    offset_ = 0;
    connection_->send(peer::encode(peer::Answer{.size = *total}));
    send_piece();
  }

  void send_piece() {
    while (range_ < ranges_.size() && offset_ == ranges_[range_].length) {
      ++range_;
      offset_ = 0;
    }
    if (range_ == ranges_.size()) {
      buffer_ = {};
      file_.reset();
      return next_request();
    }
    const auto& range = ranges_[range_];
    buffer_.resize(std::min<uint64_t>(range.length - offset_, peer::kPiece));
    const ssize_t got = pread(file_.get(), buffer_.data(), buffer_.size(), static_cast<off_t>(range.offset + offset_));
    // The answer has promised bytes that are no longer there (a rank cut the file): the connection's end says so.
    if (got <= 0) return end();
    buffer_.resize(static_cast<size_t>(got));
    connection_->send_bytes(buffer_, [this](Status status) {
      if (!status) return end();
      server_.counters_.bytes_out += buffer_.size();
      offset_ += buffer_.size();
      send_piece();
    });
  }

  PeerServer& server_;
  const uint64_t id_;
  net::PskConnection::Ptr connection_;
  std::vector<std::byte> buffer_;
  uint64_t offset_ = 0;
  // put
  std::optional<MemoryFolder::Incoming> incoming_;
  uint64_t left_ = 0;
  Status failed_;
  // get
  Descriptor file_;
  std::vector<launcher_socket::Fetch::Range> ranges_;
  size_t range_ = 0;
};

Result<std::unique_ptr<PeerServer>> PeerServer::listen(net::AsioLoop& loop, MemoryFolder* folder, net::Address address,
                                                       Logger log) {
  std::unique_ptr<PeerServer> server(new PeerServer(loop, folder, log));
  net::PskServer::Settings settings;
  settings.address = std::move(address);
  settings.max_connections = kMostConnections;
  settings.connection.max_message_bytes = peer::kMaxFrame;
  settings.connection.max_queue_bytes = 2 * peer::kMaxFrame;
  PeerServer* raw = server.get();
  PITCREW_ASSIGN(server->server_, net::PskServer::listen(
                                      loop, std::move(settings), {},
                                      [raw](net::PskConnection::Ptr connection) {
                                        const uint64_t id = raw->next_session_++;
                                        auto session = std::make_shared<Session>(*raw, id, std::move(connection));
                                        raw->sessions_.emplace(id, session);
                                        session->next_request();
                                      },
                                      std::move(log)));
  return server;
}

PeerServer::~PeerServer() = default;

Status PeerServer::set_key(net::PskKey key) {
  sessions_.clear();
  return server_->set_keys({std::move(key)});
}

void PeerServer::end(uint64_t session) {
  const auto found = sessions_.find(session);
  if (found == sessions_.end()) return;
  // Its own function is still running.
  loop_.post([kept = std::move(found->second)] {});
  sessions_.erase(found);
}

}  // namespace pitcrew::launcher
