#include "kernel/team.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include <hwy/cache_control.h>

#include "base/check.h"

namespace weir {
namespace {

// Waking a blocked thread costs some 35 to 50 us on Linux. Spinning for as long as that before
// blocking costs at most twice what the best choice in hindsight would have (Karlin et al.,
// "Competitive randomized algorithms for nonuniform problems", SODA 1990).
constexpr std::chrono::microseconds kSpinTime{50};

int usable_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return CPU_COUNT(&set);
}

// A core number that does not exist leaves the thread where the system puts it: then false.
bool pin_this_thread(int core) {
  if (core < 0 || core >= CPU_SETSIZE) return false;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(core), &set);
  return pthread_setaffinity_np(pthread_self(), sizeof(set), &set) == 0;
}

// Returns once `word` differs from `old`.
void wait_while_equal(const std::atomic<std::uint32_t>& word, std::uint32_t old, bool may_spin) {
  if (may_spin) {
    constexpr int kPausesPerClock = 32;  // Reading the clock costs about as much as one pause.
    const auto deadline = std::chrono::steady_clock::now() + kSpinTime;
    do {
      for (int pause = 0; pause < kPausesPerClock; ++pause) {
        if (word.load(std::memory_order_acquire) != old) return;
        hwy::Pause();
      }
    } while (std::chrono::steady_clock::now() < deadline);
  }
  word.wait(old, std::memory_order_acquire);
}

}  // namespace

struct Team::State {
  // Both words are waited on by other cores while they change: a cache line (64 bytes) each.
  alignas(64) std::atomic<std::uint32_t> generation{0};
  alignas(64) std::atomic<std::uint32_t> unfinished{0};
  alignas(64) const std::function<void(int)>* task = nullptr;
  bool stopping = false;
  bool may_spin = true;
  std::vector<int> cores;
  std::vector<std::thread> helpers;

  void help(int worker) {
    if (!cores.empty()) pin_this_thread(cores[static_cast<std::size_t>(worker)]);
    for (std::uint32_t seen = 0;; ++seen) {
      wait_while_equal(generation, seen, may_spin);
      if (stopping) return;
      (*task)(worker);
      if (unfinished.fetch_sub(1) == 1) unfinished.notify_one();
    }
  }

  void start_generation() {
    generation.fetch_add(1);
    generation.notify_all();
  }
};

Team::Team(int size, std::span<const int> cores) : size_(size), state_(std::make_unique<State>()) {
  CHECK(size >= 1, "a team has at least its caller");
  CHECK(cores.empty() || cores.size() == static_cast<std::size_t>(size), "one core per worker");
  state_->cores.assign(cores.begin(), cores.end());
  std::vector<int> sorted_cores = state_->cores;
  std::ranges::sort(sorted_cores);
  const bool all_differ = std::ranges::adjacent_find(sorted_cores) == sorted_cores.end();
  // With fewer cores than workers a spinning worker keeps a working one off its core.
  state_->may_spin = size <= usable_cores() && all_differ;
  for (int worker = 1; worker < size; ++worker) {
    state_->helpers.emplace_back([state = state_.get(), worker] { state->help(worker); });
  }
}

Team::~Team() {
  state_->stopping = true;
  state_->start_generation();
  for (std::thread& helper : state_->helpers) helper.join();
}

void Team::run(const std::function<void(int worker)>& task) {
  if (size_ > 1) {
    state_->task = &task;
    state_->unfinished.store(static_cast<std::uint32_t>(size_ - 1), std::memory_order_relaxed);
    state_->start_generation();
  }
  task(0);
  while (const std::uint32_t left = state_->unfinished.load(std::memory_order_acquire)) {
    wait_while_equal(state_->unfinished, left, state_->may_spin);
  }
}

void Team::parallel_for(std::int64_t count, std::int64_t grain,
                        const std::function<void(std::int64_t begin, std::int64_t end)>& body) {
  CHECK(grain >= 1, "parts are multiples of a positive grain");
  if (count <= 0) return;
  const std::int64_t units = (count + grain - 1) / grain;
  const std::int64_t parts = std::min<std::int64_t>(units, size_);
  if (parts == 1) return body(0, count);
  const auto part = [&](int worker) {
    if (worker >= parts) return;
    const std::int64_t begin = units * worker / parts * grain;
    const std::int64_t end = std::min(count, units * (worker + 1) / parts * grain);
    body(begin, end);
  };
  run(std::ref(part));  // A reference fits into std::function without allocating.
}

void Team::pin_caller() {
  if (!state_->cores.empty()) pin_this_thread(state_->cores.front());
}

PinnedThread::PinnedThread(std::optional<int> core) {
  if (!core) return;
  cpu_set_t before;
  CPU_ZERO(&before);
  if (pthread_getaffinity_np(pthread_self(), sizeof(before), &before) != 0) return;
  if (pin_this_thread(*core)) before_ = before;
}

PinnedThread::~PinnedThread() {
  if (before_) (void)pthread_setaffinity_np(pthread_self(), sizeof(*before_), &*before_);
}

}  // namespace weir
