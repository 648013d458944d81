#include "measure/ceilings.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "kernel/amx.h"
#include "kernel/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "measure/ceilings.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace weir {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// 12 independent sums: 3 for each of the 4 cycles that a multiply-add takes.
double multiply_adds(std::int64_t rounds, float& result) {
  const hn::ScalableTag<float> d;
  const auto x = hn::Set(d, 0.999F);
  const auto y = hn::Set(d, 0.001F);
  // Different values, and none at the fixed point 1, or the compiler would leave some out.
  const auto start = [&](float value) HWY_ATTR { return hn::Set(d, value); };
  auto a0 = start(2), a1 = start(3), a2 = start(4), a3 = start(5), a4 = start(6), a5 = start(7),
       a6 = start(8), a7 = start(9), a8 = start(10), a9 = start(11), a10 = start(12),
       a11 = start(13);
  for (std::int64_t round = 0; round < rounds; ++round) {
    a0 = hn::MulAdd(a0, x, y);
    a1 = hn::MulAdd(a1, x, y);
    a2 = hn::MulAdd(a2, x, y);
    a3 = hn::MulAdd(a3, x, y);
    a4 = hn::MulAdd(a4, x, y);
    a5 = hn::MulAdd(a5, x, y);
    a6 = hn::MulAdd(a6, x, y);
    a7 = hn::MulAdd(a7, x, y);
    a8 = hn::MulAdd(a8, x, y);
    a9 = hn::MulAdd(a9, x, y);
    a10 = hn::MulAdd(a10, x, y);
    a11 = hn::MulAdd(a11, x, y);
  }
  const auto sum = hn::Add(hn::Add(hn::Add(a0, a1), hn::Add(a2, a3)),
                           hn::Add(hn::Add(hn::Add(a4, a5), hn::Add(a6, a7)),
                                   hn::Add(hn::Add(a8, a9), hn::Add(a10, a11))));
  result = hn::GetLane(hn::SumOfLanes(d, sum));
  return 2.0 * 12.0 * static_cast<double>(hn::Lanes(d)) * static_cast<double>(rounds);
}

float read_all(const float* data, std::int64_t count) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  auto a = hn::Zero(d), b = a, c = a, e = a;
  for (std::int64_t i = 0; i + 4 * lanes <= count; i += 4 * lanes) {
    a = hn::Add(a, hn::Load(d, data + i));
    b = hn::Add(b, hn::Load(d, data + i + lanes));
    c = hn::Add(c, hn::Load(d, data + i + 2 * lanes));
    e = hn::Add(e, hn::Load(d, data + i + 3 * lanes));
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(a, b), hn::Add(c, e))));
}

}  // namespace HWY_NAMESPACE
}  // namespace weir
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace weir {
namespace {

HWY_EXPORT(multiply_adds);
HWY_EXPORT(read_all);

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double best_seconds(int repetitions, const std::function<void()>& work) {
  double best = seconds_of(work);
  for (int i = 1; i < repetitions; ++i) best = std::min(best, seconds_of(work));
  return best;
}

}  // namespace

double fma_flops_per_s(Team& team) {
  constexpr std::int64_t kRounds = 2'000'000;  // Some 3 ms.
  double flops = 0;
  std::atomic<float> sink{0};  // Keeps the work from being dropped.
  const double seconds = best_seconds(9, [&] {
    team.run([&](int worker) {
      float sum = 0;
      const double done = HWY_DYNAMIC_DISPATCH(multiply_adds)(kRounds, sum);
      sink.store(sum);
      if (worker == 0) flops = done * team.size();
    });
  });
  return flops / seconds;
}

double amx_flops_per_s(Team& team) {
  if (!kernel::amx_enabled()) return 0;
  constexpr std::int64_t kRounds = 150'000;  // Some 3 ms.
  double flops = 0;
  const double seconds = best_seconds(9, [&] {
    team.run([&](int worker) {
      const double done = kernel::multiply_tiles_in_registers(kRounds);
      if (worker == 0) flops = done * team.size();
    });
  });
  return flops / seconds;
}

namespace {

// Memory that a team reads, each worker its own part.
class ReadSet {
 public:
  ReadSet(Team& team, std::int64_t bytes)
      : team_(team), bytes_(bytes), block_(static_cast<std::size_t>(bytes)) {
    each_part([](float* values, std::int64_t count) { std::fill_n(values, count, 1.0F); });
  }

  [[nodiscard]] double bytes_per_s() {
    // Small sets are read often enough for the clock to tell.
    const std::int64_t goes = std::max<std::int64_t>(1, (std::int64_t{8} << 20) / bytes_);
    std::atomic<float> sink{0};
    const double seconds = best_seconds(5, [&] {
      each_part([&](const float* values, std::int64_t count) {
        for (std::int64_t go = 0; go < goes; ++go)
          sink.store(HWY_DYNAMIC_DISPATCH(read_all)(values, count));
      });
    });
    return static_cast<double>(goes * bytes_) / seconds;
  }

 private:
  void each_part(const std::function<void(float*, std::int64_t)>& body) {
    auto* const values = reinterpret_cast<float*>(block_.data());
    team_.parallel_for(
        bytes_ / static_cast<std::int64_t>(sizeof(float)), 1024,
        [&](std::int64_t begin, std::int64_t end) { body(values + begin, end - begin); });
  }

  Team& team_;
  std::int64_t bytes_;
  kernel::Block block_;
};

}  // namespace

double read_bytes_per_s(Team& team, std::int64_t bytes) {
  return ReadSet(team, bytes).bytes_per_s();
}

bool is_same_memory(const MemoryRates& a, const MemoryRates& b) {
  constexpr double kSame = 0.2;
  return std::abs(a.alone / b.alone - 1) < kSame && std::abs(a.together / b.together - 1) < kSame;
}

std::vector<int> joined(std::span<const std::vector<int>> cores) {
  std::vector<int> all;
  for (const std::vector<int>& device : cores) all.insert(all.end(), device.begin(), device.end());
  return all;
}

struct MemoryWatch::State {
  // Some cores and what they read.
  struct Readers {
    explicit Readers(std::span<const int> cores)
        : team(std::max(1, static_cast<int>(cores.size())), cores), set(team, kFarMoreThanCaches) {}

    double bytes_per_s() {
      double rate = 0;
      // Pins the thread that measures, so not the caller's.
      std::thread([&] {
        team.pin_caller();
        rate = set.bytes_per_s();
      }).join();
      return rate;
    }

    Team team;
    ReadSet set;
  };

  explicit State(std::span<const std::vector<int>> cores)
      : first(cores.front()), all(joined(cores)) {}

  Readers first;
  Readers all;
};

MemoryWatch::MemoryWatch(std::span<const std::vector<int>> cores)
    : state_(std::make_unique<State>(cores)) {}
MemoryWatch::~MemoryWatch() = default;

MemoryRates MemoryWatch::rates() {
  return {.alone = state_->first.bytes_per_s(), .together = state_->all.bytes_per_s()};
}

}  // namespace weir
#endif
