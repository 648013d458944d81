// What a second core brings to prefill: half of everything, or a pool that takes the attention.

#include <fmt/format.h>
#include <array>
#include <optional>

#include "bench/engine/in_turn.h"
#include "bench/engine/sections.h"
#include "report/table.h"

namespace weir::bench {
namespace {

constexpr std::array<std::int64_t, 5> kLengths{512, 1024, 2048, 4096, 8192};
// Two requests, so that the pool has one's attention while the base has the other's FFN.
constexpr std::int64_t kRequests = 2;

std::string speedup(const Summary& one_core, const Summary& split) {
  return fmt::format("{:.2f}x", one_core.median / split.median);
}

}  // namespace

Result<std::string> two_cores_section(const SectionOptions& options) {
  const ModelSpec spec = model_of(
      "half", {.num_layers = 4, .hidden_size = 1024, .num_heads = 16, .intermediate_size = 4096});
  const auto model = ModelOnDisk::make(spec);
  if (!model) return tl::unexpected(model.error());
  const OptionValues pool = {{"tp", "1"},        {"pool", "1"},      {"pool_policy", "fixed"},
                             {"threshold", "1"}, {"split", "heads"}, {"microbatches", "2"}};
  const std::array<Split, 4> splits = {
      Split{.strategy = "single"}, Split{.strategy = "tp_pp", .options = {{"tp", "2"}}},
      Split{.strategy = "tp_pp", .options = {{"tp", "2"}, {"sequence_parallel", "64"}}},
      Split{.strategy = "attention_pool", .options = pool}};
  auto runs = make_runs(*model, splits);
  if (!runs) return tl::unexpected(runs.error());

  Table table{.columns = {{"prompts"},
                          {"one core, tokens/s"},
                          {"`tp` 2"},
                          {"speed-up"},
                          {"`tp` 2, sequence parallel"},
                          {"speed-up"},
                          {"base + pool"},
                          {"speed-up"}},
              .rows = {}};
  std::optional<std::int64_t> pays;
  for (const std::int64_t length : kLengths) {
    options.progress(fmt::format("two cores: {} x {} tokens", kRequests, length));
    const auto times = run_in_turn(*runs, {.length = length, .count = kRequests});
    if (!times) return tl::unexpected(times.error());
    const auto tokens = static_cast<double>(kRequests * length);
    const auto& [one_core, tp, by_tokens, with_pool] = std::tie(
        (*times)[0].prefill, (*times)[1].prefill, (*times)[2].prefill, (*times)[3].prefill);
    if (!pays && with_pool.median < one_core.median) pays = length;
    table.rows.push_back(
        {{fmt::format("{} x {}", kRequests, length), to_string(rate_of(tokens, one_core)),
          to_string(rate_of(tokens, tp)), speedup(one_core, tp),
          to_string(rate_of(tokens, by_tokens)), speedup(one_core, by_tokens),
          to_string(rate_of(tokens, with_pool)), speedup(one_core, with_pool)}});
  }
  return fmt::format(
      "Prefill of two prompts at once by 4 layers x 1,024 wide (16 heads x 64, FFN 4,096 gated, "
      "f16), on one core, on two that "
      "share every layer (`tp` 2; sequence parallel: norms and sums by tokens), and on a base core "
      "with a pool of one that takes all attention "
      "while the base has the other prompt's FFN (`attention_pool`, {}).\n\n{}\n{}\n",
      runs->back()->header().strategy, render_markdown(table),
      pays ? fmt::format("The pool starts to pay (faster than the base alone) at {} tokens.\n",
                         *pays)
           : std::string("At none of these lengths is the pool faster than the base alone.\n"));
}

}  // namespace weir::bench
