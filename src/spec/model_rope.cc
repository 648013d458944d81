#include "spec/model_rope.h"

#include <array>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace weir {
namespace {

using nlohmann::json;

constexpr NumberLimits kFactor{.min = 1, .max = 1e6};
constexpr NumberLimits kPositive{.min = 1e-9, .max = 1e9};
// Logarithms of it are divided by, so 1 is too short.
constexpr IntegerLimits kOriginalMax{.min = 2, .max = kMaxModelPosition};

// Phi-3's class has the attribute, so a config that leaves it out still has this length.
constexpr std::int64_t kPhi3OriginalMax = 4096;

// Every key that some rope type has. A key of another type is idle, as it is in transformers.
constexpr std::array<std::string_view, 17> kRopeKeys{
    "rope_theta",      "rope_type",        "type",
    "factor",          "attention_factor", "partial_rotary_factor",
    "beta_fast",       "beta_slow",        "original_max_position_embeddings",
    "mscale",          "mscale_all_dim",   "truncate",
    "low_freq_factor", "high_freq_factor", "short_factor",
    "long_factor",     "finetuned",  // Written by the authors of YaRN; read by nobody.
};

// What the scalings need to know besides their own object.
struct RopeContext {
  const ModelSpec& model;
  std::int64_t rotary_dim = 0;
  std::int64_t original_max = 0;
};

// Scale of cos and sin that YaRN recommends, arXiv:2309.00071 section 3.4.
double yarn_scale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

YarnRope read_yarn(ObjectReader& rope, const RopeContext& context) {
  const double stretch =
      static_cast<double>(context.model.max_position) / static_cast<double>(context.original_max);
  YarnRope yarn{.factor = rope.optional_number("factor", kFactor).value_or(stretch),
                .beta_fast = rope.optional_number("beta_fast", kPositive).value_or(32),
                .beta_slow = rope.optional_number("beta_slow", kPositive).value_or(1),
                .original_max_position = context.original_max,
                .truncate = rope.optional_boolean("truncate").value_or(true)};
  const auto mscale = rope.optional_number("mscale", {.min = 0, .max = 1e3});
  const auto mscale_all_dim = rope.optional_number("mscale_all_dim", {.min = 0, .max = 1e3});
  const bool both = mscale.value_or(0) != 0 && mscale_all_dim.value_or(0) != 0;
  const double recommended =
      both ? yarn_scale(yarn.factor, *mscale) / yarn_scale(yarn.factor, *mscale_all_dim)
           : yarn_scale(yarn.factor, 1);
  yarn.attention_factor = rope.optional_number("attention_factor", kPositive).value_or(recommended);
  return yarn;
}

Llama3Rope read_llama3(ObjectReader& rope, const RopeContext& context) {
  const Llama3Rope llama3{.factor = rope.number("factor", kFactor),
                          .low_freq_factor = rope.number("low_freq_factor", kPositive),
                          .high_freq_factor = rope.number("high_freq_factor", kPositive),
                          .original_max_position = context.original_max};
  if (!(llama3.high_freq_factor > llama3.low_freq_factor)) {
    rope.problem("high_freq_factor", fmt::format("found {}, allowed more than low_freq_factor ({})",
                                                 llama3.high_freq_factor, llama3.low_freq_factor));
  }
  return llama3;
}

std::vector<double> read_pair_factors(ObjectReader& rope, std::string_view key,
                                      const RopeContext& context) {
  std::vector<double> factors = rope.numbers(key, kPositive);
  if (std::cmp_not_equal(factors.size(), context.rotary_dim / 2)) {
    rope.problem(key, fmt::format("found {} numbers, allowed one per rotary pair ({})",
                                  factors.size(), context.rotary_dim / 2));
  }
  return factors;
}

LongRope read_longrope(ObjectReader& rope, const RopeContext& context) {
  LongRope longrope{.short_factor = read_pair_factors(rope, "short_factor", context),
                    .long_factor = read_pair_factors(rope, "long_factor", context),
                    .original_max_position = context.original_max};
  const auto original = static_cast<double>(context.original_max);
  const double factor = rope.optional_number("factor", kPositive)
                            .value_or(static_cast<double>(context.model.max_position) / original);
  // arXiv:2402.13753; the formula is that of Phi-3's published code.
  const double recommended =
      factor <= 1 ? 1.0 : std::sqrt(1 + std::log(factor) / std::log(original));
  longrope.attention_factor =
      rope.optional_number("attention_factor", kPositive).value_or(recommended);
  return longrope;
}

// Phi-3 has only the long one, and published it under two earlier names.
std::string_view canonical_type(std::string_view type, Architecture architecture) {
  if (architecture == Architecture::phi3 && (type == "su" || type == "yarn")) return "longrope";
  return type;
}

void read_scaling(ObjectReader& rope, const RopeContext& context, RopeSpec& spec) {
  const auto written = rope.optional_string("rope_type");
  const auto classic = rope.optional_string("type");
  const Architecture architecture = context.model.architecture;
  std::string_view name = "default";
  if (classic) name = *classic;
  if (written) name = *written;
  const std::string_view type = canonical_type(name, architecture);
  const bool any = architecture != Architecture::phi3;
  if (type == "default") return;
  if (type == "longrope") {
    spec.scaling = read_longrope(rope, context);
  } else if (any && type == "linear") {
    spec.scaling = LinearRope{.factor = rope.number("factor", kFactor)};
  } else if (any && type == "dynamic") {
    spec.scaling = DynamicRope{.factor = rope.number("factor", kFactor),
                               .original_max_position = context.model.max_position};
    if (spec.rotary_dim == 2) {
      rope.problem("rope_type",
                   "found \"dynamic\", allowed only with more than 2 rotary dimensions");
    }
  } else if (any && type == "llama3") {
    spec.scaling = read_llama3(rope, context);
  } else if (any && type == "yarn") {
    spec.scaling = read_yarn(rope, context);
  } else {
    rope.problem("rope_type", fmt::format("found {}, allowed one of: {}", shown(json(type)),
                                          any ? "default, linear, dynamic, llama3, yarn, longrope"
                                              : "default, longrope"));
  }
}

// rope_parameters and rope_scaling are two spellings of one object. Which one is there, "" if none.
std::string_view rope_key(ObjectReader& config) {
  const bool current = config.has("rope_parameters");
  const bool classic = config.has("rope_scaling");
  if (current && classic && config.raw("rope_parameters") != config.raw("rope_scaling")) {
    config.problem("rope_scaling", "found beside a different rope_parameters, allowed one of them");
  }
  return classic ? "rope_scaling" : current ? "rope_parameters" : "";
}

std::int64_t read_rotary_dim(ObjectReader& config, double partial, const ModelSpec& model) {
  const auto rotary_dim = static_cast<std::int64_t>(static_cast<double>(model.head_dim) * partial);
  const bool may_be_partial =
      model.architecture == Architecture::phi3 || model.architecture == Architecture::dense;
  if (partial != 1 && !may_be_partial) {
    config.problem("partial_rotary_factor", fmt::format("found {}, allowed 1 for {}", partial,
                                                        to_string(model.architecture)));
  } else if (rotary_dim < 2 || rotary_dim % 2 != 0) {
    config.problem(
        "partial_rotary_factor",
        fmt::format("found {} of a head_dim of {}, allowed what leaves an even number of "
                    "rotary dimensions, at least 2",
                    partial, model.head_dim));
  }
  return rotary_dim;
}

}  // namespace

RopeSpec read_rope(ObjectReader& config, const ModelSpec& model) {
  const std::string_view key = rope_key(config);
  const json none = json::object();
  config.ignore("rope_parameters");
  config.ignore("rope_scaling");
  std::vector<std::string> unused;
  ObjectReader rope = key.empty() ? ObjectReader(none, "", unused) : config.object(key);

  // The inner spelling of theta and of the rotary share wins over the outer one.
  const NumberLimits theta{.min = 1.001, .max = 1e15};
  const auto outer_theta = config.optional_number("rope_theta", theta);
  const auto inner_theta = rope.optional_number("rope_theta", theta);
  const NumberLimits share{.min = 0, .max = 1};
  const auto outer_share = config.optional_number("partial_rotary_factor", share);
  const auto inner_share = rope.optional_number("partial_rotary_factor", share);
  const double partial = inner_share.value_or(outer_share.value_or(1));

  // Here the outer spelling wins, as it does in transformers.
  const auto outer_max = config.optional_integer("original_max_position_embeddings", kOriginalMax);
  const auto inner_max = rope.optional_integer("original_max_position_embeddings", kOriginalMax);
  const std::int64_t original_max =
      model.architecture == Architecture::phi3
          ? outer_max.value_or(kPhi3OriginalMax)
          : outer_max.value_or(inner_max.value_or(std::max<std::int64_t>(2, model.max_position)));

  RopeSpec spec{.theta = inner_theta.value_or(outer_theta.value_or(10000)),
                .rotary_dim = read_rotary_dim(config, partial, model),
                .scaling = {}};
  read_scaling(rope, {.model = model, .rotary_dim = spec.rotary_dim, .original_max = original_max},
               spec);
  for (const std::string_view known : kRopeKeys) rope.ignore(known);
  rope.refuse_unknown_keys();
  return spec;
}

}  // namespace weir
