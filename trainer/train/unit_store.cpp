#include "trainer/train/unit_store.hpp"

#include <algorithm>
#include <cstring>

namespace pitcrew::trainer {
namespace {

// Elements of a piece that are under way at one time.
constexpr uint64_t kStretch = uint64_t{1} << 20;

// Element 0 of a flat arena of which only the elements from `first` on are there.
template <typename T>
T* flat(std::byte* begin, uint64_t first) {
  return reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(begin) - first * sizeof(T));
}

uint64_t stretch_of(const ShardLayout& layout) {
  uint64_t largest = 0;
  for (uint32_t unit = 0; unit < layout.units(); ++unit) largest = std::max(largest, layout.piece(unit));
  return std::min(largest, kStretch);
}

}  // namespace

template <typename T>
auto UnitStore<T>::sizes(const ShardLayout& layout, bool tied) -> Sizes {
  uint64_t elements = 0;
  for (const uint64_t slot : unit_slot_elements(layout, tied)) elements += slot;
  return {elements * sizeof(T), elements * sizeof(Wide<T>), layout.shards() * stretch_of(layout) * sizeof(Wide<T>)};
}

template <typename T>
Result<std::unique_ptr<UnitStore<T>>> UnitStore<T>::create(Settings settings, Device& device, Kernels<T>& kernels) {
  std::unique_ptr<UnitStore> store(new UnitStore(std::move(settings), device, kernels));
  PITCREW_TRY(store->allocate());
  store->gatherer_ = std::jthread([self = store.get()](std::stop_token stop) { self->gather_all(std::move(stop)); });
  store->reducer_ = std::jthread([self = store.get()](std::stop_token stop) { self->reduce_all(std::move(stop)); });
  return store;
}

template <typename T>
UnitStore<T>::UnitStore(Settings settings, Device& device, Kernels<T>& kernels)
    : settings_(std::move(settings)),
      device_(device),
      staged_(!device.host_memory() && !settings_.gather->device_memory()),
      kernels_(kernels),
      gather_stream_(device.create_stream("gather")),
      reduce_stream_(device.create_stream("reduce")) {}

template <typename T>
Status UnitStore<T>::allocate() {
  const ShardLayout& layout = settings_.layout;
  const auto elements = unit_slot_elements(layout, settings_.tied);
  for (uint32_t slot = 0; slot < kUnitSlots; ++slot) {
    PITCREW_ASSIGN(weights_[slot].buffer, device_.allocate("gathered weights", elements[slot] * sizeof(T)));
    PITCREW_ASSIGN(gradients_[slot].buffer, device_.allocate("gradients of a unit", elements[slot] * sizeof(Wide<T>)));
  }
  const uint64_t under_way = layout.shards() * stretch_of(layout);
  PITCREW_ASSIGN(received_, device_.allocate("gradients from shards", under_way * sizeof(Wide<T>)));
  if (!staged_) return {};
  PITCREW_ASSIGN(host_weights_, device_.allocate_host("weights under way to shards", under_way * sizeof(T)));
  PITCREW_ASSIGN(host_sent_, device_.allocate_host("gradients under way to shards", under_way * sizeof(Wide<T>)));
  PITCREW_ASSIGN(host_got_, device_.allocate_host("gradients from shards", under_way * sizeof(Wide<T>)));
  return {};
}

template <typename T>
UnitStore<T>::~UnitStore() {
  bool busy = false;
  {
    const std::lock_guard lock(mutex_);
    busy = under_way_ > 0;
  }
  if (busy) fail(Error(Code::kCancelled, "the engine has ended"));
  gatherer_.request_stop();
  reducer_.request_stop();
  gatherer_.join();
  reducer_.join();
}

template <typename T>
void UnitStore<T>::bind(const T* weights, std::vector<Wide<T>*> sums) {
  own_weights_ = weights;
  sums_ = std::move(sums);
}

template <typename T>
void UnitStore<T>::changed(std::shared_ptr<const Event> event) {
  source_ = std::move(event);
  for (WeightSlot& slot : weights_) slot.unit = kNobody;
}

template <typename T>
uint32_t UnitStore<T>::slot_of(uint32_t unit) const {
  return unit_slot(unit, settings_.layout.units(), settings_.tied);
}

template <typename T>
void UnitStore<T>::begin(bool backward, std::optional<uint32_t> lane) {
  order_ = unit_order(settings_.layout.units(), settings_.tied, backward);
  at_ = 0;
  backward_ = backward;
  lane_ = lane;
}

template <typename T>
void UnitStore<T>::idle(Stream& stream, bool backward, std::optional<uint32_t> lane) {
  begin(backward, lane);
  const auto pass_on = [&](uint32_t unit) {
    weights(unit);
    release_weights(stream, unit);
  };
  for (const uint32_t unit : unit_order(settings_.layout.units(), settings_.tied, false)) pass_on(unit);
  if (!backward) return;
  // In the order of those who compute: they wait for this rank's part before they go on.
  for (uint32_t unit = settings_.layout.units(); unit-- > 0;) {
    if (unit > 0) pass_on(unit);
    if (lane_) deal(unit, kNobody, nullptr);
  }
}

template <typename T>
template <typename Until>
void UnitStore<T>::wait(Until&& until) {
  if (settings_.waits) settings_.waits(true);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return until() || (failure_ && moving_ == 0); });
  // As in a collective: whoever failed stays in it.
  if (settings_.waits && !failure_) settings_.waits(false);
}

template <typename T>
const T* UnitStore<T>::weights(uint32_t unit) {
  PITCREW_INVARIANT(at_ < order_.size() && order_[at_] == unit, "units are used in their order");
  ++at_;
  request(unit);
  if (at_ < order_.size() && slot_of(order_[at_]) != slot_of(unit)) request(order_[at_]);
  WeightSlot& slot = weights_[slot_of(unit)];
  wait([&] { return slot.ready; });
  return flat<T>(slot.buffer.data(), settings_.layout.unit(unit).first);
}

template <typename T>
void UnitStore<T>::request(uint32_t unit) {
  WeightSlot& slot = weights_[slot_of(unit)];
  if (slot.unit == unit) return;
  slot.unit = unit;
  const std::lock_guard lock(mutex_);
  slot.ready = false;
  if (failure_) return;
  gathers_.push_back({unit, slot_of(unit), slot.released, source_});
  ++under_way_;
  changed_.notify_all();
}

template <typename T>
void UnitStore<T>::release_weights(Stream& stream, uint32_t unit) {
  weights_[slot_of(unit)].released = stream.record();
}

template <typename T>
Wide<T>* UnitStore<T>::gradients(Stream& stream, uint32_t unit) {
  GradientSlot& slot = gradients_[slot_of(unit)];
  if (!slot.open) {
    wait([&] { return !slot.busy; });
    // Blocks are laid out alike; of other units what was padding may not be.
    if (slot_of(unit) == 0 && slot.unit != unit) stream.zero(slot.buffer.data(), slot.buffer.bytes());
    slot.unit = unit;
    slot.open = true;
  }
  return flat<Wide<T>>(slot.buffer.data(), settings_.layout.unit(unit).first);
}

template <typename T>
void UnitStore<T>::release_gradients(Stream& stream, uint32_t unit) {
  GradientSlot& slot = gradients_[slot_of(unit)];
  slot.open = false;
  if (settings_.computed)
    settings_.computed(stream, unit, slot.buffer.template as<Wide<T>>(), settings_.layout.unit(unit).count);
  if (lane_) deal(unit, slot_of(unit), stream.record());
}

template <typename T>
void UnitStore<T>::deal(uint32_t unit, uint32_t slot, std::shared_ptr<const Event> done) {
  const std::lock_guard lock(mutex_);
  if (failure_) return;
  if (slot != kNobody) gradients_[slot].busy = true;
  reduces_.push_back({unit, *lane_, slot, std::move(done)});
  ++under_way_;
  changed_.notify_all();
}

template <typename T>
Status UnitStore<T>::drain() {
  wait([&] { return under_way_ == 0; });
  const std::lock_guard lock(mutex_);
  return failure_ ? Status(*failure_) : Status();
}

template <typename T>
void UnitStore<T>::fail(const Error& error) {
  {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = error;
    changed_.notify_all();
  }
  settings_.gather->abort();
  settings_.reduce->abort();
}

template <typename T>
void UnitStore<T>::gather_all(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [&] { return !gathers_.empty() && !failure_; })) {
    const GatherJob job = std::move(gathers_.front());
    gathers_.pop_front();
    ++moving_;
    lock.unlock();
    const Status done = gather(job);
    if (!done) {
      fail(done.error().with_context("gather weights"));
      gather_stream_->synchronize();  // of what was begun nothing writes any more when the model's thread goes on
    }
    lock.lock();
    --moving_;
    weights_[job.slot].ready = true;
    --under_way_;
    changed_.notify_all();
  }
}

template <typename T>
void UnitStore<T>::reduce_all(std::stop_token stop) {
  std::unique_lock lock(mutex_);
  while (changed_.wait(lock, stop, [&] { return !reduces_.empty() && !failure_; })) {
    const ReduceJob job = std::move(reduces_.front());
    reduces_.pop_front();
    ++moving_;
    lock.unlock();
    const Status done = reduce(job);
    if (!done) {
      fail(done.error().with_context("deal out gradients"));
      reduce_stream_->synchronize();  // of what was begun nothing writes any more when the model's thread goes on
    }
    if (done && settings_.summed && job.lane + 1 == settings_.sums.micro_steps()) settings_.summed(job.unit);
    lock.lock();
    --moving_;
    if (job.slot != kNobody) gradients_[job.slot].busy = false;
    --under_way_;
    changed_.notify_all();
  }
}

template <typename T>
Status UnitStore<T>::gather(const GatherJob& job) {
  if (job.free) job.free->wait();
  if (job.source) job.source->wait();
  const ShardLayout& layout = settings_.layout;
  const uint32_t shards = layout.shards(), me = settings_.shard;
  const uint64_t piece = layout.piece(job.unit), step = staged_ ? stretch_of(layout) : piece;
  const T* own = own_weights_ + layout.offset(job.unit);
  T* all = weights_[job.slot].buffer.template as<T>();
  Stream& stream = *gather_stream_;
  stream.copy(all + me * piece, own, piece * sizeof(T));
  for (uint64_t first = 0; first < piece; first += step) {
    const uint64_t count = std::min(step, piece - first);
    T* staging = host_weights_.template as<T>();
    const auto place = [&](uint32_t shard) { return staged_ ? staging + shard * step : all + shard * piece + first; };
    const T* mine = own + first;
    if (staged_) {
      stream.copy(place(me), mine, count * sizeof(T));
      stream.synchronize();
      mine = place(me);
    }
    std::vector<Comm::Send> sends;
    std::vector<Comm::Receive> receives;
    for (uint32_t peer = 0; peer < shards; ++peer) {
      if (peer == me) continue;
      sends.push_back({peer, std::as_bytes(std::span(mine, count))});
      receives.push_back({peer, std::as_writable_bytes(std::span(place(peer), count))});
    }
    PITCREW_TRY(settings_.gather->exchange(sends, receives));
    for (uint32_t peer = 0; peer < shards && staged_; ++peer) {
      if (peer != me) stream.copy(all + peer * piece + first, place(peer), count * sizeof(T));
    }
  }
  stream.synchronize();
  return {};
}

// Where a value of LaneSums lies, from element `first` of the piece on.
template <typename T>
Wide<T>* UnitStore<T>::value(const ReduceJob& job, uint32_t value, uint64_t first) const {
  const ShardLayout& layout = settings_.layout;
  if (value < settings_.sums.slots()) return sums_[value] + layout.offset(job.unit) + first;
  const uint32_t shard = value - settings_.sums.slots();
  if (shard != settings_.shard) return received_.template as<Wide<T>>() + shard * stretch_of(layout);
  return gradients_[job.slot].buffer.template as<Wide<T>>() + shard * layout.piece(job.unit) + first;
}

template <typename T>
Status UnitStore<T>::reduce(const ReduceJob& job) {
  if (job.done) job.done->wait();
  const ShardLayout& layout = settings_.layout;
  const uint32_t shards = layout.shards(), me = settings_.shard;
  const uint64_t piece = layout.piece(job.unit), step = stretch_of(layout);
  Stream& stream = *reduce_stream_;
  for (uint64_t first = 0; first < piece; first += step) {
    const uint64_t count = std::min(step, piece - first), bytes = count * sizeof(Wide<T>);
    std::vector<Comm::Send> sends;
    std::vector<Comm::Receive> receives;
    for (uint32_t peer = 0; peer < shards; ++peer) {
      if (peer == me) continue;
      if (job.slot != kNobody) {
        const auto* theirs = gradients_[job.slot].buffer.template as<Wide<T>>() + peer * piece + first;
        if (staged_) {
          auto* staging = host_sent_.template as<Wide<T>>() + peer * step;
          stream.copy(staging, theirs, bytes);
          theirs = staging;
        }
        sends.push_back({peer, std::as_bytes(std::span(theirs, count))});
      }
      if (peer >= settings_.sums.brought(job.lane)) continue;
      auto* into = (staged_ ? host_got_ : received_).template as<Wide<T>>() + peer * step;
      receives.push_back({peer, std::as_writable_bytes(std::span(into, count))});
    }
    stream.synchronize();
    PITCREW_TRY(settings_.reduce->exchange(sends, receives));
    if (staged_) {
      for (const Comm::Receive& got : receives)
        stream.copy(received_.template as<Wide<T>>() + got.peer * step, got.data.data(), bytes);
    }
    for (const LaneSums::Step& add : settings_.sums.steps(job.lane)) {
      Wide<T>*into = value(job, add.into, first), *from = value(job, add.from, first);
      if (add.add) {
        kernels_.enqueue(stream, Add<Wide<T>>{count, into, from});
      } else {
        stream.copy(into, from, bytes);
      }
    }
    stream.synchronize();
  }
  return {};
}

template class UnitStore<float>;
template class UnitStore<BF16>;

}  // namespace pitcrew::trainer
