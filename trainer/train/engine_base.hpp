#pragma once

#include <memory>
#include <span>
#include <vector>

#include "trainer/train/lane_engine.hpp"
#include "trainer/train/state_reader.hpp"

namespace pitcrew::trainer {

// What every engine is made of, whether its rank holds everything or a shard: device, stream and tensor group, the
// operands of a lane, and what a step tells the host. What is done with the state and with sums of gradients is the
// derived engine's.
template <typename T>
class EngineBase : public LaneEngine {
 public:
  Device& device() final { return *device_; }
  Stream& stream() final { return *stream_; }
  StateKernels state_kernels() final;
  bool announces_writes() const final { return true; }
  ProductPlans* plans() final { return plans_; }
  void set_parameters(std::span<const float> params) final;
  std::vector<uint64_t> state_digests() final { return reader_->digests(state_tensors()); }
  double state_square_sum(size_t tensor) final { return reader_->square_sum(state_tensors()[tensor]); }
  GradientSummary updated() final;

 protected:
  EngineBase(EngineSettings settings, std::shared_ptr<Device> device, std::unique_ptr<Kernels<T>> kernels,
             ProductPlans* plans);

  // The model and the operands of `lanes` lanes. Before the derived engine's own.
  Status allocate_operands(uint32_t lanes);
  // For tensors as state_tensors() gives them: when these are there.
  Status allocate_reader();
  // Parameters laid out as this tensor rank holds them.
  virtual void set_held_parameters(const Wide<T>* flat) = 0;

  // A piece of work was given to the stream.
  void mark();
  void take_tokens(std::span<const int32_t> tokens);
  int32_t* tokens_of(uint32_t lane, uint32_t pass = 0) const {
    return tokens_.as<int32_t>() + lane * lane_tokens() + pass * pass_tokens();
  }
  size_t pass_tokens() const { return shape_.sequences * (shape_.tokens + size_t{1}); }
  size_t lane_tokens() const { return passes() * pass_tokens(); }
  double* loss_of(uint32_t lane, uint32_t pass = 0) const { return losses_.as<double>() + lane * passes() + pass; }
  void fetch_losses(uint32_t lanes);
  std::vector<double> fetched_losses(uint32_t lanes) const;
  // A double on the device; waits for the stream.
  double fetch(const double* value);
  // What the tensor group says of the work that is done.
  Status group_status() const { return group_ == nullptr ? Status() : group_->status(); }

  // Adds `sums`, of the rank's subtrees, to those of the other replicas: `result`, which may be the first of them.
  Status reduce_sums(GradientReducer& reducer, std::span<float* const> sums, float* result, uint64_t elements);
  // The end of an update: from the rank's own square sum, which the stream will have left in square_sum(), the
  // gradient's summary, then `adamw`.
  void conclude(double tokens, double clip, double norm_limit, const std::function<void()>& before_update,
                const std::function<void(const GradientSummary*)>& adamw);
  double* square_sum() const { return square_sum_.as<double>(); }
  const std::shared_ptr<const Event>& update_event() const { return updated_; }

  const EngineSettings settings_;
  const std::shared_ptr<Device> device_;
  const std::unique_ptr<Kernels<T>> kernels_;
  const std::unique_ptr<Stream> stream_;
  const std::unique_ptr<TensorGroup> group_;  // null: one rank has the whole width
  const TensorPlace place_;
  const LaneShape shape_;
  std::unique_ptr<Model<T>> model_;

 private:
  // What a step tells the host.
  struct Told {
    GradientSummary summary;
    double value;
  };
  uint32_t passes() const { return settings_.plan.passes(); }

  ProductPlans* const plans_;
  Buffer tokens_;
  Buffer losses_, host_losses_;    // a double per lane and pass
  Buffer square_sum_;              // a double; behind it those of all tensor ranks
  Buffer summary_, told_;          // a GradientSummary; a Told
  std::vector<Buffer> host_sums_;  // where the device's memory isn't the host's and there are peers
  std::unique_ptr<StateReader<T>> reader_;
  uint64_t queued_ = 0;
  std::shared_ptr<const Event> updated_;  // the last update's summary is in told_
};

}  // namespace pitcrew::trainer
