// AVX2 and FMA: 6 × 2 sums in 16 registers.
#define PITCREW_VECTOR_BYTES 32
#define PITCREW_TILE_M 6
#define PITCREW_TILE_VECTORS 2
#define PITCREW_TABLE avx2
#include "trainer/kernels/inner_impl.inl"
