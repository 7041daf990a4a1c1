#include "trainer/app/signals.hpp"

#include <atomic>
#include <cerrno>
#include <cstring>

#include <execinfo.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

namespace pitcrew::trainer {
namespace {

std::atomic<bool> stop{false};
std::atomic<unsigned> written{0};  // backtraces, in all
unsigned rank_of_process = 0;
std::atomic<const FlightRecorder*> recorder{nullptr};

static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<unsigned>::is_always_lock_free,
              "used in signal handlers");

// Nothing below may allocate or lock: it runs in the middle of anything.
void put(const char* text) { [[maybe_unused]] const ssize_t ignored = ::write(STDERR_FILENO, text, std::strlen(text)); }

void put_number(unsigned long number) {
  char digits[24];
  char* at = digits + sizeof digits - 1;
  *at = '\0';
  do {
    *--at = static_cast<char>('0' + number % 10);
    number /= 10;
  } while (number > 0);
  put(at);
}

pid_t own_thread() { return static_cast<pid_t>(syscall(SYS_gettid)); }

void write_backtrace() {
  void* frames[64];
  const int count = backtrace(frames, 64);
  put("--- thread ");
  put_number(static_cast<unsigned long>(own_thread()));
  put("\n");
  backtrace_symbols_fd(frames, count, STDERR_FILENO);
  written.fetch_add(1);
}

// Asks each other thread for its own and waits a little for it: one that can't answer is left out.
void ask_others() {
  struct Entry {  // what getdents64 writes
    uint64_t inode;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[];
  };
  const int fd = open("/proc/self/task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;
  alignas(Entry) char buffer[4096];
  for (long bytes; (bytes = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0;) {
    for (long at = 0; at < bytes;) {
      const auto* entry = reinterpret_cast<const Entry*>(buffer + at);
      at += entry->length;
      pid_t thread = 0;
      for (const char* c = entry->name; *c >= '0' && *c <= '9'; ++c) thread = thread * 10 + (*c - '0');
      if (thread == 0 || thread == own_thread()) continue;
      const unsigned before = written.load();
      if (syscall(SYS_tgkill, getpid(), thread, SIGUSR2) != 0) continue;
      for (int i = 0; i < 100 && written.load() == before; ++i) {
        const timespec pause{0, 2'000'000};
        nanosleep(&pause, nullptr);
      }
    }
  }
  close(fd);
}

void on_backtrace(int, siginfo_t* info, void*) {
  const int number = errno;
  if (info->si_code == SI_TKILL && info->si_pid == getpid()) {
    write_backtrace();
  } else {
    put("=== backtraces of rank ");
    put_number(rank_of_process);
    put(" ===\n");
    write_backtrace();
    ask_others();
    put("=== end of backtraces ===\n");
    if (const FlightRecorder* collectives = recorder.load()) collectives->write_to(STDERR_FILENO);
  }
  errno = number;
}

void on_stop(int) { stop = true; }

}  // namespace

void install_stop_signals() {
  struct sigaction action {};
  action.sa_handler = on_stop;
  action.sa_flags = SA_RESTART;
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
}

bool stop_signalled() { return stop; }

void install_backtrace_signal(unsigned rank) {
  rank_of_process = rank;
  // The first call loads the unwinder, which allocates: not in a handler.
  void* frame = nullptr;
  backtrace(&frame, 1);
  struct sigaction action {};
  action.sa_sigaction = on_backtrace;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  sigaction(SIGUSR2, &action, nullptr);
}

void show_collectives(const FlightRecorder* collectives) { recorder = collectives; }

}  // namespace pitcrew::trainer
