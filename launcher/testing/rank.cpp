// A program that does as it is told, in place of a trainer: `rank VERB ARGUMENTS…`.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/base/environment.hpp"
#include "lib/base/progress_page.hpp"

namespace {

using pitcrew::page::Phase;
using pitcrew::page::Writer;

volatile sig_atomic_t terminated = 0;

void backtrace_handler(int) {
  constexpr char kText[] = "backtrace: train_step at step.cpp:42\n";
  [[maybe_unused]] const ssize_t wrote = write(2, kText, sizeof kText - 1);
}

std::string variable(const char* name) {
  const char* value = getenv(name);
  return value == nullptr ? "" : value;
}

[[noreturn]] void sleep_for_ever() {
  while (true) pause();
}

// A grandchild in a session of its own, whose parent is gone: it prints its pid into a file.
void make_orphan(const char* file) {
  if (fork() == 0) {
    setsid();
    if (fork() == 0) {
      setsid();
      signal(SIGTERM, SIG_IGN);
      FILE* out = fopen((std::string(file) + ".tmp").c_str(), "w");
      fprintf(out, "%d\n", getpid());
      fclose(out);
      rename((std::string(file) + ".tmp").c_str(), file);
      sleep_for_ever();
    }
    _exit(0);
  }
}

// Lines "0", "1", … as fast as they are taken; `width` bytes each.
int spew(long count, size_t width) {
  std::string line(width, 'x');
  for (long i = 0; i < count; ++i) {
    std::string number = std::to_string(i) + " ";
    line.replace(0, number.size(), number);
    fwrite(line.data(), 1, line.size(), stdout);
    fputc('\n', stdout);
  }
  return 0;
}

// Steps every `ms` milliseconds until SIGTERM, the page's stop, or `total` steps; `hang_at`: stands still there for
// ever, of those ranks whose number is `hang_rank`; `fail_at`: exits with 3 there, in the first epoch alone.
int train(long ms, uint64_t total, uint64_t hang_at, uint64_t fail_at) {
  signal(SIGTERM, [](int) { terminated = 1; });
  signal(SIGUSR2, backtrace_handler);
  auto opened = Writer::open(variable(pitcrew::environment::kProgress),
                             static_cast<uint32_t>(atoi(variable("LOCAL_RANK").c_str())));
  if (!opened) {
    fprintf(stderr, "%s\n", opened.error().message.c_str());
    return 64;
  }
  Writer page = *std::move(opened);
  const bool first_epoch = variable(pitcrew::environment::kEpoch) == "1";
  page.set_phase(Phase::kStarting);
  page.set_totals(total, 512);
  page.set_resumed(std::nullopt, pitcrew::page::Source::kNone);
  page.set_phase(Phase::kTraining);
  for (uint64_t step = 1; step <= total; ++step) {
    page.enter_collective(step);
    usleep(static_cast<useconds_t>(ms * 1000));
    if (hang_at != 0 && step == hang_at && first_epoch) {
      if (variable("RANK") == "1") page.leave_collective();
      sleep_for_ever();
    }
    page.leave_collective();
    page.step_done(pitcrew::Step(step), step * 8, 1.0 / static_cast<double>(step));
    if (fail_at != 0 && step == fail_at && first_epoch && variable("RANK") == "0") {
      fprintf(
          stderr,
          "Traceback (most recent call last):\n  File \"train.py\", line 1, in <module>\nRuntimeError: bad step %llu\n",
          static_cast<unsigned long long>(step));
      return 3;
    }
    if (page.save_requested() > 0) page.set_durable(pitcrew::Step(step));
    if (terminated != 0 || page.stop_requested() > 0) {
      printf("saved at step %llu\n", static_cast<unsigned long long>(step));
      return 0;
    }
  }
  page.set_phase(Phase::kDone);
  printf("done\n");
  return 0;
}

// One line to the launcher's socket, its answer to stdout.
int ask(const char* line) {
  const std::string path = variable(pitcrew::environment::kLauncher);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    perror("connect to the launcher");
    return 1;
  }
  const std::string text = std::string(line) + "\n";
  if (write(fd, text.data(), text.size()) < 0) return 1;
  char c;
  while (read(fd, &c, 1) == 1 && c != '\n') fputc(c, stdout);
  fputc('\n', stdout);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  const auto number = [&](int i) { return i < argc ? strtoul(argv[i], nullptr, 10) : 0ul; };
  if (verb == "exit") return static_cast<int>(number(2));
  if (verb == "print-and-exit") {
    printf("%s", argv[2]);
    return static_cast<int>(number(3));
  }
  if (verb == "signal") {
    signal(static_cast<int>(number(2)), SIG_DFL);  // a sanitizer has a handler of its own
    raise(static_cast<int>(number(2)));
    sleep_for_ever();
  }
  if (verb == "sleep") sleep_for_ever();
  if (verb == "ignore-term") {
    signal(SIGTERM, SIG_IGN);
    printf("ready\n");
    fflush(stdout);
    sleep_for_ever();
  }
  if (verb == "exit-on-term") {
    signal(SIGTERM, [](int) { _exit(0); });
    printf("ready\n");
    fflush(stdout);
    sleep_for_ever();
  }
  if (verb == "backtrace") {
    signal(SIGUSR2, backtrace_handler);
    printf("ready\n");
    fflush(stdout);
    sleep_for_ever();
  }
  if (verb == "orphan") {
    make_orphan(argv[2]);
    sleep_for_ever();
  }
  if (verb == "orphan-and-exit") {
    make_orphan(argv[2]);
    while (access(argv[2], F_OK) != 0) usleep(1000);
    return 0;
  }
  if (verb == "spew") return spew(static_cast<long>(number(2)), number(3));
  if (verb == "environment") {
    for (char** entry = environ; *entry != nullptr; ++entry) puts(*entry);
    return 0;
  }
  if (verb == "train") return train(static_cast<long>(number(2)), number(3), number(4), number(5));
  if (verb == "ask") return ask(argv[2]);
  fprintf(stderr, "unknown verb '%s'\n", verb.c_str());
  return 64;
}
