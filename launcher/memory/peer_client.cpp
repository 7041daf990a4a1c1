#include "launcher/memory/peer_client.hpp"

#include <optional>
#include <utility>

#include <unistd.h>

namespace pitcrew::launcher {
namespace {

constexpr size_t kMostCalls = 8;

bool worth_another_try(Code code) {
  return code == Code::kUnavailable || code == Code::kUnauthenticated || code == Code::kDeadlineExceeded;
}

}  // namespace

// One request to one peer. Owned by the client until it has ended.
class PeerClient::Call {
 public:
  Call(PeerClient& client, net::Address peer, peer::Request request, Done done)
      : client_(client), peer_(std::move(peer)), request_(std::move(request)), done_(std::move(done)) {}

  uint64_t id = 0;
  std::string own_file;                         // put: below own/
  std::string into;                             // get: below fetch/
  std::shared_ptr<launcher_socket::Held> held;  // list: where the answer goes

  void start() {
    if (!begun_) begun_ = client_.loop_.now();
    connection_ = net::PskConnection::connect(client_.loop_, peer_, client_.key_, client_.settings_.connection,
                                              [this](Status status) {
                                                if (!status) return failed(status);
                                                ask();
                                              });
  }

  void tell(const Status& status) {
    if (done_) std::exchange(done_, {})(status);
  }

 private:
  // Before the peer has answered anything.
  void failed(const Status& status) {
    const bool again =
        worth_another_try(status.error().code) && client_.loop_.now() - *begun_ < client_.settings_.retry_for;
    if (!again) return end(status);
    retry_ = client_.loop_.after(client_.settings_.retry_every, [this] { start(); });
  }

  void end(const Status& status) {
    incoming_.reset();
    const Status named = status ? status : Status(status.error().with_context("launcher at " + net::to_string(peer_)));
    client_.ended(id);
    tell(named);
  }

  void ask() {
    if (auto* put = std::get_if<peer::Put>(&request_)) {
      auto file = client_.folder_->open_file("own/" + put->checkpoint + "/" + own_file);
      if (!file) return end(file.error());
      file_ = std::move(file->file);
      put->size = left_ = file->size;
    }
    connection_->send(peer::encode(request_));
    connection_->read([this](Result<std::string> frame) {
      if (!frame) return failed(frame.error());
      auto answer = peer::decode_answer(*frame);
      if (!answer) return end(answer.error());
      if (answer->error) return end(*answer->error);
      if (std::holds_alternative<peer::Put>(request_)) return send_piece();
      if (std::holds_alternative<peer::Get>(request_)) return receive_begin(answer->size);
      if (answer->held && held) *held = *std::move(answer->held);
      end({});
    });
  }

  void send_piece() {
    if (left_ == 0) {
      connection_->read([this](Result<std::string> frame) {
        if (!frame) return end(frame.error());
        const auto answer = peer::decode_answer(*frame);
        if (!answer) return end(answer.error());
        end(answer->error ? Status(*answer->error) : Status());
      });
      return;
    }
    buffer_.resize(std::min<uint64_t>(left_, peer::kPiece));
    const ssize_t got = pread(file_.get(), buffer_.data(), buffer_.size(), static_cast<off_t>(offset_));
    if (got <= 0) return end(Error(Code::kDataLoss, "own/" + own_file + " became shorter while it was copied"));
    buffer_.resize(static_cast<size_t>(got));
    offset_ += buffer_.size();
    left_ -= buffer_.size();
    const Duration wait = client_.cap_.reserve(buffer_.size(), client_.loop_.now());
    if (wait <= Duration(0)) return send_buffer();
    turn_ = client_.loop_.after(wait, [this] { send_buffer(); });
  }

  void send_buffer() {
    connection_->send_bytes(buffer_, [this](Status status) {
      if (!status) return end(status);
      client_.bytes_out_ += buffer_.size();
      send_piece();
    });
  }

  void receive_begin(uint64_t size) {
    const auto& ranges = std::get<peer::Get>(request_).ranges;
    uint64_t asked = 0;
    for (const auto& range : ranges) asked += range.length;
    if (size != asked)
      return end(
          Error(Code::kDataLoss, "the peer offers " + std::to_string(size) + " bytes for " + std::to_string(asked)));
    auto incoming = client_.folder_->receive_fetched(into, size);
    if (!incoming) return end(incoming.error());
    incoming_.emplace(*std::move(incoming));
    left_ = size;
    receive();
  }

  void receive() {
    if (left_ == 0) return end(incoming_->commit());
    buffer_.resize(std::min<uint64_t>(left_, peer::kPiece));
    connection_->read_bytes(buffer_, [this](Status status) {
      if (status) client_.bytes_in_ += buffer_.size();
      if (status) status = incoming_->write(buffer_.data(), buffer_.size(), offset_);
      if (!status) return end(status);
      offset_ += buffer_.size();
      left_ -= buffer_.size();
      receive();
    });
  }

  PeerClient& client_;
  const net::Address peer_;
  peer::Request request_;
  Done done_;
  std::optional<Instant> begun_;
  net::PskConnection::Ptr connection_;
  Loop::TimerPtr retry_;
  Loop::TimerPtr turn_;  // to send, below the rate cap
  Descriptor file_;
  std::optional<MemoryFolder::Incoming> incoming_;
  std::vector<std::byte> buffer_;
  uint64_t offset_ = 0;
  uint64_t left_ = 0;
};

PeerClient::PeerClient(net::AsioLoop& loop, MemoryFolder* folder, Settings settings)
    : loop_(loop), folder_(folder), settings_(std::move(settings)), cap_(settings_.put_bytes_per_second) {
  settings_.connection.max_message_bytes = peer::kMaxFrame;
  settings_.connection.max_queue_bytes = 2 * peer::kMaxFrame;
}

PeerClient::~PeerClient() = default;

void PeerClient::set_key(net::PskKey key) {
  key_ = std::move(key);
  auto running = std::exchange(running_, {});
  auto waiting = std::exchange(waiting_, {});
  const Status cancelled = Error(Code::kCancelled, "another epoch has begun");
  for (auto& [id, call] : running) waiting.push_back(std::move(call));
  for (const auto& call : waiting) call->tell(cancelled);
}

void PeerClient::put(net::Address peer, Slot of, std::string checkpoint, std::string file, Done done) {
  auto call =
      std::make_shared<Call>(*this, std::move(peer), peer::Put{of, std::move(checkpoint), file}, std::move(done));
  call->own_file = std::move(file);
  begin(std::move(call));
}

void PeerClient::get(net::Address peer, std::string path, std::vector<launcher_socket::Fetch::Range> ranges,
                     std::string into, Done done) {
  auto call =
      std::make_shared<Call>(*this, std::move(peer), peer::Get{std::move(path), std::move(ranges)}, std::move(done));
  call->into = std::move(into);
  begin(std::move(call));
}

void PeerClient::list(net::Address peer, ListDone done) {
  auto held = std::make_shared<launcher_socket::Held>();
  auto call =
      std::make_shared<Call>(*this, std::move(peer), peer::List{}, [held, done = std::move(done)](Status status) {
        if (status) {
          done(std::move(*held));
        } else {
          done(status.error());
        }
      });
  call->held = held;
  begin(std::move(call));
}

void PeerClient::drop(net::Address peer, Slot of, std::string checkpoint, Done done) {
  begin(std::make_shared<Call>(*this, std::move(peer), peer::Drop{of, std::move(checkpoint)}, std::move(done)));
}

void PeerClient::begin(std::shared_ptr<Call> call) {
  call->id = next_++;
  waiting_.push_back(std::move(call));
  start_next();
}

void PeerClient::start_next() {
  while (running_.size() < kMostCalls && !waiting_.empty()) {
    auto call = std::move(waiting_.front());
    waiting_.pop_front();
    running_.emplace(call->id, call);
    call->start();
  }
}

void PeerClient::ended(uint64_t id) {
  const auto found = running_.find(id);
  if (found == running_.end()) return;
  // Its own function is still running.
  loop_.post([kept = std::move(found->second)] {});
  running_.erase(found);
  start_next();
}

}  // namespace pitcrew::launcher
