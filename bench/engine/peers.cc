// Other engines on the same shapes, each measurement in turn with one of ours.

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

#include "base/temporary_folder.h"
#include "bench/engine/figures.h"
#include "bench/engine/gguf.h"
#include "bench/engine/model_run.h"
#include "bench/engine/peers.h"
#include "bench/engine/program.h"
#include "bench/engine/sections.h"
#include "measure/device_teams.h"
#include "report/table.h"

namespace weir::bench {
namespace {

// A step over a short cache takes 10 ms: too few of them are not worth a run.
std::int64_t decode_steps(std::int64_t depth) { return depth <= 2048 ? 64 : 16; }

// Tokens per second, by what was switched: flash attention off and on.
struct LlamaRates {
  std::array<std::vector<double>, 2> of;
  [[nodiscard]] double better() const { return std::max(median(of[0]), median(of[1])); }
};

// One run each without and with flash attention.
Status run_llama(const std::string& program, const std::string& model,
                 const std::vector<std::string>& test, LlamaRates& rates) {
  for (const bool flash : {false, true}) {
    const auto rate = llama_rate(program, model, flash, test);
    if (!rate) return tl::unexpected(rate.error());
    rates.of[flash ? 1 : 0].push_back(*rate);
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
  const std::int64_t steps = decode_steps(length);
  auto times = run.run({.length = std::max<std::int64_t>(length, 1), .output_len = steps + 1});
  if (!times) return tl::unexpected(times.error());
  rates.our_prefill.push_back(static_cast<double>(length) / times->prefill);
  rates.our_decode.push_back(1 / median(std::move(times->decode_steps)));
  const std::string tokens = std::to_string(length);
  if (length > 0) {
    if (auto ran = run_llama(program, gguf, {"-p", tokens, "-n", "0"}, rates.llama_prefill); !ran)
      return ran;
  }
  return run_llama(program, gguf, {"-p", "0", "-n", std::to_string(steps), "-d", tokens},
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
    for (int round = 0; round < (length <= one.longest_repeated ? kPeerRounds : 1); ++round) {
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
      one.title, kPeerRounds, one.longest_repeated, render_markdown(prefill),
      render_markdown(decode));
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

}  // namespace

Result<double> llama_rate(const std::string& program, const std::string& gguf, bool flash_attention,
                          const std::vector<std::string>& test) {
  std::vector<std::string> command = {
      program, "-m", gguf, "-t", "2", "-r", "1", "-fa", flash_attention ? "1" : "0", "-o", "jsonl"};
  command.insert(command.end(), test.begin(), test.end());
  const auto lines = lines_of(command);
  if (!lines) return tl::unexpected(lines.error());
  const auto json = nlohmann::json::parse(lines->empty() ? "" : lines->back(), nullptr, false);
  if (!json.is_object() || !json.contains("avg_ts") || !json["avg_ts"].is_number())
    return run_failed(fmt::format("{}: no \"avg_ts\" in what it printed", program));
  return json["avg_ts"].get<double>();
}

Result<std::string> peers_section(const SectionOptions& options) {
  std::string text;
  if (options.llama_cpp) {
    auto part = compare_with_llama(*options.llama_cpp, options);
    if (!part) return part;
    text += *part;
    part = compare_with_flash_attention(*options.llama_cpp, options);
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
