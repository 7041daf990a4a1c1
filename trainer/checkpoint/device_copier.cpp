#include "trainer/checkpoint/device_copier.hpp"

#include <algorithm>

#include "trainer/checkpoint/slices.hpp"

namespace pitcrew::trainer {
namespace {

// Large enough that joining it and copying it follow one another without a gap that counts.
constexpr uint64_t kStaging = 32 * kChunkBytes;

}  // namespace

uint64_t SnapshotPlan::bytes() const {
  return bounce + staging + pieces * sizeof(DigestRange) + digests * sizeof(uint64_t);
}

SnapshotPlan plan_snapshot(uint64_t bytes, size_t tensors, uint32_t holders, double part, bool halves) {
  // Slices are as even as whole chunks allow: half a chunk more at most.
  const uint64_t slice = (bytes + holders - 1) / holders + kChunkBytes;
  SnapshotPlan plan;
  plan.bounce = static_cast<uint64_t>(part * static_cast<double>(slice)) / kChunkBytes * kChunkBytes;
  plan.staging = halves ? std::min(kStaging, chunks_of(slice) * kChunkBytes) : 0;
  plan.pieces = tensors;
  plan.digests = chunks_of(slice) + tensors;
  return plan;
}

DeviceCopier::DeviceCopier(Device& device, Stream& compute)
    : device_(device), compute_(compute), side_(device.create_stream("checkpoint")) {}

Result<std::unique_ptr<DeviceCopier>> DeviceCopier::create(Device& device, Stream& compute, StateKernels kernels,
                                                           const SnapshotPlan& plan) {
  auto copier = std::make_unique<DeviceCopier>(device, compute);
  copier->kernels_ = std::move(kernels);
  copier->plan_ = plan;
  PITCREW_ASSIGN(copier->bounce_, device.allocate("checkpoints' bounce buffer", plan.bounce));
  if (!copier->makes_digests()) return copier;
  PITCREW_ASSIGN(copier->staging_, device.allocate("checkpoints' staging", plan.staging));
  PITCREW_ASSIGN(copier->table_, device.allocate("checkpoints' pieces", plan.pieces * sizeof(DigestRange)));
  PITCREW_ASSIGN(copier->host_table_, device.allocate_host("checkpoints' pieces", plan.pieces * sizeof(DigestRange)));
  PITCREW_ASSIGN(copier->digests_, device.allocate("checkpoints' digests", plan.digests * sizeof(uint64_t)));
  return copier;
}

DeviceCopier::~DeviceCopier() { side_->synchronize(); }

std::vector<Copier::Tickets> DeviceCopier::snapshot(std::span<const Piece> pieces) {
  std::vector<Tickets> tickets(pieces.size());
  if (pieces.empty()) return tickets;
  begin();
  if (makes_digests()) digest(pieces);
  // From the last piece on into the bounce buffer, as much as it takes: whole pieces, and the end of one.
  std::vector<uint64_t> staged(pieces.size(), 0);
  uint64_t used = 0;
  for (size_t i = pieces.size(); i-- > 0 && used < bounce_.bytes();) {
    uint64_t bytes = std::min<uint64_t>(pieces[i].bytes, bounce_.bytes() - used);
    const uint64_t head = chunks_of(pieces[i].bytes - bytes) * kChunkBytes;
    bytes = head < pieces[i].bytes ? pieces[i].bytes - head : 0;
    if (bytes == 0) break;
    gather(pieces[i], pieces[i].bytes - bytes, bytes, bounce_.data() + used);
    staged[i] = bytes;
    used += bytes;
  }
  const Ticket all_staged = mark();
  for (size_t i = 0; i < pieces.size(); ++i) {
    tickets[i].free = all_staged;
    if (staged[i] == pieces[i].bytes) continue;
    copy_head(pieces[i], pieces[i].bytes - staged[i]);
    tickets[i].free = mark();
  }
  for (size_t i = pieces.size(), at = 0; i-- > 0;) {
    if (staged[i] == 0) continue;
    side_->copy(pieces[i].host + pieces[i].bytes - staged[i], bounce_.data() + at, staged[i]);
    at += staged[i];
  }
  const Ticket copied = mark();
  for (Tickets& ticket : tickets) ticket.copied = copied;
  return tickets;
}

// All of them in one operation, before the first copy: then nothing can change on the way unseen.
void DeviceCopier::digest(std::span<const Piece> pieces) {
  PITCREW_INVARIANT(pieces.size() <= plan_.pieces, "the plan counts a piece for every tensor");
  if (table_read_) table_read_->wait();
  auto* table = host_table_.as<DigestRange>();
  uint64_t digests = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Piece& piece = pieces[i];
    table[i] = {piece.device, reinterpret_cast<const uint16_t*>(piece.remainders), piece.bytes, digests};
    digests += chunks_of(piece.bytes);
  }
  PITCREW_INVARIANT(digests <= plan_.digests, "the plan counts all chunks");
  side_->copy(table_.data(), table, pieces.size() * sizeof(DigestRange));
  table_read_ = side_->record();
  kernels_.digest(*side_, {table_.as<DigestRange>(), pieces.size(), digests, digests_.as<uint64_t>()});
  for (size_t i = 0; i < pieces.size();) {
    // Neighbours that lie behind one another on the host, too, are one copy.
    size_t end = i;
    uint64_t count = 0;
    while (end < pieces.size() && pieces[end].digests == pieces[i].digests + count)
      count += chunks_of(pieces[end++].bytes);
    side_->copy(pieces[i].digests, digests_.as<uint64_t>() + table[i].first_digest, count * sizeof(uint64_t));
    i = end;
  }
}

void DeviceCopier::gather(const Piece& piece, uint64_t from, uint64_t bytes, std::byte* to) {
  if (piece.remainders == nullptr) return side_->copy(to, piece.device + from, bytes);
  PITCREW_INVARIANT(kernels_.join != nullptr, "floats in two halves are joined by a kernel");
  const uint64_t first = from / sizeof(float);
  kernels_.join(*side_, {bytes / sizeof(float), reinterpret_cast<const BF16*>(piece.device) + first,
                         reinterpret_cast<const uint16_t*>(piece.remainders) + first, reinterpret_cast<float*>(to)});
}

void DeviceCopier::copy_head(const Piece& piece, uint64_t bytes) {
  if (piece.remainders == nullptr) return side_->copy(piece.host, piece.device, bytes);
  for (uint64_t at = 0; at < bytes; at += staging_.bytes()) {
    const uint64_t part = std::min<uint64_t>(staging_.bytes(), bytes - at);
    gather(piece, at, part, staging_.data());
    side_->copy(piece.host + at, staging_.data(), part);
  }
}

Copier::Ticket DeviceCopier::mark() {
  const std::lock_guard lock(mutex_);
  // Copies end in order, so what lies before a reached event is done as well.
  while (!events_.empty() && events_.front()->reached()) {
    events_.pop_front();
    ++first_;
  }
  events_.push_back(side_->record());
  return first_ + events_.size() - 1;
}

Copier::Ticket DeviceCopier::copy_out(std::byte* host, const std::byte* from, size_t bytes) {
  side_->copy(host, from, bytes);
  return mark();
}

void DeviceCopier::hold_compute(Ticket ticket) {
  if (auto event = find(ticket)) compute_.wait(std::move(event));
}

void DeviceCopier::wait(Ticket ticket) {
  if (const auto event = find(ticket)) event->wait();
}

void DeviceCopier::copy_in(std::byte* to, const std::byte* host, size_t bytes) {
  side_->copy(to, host, bytes);
  side_->synchronize();
}

void DeviceCopier::begin_copy_in(std::byte* to, std::byte* remainders, const std::byte* host, size_t bytes) {
  if (remainders == nullptr) return side_->copy(to, host, bytes);
  PITCREW_INVARIANT(kernels_.split != nullptr, "floats are cut into halves by a kernel");
  for (uint64_t at = 0; at < bytes; at += staging_.bytes()) {
    const uint64_t part = std::min<uint64_t>(staging_.bytes(), bytes - at), first = at / sizeof(float);
    side_->copy(staging_.data(), host + at, part);
    kernels_.split(*side_, {part / sizeof(float), staging_.as<float>(), reinterpret_cast<BF16*>(to) + first,
                            reinterpret_cast<uint16_t*>(remainders) + first});
  }
}

std::shared_ptr<const Event> DeviceCopier::find(Ticket ticket) {
  const std::lock_guard lock(mutex_);
  return ticket < first_ ? nullptr : events_[ticket - first_];
}

}  // namespace pitcrew::trainer
