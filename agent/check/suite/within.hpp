#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "lib/base/result.hpp"
#include "lib/base/time.hpp"

namespace pitcrew::check {

// Runs each of `tasks` on a thread of its own and gives what they returned; nothing for one that has not ended within
// `limit` of real time. Such a thread is left behind with what it holds: nobody can end one inside a driver.
template <typename T>
std::vector<std::optional<Result<T>>> run_within(Duration limit, std::vector<std::function<Result<T>()>> tasks) {
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::vector<std::optional<Result<T>>> results;
    size_t open = 0;
  };
  const auto state = std::make_shared<State>();
  state->results.resize(tasks.size());
  state->open = tasks.size();
  std::vector<std::thread> threads;
  for (size_t i = 0; i < tasks.size(); ++i) {
    threads.emplace_back([state, i, task = std::move(tasks[i])] {
      auto result = task();
      const std::lock_guard lock(state->mutex);
      state->results[i] = std::move(result);
      --state->open;
      state->changed.notify_all();
    });
  }
  std::unique_lock lock(state->mutex);
  state->changed.wait_for(lock, limit, [&] { return state->open == 0; });
  auto results = state->results;
  lock.unlock();
  for (size_t i = 0; i < threads.size(); ++i) {
    if (results[i]) {
      threads[i].join();
    } else {
      threads[i].detach();
    }
  }
  return results;
}

}  // namespace pitcrew::check
