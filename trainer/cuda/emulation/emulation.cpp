#include <algorithm>
#include <mutex>
#include <vector>

#include <setjmp.h>
#include <ucontext.h>

#include "lib/base/result.hpp"
#include "trainer/cuda/kernels/device.cuh"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace pitcrew::trainer::emulation {

namespace {

constexpr size_t kStack = size_t{256} << 10;
constexpr unsigned kLanes = 32;

struct Warp {
  unsigned alive = 0;
  unsigned arrived = 0;
  uint64_t round = 0;
  std::byte values[2][kLanes * 16];
};

struct Thread {
  unsigned number = 0;
  dim3 index;
  bool done = false;
  const uint64_t* waits_for = nullptr;  // a round to be over
  uint64_t waits_while = 0;
  bool entered = false;
  ucontext_t context;
  jmp_buf place;  // once entered
  std::vector<std::byte> stack;
};

// The block that is running. Everything is used by the launching thread alone.
struct Block {
  Place place;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  Thread* current = nullptr;
  unsigned alive = 0, arrived = 0;
  uint64_t round = 0;
  std::vector<std::byte> memory;
  const std::function<void()>* kernel = nullptr;
  ucontext_t scheduler;
  jmp_buf scheduler_place;
  const void* scheduler_stack = nullptr;
  size_t scheduler_bytes = 0;
};
Block running;
std::mutex one_at_a_time;

#if defined(__SANITIZE_ADDRESS__)
// Told of every switch, the sanitizer knows whose stack it looks at.
void enter_fiber(Thread& thread) {
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, thread.stack.data(), thread.stack.size());
  swapcontext(&running.scheduler, &thread.context);
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
}

void leave_fiber(bool for_ever) {
  Thread& thread = *running.current;
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(for_ever ? nullptr : &fake, running.scheduler_stack, running.scheduler_bytes);
  swapcontext(&thread.context, &running.scheduler);
  __sanitizer_finish_switch_fiber(fake, &running.scheduler_stack, &running.scheduler_bytes);
}
#else
// Contexts begin fibers; between them jumps switch, which need no system call.
void enter_fiber(Thread& thread) {
  if (_setjmp(running.scheduler_place) != 0) return;
  if (thread.entered) _longjmp(thread.place, 1);
  thread.entered = true;
  setcontext(&thread.context);
}

void leave_fiber(bool) {
  if (_setjmp(running.current->place) == 0) _longjmp(running.scheduler_place, 1);
}
#endif

void wait_for(const uint64_t& round, uint64_t mine) {
  running.current->waits_for = &round;
  running.current->waits_while = mine;
  leave_fiber(false);
}

void fiber() {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(nullptr, &running.scheduler_stack, &running.scheduler_bytes);
#endif
  (*running.kernel)();
  Thread& thread = *running.current;
  thread.done = true;
  // Whoever waits for the others at a barrier no longer waits for this one.
  if (--running.alive > 0 && running.arrived == running.alive) {
    running.arrived = 0;
    ++running.round;
  }
  leave_fiber(true);
}

void run_block() {
  const Place& place = running.place;
  const unsigned count = place.threads.x * place.threads.y * place.threads.z;
  running.warps.assign((count + kLanes - 1) / kLanes, {});
  running.threads.resize(std::max<size_t>(running.threads.size(), count));
  running.alive = count;
  running.arrived = 0;
  // Whoever reads shared memory before it was written computes NaN.
  std::fill(running.memory.begin(), running.memory.end(), std::byte{0xff});
  for (unsigned i = 0; i < count; ++i) {
    Thread& thread = running.threads[i];
    thread.number = i;
    thread.index = {i % place.threads.x, i / place.threads.x % place.threads.y, i / place.threads.x / place.threads.y};
    thread.done = false;
    thread.entered = false;
    thread.waits_for = nullptr;
    if (thread.stack.empty()) thread.stack.resize(kStack);
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.data();
    thread.context.uc_stack.ss_size = thread.stack.size();
    thread.context.uc_link = nullptr;
    makecontext(&thread.context, fiber, 0);
    ++running.warps[i / kLanes].alive;
  }
  for (bool moved = true; running.alive > 0; moved = false) {
    for (unsigned i = 0; i < count; ++i) {
      Thread& thread = running.threads[i];
      if (thread.done || (thread.waits_for != nullptr && *thread.waits_for == thread.waits_while)) continue;
      thread.waits_for = nullptr;
      running.current = &thread;
      running.place.thread = thread.index;
      enter_fiber(thread);
      moved = true;
    }
    PITCREW_INVARIANT(moved,
                      "threads of an emulated kernel wait for one another for ever: a barrier or a shuffle that "
                      "not all of them reach");
  }
}

}  // namespace

const Place& place() {
  running.place.thread = running.current->index;
  return running.place;
}

void block_barrier() {
  const uint64_t mine = running.round;
  if (++running.arrived == running.alive) {
    running.arrived = 0;
    ++running.round;
    return;
  }
  wait_for(running.round, mine);
}

const std::byte* warp_exchange(const void* mine, size_t bytes) {
  PITCREW_INVARIANT(bytes <= 16, "an emulated warp exchanges at most 16 bytes of each lane");
  Warp& warp = running.warps[running.current->number / kLanes];
  const uint64_t round = warp.round;
  std::byte* values = warp.values[round % 2];
  std::memcpy(values + running.current->number % kLanes * bytes, mine, bytes);
  if (++warp.arrived == kLanes) {
    warp.arrived = 0;
    ++warp.round;
  } else {
    wait_for(warp.round, round);
  }
  return values;
}

std::byte* dynamic_memory() { return running.memory.data(); }

void run_grid(dim3 grid, dim3 block, size_t shared, const std::function<void()>& kernel) {
  PITCREW_INVARIANT(block.x * block.y * block.z <= 1024 && shared <= 227 * 1024 && grid.y <= 65535 && grid.z <= 65535,
                    "a kernel is launched with more than a GPU has");
  const std::lock_guard lock(one_at_a_time);
  running.kernel = &kernel;
  running.memory.assign(shared, std::byte{0xff});
  running.place.threads = block;
  running.place.blocks = grid;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        running.place.block = {x, y, z};
        run_block();
      }
    }
  }
}

}  // namespace pitcrew::trainer::emulation

namespace pitcrew::trainer::cuda {

namespace {

// Row and halves of the 8 × 8 matrix fragment of each lane: lane l holds elements 2(l mod 4) and the next of row l / 4.
void take_matrices(uint32_t (&to)[4], const void* row, bool transposed) {
  const unsigned lane = threadIdx.x % 32;
  const std::byte* all = emulation::warp_exchange(&row, sizeof row);
  const auto element = [&](unsigned matrix, unsigned r, unsigned c) {
    const uint16_t* address;
    std::memcpy(&address, all + (matrix * 8 + r) * sizeof address, sizeof address);
    return uint32_t{address[c]};
  };
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    const unsigned r = lane / 4, c = lane % 4 * 2;
    to[matrix] = transposed ? element(matrix, c, r) | element(matrix, c + 1, r) << 16
                            : element(matrix, r, c) | element(matrix, r, c + 1) << 16;
  }
  // No lane writes to the rows before all have read.
  __syncwarp();
}

}  // namespace

void load_matrices(uint32_t (&to)[4], const void* row) { take_matrices(to, row, false); }
void load_matrices_transposed(uint32_t (&to)[4], const void* row) { take_matrices(to, row, true); }

// The layouts of PTX ISA, "Matrix Fragments for mma.m16n8k16": a's words hold (row g, columns 2q), (row g + 8, 2q),
// (row g, 2q + 8), (row g + 8, 2q + 8) with g = lane / 4, q = lane mod 4; b's (rows 2q, column g) and (rows 2q + 8,
// column g); d's (row g, columns 2q and 2q + 1), then row g + 8.
void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const unsigned lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
  uint32_t all_a[32][4], all_b[32][2];
  std::memcpy(all_a, emulation::warp_exchange(a, 16), sizeof all_a);
  const uint32_t b[2] = {b0, b1};
  std::memcpy(all_b, emulation::warp_exchange(b, 8), sizeof all_b);
  const auto half = [](uint32_t word, unsigned i) { return bits_to_float((i == 0 ? word : word >> 16) << 16); };
  for (unsigned out = 0; out < 4; ++out) {
    const unsigned row = g + out / 2 * 8, column = q * 2 + out % 2;
    float sum = 0;
    for (unsigned k = 0; k < 16; ++k) {
      const unsigned pair = k % 8 / 2, word_a = (row >= 8 ? 1 : 0) + (k >= 8 ? 2 : 0);
      sum += half(all_a[row % 8 * 4 + pair][word_a], k % 2) * half(all_b[column * 4 + pair][k / 8], k % 2);
    }
    d[out] += sum;
  }
}

}  // namespace pitcrew::trainer::cuda
