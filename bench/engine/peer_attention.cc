// Attention alone beside that of other engines.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>

#include "base/random.h"
#include "base/temporary_folder.h"
#include "bench/engine/figures.h"
#include "bench/engine/gguf.h"
#include "bench/engine/model_run.h"
#include "bench/engine/peers.h"
#include "bench/engine/program.h"
#include "kernel/kernel.h"
#include "kernel/team.h"
#include "measure/calibrate.h"
#include "measure/device_teams.h"
#include "report/table.h"

namespace weir::bench {
namespace {

struct AttentionShape {
  std::int64_t queries = 0;  // The last ones of `length`.
  std::int64_t length = 0;
  std::int64_t heads = 0;
  std::int64_t dim = 0;
};

// A causal tile over keys and values of its own, in `dtype`, f16 or bf16.
class OurAttention {
 public:
  OurAttention(const AttentionShape& shape, DType dtype) : shape_(shape), dtype_(dtype) {
    const auto& [queries, length, heads, dim] = shape;
    const std::int64_t values = heads * length * dim;
    Random random(1);
    for (std::vector<float>* part : {&q_, &out_})
      part->resize(static_cast<std::size_t>(heads * queries * dim));
    for (std::vector<std::uint16_t>* part : {&keys_, &values_}) {
      part->resize(static_cast<std::size_t>(values));
      for (auto& value : *part) {
        const auto random_value = static_cast<float>(random.uniform() - 0.5);
        value = dtype == DType::f16 ? f32_to_f16(random_value) : f32_to_bf16(random_value);
      }
    }
    for (auto& value : q_) value = static_cast<float>(random.uniform() - 0.5);
    lse_.resize(static_cast<std::size_t>(queries * heads));
    for (std::int64_t head = 0; head < heads; ++head) kv_head_of_.push_back(head);
    for (std::int64_t at = 0; at < length; at += kBlock) {
      key_blocks_.push_back(keys_.data() + at * heads * dim);
      value_blocks_.push_back(values_.data() + at * heads * dim);
    }
  }

  double seconds(Team& team) {
    const std::int64_t heads = shape_.heads;
    const std::int64_t dim = shape_.dim;
    const auto kv = [&](const std::vector<const void*>& blocks) {
      return kernel::KvBlocks{.blocks = blocks,
                              .dtype = dtype_,
                              .block_size = kBlock,
                              .first_position = 0,
                              .head_stride = kBlock * dim,
                              .position_stride = dim};
    };
    const kernel::AttentionTile tile{.q = q_.data(),
                                     .q_row_stride = heads * dim,
                                     .q_head_stride = dim,
                                     .num_queries = shape_.queries,
                                     .num_heads = heads,
                                     .key_dim = dim,
                                     .value_dim = dim,
                                     .kv_head_of = kv_head_of_,
                                     .keys = kv(key_blocks_),
                                     .values = kv(value_blocks_),
                                     .first_query = shape_.length - shape_.queries,
                                     .key_begin = 0,
                                     .key_end = shape_.length,
                                     .scale = 0.1F,
                                     .out = out_.data(),
                                     .out_row_stride = heads * dim,
                                     .out_head_stride = dim,
                                     .lse = lse_.data(),
                                     .lse_row_stride = heads};
    const auto start = std::chrono::steady_clock::now();
    kernel::attention(team, {&tile, 1});
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

 private:
  static constexpr std::int64_t kBlock = 128;
  AttentionShape shape_;
  DType dtype_;
  std::vector<float> q_, out_, lse_;
  std::vector<std::uint16_t> keys_, values_;
  std::vector<std::int64_t> kv_head_of_;
  std::vector<const void*> key_blocks_, value_blocks_;
};

Result<std::vector<int>> all_cores() {
  const auto cluster = local_cluster({.num_devices = 1, .cores_per_device = {}});
  if (!cluster) return tl::unexpected(cluster.error());
  return cores_of(*cluster).front();
}

// Runs `measure` with a team of those cores, whose helpers are gone when the other engine runs.
template <class Measure>
void with_team(const std::vector<int>& cores, const Measure& measure) {
  std::thread([&] {
    Team team(static_cast<int>(std::max<std::size_t>(1, cores.size())), cores);
    team.pin_caller();
    measure(team);
  }).join();
}

constexpr std::int64_t kChunk = 512;  // Tokens that llama.cpp takes at once.

// Seconds that `depth` adds to such a chunk of a prompt: attention to that many more keys.
struct DepthSeconds {
  std::vector<double> ours;
  std::vector<double> llama;
};

Result<DepthSeconds> measure_depth(const std::string& program, const ModelSpec& spec,
                                   const std::string& gguf, std::int64_t depth,
                                   const std::vector<int>& cores) {
  const auto shape = [&](std::int64_t before) {
    return AttentionShape{.queries = kChunk,
                          .length = before + kChunk,
                          .heads = spec.num_q_heads,
                          .dim = spec.head_dim};
  };
  OurAttention near(shape(0), DType::f16);
  OurAttention far(shape(depth), DType::f16);
  const auto chunk_seconds = [&](std::int64_t before) -> Result<double> {
    const auto rate =
        llama_rate(program, gguf, true,
                   {"-p", std::to_string(kChunk), "-n", "0", "-d", std::to_string(before)});
    if (!rate) return tl::unexpected(rate.error());
    return static_cast<double>(kChunk) / *rate;
  };
  DepthSeconds all;
  for (int round = 0; round < kPeerRounds; ++round) {
    with_team(cores, [&](Team& team) {
      far.seconds(team);
      const double added = far.seconds(team) - near.seconds(team);
      all.ours.push_back(static_cast<double>(spec.num_layers) * added);
    });
    const auto at_depth = chunk_seconds(depth);
    const auto at_start = chunk_seconds(0);
    if (!at_depth) return tl::unexpected(at_depth.error());
    if (!at_start) return tl::unexpected(at_start.error());
    all.llama.push_back(*at_depth - *at_start);
  }
  return all;
}

// Prints the median times of scaled_dot_product_attention, causal, in seconds: f32, then bf16.
constexpr std::string_view kSdpa = R"py(
import sys, time, statistics, torch
threads, length, heads, dim = (int(x) for x in sys.argv[1:5])
torch.set_num_threads(threads)
def once(q, k, v):
    start = time.perf_counter()
    torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return time.perf_counter() - start
with torch.inference_mode():
    for dtype in (torch.float32, torch.bfloat16):
        qkv = [torch.randn(1, heads, length, dim).to(dtype) for _ in range(3)]
        once(*qkv)
        print(statistics.median(once(*qkv) for _ in range(3)))
)py";

Result<std::array<double, 2>> sdpa_seconds(const std::string& python,
                                           const std::vector<std::string>& arguments) {
  std::vector<std::string> command = {python, "-c", std::string(kSdpa)};
  command.insert(command.end(), arguments.begin(), arguments.end());
  const auto lines = lines_of(command);
  if (!lines) return tl::unexpected(lines.error());
  std::array<double, 2> seconds{};
  for (std::size_t i = 0; i < std::min(seconds.size(), lines->size()); ++i)
    seconds[i] = std::strtod((*lines)[i].c_str(), nullptr);
  if (std::ranges::min(seconds) <= 0)
    return run_failed(fmt::format("{}: printed no times", python));
  return seconds;
}

// Seconds of one shape: ours by cache, f16 and bf16, and PyTorch's f32 and bf16.
struct AttentionSeconds {
  std::array<std::vector<double>, 2> ours;
  std::array<std::vector<double>, 2> torch;
};

Result<AttentionSeconds> measure_attention(const std::string& python, const AttentionShape& shape,
                                           const std::vector<int>& cores) {
  const auto threads = std::max<std::size_t>(1, cores.size());
  std::array<OurAttention, 2> ours = {OurAttention(shape, DType::f16),
                                      OurAttention(shape, DType::bf16)};
  AttentionSeconds all;
  for (int round = 0; round < kPeerRounds; ++round) {
    with_team(cores, [&](Team& team) {
      for (std::size_t i = 0; i < ours.size(); ++i) {
        ours[i].seconds(team);
        all.ours[i].push_back(ours[i].seconds(team));
      }
    });
    const auto seconds =
        sdpa_seconds(python, {std::to_string(threads), std::to_string(shape.length),
                              std::to_string(shape.heads), std::to_string(shape.dim)});
    if (!seconds) return tl::unexpected(seconds.error());
    for (std::size_t i = 0; i < all.torch.size(); ++i) all.torch[i].push_back((*seconds)[i]);
  }
  return all;
}

std::vector<std::string> row(const AttentionShape& shape, const AttentionSeconds& seconds) {
  const auto milliseconds = [](std::vector<double> times) {
    for (double& value : times) value *= 1e3;
    return to_string(summary_of(std::move(times)));
  };
  const auto better = [](const std::array<std::vector<double>, 2>& times) {
    return std::min(median(times[0]), median(times[1]));
  };
  return {fmt::format("{} x {}", shape.heads, shape.dim),
          std::to_string(shape.length),
          milliseconds(seconds.ours[0]),
          milliseconds(seconds.ours[1]),
          milliseconds(seconds.torch[0]),
          milliseconds(seconds.torch[1]),
          fmt::format("{:.2f}x", median(seconds.torch[0]) / median(seconds.ours[0])),
          fmt::format("{:.2f}x", better(seconds.torch) / better(seconds.ours))};
}

}  // namespace

Result<std::string> compare_with_flash_attention(const std::string& program,
                                                 const SectionOptions& options) {
  const auto cores = all_cores();
  if (!cores) return tl::unexpected(cores.error());
  const ModelSpec spec = small_model();
  const auto folder = TemporaryFolder::make("peer");
  if (!folder) return tl::unexpected(folder.error());
  const std::string gguf = folder->path() + "/model.gguf";
  if (auto written = write_gguf(gguf, spec); !written) return tl::unexpected(written.error());
  Table table{.columns = {{"depth"},
                          {"Weir, GFLOP/s"},
                          {"llama.cpp's flash attention, GFLOP/s"},
                          {"Weir / llama.cpp"}},
              .rows = {}};
  for (const std::int64_t depth : {2048, 8192}) {
    options.progress(fmt::format("llama.cpp's flash attention: {} keys", depth));
    const auto seconds = measure_depth(program, spec, gguf, depth, *cores);
    if (!seconds) return tl::unexpected(seconds.error());
    // Scores and weighted values, a multiply-add each per dimension.
    const auto flops = static_cast<double>(4 * kChunk * depth * spec.num_q_heads * spec.head_dim *
                                           spec.num_layers);
    const auto rate = [&](std::vector<double> times) {
      return to_string(rate_of(flops / kGiga, summary_of(std::move(times))));
    };
    table.rows.push_back(
        {{std::to_string(depth), rate(seconds->ours), rate(seconds->llama),
          fmt::format("{:.2f}x", median(seconds->llama) / median(seconds->ours))}});
  }
  return fmt::format(
      "#### llama.cpp's flash attention\n\nWhat keys before a chunk of {} tokens add to its time, "
      "small model, f16 cache, both cores, the runs of either in turn; medians of {} runs. Of "
      "Weir attention alone was run, of llama.cpp the chunk with and without those "
      "keys.\n\n{}\n",
      kChunk, kPeerRounds, render_markdown(table));
}

Result<std::string> compare_with_torch(const std::string& python, const SectionOptions& options) {
  const auto cores = all_cores();
  if (!cores) return tl::unexpected(cores.error());
  Table table{.columns = {{"heads x dim"},
                          {"tokens"},
                          {"Weir, f16 cache, ms"},
                          {"Weir, bf16 cache, ms"},
                          {"PyTorch f32, ms"},
                          {"PyTorch bf16, ms"},
                          {"Weir's f16 / PyTorch's f32"},
                          {"the better / the better"}},
              .rows = {}};
  for (const std::int64_t dim : {64, 128}) {
    for (const std::int64_t length : {2048, 4096, 8192, 16384}) {
      const AttentionShape shape{
          .queries = length, .length = length, .heads = length > 4096 ? 2 : 8, .dim = dim};
      options.progress(fmt::format("torch: {} tokens x {}", length, dim));
      const auto seconds = measure_attention(python, shape, *cores);
      if (!seconds) return tl::unexpected(seconds.error());
      table.rows.push_back({row(shape, *seconds)});
    }
  }
  return fmt::format(
      "#### PyTorch\n\nCausal scaled_dot_product_attention on both cores, the runs of either in "
      "turn, "
      "medians of {} runs. Weir has queries in f32 and multiplies as exactly as in f32, whatever "
      "the cache is in; PyTorch's bf16 has queries and softmax weights rounded to bf16 "
      "too.\n\n{}\n",
      kPeerRounds, render_markdown(table));
}

}  // namespace weir::bench
