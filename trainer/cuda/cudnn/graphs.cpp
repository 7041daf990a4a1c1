#include "trainer/cuda/cudnn/graphs.hpp"

#include <cmath>
#include <unordered_map>

#include "trainer/cuda/cudnn/frontend.hpp"

namespace pitcrew::trainer::cudnn {
namespace {

namespace fe = cudnn_frontend;
using Tensor = std::shared_ptr<fe::graph::Tensor_attributes>;

enum Id : int64_t { kQ = 1, kK, kV, kOut, kStatistics, kDOut, kDQ, kDK, kDV };

Error unsupported(const char* what, const fe::error_t& error) {
  return {Code::kUnsupported, std::string("cuDNN's attention ") + what + ": " + error.err_msg};
}

// The frontend throws where a function is missing in the library.
template <typename F>
Status guarded(const char* what, F&& work) {
  try {
    const fe::error_t error = work();
    if (error.is_bad()) return unsupported(what, error);
    return {};
  } catch (const std::exception& thrown) {
    return Error(Code::kUnsupported, std::string("cuDNN's attention ") + what + ": " + thrown.what());
  }
}

// How tensors lie: [sequences][heads][length][head_width] with strides in elements.
struct Layout {
  int64_t sequences, length, heads, kv_heads, width;

  explicit Layout(const AttentionShape& shape)
      : sequences(static_cast<int64_t>(shape.sequences)),
        length(static_cast<int64_t>(shape.length)),
        heads(static_cast<int64_t>(shape.heads)),
        kv_heads(static_cast<int64_t>(shape.kv_heads)),
        width(static_cast<int64_t>(shape.head_width)) {}

  int64_t row() const { return (heads + 2 * kv_heads) * width; }
  std::vector<int64_t> dims(int64_t of_heads) const { return {sequences, of_heads, length, width}; }
  std::vector<int64_t> in_qkv() const { return {length * row(), width, row(), 1}; }
  std::vector<int64_t> in_out() const { return {length * heads * width, width, heads * width, 1}; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(width)); }
};

std::shared_ptr<fe::graph::Graph> new_graph(int architecture) {
  auto graph = std::make_shared<fe::graph::Graph>();
  graph->set_io_data_type(fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
  if (architecture > 0) graph->set_sm_version(architecture);
  return graph;
}

Tensor input(fe::graph::Graph& graph, const char* name, Id id, std::vector<int64_t> dims,
             std::vector<int64_t> strides) {
  return graph.tensor(fe::graph::Tensor_attributes().set_name(name).set_uid(id).set_dim(dims).set_stride(strides));
}

void output(const Tensor& tensor, Id id, std::vector<int64_t> dims, std::vector<int64_t> strides) {
  tensor->set_output(true).set_uid(id).set_dim(dims).set_stride(strides);
}

std::shared_ptr<fe::graph::Graph> forward_graph(const Layout& at, int architecture) {
  auto graph = new_graph(architecture);
  const Tensor q = input(*graph, "q", kQ, at.dims(at.heads), at.in_qkv());
  const Tensor k = input(*graph, "k", kK, at.dims(at.kv_heads), at.in_qkv());
  const Tensor v = input(*graph, "v", kV, at.dims(at.kv_heads), at.in_qkv());
  auto options = fe::graph::SDPA_attributes().set_name("attention");
  options.set_generate_stats(true).set_causal_mask(true).set_attn_scale(at.scale());
  auto [out, statistics] = graph->sdpa(q, k, v, options);
  output(out, kOut, at.dims(at.heads), at.in_out());
  // The logarithm of each row's sum of exponentials, as ours.
  output(statistics, kStatistics, {at.sequences, at.heads, at.length, 1}, {at.heads * at.length, at.length, 1, 1});
  statistics->set_data_type(fe::DataType_t::FLOAT);
  return graph;
}

std::shared_ptr<fe::graph::Graph> backward_graph(const Layout& at, int architecture) {
  auto graph = new_graph(architecture);
  const Tensor q = input(*graph, "q", kQ, at.dims(at.heads), at.in_qkv());
  const Tensor k = input(*graph, "k", kK, at.dims(at.kv_heads), at.in_qkv());
  const Tensor v = input(*graph, "v", kV, at.dims(at.kv_heads), at.in_qkv());
  const Tensor out = input(*graph, "out", kOut, at.dims(at.heads), at.in_out());
  const Tensor d_out = input(*graph, "d_out", kDOut, at.dims(at.heads), at.in_out());
  const Tensor statistics = input(*graph, "statistics", kStatistics, {at.sequences, at.heads, at.length, 1},
                                  {at.heads * at.length, at.length, 1, 1});
  statistics->set_data_type(fe::DataType_t::FLOAT);
  auto options = fe::graph::SDPA_backward_attributes().set_name("attention_backward");
  // Else sums of queries' gradients are added by atomics.
  options.set_deterministic_algorithm(true).set_causal_mask(true).set_attn_scale(at.scale());
  auto [d_q, d_k, d_v] = graph->sdpa_backward(q, k, v, out, d_out, statistics, options);
  output(d_q, kDQ, at.dims(at.heads), at.in_qkv());
  output(d_k, kDK, at.dims(at.kv_heads), at.in_qkv());
  output(d_v, kDV, at.dims(at.kv_heads), at.in_qkv());
  return graph;
}

fe::error_t build_one(fe::graph::Graph& graph, cudnnHandle_t handle) {
  if (auto error = graph.build_operation_graph(handle); error.is_bad()) return error;
  if (auto error = graph.create_execution_plans({fe::HeurMode_t::A}); error.is_bad()) return error;
  if (auto error = graph.check_support(); error.is_bad()) return error;
  return graph.build_plans(fe::BuildPlanPolicy_t::HEURISTICS_CHOICE);
}

void require(const fe::error_t& error, const char* what) {
  PITCREW_INVARIANT(error.is_good(), std::string("cuDNN could not ") + what + ": " + error.err_msg);
}

void* without_const(const void* data) { return const_cast<void*>(data); }

}  // namespace

struct Graphs::Pair {
  AttentionShape shape;
  std::shared_ptr<fe::graph::Graph> forward, backward;
  uint64_t workspace_bytes = 0;

  BF16* keys(BF16* qkv) const { return qkv + shape.heads * shape.head_width; }
  BF16* values(BF16* qkv) const { return keys(qkv) + shape.kv_heads * shape.head_width; }
};

Graphs::Graphs(std::unique_ptr<Pair> pair) : pair_(std::move(pair)) {}
Graphs::~Graphs() = default;

Result<std::unique_ptr<Graphs>> Graphs::describe(const Library& library, const AttentionShape& shape,
                                                 int architecture) {
  PITCREW_TRY(check_cudnn_shape(shape));
  fe::cudnn_dlhandle = library.handle;
  const Layout at(shape);
  auto pair = std::make_unique<Pair>();
  pair->shape = shape;
  PITCREW_TRY(guarded("forward is not possible here", [&] {
    pair->forward = forward_graph(at, architecture);
    return pair->forward->validate();
  }));
  PITCREW_TRY(guarded("backward is not possible here", [&] {
    pair->backward = backward_graph(at, architecture);
    return pair->backward->validate();
  }));
  return std::unique_ptr<Graphs>(new Graphs(std::move(pair)));
}

Status Graphs::build(cudnnContext* handle) {
  for (fe::graph::Graph* graph : {pair_->forward.get(), pair_->backward.get()}) {
    PITCREW_TRY(guarded("has no plan for this shape", [&] { return build_one(*graph, handle); }));
    int64_t bytes = 0;
    PITCREW_TRY(guarded("does not tell its workspace", [&] { return graph->get_workspace_size(bytes); }));
    pair_->workspace_bytes = std::max(pair_->workspace_bytes, static_cast<uint64_t>(bytes));
  }
  return {};
}

uint64_t Graphs::workspace_bytes() const { return pair_->workspace_bytes; }

void Graphs::execute(cudnnContext* handle, void* workspace, const AttentionForward<BF16>& op) const {
  auto* qkv = const_cast<BF16*>(op.qkv);
  std::unordered_map<int64_t, void*> operands = {
      {kQ, qkv}, {kK, pair_->keys(qkv)}, {kV, pair_->values(qkv)}, {kOut, op.out}, {kStatistics, op.log_sum}};
  require(pair_->forward->execute(handle, operands, workspace), "compute attention");
}

void Graphs::execute(cudnnContext* handle, void* workspace, const AttentionBackward<BF16>& op) const {
  auto* qkv = const_cast<BF16*>(op.qkv);
  std::unordered_map<int64_t, void*> operands = {{kQ, qkv},
                                                 {kK, pair_->keys(qkv)},
                                                 {kV, pair_->values(qkv)},
                                                 {kOut, without_const(op.out)},
                                                 {kStatistics, without_const(op.log_sum)},
                                                 {kDOut, without_const(op.d_out)},
                                                 {kDQ, op.d_qkv},
                                                 {kDK, pair_->keys(op.d_qkv)},
                                                 {kDV, pair_->values(op.d_qkv)}};
  require(pair_->backward->execute(handle, operands, workspace), "compute attention's gradients");
}

Result<cudnnContext*> create_handle(const Library& library) {
  fe::cudnn_dlhandle = library.handle;
  cudnnHandle_t handle = nullptr;
  PITCREW_TRY(guarded("can't begin", [&]() -> fe::error_t {
    const cudnnStatus_t status = fe::detail::create_handle(&handle);
    if (status == CUDNN_STATUS_SUCCESS) return {fe::error_code_t::OK, ""};
    return {fe::error_code_t::HANDLE_ERROR, fe::detail::get_error_string(status)};
  }));
  return handle;
}

void destroy_handle(cudnnContext* handle) { (void)fe::detail::destroy_handle(handle); }

void set_stream(cudnnContext* handle, void* stream) {
  const cudnnStatus_t status = fe::detail::set_stream(handle, static_cast<cudaStream_t>(stream));
  PITCREW_INVARIANT(status == CUDNN_STATUS_SUCCESS, "cuDNN takes a stream");
}

}  // namespace pitcrew::trainer::cudnn
