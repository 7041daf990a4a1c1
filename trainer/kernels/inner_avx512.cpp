// AVX-512: 12 × 2 sums in 32 registers.
#define PITCREW_VECTOR_BYTES 64
#define PITCREW_TILE_M 12
#define PITCREW_TILE_VECTORS 2
#define PITCREW_TABLE avx512
#include "trainer/kernels/inner_impl.inl"
