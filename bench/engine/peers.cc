// Other engines on the same shapes, each measurement in turn with one of ours.

#include <fmt/format.h>
#include <array>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/random.h"
#include "base/temporary_folder.h"
#include "bench/engine/figures.h"
#include "bench/engine/gguf.h"
#include "bench/engine/model_run.h"
#include "bench/engine/program.h"
#include "bench/engine/sections.h"
#include "kernel/kernel.h"
#include "kernel/scratch.h"
#include "kernel/team.h"
#include "measure/calibrate.h"
#include "measure/device_teams.h"
#include "report/table.h"

namespace weir::bench {
namespace {

constexpr std::int64_t kDecodeSteps = 16;
constexpr int kRounds = 3;

// Tokens per second, by what was switched: flash attention off and on.
struct LlamaRates {
  std::array<std::vector<double>, 2> of;
  [[nodiscard]] double better() const { return std::max(median(of[0]), median(of[1])); }
};

// One run each without and with flash attention of what `test` says.
Status run_llama(const std::string& program, const std::string& model,
                 const std::vector<std::string>& test, LlamaRates& rates) {
  for (std::size_t flash = 0; flash < 2; ++flash) {
    std::vector<std::string> command = {
        program, "-m", model, "-t", "2", "-r", "1", "-fa", std::to_string(flash), "-o", "jsonl"};
    command.insert(command.end(), test.begin(), test.end());
    const auto lines = lines_of(command);
    if (!lines) return tl::unexpected(lines.error());
    const auto json = nlohmann::json::parse(lines->empty() ? "" : lines->back(), nullptr, false);
    if (!json.is_object() || !json.contains("avg_ts") || !json["avg_ts"].is_number())
      return run_failed(fmt::format("{}: no \"avg_ts\" in what it printed", program));
    rates.of[flash].push_back(json["avg_ts"].get<double>());
  }
  return {};
}

std::vector<std::string> row(std::int64_t tokens, const std::vector<double>& ours,
                             const LlamaRates& llama) {
  return {std::to_string(tokens), to_string(summary_of(ours)), to_string(summary_of(llama.of[0])),
          to_string(summary_of(llama.of[1])),
          fmt::format("{:.2f}x", median(ours) / llama.better())};
}

struct LlamaCase {
  std::string title;
  ModelSpec spec;
  std::vector<std::int64_t> lengths;
  std::int64_t longest_repeated = 0;  // Longer ones take their minutes: one run each.
};

// Tokens per second at one length.
struct LengthRates {
  std::vector<double> our_prefill;
  std::vector<double> our_decode;
  LlamaRates llama_prefill;
  LlamaRates llama_decode;
};

// Adds one run of either engine.
Status run_both(ModelRun& run, const std::string& program, const std::string& gguf,
                std::int64_t length, LengthRates& rates) {
  auto times =
      run.run({.length = std::max<std::int64_t>(length, 1), .output_len = kDecodeSteps + 1});
  if (!times) return tl::unexpected(times.error());
  rates.our_prefill.push_back(static_cast<double>(length) / times->prefill);
  rates.our_decode.push_back(1 / median(std::move(times->decode_steps)));
  const std::string tokens = std::to_string(length);
  if (length > 0) {
    if (auto ran = run_llama(program, gguf, {"-p", tokens, "-n", "0"}, rates.llama_prefill); !ran)
      return ran;
  }
  return run_llama(program, gguf, {"-p", "0", "-n", std::to_string(kDecodeSteps), "-d", tokens},
                   rates.llama_decode);
}

Result<std::string> compare_with_llama(const std::string& program, const LlamaCase& one,
                                       const SectionOptions& options) {
  const ModelSpec& spec = one.spec;
  const auto model = ModelOnDisk::make(spec);
  if (!model) return tl::unexpected(model.error());
  const auto folder = TemporaryFolder::make("peer");
  if (!folder) return tl::unexpected(folder.error());
  const std::string gguf = folder->path() + "/model.gguf";
  if (auto written = write_gguf(gguf, spec); !written) return tl::unexpected(written.error());
  const auto run = ModelRun::make(*model, {.strategy = "single", .cores_per_device = 2});
  if (!run) return tl::unexpected(run.error());

  const std::vector<Column> columns = {
      {"tokens"}, {"Weir"}, {"llama.cpp"}, {"with flash attention"}, {"Weir / the better"}};
  Table prefill{.columns = columns, .rows = {}};
  Table decode{.columns = columns, .rows = {}};
  for (const std::int64_t length : one.lengths) {
    LengthRates rates;
    for (int round = 0; round < (length <= one.longest_repeated ? kRounds : 1); ++round) {
      options.progress(
          fmt::format("llama.cpp, {}: {} tokens, round {}", spec.name, length, round + 1));
      if (auto ran = run_both(**run, program, gguf, length, rates); !ran)
        return tl::unexpected(ran.error());
    }
    if (length > 0) prefill.rows.push_back({row(length, rates.our_prefill, rates.llama_prefill)});
    decode.rows.push_back({row(length, rates.our_decode, rates.llama_decode)});
    // Said at once: the longest lengths take many minutes, and a run may be cut off.
    const std::string prefill_ratio = length > 0 ? prefill.rows.back().cells.back() : "-";
    options.progress(fmt::format("llama.cpp, {}: {} tokens: prefill {}, decode {}", spec.name,
                                 length, prefill_ratio, decode.rows.back().cells.back()));
  }
  return fmt::format(
      "#### llama.cpp, {}\n\nf16 weights and cache, both cores, the runs of either in turn; "
      "tokens/s, "
      "medians of {} runs (one beyond {} tokens).\n\nPrefill by length of the "
      "prompt:\n\n{}\nDecode by depth:\n\n{}\n",
      one.title, kRounds, one.longest_repeated, render_markdown(prefill), render_markdown(decode));
}

Result<std::string> compare_with_llama(const std::string& program, const SectionOptions& options) {
  const std::array<LlamaCase, 2> cases = {LlamaCase{.title = std::string(kSmallTitle),
                                                    .spec = small_model(),
                                                    .lengths = {0, 512, 2048, 8192, 16384},
                                                    .longest_repeated = 2048},
                                          LlamaCase{.title = std::string(kNotesTitle),
                                                    .spec = notes_model(),
                                                    .lengths = {0, 512, 2048},
                                                    .longest_repeated = 512}};
  std::string text;
  for (const LlamaCase& one : cases) {
    auto part = compare_with_llama(program, one, options);
    if (!part) return part;
    text += *part;
  }
  return text;
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

// A causal tile over keys and values of its own, in `dtype`, f16 or bf16.
class OurAttention {
 public:
  OurAttention(std::int64_t length, std::int64_t heads, std::int64_t dim, DType dtype)
      : length_(length), heads_(heads), dim_(dim), dtype_(dtype) {
    const std::int64_t values = heads * length * dim;
    Random random(1);
    for (std::vector<float>* part : {&q_, &out_}) part->resize(static_cast<std::size_t>(values));
    for (std::vector<std::uint16_t>* part : {&keys_, &values_}) {
      part->resize(static_cast<std::size_t>(values));
      for (auto& value : *part) {
        const auto random_value = static_cast<float>(random.uniform() - 0.5);
        value = dtype == DType::f16 ? f32_to_f16(random_value) : f32_to_bf16(random_value);
      }
    }
    for (auto& value : q_) value = static_cast<float>(random.uniform() - 0.5);
    lse_.resize(static_cast<std::size_t>(length * heads));
    for (std::int64_t head = 0; head < heads; ++head) kv_head_of_.push_back(head);
    for (std::int64_t at = 0; at < length; at += kBlock) {
      key_blocks_.push_back(keys_.data() + at * heads * dim);
      value_blocks_.push_back(values_.data() + at * heads * dim);
    }
  }

  double seconds(Team& team) {
    const auto kv = [&](const std::vector<const void*>& blocks) {
      return kernel::KvBlocks{.blocks = blocks,
                              .dtype = dtype_,
                              .block_size = kBlock,
                              .first_position = 0,
                              .head_stride = kBlock * dim_,
                              .position_stride = dim_};
    };
    const kernel::AttentionTile tile{.q = q_.data(),
                                     .q_row_stride = heads_ * dim_,
                                     .q_head_stride = dim_,
                                     .num_queries = length_,
                                     .num_heads = heads_,
                                     .key_dim = dim_,
                                     .value_dim = dim_,
                                     .kv_head_of = kv_head_of_,
                                     .keys = kv(key_blocks_),
                                     .values = kv(value_blocks_),
                                     .first_query = 0,
                                     .key_begin = 0,
                                     .key_end = length_,
                                     .scale = 0.1F,
                                     .out = out_.data(),
                                     .out_row_stride = heads_ * dim_,
                                     .out_head_stride = dim_,
                                     .lse = lse_.data(),
                                     .lse_row_stride = heads_};
    const auto start = std::chrono::steady_clock::now();
    kernel::attention(team, {&tile, 1});
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

 private:
  static constexpr std::int64_t kBlock = 128;
  std::int64_t length_;
  std::int64_t heads_;
  std::int64_t dim_;
  DType dtype_;
  std::vector<float> q_, out_, lse_;
  std::vector<std::uint16_t> keys_, values_;
  std::vector<std::int64_t> kv_head_of_;
  std::vector<const void*> key_blocks_, value_blocks_;
};

// Seconds of one shape: ours by cache, f16 and bf16, and PyTorch's f32 and bf16.
struct AttentionSeconds {
  std::array<std::vector<double>, 2> ours;
  std::array<std::vector<double>, 2> torch;
};

struct AttentionShape {
  std::int64_t length = 0;
  std::int64_t heads = 0;
  std::int64_t dim = 0;
};

Result<AttentionSeconds> measure_attention(const std::string& python, const AttentionShape& shape,
                                           const std::vector<int>& cores) {
  const auto threads = std::max<std::size_t>(1, cores.size());
  std::array<OurAttention, 2> ours = {
      OurAttention(shape.length, shape.heads, shape.dim, DType::f16),
      OurAttention(shape.length, shape.heads, shape.dim, DType::bf16)};
  AttentionSeconds all;
  for (int round = 0; round < kRounds; ++round) {
    // The team's helpers must not be in the way of the other's threads.
    std::thread([&] {
      Team team(static_cast<int>(threads), cores);
      team.pin_caller();
      for (std::size_t i = 0; i < ours.size(); ++i) {
        ours[i].seconds(team);
        all.ours[i].push_back(ours[i].seconds(team));
      }
    }).join();
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

Result<std::string> compare_with_torch(const std::string& python, const SectionOptions& options) {
  const auto cluster = local_cluster({.num_devices = 1, .cores_per_device = {}});
  if (!cluster) return tl::unexpected(cluster.error());
  const std::vector<int> cores = cores_of(*cluster).front();
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
      const AttentionShape shape{.length = length, .heads = length > 4096 ? 2 : 8, .dim = dim};
      options.progress(fmt::format("torch: {} tokens x {}", length, dim));
      const auto seconds = measure_attention(python, shape, cores);
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
      kRounds, render_markdown(table));
}

}  // namespace

Result<std::string> peers_section(const SectionOptions& options) {
  std::string text;
  if (options.llama_cpp) {
    auto part = compare_with_llama(*options.llama_cpp, options);
    if (!part) return part;
    text += *part;
  }
  if (options.torch) {
    auto part = compare_with_torch(*options.torch, options);
    if (!part) return part;
    text += *part;
  }
  if (text.empty()) return invalid_input("--peer: found none, allowed llama.cpp=... and torch=...");
  return text;
}

}  // namespace weir::bench
