// XXH3-64 with seed 0 of each chunk: the values of the CPU's library (xxHash, doc/xxhash_spec.md).
#include "trainer/cuda/kernels/device.cuh"
#include "trainer/cuda/kernels/launch.hpp"

namespace pitcrew::trainer::cuda {

namespace {

constexpr unsigned kWarps = 4;
constexpr size_t kStripe = 64, kSecretBytes = 192;
constexpr size_t kStripesPerBlock = (kSecretBytes - kStripe) / 8;  // then the sums are scrambled
constexpr size_t kShort = 240;                                     // up to here the algorithm is another

constexpr uint64_t kPrime32a = 0x9E3779B1u, kPrime32b = 0x85EBCA77u, kPrime32c = 0xC2B2AE3Du;
constexpr uint64_t kPrime64a = 0x9E3779B185EBCA87u, kPrime64b = 0xC2B2AE3D27D4EB4Fu, kPrime64c = 0x165667B19E3779F9u,
                   kPrime64d = 0x85EBCA77C2B2AE63u, kPrime64e = 0x27D4EB2F165667C5u;

// The library's default secret.
__constant__ uint8_t kSecret[kSecretBytes] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c, 0xde, 0xd4,
    0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f, 0xcb, 0x79, 0xe6, 0x4e,
    0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21, 0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43,
    0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c, 0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb,
    0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3, 0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19,
    0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8, 0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7,
    0xc7, 0x0b, 0x4f, 0x1d, 0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78,
    0x73, 0x64, 0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e, 0x2b, 0x16,
    0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce, 0x45, 0xcb, 0x3a, 0x8f,
    0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

__device__ uint64_t read(const uint8_t* from, unsigned bytes) {
  uint64_t value = 0;
  for (unsigned i = 0; i < bytes; ++i) value |= uint64_t{from[i]} << 8 * i;
  return value;
}
__device__ uint64_t read64(const uint8_t* from) { return read(from, 8); }
__device__ uint64_t secret64(size_t offset) { return read64(kSecret + offset); }

__device__ uint64_t folded_product(uint64_t a, uint64_t b) { return (a * b) ^ high_product(a, b); }
__device__ uint64_t rotate(uint64_t x, int bits) { return x << bits | x >> (64 - bits); }
__device__ uint64_t swapped(uint64_t x) {
  uint64_t out = 0;
  for (int i = 0; i < 8; ++i) out = out << 8 | (x >> 8 * i & 255);
  return out;
}
__device__ uint64_t avalanche(uint64_t x) {
  x ^= x >> 37;
  x *= 0x165667919E3779F9u;
  return x ^ x >> 32;
}
__device__ uint64_t avalanche_xxh64(uint64_t x) {
  x = (x ^ x >> 33) * kPrime64b;
  x = (x ^ x >> 29) * kPrime64c;
  return x ^ x >> 32;
}
__device__ uint64_t mix16(const uint8_t* data, size_t secret) {
  return folded_product(read64(data) ^ secret64(secret), read64(data + 8) ^ secret64(secret + 8));
}

__device__ uint64_t short_digest(const uint8_t* data, size_t size) {
  if (size == 0) return avalanche_xxh64(secret64(56) ^ secret64(64));
  if (size <= 3) {
    const uint64_t combined = uint64_t{data[0]} << 16 | uint64_t{data[size / 2]} << 24 | data[size - 1] | size << 8;
    return avalanche_xxh64(combined ^ ((read(kSecret, 4) ^ read(kSecret + 4, 4))));
  }
  if (size <= 8) {
    uint64_t x = (read(data + size - 4, 4) + (read(data, 4) << 32)) ^ (secret64(8) ^ secret64(16));
    x ^= rotate(x, 49) ^ rotate(x, 24);
    x *= 0x9FB21C651E98DF25u;
    x ^= (x >> 35) + size;
    x *= 0x9FB21C651E98DF25u;
    return x ^ x >> 28;
  }
  if (size <= 16) {
    const uint64_t low = read64(data) ^ (secret64(24) ^ secret64(32));
    const uint64_t high = read64(data + size - 8) ^ (secret64(40) ^ secret64(48));
    return avalanche(size + swapped(low) + high + folded_product(low, high));
  }
  uint64_t sum = size * kPrime64a;
  if (size <= 128) {
    for (size_t i = (size - 1) / 32 + 1; i-- > 0;) {
      sum += mix16(data + 16 * i, 32 * i) + mix16(data + size - 16 * (i + 1), 32 * i + 16);
    }
    return avalanche(sum);
  }
  for (size_t i = 0; i < 8; ++i) sum += mix16(data + 16 * i, 16 * i);
  sum = avalanche(sum);
  for (size_t i = 8; i < size / 16; ++i) sum += mix16(data + 16 * i, 16 * (i - 8) + 3);
  return avalanche(sum + mix16(data + size - 16, 136 - 17));
}

// What one lane's word of a stripe adds to the lane's sum; its neighbour gets the word itself.
__device__ __forceinline__ uint64_t product(uint64_t word, uint64_t key) {
  const uint64_t x = word ^ key;
  return (x & 0xffffffffu) * (x >> 32);
}

// Words of 8 bytes that lie as they are.
struct Plain {
  const uint8_t* data;
  __device__ __forceinline__ uint64_t word(size_t i) const { return reinterpret_cast<const uint64_t*>(data)[i]; }
  // From any byte.
  __device__ __forceinline__ uint64_t at(size_t byte) const { return read64(data + byte); }
};
// Words of two floats, each kept in two halves.
struct Halves {
  const uint16_t* weights;
  const uint16_t* remainders;
  bool aligned;  // both, to two elements
  __device__ __forceinline__ uint32_t value(size_t i) const {
    return float_to_bits(join_halves(weights[i], remainders[i]));
  }
  __device__ __forceinline__ uint64_t word(size_t i) const {
    if (!aligned) return value(2 * i) | uint64_t{value(2 * i + 1)} << 32;
    const uint32_t upper = reinterpret_cast<const uint32_t*>(weights)[i],
                   lower = reinterpret_cast<const uint32_t*>(remainders)[i];
    return float_to_bits(join_halves(upper & 0xffffu, lower & 0xffffu)) |
           uint64_t{float_to_bits(join_halves(upper >> 16, lower >> 16))} << 32;
  }
  // Of floats, which a word starts with.
  __device__ __forceinline__ uint64_t at(size_t byte) const {
    return value(byte / 4) | uint64_t{value(byte / 4 + 1)} << 32;
  }
};

// By one warp. Lane l stands for word l mod 8 of every fourth stripe, from l / 8; the eight sums are complete, and in
// every group of eight lanes, when a block's stripes have been added.
template <typename Words>
__device__ __forceinline__ uint64_t long_digest(const Words& words, size_t size, const uint64_t* keys) {
  const unsigned lane = threadIdx.x % kWarp, word = lane % 8, group = lane / 8;
  const uint64_t starts[8] = {kPrime32c, kPrime64a, kPrime64b, kPrime64c, kPrime64d, kPrime32b, kPrime64e, kPrime32a};
  uint64_t sum = 0;
#pragma unroll
  for (unsigned i = 0; i < 8; ++i) sum = i == word ? starts[i] : sum;
  const size_t blocks = (size - 1) / (kStripe * kStripesPerBlock);
  // The last, partial block has this many stripes; one more, which ends with the data, comes behind.
  const size_t rest = (size - 1 - blocks * kStripe * kStripesPerBlock) / kStripe;
  for (size_t block = 0; block <= blocks; ++block) {
    const size_t stripes = block < blocks ? kStripesPerBlock : rest;
    uint64_t own = 0, neighbour = 0;
#pragma unroll
    for (size_t s = 0; s < kStripesPerBlock; s += 4) {
      const size_t stripe = s + group;
      if (stripe >= stripes) continue;
      const uint64_t value = words.word((block * kStripesPerBlock + stripe) * 8 + word);
      own += product(value, keys[stripe + word]);
      neighbour += value;
    }
    own += shuffle_xor(neighbour, 1);
    own += shuffle_xor(own, 8);
    own += shuffle_xor(own, 16);
    sum += own;
    if (block == blocks) break;
    sum ^= sum >> 47;
    sum = (sum ^ keys[kStripesPerBlock + word]) * kPrime32a;
  }
  const uint64_t value = words.at(size - kStripe + 8 * word);
  sum += product(value, secret64(kSecretBytes - kStripe - 7 + 8 * word)) + shuffle_xor(value, 1);
  // Pairs of sums are multiplied, and the four products added.
  const uint64_t keyed = sum ^ secret64(11 + 8 * word);
  uint64_t merged = folded_product(keyed, shuffle_xor(keyed, 1));
  merged += shuffle_xor(merged, 2);
  merged += shuffle_xor(merged, 4);
  return avalanche(size * kPrime64a + merged);
}

// A warp per chunk.
__global__ void digest(Digest op, size_t count) {
  __shared__ uint64_t keys[kSecretBytes / 8];
  if (threadIdx.x < kSecretBytes / 8) keys[threadIdx.x] = secret64(8 * threadIdx.x);
  __syncthreads();
  const size_t chunk = size_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (chunk >= count) return;
  const uint8_t* data = static_cast<const uint8_t*>(op.data) + chunk * op.chunk;
  const size_t size = (chunk + 1) * op.chunk <= op.bytes ? op.chunk : op.bytes - chunk * op.chunk;
  const bool first = threadIdx.x % kWarp == 0;
  if (size <= kShort) {
    if (first) op.digests[chunk] = short_digest(data, size);
    return;
  }
  const uint64_t value = long_digest(Plain{data}, size, keys);
  if (first) op.digests[chunk] = value;
}

__global__ void digest_list(DigestList op) {
  __shared__ uint64_t keys[kSecretBytes / 8];
  __shared__ uint32_t shorts[kWarps][kShort / 4];
  if (threadIdx.x < kSecretBytes / 8) keys[threadIdx.x] = secret64(8 * threadIdx.x);
  __syncthreads();
  const size_t number = size_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (number >= op.total) return;
  size_t low = 0, high = op.count;  // the last range whose first digest is not above `number`
  while (high - low > 1) {
    const size_t middle = (low + high) / 2;
    (op.ranges[middle].first_digest <= number ? low : high) = middle;
  }
  const DigestRange range = op.ranges[low];
  const size_t begin = (number - range.first_digest) * DigestList::kChunk;
  const size_t size = range.bytes - begin < DigestList::kChunk ? range.bytes - begin : DigestList::kChunk;
  const unsigned lane = threadIdx.x % kWarp;
  uint64_t value = 0;
  if (range.remainders == nullptr) {
    const Plain words{static_cast<const uint8_t*>(range.data) + begin};
    value = size <= kShort ? (lane == 0 ? short_digest(words.data, size) : 0) : long_digest(words, size, keys);
  } else {
    Halves words{static_cast<const uint16_t*>(range.data) + begin / 4, range.remainders + begin / 4, false};
    words.aligned =
        ((reinterpret_cast<uintptr_t>(words.weights) | reinterpret_cast<uintptr_t>(words.remainders)) & 2) == 0;
    if (size <= kShort) {
      uint32_t* joined = shorts[threadIdx.x / kWarp];
      for (unsigned i = lane; i < size / 4; i += kWarp) joined[i] = words.value(i);
      __syncwarp();
      if (lane == 0) value = short_digest(reinterpret_cast<const uint8_t*>(joined), size);
    } else {
      value = long_digest(words, size, keys);
    }
  }
  if (lane == 0) op.digests[number] = value;
}

}  // namespace

void Launcher::operator()(const Digest& op) const {
  if (op.bytes == 0) return;
  launch(digest, static_cast<unsigned>(ceil_div(op.count(), kWarps)), kWarps * kWarp, 0, queue, op, op.count());
}

void Launcher::operator()(const DigestList& op) const {
  if (op.total == 0) return;
  launch(digest_list, static_cast<unsigned>(ceil_div(op.total, kWarps)), kWarps * kWarp, 0, queue, op);
}

}  // namespace pitcrew::trainer::cuda
