// A libnccl.so.2 for tests: the functions of nccl.h 2.28.9 that pitcrew uses, on host memory, between threads and
// between processes of one machine. Streams are HostStreams (trainer/device): what is enqueued runs on their threads
// and spins there until the peers come or the communicator is aborted, as NCCL's kernels do. Like NCCL it does not
// notice that a peer's process has died, and never says who is missing.
//
// The file that PITCREW_FAKE_NCCL names says what goes wrong; it is read when a communicator is made and when the
// version is asked for. A line each:
//
//   version 20805            what ncclGetVersion says
//   rank 1 init hang         it never completes; or: init error 5
//   rank 1 op 3 hang         its third operation (a group counts as one) never completes, until it is aborted
//   rank 1 op 3 delay 50     it starts 50 ms late
//   rank 1 op 3 error 3      the call returns this result
//   rank 1 op 3 async 6      the communicator's asynchronous error becomes this, and the operation never completes
//   rank 1 abort hang 500    ncclCommAbort takes 500 ms; finalize hang 500: ncclCommFinalize does
//   rank * ...               every rank
//   net 3/2 rank ...         only communicators that were made with this name of a network (ncclConfig_t::netName)
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/nccl/abi.hpp"
#include "trainer/device/device.hpp"

namespace {

using namespace pitcrew::nccl;

constexpr size_t kRing = 64 << 10;
constexpr int kMostRanks = 16;

// From one rank to another; the first two only grow.
struct Ring {
  std::atomic<uint64_t> written{0};
  std::atomic<uint64_t> read{0};
  std::byte data[kRing];
};

// In shared memory, zero at first.
struct Board {
  std::atomic<uint32_t> joined{0};
  Ring rings[];  // [from][to]
};

size_t board_bytes(int ranks) { return sizeof(Board) + sizeof(Ring) * static_cast<size_t>(ranks * ranks); }

struct Rule {
  std::string net, rank, what, action;
  uint64_t op = 0;
  int value = 0;
};

std::vector<Rule> rules() {
  std::vector<Rule> all;
  const char* path = std::getenv("PITCREW_FAKE_NCCL");
  std::ifstream file(path != nullptr ? path : "");
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    Rule rule;
    std::string first;
    words >> first;
    if (first == "net") words >> rule.net >> first;
    if (first == "version") {
      rule.what = first;
      words >> rule.value;
    } else if (first == "rank") {
      words >> rule.rank >> rule.what;
      if (rule.what == "op") words >> rule.op;
      words >> rule.action >> rule.value;
    } else {
      continue;
    }
    all.push_back(rule);
  }
  return all;
}

void sleep_ms(int milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

// A message under way.
struct Piece {
  bool sending;
  int peer;
  std::byte* data;
  size_t bytes;
  size_t done = 0;
};

}  // namespace

// What ncclComm_t points to. The operations that are still on a stream hold it.
struct pitcrew::nccl::Communicator {
  int rank = 0, ranks = 0;
  Board* board = nullptr;
  std::string net;
  std::vector<Rule> rules;
  std::atomic<int> state{kInProgress};
  std::atomic<bool> aborted{false};
  std::atomic<uint64_t> enqueued{0}, completed{0};
  std::thread joining;
  std::shared_ptr<Communicator> self;  // until it is destroyed or aborted

  ~Communicator() {
    if (board != nullptr) munmap(board, board_bytes(ranks));
  }
  const Rule* rule(const std::string& what, uint64_t op = 0) const {
    for (const Rule& rule : rules) {
      if (!rule.net.empty() && rule.net != net) continue;
      if (rule.what == what && rule.op == op && (rule.rank == "*" || rule.rank == std::to_string(rank))) return &rule;
    }
    return nullptr;
  }
  Ring& ring(int from, int to) { return board->rings[from * ranks + to]; }
  bool move(Piece& piece);
  bool move_all(std::vector<Piece>& pieces);
};

bool Communicator::move(Piece& piece) {
  Ring& ring = piece.sending ? this->ring(rank, piece.peer) : this->ring(piece.peer, rank);
  const uint64_t written = ring.written.load(std::memory_order_acquire);
  const uint64_t read = ring.read.load(std::memory_order_acquire);
  const uint64_t at = piece.sending ? written : read;
  size_t count = std::min<size_t>(piece.sending ? kRing - (written - read) : written - read, piece.bytes - piece.done);
  count = std::min<size_t>(count, kRing - at % kRing);
  if (count == 0) return false;
  if (piece.sending) {
    std::memcpy(ring.data + at % kRing, piece.data + piece.done, count);
    ring.written.store(written + count, std::memory_order_release);
  } else {
    std::memcpy(piece.data + piece.done, ring.data + at % kRing, count);
    ring.read.store(read + count, std::memory_order_release);
  }
  piece.done += count;
  return true;
}

// All at once; those with the same peer in their order. False: aborted.
bool Communicator::move_all(std::vector<Piece>& pieces) {
  for (uint32_t idle = 0;;) {
    bool moved = false, pending = false;
    std::vector<bool> busy(static_cast<size_t>(2 * ranks));
    for (Piece& piece : pieces) {
      if (piece.done == piece.bytes) continue;
      pending = true;
      const auto lane = static_cast<size_t>(2 * piece.peer + (piece.sending ? 1 : 0));
      if (busy[lane]) continue;
      busy[lane] = true;
      moved = move(piece) || moved;
    }
    if (!pending) return true;
    if (aborted) return false;
    idle = moved ? 0 : idle + 1;
    if (idle > 100)
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    else if (idle > 0)
      std::this_thread::yield();
  }
}

namespace {

using Work = std::function<void(Communicator&)>;

// What is between ncclGroupStart and ncclGroupEnd on this thread.
struct Group {
  int depth = 0;
  Communicator* comm = nullptr;
  void* stream = nullptr;
  std::vector<Piece> pieces;
};
thread_local Group group;

void spin_until_aborted(Communicator& comm) {
  while (!comm.aborted) std::this_thread::sleep_for(std::chrono::microseconds(100));
}

int enqueue(Communicator* comm, void* stream, Work work) {
  if (comm->state == kInProgress) return kInvalidUsage;
  const uint64_t op = ++comm->enqueued;
  const Rule* rule = comm->rule("op", op);
  if (rule != nullptr && rule->action == "error") {
    --comm->enqueued;
    return rule->value;
  }
  struct Task {
    std::shared_ptr<Communicator> comm;
    const Rule* rule;
    Work work;
  };
  const auto* host = static_cast<pitcrew::trainer::HostStream*>(stream);
  host->call(
      host->stream,
      [](void* argument) {
        const std::unique_ptr<Task> task(static_cast<Task*>(argument));
        Communicator& comm = *task->comm;
        const std::string action = task->rule != nullptr ? task->rule->action : "";
        if (action == "delay") sleep_ms(task->rule->value);
        if (action == "async") comm.state = task->rule->value;
        if (action == "hang" || action == "async") spin_until_aborted(comm);
        if (!comm.aborted) task->work(comm);
        ++comm.completed;
      },
      new Task{comm->self, rule, std::move(work)});
  return kInProgress;
}

std::byte* bytes_of(const void* data) { return static_cast<std::byte*>(const_cast<void*>(data)); }

// Everybody's `bytes` to everybody, into to[rank].
bool gather(Communicator& comm, const void* from, size_t bytes, std::byte* to) {
  std::vector<Piece> pieces;
  for (int peer = 0; peer < comm.ranks; ++peer) {
    std::byte* const place = to + static_cast<size_t>(peer) * bytes;
    if (peer == comm.rank) {
      if (bytes > 0) std::memmove(place, from, bytes);
      continue;
    }
    pieces.push_back({true, peer, bytes_of(from), bytes});
    pieces.push_back({false, peer, place, bytes});
  }
  return comm.move_all(pieces);
}

// The sums of floats [first, first + count) of everybody's `total`. Added from the last rank to the first: an order
// that is not the trainer's.
void sum(Communicator& comm, const float* from, size_t total, size_t first, size_t count, float* to) {
  std::vector<float> all(total * static_cast<size_t>(comm.ranks));
  if (!gather(comm, from, total * sizeof(float), reinterpret_cast<std::byte*>(all.data()))) return;
  for (size_t i = 0; i < count; ++i) {
    float value = 0;
    for (int rank = comm.ranks; rank-- > 0;) value += all[static_cast<size_t>(rank) * total + first + i];
    to[i] = value;
  }
}

int post(const Piece& piece, Communicator* comm, void* stream) {
  group.comm = comm;
  group.stream = stream;
  group.pieces.push_back(piece);
  return kSuccess;
}

void let_go(Communicator* comm) {
  if (comm->joining.joinable()) comm->joining.join();
  const auto last = std::move(comm->self);
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

int ncclGetVersion(int* version) {
  *version = version_code(2, 28, 9);
  for (const Rule& rule : rules()) {
    if (rule.what == "version") *version = rule.value;
  }
  return kSuccess;
}

const char* ncclGetErrorString(int result) {
  static const char* const texts[] = {"no error",
                                      "unhandled cuda error",
                                      "unhandled system error",
                                      "internal error",
                                      "invalid argument",
                                      "invalid usage",
                                      "remote process exited or there was a network error",
                                      "NCCL operation in progress"};
  return result >= 0 && result < 8 ? texts[result] : "unknown result code";
}

const char* ncclGetLastError(Communicator*) { return ""; }

int ncclGetUniqueId(UniqueId* id) {
  std::random_device random;
  std::memset(id, 0, sizeof *id);
  std::snprintf(id->internal, sizeof id->internal, "/pitcrew-fake-nccl-%d-%08x%08x", getpid(), random(), random());
  const int file = shm_open(id->internal, O_CREAT | O_EXCL | O_RDWR, 0600);
  if (file < 0) return kSystemError;
  const bool sized = ftruncate(file, static_cast<off_t>(board_bytes(kMostRanks))) == 0;
  close(file);
  return sized ? kSuccess : kSystemError;
}

int ncclCommInitRankConfig(Communicator** made, int ranks, UniqueId id, int rank, Config* config) {
  if (ranks < 1 || ranks > kMostRanks || rank < 0 || rank >= ranks || config->magic != 0xcafebeef)
    return kInvalidArgument;
  auto comm = std::make_shared<Communicator>();
  comm->rank = rank;
  comm->ranks = ranks;
  comm->net = config->net_name != nullptr ? config->net_name : "";
  comm->rules = rules();
  const Rule* rule = comm->rule("init");
  if (rule != nullptr && rule->action == "error") {
    shm_unlink(id.internal);
    return rule->value;
  }
  const int file = shm_open(id.internal, O_RDWR, 0600);
  if (file < 0) return kSystemError;
  void* board = mmap(nullptr, board_bytes(ranks), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (board == MAP_FAILED) return kSystemError;
  comm->board = static_cast<Board*>(board);
  comm->self = comm;
  *made = comm.get();
  const bool hangs = rule != nullptr && rule->action == "hang";
  const auto join = [comm = comm.get(), name = std::string(id.internal), hangs] {
    if (hangs) spin_until_aborted(*comm);
    // The last to come takes the name away; the memory stays while it is mapped.
    const bool all = !hangs && ++comm->board->joined == static_cast<uint32_t>(comm->ranks);
    while (comm->board->joined < static_cast<uint32_t>(comm->ranks) && !comm->aborted)
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    if (all || comm->aborted) shm_unlink(name.c_str());
    if (!comm->aborted) comm->state = kSuccess;
  };
  if (config->blocking != 0) {
    join();
    return comm->state;
  }
  comm->joining = std::thread(join);
  return kInProgress;
}

int ncclCommGetAsyncError(Communicator* comm, int* error) {
  *error = comm->state;
  return kSuccess;
}

int ncclCommFinalize(Communicator* comm) {
  if (const Rule* rule = comm->rule("finalize")) sleep_ms(rule->value);
  while (comm->completed < comm->enqueued && !comm->aborted) std::this_thread::sleep_for(std::chrono::microseconds(50));
  return kSuccess;
}

int ncclCommDestroy(Communicator* comm) {
  let_go(comm);
  return kSuccess;
}

int ncclCommAbort(Communicator* comm) {
  comm->aborted = true;
  if (const Rule* rule = comm->rule("abort")) sleep_ms(rule->value);
  while (comm->completed < comm->enqueued) std::this_thread::sleep_for(std::chrono::microseconds(50));
  let_go(comm);
  return kSuccess;
}

int ncclGroupStart() {
  ++group.depth;
  return kSuccess;
}

int ncclGroupEnd() {
  if (--group.depth > 0) return kSuccess;
  const Group ended = std::exchange(group, Group{});
  if (ended.pieces.empty()) return kSuccess;
  return enqueue(ended.comm, ended.stream, [pieces = ended.pieces](Communicator& comm) mutable {
    // What goes to itself never leaves it.
    std::vector<Piece*> own;
    for (Piece& piece : pieces) {
      if (piece.peer == comm.rank && piece.sending) own.push_back(&piece);
    }
    size_t next = 0;
    for (Piece& piece : pieces) {
      if (piece.peer != comm.rank || piece.sending || next == own.size()) continue;
      std::memmove(piece.data, own[next]->data, piece.bytes);
      own[next++]->done = piece.done = piece.bytes;
    }
    comm.move_all(pieces);
  });
}

int ncclSend(const void* data, size_t count, int, int peer, Communicator* comm, void* stream) {
  return post({true, peer, bytes_of(data), count}, comm, stream);
}

int ncclRecv(void* data, size_t count, int, int peer, Communicator* comm, void* stream) {
  return post({false, peer, bytes_of(data), count}, comm, stream);
}

int ncclAllGather(const void* from, void* to, size_t count, int, Communicator* comm, void* stream) {
  return enqueue(comm, stream, [=](Communicator& c) { gather(c, from, count, static_cast<std::byte*>(to)); });
}

int ncclBroadcast(const void* from, void* to, size_t count, int, int root, Communicator* comm, void* stream) {
  return enqueue(comm, stream, [=](Communicator& c) {
    std::vector<Piece> pieces;
    if (c.rank != root) pieces.push_back({false, root, bytes_of(to), count});
    for (int peer = 0; c.rank == root && peer < c.ranks; ++peer) {
      if (peer != root) pieces.push_back({true, peer, bytes_of(from), count});
    }
    c.move_all(pieces);
  });
}

int ncclAllReduce(const void* from, void* to, size_t count, int, int, Communicator* comm, void* stream) {
  return enqueue(comm, stream, [=](Communicator& c) {
    sum(c, static_cast<const float*>(from), count, 0, count, static_cast<float*>(to));
  });
}

int ncclReduceScatter(const void* from, void* to, size_t count, int, int, Communicator* comm, void* stream) {
  return enqueue(comm, stream, [=](Communicator& c) {
    sum(c, static_cast<const float*>(from), count * static_cast<size_t>(c.ranks), count * static_cast<size_t>(c.rank),
        count, static_cast<float*>(to));
  });
}

}  // extern "C"
#pragma GCC visibility pop
