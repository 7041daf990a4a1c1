// What every x86-64 (and every other machine) can run: 4 × 2 sums in 16 registers.
#define PITCREW_VECTOR_BYTES 16
#define PITCREW_TILE_M 4
#define PITCREW_TILE_VECTORS 2
#define PITCREW_TABLE baseline
#include "trainer/kernels/inner_impl.inl"
