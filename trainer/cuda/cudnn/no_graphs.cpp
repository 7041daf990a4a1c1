// Where nvidia-cudnn-frontend's headers were not there when this was built.
#include "trainer/cuda/cudnn/graphs.hpp"

namespace pitcrew::trainer::cudnn {
namespace {

Error missing() {
  return {Code::kUnsupported,
          "this libpitcrew_cuda.so was built without cuDNN's headers, which scripts/setup --cuda installs; set "
          "attention: own"};
}

}  // namespace

struct Graphs::Pair {};

Graphs::Graphs(std::unique_ptr<Pair> pair) : pair_(std::move(pair)) {}
Graphs::~Graphs() = default;
Result<std::unique_ptr<Graphs>> Graphs::describe(const Library&, const AttentionShape&, int) { return missing(); }
Status Graphs::build(cudnnContext*) { return missing(); }
uint64_t Graphs::workspace_bytes() const { return 0; }
void Graphs::execute(cudnnContext*, void*, const AttentionForward<BF16>&) const {}
void Graphs::execute(cudnnContext*, void*, const AttentionBackward<BF16>&) const {}
Result<cudnnContext*> create_handle(const Library&) { return missing(); }
void destroy_handle(cudnnContext*) {}
void set_stream(cudnnContext*, void*) {}

}  // namespace pitcrew::trainer::cudnn
