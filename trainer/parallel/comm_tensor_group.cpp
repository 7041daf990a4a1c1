#include "trainer/parallel/comm_tensor_group.hpp"

#include <cstring>

#include "trainer/comm/stream_comm.hpp"

namespace pitcrew::trainer {

namespace {

class CommTensorGroup final : public TensorGroup {
 public:
  CommTensorGroup(Comm& comm, Device& device) : comm_(comm), device_(device) {}

  TensorPlace place() const override { return {comm_.rank(), comm_.size()}; }

  void all_gather(Stream& stream, const void* mine, void* all, size_t bytes) override {
    move(stream, mine, bytes, all, bytes * comm_.size(),
         [this](std::span<const std::byte> from, std::span<std::byte> to) { return comm_.all_gather(from, to); });
  }

  void all_to_all(Stream& stream, const void* pieces, void* received, size_t bytes) override {
    move(stream, pieces, bytes * comm_.size(), received, bytes * comm_.size(),
         [this, bytes](std::span<const std::byte> from, std::span<std::byte> to) {
           const uint32_t own = comm_.rank();
           std::vector<Comm::Send> sends;
           std::vector<Comm::Receive> receives;
           for (uint32_t distance = 1; distance < comm_.size(); ++distance) {
             const uint32_t next = (own + distance) % comm_.size(),
                            last = (own + comm_.size() - distance) % comm_.size();
             sends.push_back({next, from.subspan(next * bytes, bytes)});
             receives.push_back({last, to.subspan(last * bytes, bytes)});
           }
           std::memcpy(to.data() + own * bytes, from.data() + own * bytes, bytes);
           return comm_.exchange(sends, receives);
         });
  }

  Status status() const override {
    const std::lock_guard lock(mutex_);
    return failed_ ? Status(*failed_) : Status();
  }

 private:
  template <typename F>
  void move(Stream& stream, const void* from, size_t from_bytes, void* to, size_t to_bytes, F collective) {
    const auto* source = static_cast<const std::byte*>(from);
    auto* target = static_cast<std::byte*>(to);
    const bool staged = !device_.host_memory();
    if (staged) {
      if (const Status have = make_room(stream, from_bytes, to_bytes); !have) return give_up(have.error());
      stream.copy(out_.data(), from, from_bytes);
      source = out_.data();
      target = in_.data();
    }
    stream.call([this, source, from_bytes, target, to_bytes, collective] {
      Status done = status();
      if (done) done = collective(std::span(source, from_bytes), std::span(target, to_bytes));
      if (done) return;
      give_up(done.error());
      std::memset(target, 0xff, to_bytes);  // NaN in every format
    });
    if (staged) stream.copy(to, target, to_bytes);
  }

  Status make_room(Stream& stream, size_t from_bytes, size_t to_bytes) {
    if (out_.bytes() >= from_bytes && in_.bytes() >= to_bytes) return {};
    stream.synchronize();  // before anything still under way loses its memory
    if (out_.bytes() < from_bytes) {
      PITCREW_ASSIGN(out_, device_.allocate_host("activations under way to tensor ranks", from_bytes));
    }
    if (in_.bytes() < to_bytes) {
      PITCREW_ASSIGN(in_, device_.allocate_host("activations under way from tensor ranks", to_bytes));
    }
    return {};
  }

  void give_up(const Error& error) {
    const std::lock_guard lock(mutex_);
    if (!failed_) failed_ = error;
  }

  Comm& comm_;
  Device& device_;
  Buffer out_, in_;
  mutable std::mutex mutex_;
  std::optional<Error> failed_;  // guarded by mutex_
};

// The communicator's work is the stream's own.
class StreamTensorGroup final : public TensorGroup {
 public:
  StreamTensorGroup(TensorPlace place, StreamComm& comm) : place_(place), comm_(comm) {}

  TensorPlace place() const override { return place_; }

  void all_gather(Stream& stream, const void* mine, void* all, size_t bytes) override {
    expect(stream, all, bytes);
    (void)comm_.all_gather(stream, {static_cast<const std::byte*>(mine), bytes},
                           {static_cast<std::byte*>(all), bytes * place_.size});
  }

  void all_to_all(Stream& stream, const void* pieces, void* received, size_t bytes) override {
    expect(stream, received, bytes);
    const auto* from = static_cast<const std::byte*>(pieces);
    auto* to = static_cast<std::byte*>(received);
    stream.copy(to + place_.rank * bytes, from + place_.rank * bytes, bytes);
    std::vector<Comm::Send> sends;
    std::vector<Comm::Receive> receives;
    for (uint32_t peer = 0; peer < place_.size; ++peer) {
      if (peer == place_.rank) continue;
      sends.push_back({peer, {from + peer * bytes, bytes}});
      receives.push_back({peer, {to + peer * bytes, bytes}});
    }
    (void)comm_.exchange(stream, sends, receives);
  }

  Status status() const override { return comm_.status(); }

 private:
  // What doesn't come stays NaN, in every format.
  void expect(Stream& stream, void* all, size_t bytes) { stream.fill(all, std::byte{0xff}, bytes * place_.size); }

  const TensorPlace place_;
  StreamComm& comm_;
};

}  // namespace

std::unique_ptr<TensorGroup> create_tensor_group(Comm& comm, Device& device) {
  if (StreamComm* const ordered = comm.in_stream_order(); ordered != nullptr)
    return std::make_unique<StreamTensorGroup>(TensorPlace{comm.rank(), comm.size()}, *ordered);
  return std::make_unique<CommTensorGroup>(comm, device);
}

}  // namespace pitcrew::trainer
