#include "measure/kernel_costs.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <utility>

#include <fmt/format.h>

#include "base/random.h"
#include "exec/kv_store.h"
#include "kernel/kernel.h"
#include "kernel/scratch.h"
#include "measure/cache_shares.h"
#include "measure/ceilings.h"
#include "measure/device_teams.h"

namespace weir {
namespace {

constexpr std::array<DType, 3> kDTypes{DType::f32, DType::bf16, DType::f16};
constexpr std::array<std::int64_t, 13> kLinearRows{1,  2,  4,   8,   12,  16,  24,
                                                   32, 64, 128, 256, 512, 1024};
constexpr std::array<std::int64_t, 10> kAttentionRows{1, 2, 4, 8, 16, 32, 64, 128, 192, 256};
// Two sizes tell what a key costs from what a value of it costs.
constexpr std::array<std::int64_t, 2> kHeadDims{64, 128};

// What of a level the operands fill: all of it they would share with what passes by.
constexpr std::int64_t kShareOfL2 = 2;
constexpr std::int64_t kShareOfL3 = 4;
// So many times the last cache does not stay in it.
constexpr std::int64_t kTimesLastCache = 8;
constexpr std::int64_t kLeastInMemory = std::int64_t{128} << 20;
constexpr std::int64_t kMostInMemory = std::int64_t{1} << 30;
// Above so many rows arithmetic takes so long that operands come in time from anywhere.
constexpr std::int64_t kRowsBoundByArithmetic = 32;

struct Level {
  CacheLevel name = CacheLevel::memory;
  std::int64_t bytes = 0;  // Of operands that lie there.
};

std::vector<Level> levels_of(const DeviceType& type) {
  std::vector<Level> levels;
  std::int64_t last = 0;
  if (type.l2) {
    last = type.l2->value;
    levels.push_back({.name = CacheLevel::l2, .bytes = last / kShareOfL2});
  }
  if (type.l3 && type.l3->value / kShareOfL3 > last) {
    last = type.l3->value;
    levels.push_back({.name = CacheLevel::l3, .bytes = last / kShareOfL3});
  }
  levels.push_back({.name = CacheLevel::memory,
                    .bytes = std::clamp(kTimesLastCache * last, kLeastInMemory, kMostInMemory)});
  return levels;
}

// Five digits: more than a measurement is worth.
double picoseconds(double seconds) {
  constexpr double kPerSecond = 1e12;
  const double value = std::max(0.0, seconds * kPerSecond);
  if (value == 0) return 0;
  const double unit = std::pow(10.0, std::floor(std::log10(value)) - 4);
  return std::round(value / unit) * unit;
}

// Values between -1/2 and 1/2, in huge pages as weights are.
kernel::Block random_values(DType dtype, std::int64_t count) {
  Random random(2);
  kernel::Block block(static_cast<std::size_t>(count * size_in_bytes(dtype)));
  auto* const halves = reinterpret_cast<std::uint16_t*>(block.data());
  auto* const floats = reinterpret_cast<float*>(block.data());
  for (std::int64_t i = 0; i < count; ++i) {
    const auto value = static_cast<float>(random.uniform() - 0.5);
    if (dtype == DType::f32) floats[i] = value;
    if (dtype == DType::bf16) halves[i] = f32_to_bf16(value);
    if (dtype == DType::f16) halves[i] = f32_to_f16(value);
  }
  return block;
}

class Floats {
 public:
  explicit Floats(std::int64_t count) : block_(random_values(DType::f32, count)) {}
  [[nodiscard]] float* data() const { return reinterpret_cast<float*>(block_.data()); }
  [[nodiscard]] kernel::Matrix matrix(std::int64_t rows, std::int64_t cols) const {
    return {.data = data(), .rows = rows, .cols = cols, .row_stride = cols};
  }
  [[nodiscard]] kernel::ConstMatrix view(std::int64_t rows, std::int64_t cols) const {
    return {.data = data(), .rows = rows, .cols = cols, .row_stride = cols};
  }

 private:
  kernel::Block block_;
};

// Matrices that fill a level, taken in turn as the layers of a model are.
struct Matrices {
  std::int64_t in = 0;
  std::int64_t out = 0;
  std::int64_t count = 1;
};

Matrices matrices_of(DType dtype, const Level& level) {
  constexpr std::int64_t kWidth = 1024;
  constexpr std::int64_t kWhole = 32;  // Out features that kernels do at once.
  const std::int64_t size = size_in_bytes(dtype);
  if (const std::int64_t count = level.bytes / (kWidth * kWidth * size); count >= 1)
    return {.in = kWidth, .out = kWidth, .count = count};
  const std::int64_t in = kWidth / 2;
  return {.in = in, .out = std::max(kWhole, level.bytes / (in * size) / kWhole * kWhole)};
}

LinearCurve measure_linear(DeviceTeams& teams, DType dtype, const Level& level) {
  const Matrices matrices = matrices_of(dtype, level);
  const std::vector<double> times = teams.measure([&](Team& team, Stopwatch& watch) {
    const kernel::Block raw = random_values(dtype, matrices.in * matrices.out);
    kernel::Arena arena;  // As the weights of a device, which are multiplied by how far they are.
    std::vector<kernel::PackedWeights> weights;
    for (std::int64_t i = 0; i < matrices.count; ++i) {
      weights.emplace_back(team,
                           kernel::WeightView{.data = raw.data(),
                                              .dtype = dtype,
                                              .out_features = matrices.out,
                                              .in_features = matrices.in,
                                              .row_stride = matrices.in},
                           &arena);
    }
    const Floats x(kLinearRows.back() * matrices.in);
    const Floats y(kLinearRows.back() * matrices.out);
    std::size_t next = 0;
    std::vector<TimedWork> works;
    works.reserve(kLinearRows.size());
    for (const std::int64_t rows : kLinearRows) {
      works.emplace_back([&, rows] {
        kernel::linear(team, x.view(rows, matrices.in), weights[next], {},
                       y.matrix(rows, matrices.out));
        next = (next + 1) % weights.size();
      });
    }
    watch.time(works);
  });
  LinearCurve curve{
      .weight = dtype, .level = level.name, .devices = teams.num_devices(), .costs = {}};
  const double count = static_cast<double>(matrices.in * matrices.out);
  for (std::size_t i = 0; i < kLinearRows.size(); ++i)
    curve.costs.push_back({.rows = kLinearRows[i], .ps_per_weight = picoseconds(times[i] / count)});
  return curve;
}

// K and V of one layer as a device keeps them.
struct AttentionSet {
  std::int64_t heads = 0;
  std::int64_t dim = 0;
  std::int64_t keys = 0;
  std::int64_t layers = 1;
};

AttentionSet attention_set(DType dtype, std::int64_t dim, std::int64_t bytes) {
  constexpr std::int64_t kFewKeys = 1024;
  const std::int64_t per_key = 2 * dim * size_in_bytes(dtype);
  AttentionSet set{.dim = dim};
  set.keys = std::clamp(bytes / per_key, kKvBlockSize, kFewKeys);
  set.heads = std::clamp<std::int64_t>(bytes / per_key / set.keys, 1, 8);
  set.layers = std::max<std::int64_t>(1, bytes / (per_key * set.keys * set.heads));
  return set;
}

class Cache {
 public:
  Cache(Team& team, KvMemory& memory, DType dtype, const AttentionSet& set)
      : keys_(set.keys),
        k_({.heads = {0, set.heads}, .dims = {0, set.dim}, .dtype = dtype}, memory),
        v_(k_.shape(), memory) {
    const Floats rows(set.keys * set.heads * set.dim);
    for (KvStrip* strip : {&k_, &v_}) {
      strip->reserve({0, set.keys});
      kernel::write_kv(team,
                       {.source = rows.data(),
                        .source_row_stride = set.heads * set.dim,
                        .rows = set.keys,
                        .num_heads = set.heads,
                        .head_dim = set.dim},
                       strip->mutable_blocks({0, set.keys}));
    }
  }
  [[nodiscard]] kernel::KvBlocks keys() const { return k_.blocks({0, keys_}); }
  [[nodiscard]] kernel::KvBlocks values() const { return v_.blocks({0, keys_}); }

 private:
  std::int64_t keys_;
  KvStrip k_;
  KvStrip v_;
};

// `rows` queries of every head over the first keys of each layer in turn: all of them and a
// quarter.
constexpr std::int64_t kShorter = 4;

void time_attention(Team& team, Stopwatch& watch, const AttentionSet& set, DType dtype,
                    std::span<const std::int64_t> all_rows) {
  KvMemory memory;
  std::vector<std::unique_ptr<Cache>> layers;
  for (std::int64_t i = 0; i < set.layers; ++i)
    layers.push_back(std::make_unique<Cache>(team, memory, dtype, set));
  const std::int64_t width = set.heads * set.dim;
  const Floats q(all_rows.back() * width);
  const Floats out(all_rows.back() * width);
  std::vector<std::int64_t> kv_heads(static_cast<std::size_t>(set.heads));
  std::iota(kv_heads.begin(), kv_heads.end(), 0);
  std::size_t next = 0;
  std::vector<TimedWork> works;
  works.reserve(2 * all_rows.size());
  for (const std::int64_t rows : all_rows) {
    for (const std::int64_t keys : {set.keys, set.keys / kShorter}) {
      works.emplace_back([&, rows, keys] {
        const kernel::AttentionTile tile{.q = q.data(),
                                         .q_row_stride = width,
                                         .q_head_stride = set.dim,
                                         .num_queries = rows,
                                         .num_heads = set.heads,
                                         .key_dim = set.dim,
                                         .value_dim = set.dim,
                                         .kv_head_of = kv_heads,
                                         .keys = layers[next]->keys(),
                                         .values = layers[next]->values(),
                                         .first_query = keys,
                                         .key_begin = 0,
                                         .key_end = keys,
                                         .causal = false,
                                         .scale = 0.1F,
                                         .out = out.data(),
                                         .out_row_stride = width,
                                         .out_head_stride = set.dim};
        kernel::attention(team, {&tile, 1});
        next = (next + 1) % layers.size();
      });
    }
  }
  watch.time(works);
}

// Of one KV head, from two numbers of keys: a line.
struct HeadCost {
  double per_key = 0;
  double to_begin = 0;
};
HeadCost head_cost(const AttentionSet& set, double all_keys, double fewer_keys) {
  const double heads = static_cast<double>(set.heads);
  const double keys = static_cast<double>(set.keys);
  const std::int64_t shorter = set.keys / kShorter;
  const double fewer = static_cast<double>(shorter);
  const double slope = std::clamp((all_keys - fewer_keys) / (keys - fewer), 0.0, all_keys / keys);
  return {.per_key = slope / heads, .to_begin = (all_keys - slope * keys) / heads};
}

AttentionCurve measure_attention(DeviceTeams& teams, DType dtype, const Level& level,
                                 std::int64_t bytes_of_many_rows) {
  const auto many = std::ranges::find_if(
      kAttentionRows, [](std::int64_t rows) { return rows > kRowsBoundByArithmetic; });
  const std::span<const std::int64_t> few_rows(kAttentionRows.begin(), many);
  const std::span<const std::int64_t> many_rows(many, kAttentionRows.end());
  std::array<std::vector<HeadCost>, kHeadDims.size()> costs;  // By rows.
  for (std::size_t d = 0; d < kHeadDims.size(); ++d) {
    const AttentionSet few = attention_set(dtype, kHeadDims[d], level.bytes);
    const AttentionSet rest =
        attention_set(dtype, kHeadDims[d], std::min(level.bytes, bytes_of_many_rows));
    const std::vector<double> times = teams.measure([&](Team& team, Stopwatch& watch) {
      time_attention(team, watch, few, dtype, few_rows);
      time_attention(team, watch, rest, dtype, many_rows);
    });
    for (std::size_t i = 0; i < kAttentionRows.size(); ++i)
      costs[d].push_back(
          head_cost(i < few_rows.size() ? few : rest, times[2 * i], times[2 * i + 1]));
  }
  AttentionCurve curve{
      .kv = dtype, .level = level.name, .devices = teams.num_devices(), .costs = {}};
  const double small_dim = 2.0 * static_cast<double>(kHeadDims[0]);  // Of K and V.
  const double large_dim = 2.0 * static_cast<double>(kHeadDims[1]);
  for (std::size_t i = 0; i < kAttentionRows.size(); ++i) {
    const HeadCost& small = costs[0][i];
    const HeadCost& large = costs[1][i];
    // per_key + per_value * dims of K and V; neither is less than nothing.
    const double per_value = std::clamp((large.per_key - small.per_key) / (large_dim - small_dim),
                                        0.0, large.per_key / large_dim);
    curve.costs.push_back({.rows = kAttentionRows[i],
                           .ps_per_key = picoseconds(large.per_key - per_value * large_dim),
                           .ps_per_value = picoseconds(per_value),
                           .ps_to_begin = picoseconds(large.to_begin / large_dim)});
  }
  return curve;
}

// One pass of each kind over operands of `bytes` together, as plan/work.h counts them.
std::vector<StreamCost> measure_streams(DeviceTeams& teams, const Level& level) {
  constexpr std::int64_t kCols = 1024;
  constexpr std::int64_t kHeadDim = 64;
  constexpr std::int64_t kOperands = 3;
  const std::int64_t rows = std::max<std::int64_t>(
      1, level.bytes / (kOperands * kCols * static_cast<std::int64_t>(sizeof(float))));
  const double operand = static_cast<double>(rows * kCols) * sizeof(float);
  struct Pass {
    StreamKind kind;
    double operands;
  };
  const std::vector<Pass> passes = {{StreamKind::copy, 2},     {StreamKind::add, 3},
                                    {StreamKind::norm, 2},     {StreamKind::rotate, 2},
                                    {StreamKind::silu, 3},     {StreamKind::gelu_erf, 3},
                                    {StreamKind::gelu_tanh, 3}};
  const std::vector<double> times = teams.measure([&](Team& team, Stopwatch& watch) {
    const Floats a(rows * kCols);
    const Floats b(rows * kCols);
    const Floats c(rows * kCols);
    const std::vector<float> weight(kCols, 1.0F);
    std::vector<double> frequency(kHeadDim / 2);
    for (std::size_t i = 0; i < frequency.size(); ++i)
      frequency[i] = 1.0 / static_cast<double>(i + 1);
    std::vector<std::int64_t> positions(static_cast<std::size_t>(rows));
    std::iota(positions.begin(), positions.end(), 1000);
    const auto x = a.view(rows, kCols);
    const auto y = b.view(rows, kCols);
    const auto out = c.matrix(rows, kCols);
    const auto activation = [&](kernel::Activation function) -> TimedWork {
      return [&, function] { kernel::gated_activation(team, function, x, y, out); };
    };
    const std::vector<TimedWork> works = {
        [&] {  // Row by row, as parts of tensors are copied.
          for (std::int64_t row = 0; row < rows; ++row)
            std::memcpy(out.data + row * kCols, x.data + row * kCols, kCols * sizeof(float));
        },
        [&] { kernel::add(team, x, out); },
        [&] { kernel::rms_norm(team, x, {.weight = weight}, out); },
        [&] {
          kernel::rope(team, out, positions,
                       {.inverse_frequency = frequency,
                        .num_heads = kCols / kHeadDim,
                        .head_dim = kHeadDim});
        },
        activation(kernel::Activation::silu),
        activation(kernel::Activation::gelu_erf),
        activation(kernel::Activation::gelu_tanh)};
    watch.time(works);
  });
  std::vector<StreamCost> costs;
  for (std::size_t i = 0; i < passes.size(); ++i) {
    costs.push_back({.kind = passes[i].kind,
                     .level = level.name,
                     .devices = teams.num_devices(),
                     .ps_per_byte = picoseconds(times[i] / (passes[i].operands * operand))});
  }
  return costs;
}

// New keys and values of f32 into blocks that nobody has touched for long: the turn of each comes
// when the others have gone through the caches.
StreamCost measure_append(DeviceTeams& teams, const Level& level) {
  constexpr std::int64_t kHeads = 8;
  constexpr std::int64_t kDim = 64;
  constexpr std::int64_t kTokens = 4 * kKvBlockSize;
  const std::int64_t bytes = kTokens * kHeads * kDim * size_in_bytes(DType::f32);
  const std::int64_t turns = std::max<std::int64_t>(1, level.bytes / bytes);
  const std::vector<double> times = teams.measure([&](Team& team, Stopwatch& watch) {
    const Floats rows(kTokens * kHeads * kDim);
    KvMemory memory;
    KvStrip strip({.heads = {0, kHeads}, .dims = {0, kDim}, .dtype = DType::f32}, memory);
    strip.reserve({0, turns * kTokens});
    std::int64_t turn = 0;
    const auto append = [&] {
      const Interval positions{turn * kTokens, (turn + 1) * kTokens};
      turn = (turn + 1) % turns;
      kernel::write_kv(team,
                       {.source = rows.data(),
                        .source_row_stride = kHeads * kDim,
                        .rows = kTokens,
                        .num_heads = kHeads,
                        .head_dim = kDim,
                        .first_position_of_rows = positions.begin},
                       strip.mutable_blocks(positions));
    };
    for (std::int64_t first = 0; first < turns; ++first) append();  // Pages come from the system.
    watch.time(append);
  });
  constexpr double kBytes = 2.0 * kTokens * kHeads * kDim * sizeof(float);
  return {.kind = StreamKind::append,
          .level = level.name,
          .devices = teams.num_devices(),
          .ps_per_byte = picoseconds(times[0] / kBytes)};
}

// Measures again what was measured in another state of the machine than the first.
class OneState {
 public:
  explicit OneState(const std::function<MemoryRates()>& memory_now)
      : memory_now_(memory_now), first_(memory_now ? memory_now() : MemoryRates{}) {}

  template <class Measure>
  auto measure(const Measure& measure) {
    bool same_before = is_same();
    for (;;) {
      auto result = measure();
      const bool same_after = is_same();
      if ((same_before && same_after) || goes_left_ == 0) return result;
      --goes_left_;
      same_before = same_after;
    }
  }

 private:
  [[nodiscard]] bool is_same() const {
    return !memory_now_ || is_same_memory(memory_now_(), first_);
  }

  const std::function<MemoryRates()>& memory_now_;
  MemoryRates first_;
  int goes_left_ = 24;  // A minute in all.
};

}  // namespace

MeasuredKernels measure_kernels(std::span<const std::vector<int>> cores, const DeviceType& type,
                                double least_seconds,
                                const std::function<void(std::string_view)>& progress,
                                const std::function<MemoryRates()>& memory_now) {
  OneState state(memory_now);
  constexpr std::int64_t kMostForManyRows = std::int64_t{8} << 20;
  MeasuredKernels kernels;
  for (const std::size_t together : {std::size_t{1}, cores.size()}) {
    DeviceTeams teams(cores.first(together), least_seconds);
    const std::string_view who = together == 1 ? "one device" : "all devices";
    for (const Level& level : levels_of(type)) {
      // L2 is a device's own: nobody is disturbed.
      if (together > 1 && level.name == CacheLevel::l2) continue;
      for (const DType dtype : kDTypes) {
        progress(fmt::format("{}: linear layers, {} weights in {}", who, to_string(dtype),
                             to_string(level.name)));
        kernels.linear.push_back(
            state.measure([&] { return measure_linear(teams, dtype, level); }));
        progress(fmt::format("{}: attention, {} keys in {}", who, to_string(dtype),
                             to_string(level.name)));
        kernels.attention.push_back(state.measure(
            [&] { return measure_attention(teams, dtype, level, kMostForManyRows); }));
      }
      progress(fmt::format("{}: passes over activations in {}", who, to_string(level.name)));
      const auto streams = state.measure([&] { return measure_streams(teams, level); });
      kernels.stream.insert(kernels.stream.end(), streams.begin(), streams.end());
    }
    kernels.stream.push_back(
        state.measure([&] { return measure_append(teams, levels_of(type).back()); }));
    // Of L2 alone: what a device has of an L3 that guests of one host share changes by the minute,
    // from nothing to twice its share.
    if (type.l2 && together == 1) {
      progress(fmt::format("{}: what L2 serves", who));
      const auto served =
          measure_served(teams, CacheLevel::l2, type.l2->value, levels_of(type)[1].bytes);
      if (served) kernels.served.push_back(*served);
    }
    if (cores.size() == 1) break;
  }
  return kernels;
}

}  // namespace weir
