#include <array>
#include <cstring>
#include <deque>
#include <optional>

#include <boost/asio/error.hpp>

#include "lib/net/connector.hpp"
#include "lib/net/psk_connection_impl.hpp"
#include "lib/net/psk_context.hpp"

namespace pitcrew::net {

namespace {

using internal::ErrorCode;
using internal::IoCallback;
using internal::Stream;
using Done = PskConnection::Done;

constexpr size_t kHeaderBytes = 4;

std::string header_of(size_t size) {
  std::string header(kHeaderBytes, '\0');
  for (size_t i = 0; i < kHeaderBytes; ++i) header[i] = static_cast<char>(size >> (8 * (kHeaderBytes - 1 - i)));
  return header;
}

size_t size_in(const std::array<char, kHeaderBytes>& header) {
  size_t size = 0;
  for (const char c : header) size = size << 8 | static_cast<unsigned char>(c);
  return size;
}

// A limit on the time without progress. Moving on costs no timer: the running one looks again when it fires.
class Stall {
 public:
  Stall(AsioLoop& loop, Duration limit, std::function<void()> stalled)
      : loop_(loop), limit_(limit), stalled_(std::move(stalled)) {}
  void begin() {
    if (limit_ <= Duration(0)) return;
    since_ = loop_.now();
    active_ = true;
    if (!timer_) arm(limit_);
  }
  void progress() {
    if (active_) since_ = loop_.now();
  }
  void end() { active_ = false; }
  void cancel() {
    active_ = false;
    timer_.reset();
  }

 private:
  void arm(Duration delay) {
    timer_ = loop_.after(delay, [this] {
      const auto fired = std::move(timer_);
      if (!active_) return;
      const Duration left = limit_ - (loop_.now() - since_);
      if (left > Duration(0)) return arm(left);
      stalled_();
    });
  }

  AsioLoop& loop_;
  Duration limit_;
  std::function<void()> stalled_;
  Instant since_;
  bool active_ = false;
  Loop::TimerPtr timer_;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(AsioLoop& loop, Address peer, std::string identity, const PskSettings& settings)
      : loop_(loop),
        peer_(std::move(peer)),
        identity_(std::move(identity)),
        settings_(settings),
        write_stall_(loop, settings.io_timeout, [this] { stalled("write to"); }),
        read_stall_(loop, settings.io_timeout, [this] { stalled("read from"); }) {}

  void use(Stream stream, internal::ConnectionSlot slot) {
    stream_.emplace(std::move(stream));
    slot_ = std::move(slot);
  }

  void connect(const PskKey& key, Done on_connected) {
    on_connected_ = std::move(on_connected);
    connector_ = std::make_unique<internal::Connector>(loop_, peer_, internal::psk_client_tls(key),
                                                       settings_.handshake_timeout, [this](Result<Stream> connected) {
                                                         const auto self = shared_from_this();
                                                         connector_.reset();
                                                         const Done tell = std::move(on_connected_);
                                                         if (!connected) {
                                                           fail(connected.error());
                                                           if (tell) tell(connected.error());
                                                           return;
                                                         }
                                                         stream_.emplace(*std::move(connected));
                                                         if (tell) tell({});
                                                         if (error_) return;
                                                         write_next();
                                                         read_next();
                                                       });
  }

  const Address& peer() const { return peer_; }
  const std::string& identity() const { return identity_; }
  bool open() const { return stream_.has_value() && !error_ && !closing_; }

  void send(std::string message, Done done) {
    if (refuse_when_over(done)) return;
    if (message.size() > settings_.max_message_bytes || queued_ + message.size() > settings_.max_queue_bytes) {
      const bool too_big = message.size() > settings_.max_message_bytes;
      return later(std::move(done),
                   Error(Code::kResourceExhausted,
                         "send " + std::to_string(message.size()) + " bytes to " + to_string(peer_) + ": " +
                             (too_big ? "a message may have " + std::to_string(settings_.max_message_bytes)
                                      : std::to_string(queued_) + " bytes wait already")));
    }
    queued_ += message.size();
    Write write;
    write.header = header_of(message.size());
    write.owned = std::move(message);
    write.done = std::move(done);
    enqueue(std::move(write));
  }

  void send_bytes(std::span<const std::byte> bytes, Done done) {
    if (refuse_when_over(done)) return;
    Write write;
    write.borrowed = {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    write.done = std::move(done);
    enqueue(std::move(write));
  }

  void read_message(std::function<void(Result<std::string>)> done, bool idle) {
    begin_read();
    on_message_ = std::move(done);
    idle_ = idle;
    in_header_ = true;
    target_ = {header_.data(), header_.size()};
    start_read();
  }

  void read_bytes(std::span<std::byte> bytes, Done done) {
    begin_read();
    on_bytes_ = std::move(done);
    idle_ = false;
    in_header_ = false;
    target_ = {reinterpret_cast<char*>(bytes.data()), bytes.size()};
    start_read();
  }

  void close() {
    if (error_ || closing_) return;
    closing_ = true;
    if (!stream_) return cut();
    write_next();
  }

  // Ends at once; nothing is called any more.
  void cut() {
    connector_.reset();
    read_stall_.cancel();
    write_stall_.cancel();
    close_deadline_.reset();
    if (!error_) error_ = Error(Code::kCancelled, "the connection with " + to_string(peer_) + " was closed here");
    loop_.post([writes = std::make_shared<std::deque<Write>>(std::move(writes_)), message = std::move(on_message_),
                bytes = std::move(on_bytes_), connected = std::move(on_connected_)] {});
    writes_.clear();
    on_message_ = nullptr;
    on_bytes_ = nullptr;
    on_connected_ = nullptr;
    if (stream_) stream_->close();
    slot_.reset();
  }

 private:
  struct Write {
    std::string header;
    std::string owned;
    std::string_view borrowed;
    Done done;
    size_t written = 0;
    size_t total() const { return header.size() + owned.size() + borrowed.size(); }
  };

  void later(Done done, Status status) {
    if (!done) return;
    loop_.post([weak = weak_from_this(), done = std::move(done), status = std::move(status)] {
      if (weak.lock()) done(status);
    });
  }

  bool refuse_when_over(Done& done) {
    if (!error_ && !closing_) return false;
    later(std::move(done), error_ ? *error_ : Error(Code::kCancelled, "the connection is being closed here"));
    return true;
  }

  void enqueue(Write write) {
    writes_.push_back(std::move(write));
    write_next();
  }

  void write_next() {
    if (!stream_ || writing_ || error_) return;
    if (writes_.empty()) {
      if (closing_) finish();
      return;
    }
    writing_ = true;
    write_stall_.begin();
    Write& write = writes_.front();
    std::array<internal::asio::const_buffer, 3> parts;
    size_t count = 0;
    size_t skip = write.written;
    for (const std::string_view part :
         {std::string_view(write.header), std::string_view(write.owned), write.borrowed}) {
      const size_t gone = std::min(skip, part.size());
      skip -= gone;
      if (gone < part.size()) parts[count++] = internal::asio::const_buffer(part.data() + gone, part.size() - gone);
    }
    stream_->write({parts.data(), count}, IoCallback([self = shared_from_this()](const ErrorCode& error, size_t size) {
                     self->have_written(error, size);
                   }));
  }

  void have_written(const ErrorCode& error, size_t size) {
    writing_ = false;
    if (error_) return;
    if (error) return fail(stream_->to_error("write to " + to_string(peer_), error));
    write_stall_.progress();
    Write& write = writes_.front();
    write.written += size;
    if (write.written == write.total()) {
      write_stall_.end();
      const Done done = std::move(write.done);
      queued_ -= write.owned.size();
      writes_.pop_front();
      if (done) done({});
    }
    write_next();
  }

  // Everything is sent: say so, and let the peer have it before the socket goes.
  void finish() {
    if (std::exchange(finishing_, true)) return;
    close_deadline_ = loop_.after(std::min<Duration>(settings_.handshake_timeout, seconds(2)), [this] {
      const auto self = shared_from_this();
      cut();
    });
    if (reading_) return stream_->say_end();
    stream_->finish(IoCallback([self = shared_from_this()](const ErrorCode&, size_t) { self->cut(); }));
  }

  void begin_read() { PITCREW_INVARIANT(!on_message_ && !on_bytes_, "two reads at a time on a PSK connection"); }

  void start_read() {
    if (error_ || closing_) {
      const Error why = error_ ? *error_ : Error(Code::kCancelled, "the connection is being closed here");
      if (auto done = std::exchange(on_bytes_, nullptr)) return later(std::move(done), why);
      const auto done = std::exchange(on_message_, nullptr);
      loop_.post([weak = weak_from_this(), done, why] {
        if (weak.lock()) done(why);
      });
      return;
    }
    read_ = 0;
    if (!idle_) read_stall_.begin();
    read_next();
  }

  void read_next() {
    if (!stream_ || reading_ || error_ || (!on_message_ && !on_bytes_)) return;
    reading_ = true;
    stream_->read(target_.subspan(read_), IoCallback([self = shared_from_this()](const ErrorCode& error, size_t size) {
                    self->have_read(error, size);
                  }));
  }

  void have_read(const ErrorCode& error, size_t size) {
    reading_ = false;
    if (finishing_) return cut();
    if (error_) return;
    if (error) return fail(stream_->to_error("read from " + to_string(peer_), error));
    read_ += size;
    if (idle_) {
      idle_ = false;
      read_stall_.begin();
    }
    read_stall_.progress();
    if (read_ < target_.size()) return read_next();
    if (in_header_) return have_header();
    read_stall_.end();
    if (auto done = std::exchange(on_bytes_, nullptr)) return done({});
    const auto done = std::exchange(on_message_, nullptr);
    done(std::move(message_));
  }

  void have_header() {
    const size_t size = size_in(header_);
    if (size > settings_.max_message_bytes) {
      return fail(Error(Code::kResourceExhausted, "read from " + to_string(peer_) + ": a message of " +
                                                      std::to_string(size) + " bytes; it may have " +
                                                      std::to_string(settings_.max_message_bytes)));
    }
    in_header_ = false;
    message_.assign(size, '\0');
    target_ = {message_.data(), message_.size()};
    read_ = 0;
    read_next();
  }

  void stalled(std::string_view what) {
    const auto self = shared_from_this();
    fail(Error(Code::kDeadlineExceeded,
               std::string(what) + " " + to_string(peer_) + ": no progress in " + to_string(settings_.io_timeout)));
  }

  // Closes, and tells everybody who waits.
  void fail(Error error) {
    if (error_) return;
    const auto self = shared_from_this();
    error_ = error;
    auto writes = std::move(writes_);
    auto on_message = std::exchange(on_message_, nullptr);
    auto on_bytes = std::exchange(on_bytes_, nullptr);
    cut();
    for (Write& write : writes) later(std::move(write.done), error);
    later(std::move(on_bytes), error);
    if (on_message) {
      loop_.post([weak = weak_from_this(), on_message = std::move(on_message), error] {
        if (weak.lock()) on_message(error);
      });
    }
  }

  AsioLoop& loop_;
  Address peer_;
  std::string identity_;
  PskSettings settings_;
  std::unique_ptr<internal::Connector> connector_;
  std::optional<Stream> stream_;
  internal::ConnectionSlot slot_;
  Done on_connected_;
  std::optional<Error> error_;
  bool closing_ = false;
  bool finishing_ = false;
  Loop::TimerPtr close_deadline_;

  std::deque<Write> writes_;  // the first is being written
  size_t queued_ = 0;         // bytes of messages in it
  bool writing_ = false;
  Stall write_stall_;

  std::function<void(Result<std::string>)> on_message_;
  Done on_bytes_;
  std::array<char, kHeaderBytes> header_{};
  std::string message_;
  std::span<char> target_;
  size_t read_ = 0;
  bool in_header_ = false;
  bool idle_ = false;
  bool reading_ = false;
  Stall read_stall_;
};

// What the owner holds; the connection itself is also held by what is under way.
class Held final : public PskConnection {
 public:
  explicit Held(std::shared_ptr<Connection> connection) : connection_(std::move(connection)) {}
  ~Held() override { connection_->cut(); }
  const Address& peer() const override { return connection_->peer(); }
  const std::string& identity() const override { return connection_->identity(); }
  bool open() const override { return connection_->open(); }
  void send(std::string message, Done done) override { connection_->send(std::move(message), std::move(done)); }
  void send_bytes(std::span<const std::byte> bytes, Done done) override {
    connection_->send_bytes(bytes, std::move(done));
  }
  void read(std::function<void(Result<std::string>)> done) override {
    connection_->read_message(std::move(done), false);
  }
  void read_bytes(std::span<std::byte> bytes, Done done) override { connection_->read_bytes(bytes, std::move(done)); }
  void read_idle(std::function<void(Result<std::string>)> done) override {
    connection_->read_message(std::move(done), true);
  }
  void close() override { connection_->close(); }

 private:
  std::shared_ptr<Connection> connection_;
};

}  // namespace

Status PskSettings::validate() const {
  const auto wrong = [](std::string_view what) {
    return Error(Code::kInvalidArgument, "PSK connection: " + std::string(what));
  };
  if (max_message_bytes == 0 || max_queue_bytes < max_message_bytes) {
    return wrong("max_message_bytes must be above 0 and at most max_queue_bytes");
  }
  if (max_message_bytes > 0xffffffffu) return wrong("max_message_bytes must fit into 4 bytes");
  if (handshake_timeout <= Duration(0)) return wrong("handshake_timeout must be above 0");
  return {};
}

PskConnection::Ptr PskConnection::connect(AsioLoop& loop, Address address, PskKey key, PskSettings settings,
                                          Done on_connected) {
  auto connection = std::make_shared<Connection>(loop, std::move(address), key.identity, settings);
  connection->connect(key, std::move(on_connected));
  return std::make_unique<Held>(std::move(connection));
}

namespace internal {

PskConnection::Ptr accepted_psk_connection(AsioLoop& loop, Stream stream, Address peer, ConnectionSlot slot,
                                           const PskSettings& settings) {
  std::string identity = std::static_pointer_cast<PskHandshake>(stream.tls_data())->identity;
  auto connection = std::make_shared<Connection>(loop, std::move(peer), std::move(identity), settings);
  connection->use(std::move(stream), std::move(slot));
  return std::make_unique<Held>(std::move(connection));
}

}  // namespace internal
}  // namespace pitcrew::net
