// Prefill and decode of whole models on both cores, beside what multiply-adds and memory allow.

#include <fmt/format.h>
#include <array>

#include "bench/engine/in_turn.h"
#include "bench/engine/sections.h"
#include "report/table.h"
#include "spec/sizes.h"

namespace weir::bench {
namespace {

struct Case {
  std::string title;
  ModelSpec model;
  std::vector<std::int64_t> lengths;
};

constexpr std::int64_t kDecodeSteps = 16;

// Bytes that a decode step at this depth has to read: weights and the f16 cache once.
double decode_bytes(const ModelSpec& model, std::int64_t depth) {
  const double cached = static_cast<double>(depth * model.num_layers) *
                        static_cast<double>(kv_bytes_per_token_per_layer(model, DType::f16));
  return static_cast<double>(decode_weight_bytes(model)) + cached;
}

std::string with_share(const Summary& rate, double bound) {
  return fmt::format("{}, {:.0f}%", to_string(rate), 100 * rate.median / bound);
}

Result<std::string> measure_case(const Case& one, const SectionOptions& options) {
  options.progress(one.model.name + ": writing the model");
  const auto model = ModelOnDisk::make(one.model);
  if (!model) return tl::unexpected(model.error());
  const std::array<Split, 2> splits = {
      Split{.strategy = "single", .cores_per_device = 2},
      Split{.strategy = "tp_pp", .options = {{"tp", "2"}}, .cores_per_device = 1}};
  auto runs = make_runs(*model, splits);
  if (!runs) return tl::unexpected(runs.error());

  auto ceilings = measure_ceilings();
  if (!ceilings) return tl::unexpected(ceilings.error());
  // How fast memory is read changes from minute to minute on a machine that others share, so each
  // length has ceilings of its own.
  struct Point {
    std::int64_t length = 0;
    std::vector<TurnTimes> times;
    Ceilings before;
    Ceilings after;
  };
  std::vector<Point> points;
  for (const std::int64_t length : one.lengths) {
    options.progress(fmt::format("{}: {} tokens", one.model.name, length));
    auto times = run_in_turn(*runs, {.length = length, .count = 1, .output_len = kDecodeSteps + 1});
    if (!times) return tl::unexpected(times.error());
    const auto after = measure_ceilings();
    if (!after) return tl::unexpected(after.error());
    points.push_back(
        {.length = length, .times = *std::move(times), .before = *ceilings, .after = *after});
    ceilings = after;
  }
  Ceilings best = points.front().before;
  for (const Point& point : points) best = better_of(best, point.after);

  Table prefill{.columns = {{"prompt"}, {"one device of two cores"}, {"`tp` 2"}, {"FMA allows"}},
                .rows = {}};
  Table decode{.columns = {{"depth"},
                           {"one device of two cores"},
                           {"`tp` 2"},
                           {"memory allows"},
                           {"read before, after, GB/s"}},
               .rows = {}};
  for (const auto& [length, times, before, after] : points) {
    const auto tokens = static_cast<double>(length);
    const double prefill_bound =
        tokens * best.all_cores.flops_per_s / prefill_flops(one.model, length);
    const std::int64_t depth = length == 1 ? 0 : length;
    const double read = better_of(before, after).all_cores.bytes_per_s;
    const double decode_bound = read / decode_bytes(one.model, depth);
    if (depth > 0) {
      prefill.rows.push_back(
          {{std::to_string(length), with_share(rate_of(tokens, times[0].prefill), prefill_bound),
            with_share(rate_of(tokens, times[1].prefill), prefill_bound),
            fmt::format("{:.4g}", prefill_bound)}});
    }
    decode.rows.push_back(
        {{std::to_string(depth), with_share(rate_of(1, times[0].decode_step), decode_bound),
          with_share(rate_of(1, times[1].decode_step), decode_bound),
          fmt::format("{:.4g}", decode_bound),
          fmt::format("{:.1f}, {:.1f}", before.all_cores.bytes_per_s * 1e-9,
                      after.all_cores.bytes_per_s * 1e-9)}});
  }
  return fmt::format(
      "#### {}\n\nf16 weights and KV cache, random weights. {}\n\nPrefill, tokens/s: median "
      "(slowest"
      "..fastest run), share of what the multiply-adds allow.\n\n{}\nDecode, tokens/s: median, "
      "share of what reading the weights and the cache once allows at the faster of the rates that "
      "both cores read before and after.\n\n{}\n",
      one.title, to_string(best), render_markdown(prefill), render_markdown(decode));
}

}  // namespace

Result<std::string> small_model_section(const SectionOptions& options) {
  return measure_case({.title = std::string(kSmallTitle),
                       .model = small_model(),
                       .lengths = {1, 512, 2048, 8192, 16384}},
                      options);
}

Result<std::string> notes_model_section(const SectionOptions& options) {
  return measure_case(
      {.title = std::string(kNotesTitle), .model = notes_model(), .lengths = {1, 512, 2048}},
      options);
}

}  // namespace weir::bench
