#include "trainer/cuda/cudnn/attention.hpp"

namespace pitcrew::trainer::cudnn {

Attention::~Attention() {
  graphs_.clear();
  if (handle_ != nullptr) destroy_handle(handle_);
}

Result<uint64_t> Attention::use_cudnn(const AttentionShape& shape, uint64_t workspace_bytes) {
  PITCREW_ASSIGN(const Library library, load());
  PITCREW_ASSIGN(auto graphs, Graphs::describe(library, shape));
  if (handle_ == nullptr) {
    PITCREW_ASSIGN(handle_, create_handle(library));
  }
  PITCREW_TRY(graphs->build(handle_));
  if (graphs->workspace_bytes() > workspace_bytes) {
    return Error(Code::kResourceExhausted, "cuDNN's attention wants " + std::to_string(graphs->workspace_bytes()) +
                                               " bytes of workspace, the memory plan has " +
                                               std::to_string(workspace_bytes) + " for it; set attention: own");
  }
  if (workspace_.bytes() < workspace_bytes) {
    PITCREW_ASSIGN(workspace_, device_.allocate("cuDNN's attention", workspace_bytes));
  }
  graphs_[shape] = std::move(graphs);
  return library.version;
}

void Attention::use_own() {
  graphs_.clear();
  workspace_ = Buffer();
}

}  // namespace pitcrew::trainer::cudnn
