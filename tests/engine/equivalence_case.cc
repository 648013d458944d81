#include "tests/engine/equivalence_case.h"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace weir {
namespace {

template <class T, std::size_t n>
T one_of(Random& random, const std::array<T, n>& values) {
  return values[static_cast<std::size_t>(random.integer(0, n - 1))];
}

bool coin(Random& random) { return random.integer(0, 1) == 1; }

RopeSpec draw_rope(Random& random, std::int64_t head_dim, bool partial) {
  RopeSpec rope;
  rope.theta = 10000;
  rope.rotary_dim = partial ? 2 * random.integer(1, head_dim / 2) : head_dim;
  switch (random.integer(0, 6)) {
    case 0:
      rope.scaling = LinearRope{.factor = 4};
      break;
    case 1:
      rope.scaling = DynamicRope{.factor = 2, .original_max_position = 16};
      break;
    case 2:
      rope.scaling = Llama3Rope{.original_max_position = 16};
      break;
    case 3:
      rope.scaling = YarnRope{.factor = 4, .attention_factor = 1.1, .original_max_position = 16};
      break;
    case 4: {
      const auto pairs = static_cast<std::size_t>(rope.rotary_dim / 2);
      rope.scaling = LongRope{.short_factor = std::vector<double>(pairs, 1.0),
                              .long_factor = std::vector<double>(pairs, 3.0),
                              .attention_factor = 1.2,
                              .original_max_position = 16};
      break;
    }
    default:
      break;
  }
  return rope;
}

// What each architecture may be; `dense` may be anything.
void draw_switches(Random& random, ModelSpec& model) {
  using enum Architecture;
  model.architecture =
      one_of(random, std::array{llama, mistral, qwen2, qwen3, phi3, dense, dense, dense});
  const bool any = model.architecture == dense;
  model.gated_ffn = !any || coin(random);
  model.qkv_bias = model.architecture == qwen2 || (any && coin(random));
  model.o_bias = any && coin(random);
  model.ffn_bias = any && coin(random);
  model.qk_norm = model.architecture == qwen3 || (any && coin(random));
  model.tied_embeddings = coin(random);
  model.activation =
      one_of(random, std::array{Activation::silu, Activation::gelu_erf, Activation::gelu_tanh});
  if (model.architecture != llama && coin(random)) model.sliding_window = random.integer(1, 40);
  model.rope = draw_rope(random, model.head_dim, any && coin(random));
}

ModelSpec draw_model(Random& random) {
  ModelSpec model;
  model.name = "case";
  model.num_layers = random.integer(1, 4);
  model.num_kv_heads = random.integer(1, 4);
  model.num_q_heads = model.num_kv_heads * random.integer(1, 3);
  model.head_dim = 2 * random.integer(1, 12);
  model.hidden_size = random.integer(8, 80);
  model.intermediate_size = random.integer(8, 100);
  model.vocab_size = random.integer(258, 300);
  model.max_position = 256;
  model.weight_dtype = one_of(random, std::array{DType::f32, DType::f32, DType::bf16, DType::f16});
  draw_switches(random, model);
  return model;
}

std::string draw_value(Random& random, const OptionSpec& spec) {
  if (!spec.choices.empty())
    return std::string(spec.choices[static_cast<std::size_t>(
        random.integer(0, static_cast<std::int64_t>(spec.choices.size()) - 1))]);
  // Degrees are small numbers; thresholds of lengths matter only below the lengths drawn here.
  const std::int64_t most = one_of(random, std::array<std::int64_t, 3>{3, 6, 48});
  return std::to_string(random.integer(spec.min, std::clamp(most, spec.min, spec.max)));
}

OptionValues draw_options(Random& random, const StrategyEntry& strategy) {
  OptionValues values;
  for (const OptionSpec& spec : strategy.options) {
    if (random.integer(0, 4) != 0) values[std::string(spec.name)] = draw_value(random, spec);
  }
  return values;
}

EquivalenceCase draw_model_and_batch(Random& random) {
  EquivalenceCase instance;
  instance.model = draw_model(random);
  instance.kv_dtype = one_of(random, std::array{DType::f32, DType::f32, DType::bf16});
  instance.prefill_chunk = random.integer(1, 64);
  instance.seed = random.next();
  for (std::int64_t i = random.integer(1, 5); i > 0; --i) {
    instance.requests.push_back(
        {.prompt_len = random.integer(1, 48), .new_tokens = random.integer(0, 5)});
  }
  instance.in_flight = random.integer(0, 1) == 0 ? 1 : random.integer(2, 4);
  return instance;
}

bool is_possible(const EquivalenceCase& instance) {
  const auto made =
      make_strategy(instance.strategy, instance.options, instance.model, kCaseDevices);
  return made && made->strategy->num_devices() <= kMostCaseDevices;
}

// Each makes a case smaller or simpler, or leaves it as it is.
std::vector<EquivalenceCase> simpler_cases(const EquivalenceCase& instance) {
  std::vector<EquivalenceCase> cases;
  const auto add = [&](auto change) {
    EquivalenceCase changed = instance;
    change(changed);
    if (changed != instance) cases.push_back(std::move(changed));
  };
  for (std::size_t i = 0; i < instance.requests.size(); ++i) {
    if (instance.requests.size() > 1)
      add([&](auto& c) { c.requests.erase(c.requests.begin() + static_cast<std::ptrdiff_t>(i)); });
    add([&](auto& c) {
      c.requests[i].prompt_len = std::max<std::int64_t>(1, c.requests[i].prompt_len / 2);
    });
    add([&](auto& c) {
      c.requests[i].prompt_len = std::max<std::int64_t>(1, c.requests[i].prompt_len - 1);
    });
    add([&](auto& c) {
      c.requests[i].new_tokens = std::max<std::int64_t>(0, c.requests[i].new_tokens - 1);
    });
  }
  add([](auto& c) { c.prefill_chunk = 64; });
  add([](auto& c) { c.in_flight = 1; });
  add([](auto& c) { c.kv_dtype = DType::f32; });
  for (const auto& option : instance.options) {
    const std::string& name = option.first;
    add([&](auto& c) { c.options.erase(name); });
    for (const int value : {1, 2}) add([&](auto& c) { c.options[name] = std::to_string(value); });
  }
  add([](auto& c) { c.model.num_layers = std::max<std::int64_t>(1, c.model.num_layers - 1); });
  add([](auto& c) { c.model.num_q_heads = c.model.num_kv_heads; });
  add([](auto& c) { c.model.num_q_heads /= c.model.num_kv_heads, c.model.num_kv_heads = 1; });
  add([](auto& c) { c.model.weight_dtype = DType::f32; });
  add([](auto& c) { c.model.sliding_window.reset(); });
  add([](auto& c) { c.model.rope.scaling = std::monostate{}; });
  add([](auto& c) { c.model.tied_embeddings = false; });
  add([](auto& c) { c.model.activation = Activation::silu; });
  add([](auto& c) {
    c.model.architecture = Architecture::llama;
    c.model.gated_ffn = true;
    c.model.qkv_bias = c.model.o_bias = c.model.ffn_bias = c.model.qk_norm = false;
    c.model.rope = {.rotary_dim = c.model.head_dim};
  });
  add([](auto& c) { c.model.hidden_size = 16; });
  add([](auto& c) { c.model.intermediate_size = 16; });
  add([](auto& c) { c.model.head_dim = 4, c.model.rope = {.rotary_dim = 4}; });
  return cases;
}

}  // namespace

std::optional<EquivalenceCase> draw_case(Random& random, std::string_view only) {
  constexpr int kMostModels = 50;
  constexpr int kMostOptions = 100;
  const auto known = strategies();
  EquivalenceCase instance;
  for (int attempt = 0; attempt < kMostModels * kMostOptions; ++attempt) {
    if (attempt % kMostOptions == 0) instance = draw_model_and_batch(random);
    const StrategyEntry& strategy = known[static_cast<std::size_t>(
        random.integer(0, static_cast<std::int64_t>(known.size()) - 1))];
    if (strategy.name == "single" || (!only.empty() && strategy.name != only)) continue;
    instance.strategy = strategy.name;
    instance.options = draw_options(random, strategy);
    if (is_possible(instance)) return instance;
  }
  return std::nullopt;
}

std::string to_string(const EquivalenceCase& instance) {
  const ModelSpec& m = instance.model;
  std::string requests;
  for (const RequestCase& request : instance.requests)
    requests += fmt::format(" {}+{}", request.prompt_len, request.new_tokens);
  return fmt::format(
      "{} {}, kv {}, prefill_chunk {}, in_flight {}, requests (prompt+new){}, seed {}\n"
      "  {} L{} H{} F{} V{} N{} G{} D{} {}{}{}{}{}{}{} window {} rotary_dim {} scaling {} {}",
      instance.strategy, fmt::join(instance.options, " "), to_string(instance.kv_dtype),
      instance.prefill_chunk, instance.in_flight, requests, instance.seed,
      to_string(m.architecture), m.num_layers, m.hidden_size, m.intermediate_size, m.vocab_size,
      m.num_q_heads, m.num_kv_heads, m.head_dim, to_string(m.activation),
      m.gated_ffn ? " gated_ffn" : "", m.qkv_bias ? " qkv_bias" : "", m.o_bias ? " o_bias" : "",
      m.ffn_bias ? " ffn_bias" : "", m.qk_norm ? " qk_norm" : "", m.tied_embeddings ? " tied" : "",
      m.sliding_window.value_or(0), m.rope.rotary_dim, m.rope.scaling.index(),
      to_string(m.weight_dtype));
}

EquivalenceCase shrink(EquivalenceCase failing,
                       const std::function<bool(const EquivalenceCase&)>& fails) {
  constexpr int kMostAttempts = 400;
  int attempts = 0;
  for (bool progress = true; progress && attempts < kMostAttempts;) {
    progress = false;
    for (EquivalenceCase& simpler : simpler_cases(failing)) {
      if (!is_possible(simpler) || ++attempts > kMostAttempts || !fails(simpler)) continue;
      failing = std::move(simpler);
      progress = true;
      break;
    }
  }
  return failing;
}

}  // namespace weir
