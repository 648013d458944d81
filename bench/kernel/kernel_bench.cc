// Measures the kernels beside the bound that each is judged by: multiply-adds for products of many
// rows, memory bandwidth for products of few. Every line gives the median and the spread (fastest
// and slowest) of the repetitions, and the median's share of the ceiling measured just before.
//
//   kernel_bench [WORKERS [SECTION]]     sections: team linear decode attention kv_decode rows

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <numeric>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/dtype.h"
#include "base/random.h"
#include "kernel/amx.h"
#include "kernel/kernel.h"
#include "kernel/scratch.h"
#include "kernel/team.h"
#include "measure/ceilings.h"

namespace weir::bench {
namespace {

struct Timing {
  double median = 0;
  double fastest = 0;
  double slowest = 0;
};

double now(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

Timing measure(const Team& team, const std::function<void()>& work) {
  constexpr double kLeastSeconds = 0.3;
  constexpr std::size_t kLeastRepetitions = 5;
  // A single worker's CPU time leaves out what other programs took of its core.
  const clockid_t clock = team.size() == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC;
  work();  // Warm-up: grows scratch, faults pages in.
  std::vector<double> seconds;
  for (double total = 0; total < kLeastSeconds || seconds.size() < kLeastRepetitions;) {
    const double start = now(clock);
    work();
    seconds.push_back(now(clock) - start);
    total += seconds.back();
  }
  std::ranges::sort(seconds);
  return {
      .median = seconds[seconds.size() / 2], .fastest = seconds.front(), .slowest = seconds.back()};
}

// Noise on shared cores lowers the ceiling as it lowers a kernel, so it is measured with each.
void report_flops(Team& team, const std::string& name, double flops,
                  const std::function<void()>& work) {
  const double before = fma_flops_per_s(team);
  const Timing t = measure(team, work);
  const double peak = std::max(before, fma_flops_per_s(team));
  fmt::print(
      "{:<44} {:9.3f} ms  {:7.1f} GFLOP/s  {:5.1f}% of {:.1f} (best {:.1f}%, worst {:.1f}%)\n",
      name, t.median * 1e3, flops / t.median / 1e9, 100 * flops / t.median / peak, peak / 1e9,
      100 * flops / t.fastest / peak, 100 * flops / t.slowest / peak);
}

void report_bytes(Team& team, const std::string& name, double bytes,
                  const std::function<void()>& work) {
  const double before = read_bytes_per_s(team);
  const Timing t = measure(team, work);
  const double peak = std::max(before, read_bytes_per_s(team));
  fmt::print(
      "{:<44} {:9.3f} ms  {:7.2f} GB/s     {:5.1f}% of {:.2f} (best {:.1f}%, worst {:.1f}%)\n",
      name, t.median * 1e3, bytes / t.median / 1e9, 100 * bytes / t.median / peak, peak / 1e9,
      100 * bytes / t.fastest / peak, 100 * bytes / t.slowest / peak);
}

// `count` values of the dtype between -1/2 and 1/2, in huge pages where there are any.
kernel::Block random_values(DType dtype, std::int64_t count) {
  Random random(2);
  kernel::Block block(static_cast<std::size_t>(count * size_in_bytes(dtype)));
  auto* const halves = reinterpret_cast<std::uint16_t*>(block.data());
  auto* const floats = reinterpret_cast<float*>(block.data());
  for (std::int64_t i = 0; i < count; ++i) {
    const auto value = static_cast<float>(random.uniform() - 0.5);
    switch (dtype) {
      case DType::f32:
        floats[i] = value;
        break;
      case DType::bf16:
        halves[i] = f32_to_bf16(value);
        break;
      case DType::f16:
        halves[i] = f32_to_f16(value);
        break;
    }
  }
  return block;
}

// Activations, in huge pages too.
class Floats {
 public:
  explicit Floats(std::int64_t count) : block_(random_values(DType::f32, count)) {}
  [[nodiscard]] float* data() const { return reinterpret_cast<float*>(block_.data()); }

 private:
  kernel::Block block_;
};

struct LinearShape {
  std::int64_t rows = 0;
  std::int64_t in = 0;
  std::int64_t out = 0;
  DType dtype = DType::f32;
};

// Few rows are bound by reading weights: matrices are taken in turn, as the layers of a model are,
// so many that no last cache holds them.
constexpr std::int64_t kFewRows = 8;
constexpr std::int64_t kBytesOfLayers = std::int64_t{1} << 30;

void bench_linear(Team& team, LinearShape shape) {
  using kernel::PackedWeights;
  const kernel::Block raw = random_values(shape.dtype, shape.in * shape.out);
  const std::int64_t bytes = shape.in * shape.out * size_in_bytes(shape.dtype);
  const std::int64_t layers = shape.rows <= kFewRows ? (kBytesOfLayers + bytes - 1) / bytes : 1;
  std::vector<PackedWeights> weights;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    weights.emplace_back(team, kernel::WeightView{.data = raw.data(),
                                                  .dtype = shape.dtype,
                                                  .out_features = shape.out,
                                                  .in_features = shape.in,
                                                  .row_stride = shape.in});
  }
  std::size_t next = 0;
  const Floats x(shape.rows * shape.in);
  const Floats y(shape.rows * shape.out);
  const std::string name = fmt::format("linear {} x {} -> {} {}", shape.rows, shape.in, shape.out,
                                       to_string(shape.dtype));
  const auto work = [&] {
    kernel::linear(
        team, {.data = x.data(), .rows = shape.rows, .cols = shape.in, .row_stride = shape.in},
        weights[next], {},
        {.data = y.data(), .rows = shape.rows, .cols = shape.out, .row_stride = shape.out});
    next = (next + 1) % weights.size();
  };
  if (shape.rows <= kFewRows) {
    report_bytes(team, name, static_cast<double>(weights.front().bytes()), work);
  } else {
    const double products = static_cast<double>(shape.rows * shape.in * shape.out);
    report_flops(team, name, 2 * products, work);
  }
}

struct AttentionShape {
  std::int64_t queries = 0;
  std::int64_t keys = 0;
  std::int64_t q_heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  DType dtype = DType::f32;
};

void bench_attention(Team& team, AttentionShape shape) {
  constexpr std::int64_t kBlock = 128;
  const std::int64_t blocks = (shape.keys + kBlock - 1) / kBlock;
  const std::int64_t block_values = kBlock * shape.kv_heads * shape.head_dim;
  const kernel::Block keys = random_values(shape.dtype, blocks * block_values);
  const kernel::Block values = random_values(shape.dtype, blocks * block_values);
  std::vector<const void*> key_blocks;
  std::vector<const void*> value_blocks;
  for (std::int64_t block = 0; block < blocks; ++block) {
    const std::int64_t at = block * block_values * size_in_bytes(shape.dtype);
    key_blocks.push_back(keys.data() + at);
    value_blocks.push_back(values.data() + at);
  }
  std::vector<std::int64_t> kv_head_of;
  for (std::int64_t head = 0; head < shape.q_heads; ++head) {
    kv_head_of.push_back(head / (shape.q_heads / shape.kv_heads));
  }
  const auto kv = [&](const std::vector<const void*>& pointers) {
    return kernel::KvBlocks{.blocks = pointers,
                            .dtype = shape.dtype,
                            .block_size = kBlock,
                            .first_position = 0,
                            .head_stride = kBlock * shape.head_dim,
                            .position_stride = shape.head_dim};
  };
  const std::int64_t row = shape.q_heads * shape.head_dim;
  const Floats q(shape.queries * row);
  const Floats out(shape.queries * row);
  const Floats lse(shape.queries * shape.q_heads);
  const kernel::AttentionTile tile{.q = q.data(),
                                   .q_row_stride = row,
                                   .q_head_stride = shape.head_dim,
                                   .num_queries = shape.queries,
                                   .num_heads = shape.q_heads,
                                   .key_dim = shape.head_dim,
                                   .value_dim = shape.head_dim,
                                   .kv_head_of = kv_head_of,
                                   .keys = kv(key_blocks),
                                   .values = kv(value_blocks),
                                   .first_query = shape.keys - shape.queries,
                                   .key_begin = 0,
                                   .key_end = shape.keys,
                                   .scale = 0.1F,
                                   .out = out.data(),
                                   .out_row_stride = row,
                                   .out_head_stride = shape.head_dim,
                                   .lse = lse.data(),
                                   .lse_row_stride = shape.q_heads};
  const std::string name =
      fmt::format("attention {} over {}, {}/{} heads x {} {}", shape.queries, shape.keys,
                  shape.q_heads, shape.kv_heads, shape.head_dim, to_string(shape.dtype));
  const auto work = [&] { kernel::attention(team, {&tile, 1}); };
  if (shape.queries == 1) {
    report_bytes(team, name, static_cast<double>(keys.bytes() + values.bytes()), work);
  } else {
    // Only pairs that the causal mask lets through count as work.
    const double pairs =
        static_cast<double>(shape.queries) *
        (static_cast<double>(shape.keys) - static_cast<double>(shape.queries - 1) / 2) *
        static_cast<double>(shape.q_heads);
    report_flops(team, name, 4 * pairs * static_cast<double>(shape.head_dim), work);
  }
}

void bench_team(Team& team) {
  std::vector<double> microseconds;
  const std::function<void(int)> nothing = [](int) {};
  for (int i = 0; i < 20000; ++i) {
    const auto start = std::chrono::steady_clock::now();
    team.run(nothing);
    microseconds.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
            .count());
  }
  std::ranges::sort(microseconds);
  const auto at = [&](double share) {
    return microseconds[static_cast<std::size_t>(share * static_cast<double>(microseconds.size()))];
  };
  fmt::print("Team::run of nothing: median {:.2f} us, p5 {:.2f}, p95 {:.2f}\n", at(0.5), at(0.05),
             at(0.95));
}

void bench_row_kernels(Team& team) {
  constexpr std::int64_t kRows = 512;
  constexpr std::int64_t kCols = 4096;
  const Floats x(kRows * kCols);
  const Floats up(kRows * kCols);
  const std::vector<float> weight(kCols, 1.0F);
  const Floats y(kRows * kCols);
  const kernel::ConstMatrix in{.data = x.data(), .rows = kRows, .cols = kCols, .row_stride = kCols};
  const kernel::ConstMatrix in2{
      .data = up.data(), .rows = kRows, .cols = kCols, .row_stride = kCols};
  const kernel::Matrix out{.data = y.data(), .rows = kRows, .cols = kCols, .row_stride = kCols};
  std::vector<double> frequency(64);
  for (std::size_t i = 0; i < frequency.size(); ++i)
    frequency[i] = 1.0 / static_cast<double>(i + 1);
  std::vector<std::int64_t> positions(kRows);
  std::iota(positions.begin(), positions.end(), 100000);
  const double matrix_bytes = static_cast<double>(kRows * kCols) * sizeof(float);
  using enum kernel::Activation;
  report_bytes(team, "rms_norm 512 x 4096", 2 * matrix_bytes,
               [&] { kernel::rms_norm(team, in, {.weight = weight}, out); });
  report_bytes(team, "silu gated 512 x 4096", 3 * matrix_bytes,
               [&] { kernel::gated_activation(team, silu, in, in2, out); });
  report_bytes(team, "gelu_erf gated 512 x 4096", 3 * matrix_bytes,
               [&] { kernel::gated_activation(team, gelu_erf, in, in2, out); });
  report_bytes(team, "add 512 x 4096", 3 * matrix_bytes, [&] { kernel::add(team, in, out); });
  report_bytes(team, "rope 512 x 32 heads x 128", 2 * matrix_bytes, [&] {
    kernel::rope(team, out, positions,
                 {.inverse_frequency = frequency, .num_heads = 32, .head_dim = 128});
  });
}

void run_sections(Team& team, std::string_view wanted) {
  using enum DType;
  const auto section = [&](std::string_view name) { return wanted.empty() || wanted == name; };
  if (section("team")) bench_team(team);
  if (section("linear")) {
    for (const DType dtype : {f32, bf16, f16}) {
      for (const std::int64_t rows : {64, 512, 2048}) {
        bench_linear(team, {.rows = rows, .in = 1024, .out = 1024, .dtype = dtype});
        bench_linear(team, {.rows = rows, .in = 1024, .out = 4096, .dtype = dtype});
        bench_linear(team, {.rows = rows, .in = 4096, .out = 4096, .dtype = dtype});
      }
      bench_linear(team, {.rows = 512, .in = 4096, .out = 16384, .dtype = dtype});
      bench_linear(team, {.rows = 512, .in = 16384, .out = 4096, .dtype = dtype});
    }
  }
  if (section("decode")) {
    for (const DType dtype : {f32, bf16, f16}) {
      for (const std::int64_t rows : {1, 2, 4, 8}) {
        bench_linear(team, {.rows = rows, .in = 4096, .out = 16384, .dtype = dtype});
      }
    }
  }
  if (section("attention")) {
    for (const std::int64_t head_dim : {64, 128}) {
      for (const std::int64_t length : {512, 2048, 8192, 32768}) {
        const std::int64_t heads = length > 8192 ? 2 : 8;
        bench_attention(team, {.queries = length,
                               .keys = length,
                               .q_heads = heads,
                               .kv_heads = heads,
                               .head_dim = head_dim,
                               .dtype = f16});
      }
    }
    bench_attention(team, {.queries = 2048,
                           .keys = 2048,
                           .q_heads = 16,
                           .kv_heads = 4,
                           .head_dim = 128,
                           .dtype = bf16});
    bench_attention(team, {.queries = 2048,
                           .keys = 2048,
                           .q_heads = 16,
                           .kv_heads = 4,
                           .head_dim = 128,
                           .dtype = f32});
  }
  if (section("kv_decode")) {
    for (const DType dtype : {f32, bf16, f16}) {
      for (const std::int64_t head_dim : {64, 128}) {
        for (const std::int64_t heads_per_kv_head : {1, 4, 8}) {
          bench_attention(team, {.queries = 1,
                                 .keys = 65536,
                                 .q_heads = 8 * heads_per_kv_head,
                                 .kv_heads = 8,
                                 .head_dim = head_dim,
                                 .dtype = dtype});
        }
      }
    }
  }
  if (section("rows")) bench_row_kernels(team);
}

}  // namespace
}  // namespace weir::bench

int main(int argc, char** argv) {
  const int workers = argc > 1
                          ? std::max(1, static_cast<int>(std::strtol(argv[1], nullptr, 10)))
                          : static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  weir::Team team(workers);
  fmt::print("{} workers, FMA peak {:.1f} GFLOP/s, memory read {:.2f} GB/s\n", workers,
             weir::fma_flops_per_s(team) / 1e9, weir::read_bytes_per_s(team) / 1e9);
  if (const double tiles = weir::amx_flops_per_s(team); tiles > 0) {
    fmt::print("AMX tiles {:.0f} GFLOP/s of bf16: f32 {:.0f}, f16 {:.0f}, bf16 {:.0f}\n",
               tiles / 1e9, tiles / 1e9 / weir::kernel::products_of_pieces(weir::DType::f32),
               tiles / 1e9 / weir::kernel::products_of_pieces(weir::DType::f16),
               tiles / 1e9 / weir::kernel::products_of_pieces(weir::DType::bf16));
  }
  weir::bench::run_sections(team, argc > 2 ? argv[2] : "");
  return 0;
}
