#pragma once

#include <cstdint>
#include <memory>

#include "trainer/cuda/cudnn/library.hpp"
#include "trainer/kernels/attention.hpp"
#include "trainer/kernels/attention_engine.hpp"

struct cudnnContext;

namespace pitcrew::trainer::cudnn {

// Causal attention of one shape, forward with the rows' statistics and backward with the deterministic algorithm, as
// two graphs of cuDNN. Tensors lie as AttentionForward and AttentionBackward say: queries, keys and values in rows of
// qkv. Built once; used by the training thread.
class Graphs {
 public:
  // Describes both, and has nvidia-cudnn-frontend check them for a GPU of this architecture (90: Hopper; 0: the current
  // GPU). Needs the library and no GPU. kUnsupported with what it says.
  static Result<std::unique_ptr<Graphs>> describe(const Library& library, const AttentionShape& shape,
                                                  int architecture = 0);
  ~Graphs();

  // Chooses and builds plans on the current GPU; takes seconds where kernels are compiled. Once.
  Status build(cudnnContext* handle);
  // What execution takes: of a built graph.
  uint64_t workspace_bytes() const;

  // Enqueues on the handle's stream. An error of cuDNN's here ends the process.
  void execute(cudnnContext* handle, void* workspace, const AttentionForward<BF16>& op) const;
  void execute(cudnnContext* handle, void* workspace, const AttentionBackward<BF16>& op) const;

 private:
  struct Pair;
  explicit Graphs(std::unique_ptr<Pair> pair);
  std::unique_ptr<Pair> pair_;
};

// cuDNN's handle for the current GPU, by the loaded library.
Result<cudnnContext*> create_handle(const Library& library);
void destroy_handle(cudnnContext* handle);
void set_stream(cudnnContext* handle, void* stream);

}  // namespace pitcrew::trainer::cudnn
