#pragma once

#include "trainer/kernels/operations.hpp"

namespace pitcrew::trainer {

// The operations on BF16 values with the CPU: widened to float, computed by the float kernels, and rounded where a
// result is BF16. The twin of the GPU's kernels, for tests and not for speed.
void run(WorkerPool& workers, const Matmul<BF16>& op);
void run(WorkerPool& workers, const WeightGradient<BF16>& op);
void run(WorkerPool& workers, const ColumnSum<BF16>& op);
void run(WorkerPool& workers, const EmbeddingForward<BF16>& op);
void run(WorkerPool& workers, const EmbeddingBackward<BF16>& op);
void run(WorkerPool& workers, const LayerNormForward<BF16>& op);
void run(WorkerPool& workers, const LayerNormBackward<BF16>& op);
void run(WorkerPool& workers, const RmsNormForward<BF16>& op);
void run(WorkerPool& workers, const RmsNormBackward<BF16>& op);
void run(WorkerPool& workers, const HeadNormForward<BF16>& op);
void run(WorkerPool& workers, const HeadNormBackward<BF16>& op);
void run(WorkerPool& workers, const Rope<BF16>& op);
void run(WorkerPool& workers, const AttentionForward<BF16>& op);
void run(WorkerPool& workers, const AttentionBackward<BF16>& op);
void run(WorkerPool& workers, const SwiGluForward<BF16>& op);
void run(WorkerPool& workers, const SwiGluBackward<BF16>& op);
void run(WorkerPool& workers, const GeluForward<BF16>& op);
void run(WorkerPool& workers, const GeluBackward<BF16>& op);
void run(WorkerPool& workers, const CrossEntropyPart<BF16>& op);
void run(WorkerPool& workers, const CrossEntropy<BF16>& op);
void run(WorkerPool& workers, const SumParts<BF16>& op);
void run(WorkerPool& workers, const AdamW<BF16>& op);

}  // namespace pitcrew::trainer
