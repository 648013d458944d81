// The closed formulas of docs/strategies.md, against the bytes that plans really move.

#include <algorithm>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include "strategy/pool_policy.h"
#include "tests/strategies/planned_step.h"

namespace weir {
namespace {

// No two dimensions alike, heads in groups of two.
ModelSpec model_with_distinct_dimensions() {
  return {.name = "distinct",
          .num_layers = 3,
          .hidden_size = 96,
          .intermediate_size = 200,
          .vocab_size = 301,
          .num_q_heads = 8,
          .num_kv_heads = 4,
          .head_dim = 16,
          .max_position = 65536,
          .rope = {.rotary_dim = 16}};
}

std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// Prefill from nothing, a chunk across the threshold, chunks while a pool grows, decode below and
// above it, and batches of all of these.
std::vector<StepShape> steps() {
  const RequestShape short_prefill = {.past_len = 0, .q_len = 700, .max_len = 40000};
  const RequestShape long_prefill = {.past_len = 0, .q_len = 9001, .max_len = 40000};
  const RequestShape across = {.past_len = 3000, .q_len = 2500, .max_len = 40000};
  const RequestShape growing = {.past_len = 8192, .q_len = 5000, .max_len = 40000};
  const RequestShape short_decode = {.past_len = 2000, .q_len = 1, .max_len = 40000};
  const RequestShape long_decode = {.past_len = 9001, .q_len = 1, .max_len = 40000};
  const RequestShape first_above = {.past_len = 4096, .q_len = 1, .max_len = 40000};
  const RequestShape at_threshold = {.past_len = 4095, .q_len = 1, .max_len = 40000};
  const RequestShape idle = {.past_len = 50, .q_len = 0, .max_len = 40000};
  return {{short_prefill},
          {long_prefill},
          {across},
          {growing},
          {short_decode},
          {long_decode},
          {first_above},
          {at_threshold},
          {long_decode, short_decode, growing, across},
          {short_prefill, idle, long_decode, first_above, at_threshold}};
}

// The symbols of the document: element sizes, and the totals of a step.
struct Symbols {
  ModelSpec model = model_with_distinct_dimensions();
  std::int64_t H = model.hidden_size;
  std::int64_t N = model.num_q_heads;
  std::int64_t G = model.num_kv_heads;
  std::int64_t D = model.head_dim;
  std::int64_t V = model.vocab_size;
  std::int64_t L = model.num_layers;
  std::int64_t a = 4;    // Bytes of an activation,
  std::int64_t e = 4;    // of an element of the KV cache,
  std::int64_t lse = 4;  // and of a log-sum-exp.
  std::int64_t R = 0;    // Requests with new tokens.
  std::int64_t T = 0;    // New tokens.
  std::int64_t W = 0;    // Tokens whose logits are wanted.
};

Symbols symbols_of(const StepSetup& setup) {
  Symbols s;
  s.a = size_in_bytes(setup.activation_dtype);
  s.e = size_in_bytes(setup.kv_dtype);
  for (const RequestShape& request : setup.step) {
    s.T += request.q_len;
    s.R += request.q_len > 0 ? 1 : 0;
  }
  s.W = setup.logits == LogitsWanted::all ? s.T : s.R;
  return s;
}

// What every strategy has that is tensor parallel around its attention.
StepBytes tensor_parallel_bytes(const Symbols& s, std::int64_t tp, std::int64_t boundaries) {
  StepBytes bytes;
  bytes.embedding = 2 * (tp - 1) * s.T * s.H * s.a;
  bytes.layers.assign(static_cast<std::size_t>(s.L), {});
  for (LayerBytes& layer : bytes.layers) layer.branches = 4 * (tp - 1) * s.T * s.H * s.a;
  bytes.stages = boundaries * tp * s.T * s.H * s.a;
  bytes.logits = s.W * (s.V - ceil_div(s.V, tp)) * s.a;
  return bytes;
}

// First of the even parts of `count` that rank i of n has.
std::int64_t part_begin(std::int64_t count, std::int64_t i, std::int64_t n) {
  return i * (count / n) + std::min(i, count % n);
}

std::int64_t heads_of_rank(const Symbols& s, std::int64_t i, std::int64_t n) {
  return part_begin(s.N, i + 1, n) - part_begin(s.N, i, n);
}

// K and V heads that rank i of n needs for its query heads.
std::int64_t kv_heads_of_rank(const Symbols& s, std::int64_t i, std::int64_t n) {
  const std::int64_t group = s.N / s.G;
  return ceil_div(part_begin(s.N, i + 1, n), group) - part_begin(s.N, i, n) / group;
}

// Over all ranks together: G where n divides G.
std::int64_t kv_heads_held(const Symbols& s, std::int64_t n) {
  std::int64_t heads = 0;
  for (std::int64_t i = 0; i < n; ++i) heads += kv_heads_of_rank(s, i, n);
  return heads;
}

// Every step in every combination of dtypes.
void expect_bytes(const std::string& strategy, const OptionValues& options, const auto& formula) {
  using enum DType;
  for (const auto& [activations, kv] : {std::pair{f32, f32}, {f32, bf16}, {bf16, bf16}}) {
    for (const StepShape& step : steps()) {
      const StepSetup setup = {.model = model_with_distinct_dimensions(),
                               .strategy = strategy,
                               .options = options,
                               .step = step,
                               .activation_dtype = activations,
                               .kv_dtype = kv};
      const auto plan = planned(setup);
      ASSERT_TRUE(plan);
      EXPECT_EQ(bytes_by_kind(*plan), formula(setup, symbols_of(setup)))
          << fmt::format("{} {}", strategy, fmt::join(options, " ")) << ", first request past "
          << step.front().past_len << " q " << step.front().q_len << ", " << step.size()
          << " requests, " << to_string(activations) << "/" << to_string(kv);
    }
  }
}

std::string text(std::int64_t number) { return std::to_string(number); }

TEST(BytesSent, SingleSendsNothing) {
  expect_bytes("single", {}, [](const StepSetup& /*setup*/, const Symbols& s) {
    StepBytes nothing;
    nothing.layers.resize(static_cast<std::size_t>(s.L));
    return nothing;
  });
}

TEST(BytesSent, TensorParallelAllReducesTheEmbeddingAndTwoBranchesPerLayer) {
  for (const auto& [tp, pp, microbatches] :
       {std::tuple{2, 1, 1}, {3, 1, 2}, {4, 2, 1}, {8, 3, 4}, {1, 3, 2}}) {
    expect_bytes("tp_pp",
                 {{"tp", text(tp)}, {"pp", text(pp)}, {"microbatches", text(microbatches)}},
                 [tp = tp, pp = pp](const StepSetup& /*setup*/, const Symbols& s) {
                   return tensor_parallel_bytes(s, tp, pp - 1);
                 });
  }
}

// A sum and what follows it cost as much in two halves; the embedding needs only one of them, and
// stages hand on every row once.
TEST(BytesSent, SequenceParallelSendsEmbeddingAndStagesLess) {
  constexpr std::int64_t kFrom = 500;
  for (const auto& [tp, pp, microbatches] :
       {std::tuple{2, 1, 1}, {3, 1, 2}, {4, 2, 1}, {8, 3, 4}, {1, 3, 2}}) {
    expect_bytes("tp_pp",
                 {{"tp", text(tp)},
                  {"pp", text(pp)},
                  {"microbatches", text(microbatches)},
                  {"sequence_parallel", text(kFrom)}},
                 [tp = tp, pp = pp](const StepSetup& /*setup*/, const Symbols& s) {
                   StepBytes bytes = tensor_parallel_bytes(s, tp, pp - 1);
                   if (s.T < kFrom * s.R) return bytes;
                   bytes.embedding /= 2;
                   bytes.stages = (pp - 1) * s.T * s.H * s.a;
                   bytes.logits += s.W * (tp - 1) * s.H * s.a;
                   return bytes;
                 });
  }
}

// K and V are of all tokens; what follows them, in the last layer of a step that wants the last
// logits, is of one row a request.
TEST(BytesSent, TheLastLayerGoesOnWithTheLastRows) {
  const std::vector<std::pair<std::string, OptionValues>> strategies = {
      {"tp_pp", {{"tp", "4"}, {"pp", "3"}}},
      {"tp_pp", {{"tp", "4"}, {"sequence_parallel", "500"}}},
      {"attention_pool", {{"tp", "2"}, {"pool", "3"}, {"split", "query_blocks"}}},
      {"attention_pool", {{"tp", "2"}, {"pool", "3"}, {"split", "kv_blocks"}}},
      {"two_level", {{"head_groups", "2"}, {"dim_slices", "2"}}},
      {"context_parallel", {{"cp", "3"}, {"exchange", "ring"}}},
      {"context_parallel", {{"cp", "3"}, {"exchange", "all_to_all"}}}};
  for (const auto& [strategy, options] : strategies) {
    StepSetup setup = {.model = model_with_distinct_dimensions(),
                       .strategy = strategy,
                       .options = options,
                       .step = {{.past_len = 3000, .q_len = 2500, .max_len = 40000},
                                {.past_len = 0, .q_len = 700, .max_len = 40000}}};
    const std::string where = fmt::format("{} {}", strategy, fmt::join(options, " "));
    const auto of_all = planned(setup);
    setup.logits = LogitsWanted::last;
    const auto of_last = planned(setup);
    ASSERT_TRUE(of_all && of_last);
    StepBytes all = bytes_by_kind(*of_all);
    StepBytes last = bytes_by_kind(*of_last);
    const LayerBytes whole = all.layers.back();
    const LayerBytes cut = last.layers.back();
    EXPECT_EQ(cut.kv, whole.kv) << where;
    EXPECT_EQ(cut.kv_rounds, 0) << where;  // Queries go to where keys lie.
    const Symbols s = symbols_of(setup);
    const std::int64_t row = s.W * s.H * s.a;  // On each device, twice; scores: of all positions.
    constexpr std::int64_t kDevices = 8;
    EXPECT_LE(cut.q, kDevices * s.W * s.N * s.D * s.a) << where;
    EXPECT_LE(cut.attention, kDevices * s.W * s.N * (s.D * s.a + s.lse)) << where;
    // A residual that is cut by tokens is still gathered for K and V.
    const std::int64_t gathered =
        options.contains("sequence_parallel") ? 3 * s.T * s.H * s.a : std::int64_t{0};
    EXPECT_LE(cut.branches, gathered + 4 * kDevices * row) << where;
    if (strategy == "tp_pp") {
      EXPECT_EQ(cut.branches, gathered + 4 * 3 * row) << where;
    }
    all.layers.pop_back();
    last.layers.pop_back();
    EXPECT_EQ(last.layers, all.layers) << where;
    EXPECT_EQ(last.embedding, all.embedding) << where;
    EXPECT_EQ(last.stages, all.stages) << where;
  }
}

struct PoolCase {
  std::int64_t tp;
  std::int64_t pp;
  std::int64_t pool;
  PoolPolicy policy;
};

OptionValues options_of(const PoolCase& c, const std::string& split) {
  return {{"tp", text(c.tp)},
          {"pp", text(c.pp)},
          {"pool", text(c.pool)},
          {"pool_policy", std::string(kPoolPolicies[static_cast<std::size_t>(c.policy)])},
          {"split", split}};
}

PoolSizing sizing_of(const PoolCase& c) {
  return {.policy = c.policy, .threshold = 4096, .p_max = c.pool};
}

constexpr PoolCase kPoolCases[] = {
    {1, 1, 4, PoolPolicy::fixed},       {2, 1, 3, PoolPolicy::fixed},
    {1, 1, 1, PoolPolicy::fixed},       {3, 1, 5, PoolPolicy::fixed},
    {4, 3, 6, PoolPolicy::fixed},       {8, 1, 8, PoolPolicy::fixed},
    {2, 1, 12, PoolPolicy::linear},     {4, 2, 32, PoolPolicy::linear},
    {2, 1, 32, PoolPolicy::assignment}, {2, 1, 32, PoolPolicy::results}};

// q out, outputs back, new K and V to each of p devices, earlier ones to those that have joined.
StepBytes query_split_bytes(const StepSetup& setup, const Symbols& s, const PoolCase& c) {
  StepBytes bytes = tensor_parallel_bytes(s, c.tp, c.pp - 1);
  for (const RequestShape& request : setup.step) {
    const std::int64_t q = request.q_len;
    const std::int64_t p = pool_size(sizing_of(c), request.past_len + q);
    const std::int64_t joined = p - pool_size(sizing_of(c), request.past_len);
    if (p == 0) continue;
    for (LayerBytes& layer : bytes.layers) {
      layer.q += q * s.N * s.D * s.a;
      layer.attention += q * s.N * s.D * s.a;
      layer.kv += p * 2 * q * s.G * s.D * s.a + joined * 2 * request.past_len * s.G * s.D * s.e;
    }
  }
  return bytes;
}

TEST(BytesSent, PoolByQueriesSendsNewKeysAndValuesToEveryPoolDevice) {
  for (const PoolCase& c : kPoolCases) {
    for (const char* split : {"query_blocks", "balanced_query_blocks"}) {
      expect_bytes("attention_pool", options_of(c, split),
                   [&c](const StepSetup& setup, const Symbols& s) {
                     return query_split_bytes(setup, s, c);
                   });
    }
  }
}

TEST(BytesSent, PoolByHeadsSendsEveryPoolDeviceItsHeads) {
  for (const PoolCase& c : kPoolCases) {
    // A pool that grows under a request cuts its heads anew; see the document.
    if (c.policy != PoolPolicy::fixed) continue;
    expect_bytes("attention_pool", options_of(c, "heads"),
                 [&c](const StepSetup& setup, const Symbols& s) {
                   StepBytes bytes = tensor_parallel_bytes(s, c.tp, c.pp - 1);
                   for (const RequestShape& request : setup.step) {
                     const std::int64_t q = request.q_len;
                     const std::int64_t past = request.past_len;
                     if (past + q <= 4096) continue;
                     const std::int64_t kv_heads = kv_heads_held(s, std::min(c.pool, s.N));
                     for (LayerBytes& layer : bytes.layers) {
                       layer.q += q * s.N * s.D * s.a;
                       layer.attention += q * s.N * s.D * s.a;
                       layer.kv += 2 * q * kv_heads * s.D * s.a;
                       if (past <= 4096) layer.kv += 2 * past * kv_heads * s.D * s.e;
                     }
                   }
                   return bytes;
                 });
  }
}

// Pool devices that have blocks of a sequence of `length` positions.
std::int64_t owners(const PoolSizing& sizing, std::int64_t kv_block, std::int64_t length) {
  std::vector<std::int64_t> found;
  for (std::int64_t j = 0; crest(sizing) + j * kv_block < length; ++j) {
    found.push_back(j % pool_size(sizing, crest(sizing) + j * kv_block + 1));
  }
  std::ranges::sort(found);
  return std::unique(found.begin(), found.end()) - found.begin();
}

StepBytes kv_blocks_bytes(const StepSetup& setup, const Symbols& s, const PoolCase& c,
                          std::int64_t kv_block) {
  StepBytes bytes = tensor_parallel_bytes(s, c.tp, c.pp - 1);
  for (const RequestShape& request : setup.step) {
    const std::int64_t q = request.q_len;
    const std::int64_t kv = request.past_len + q;
    const std::int64_t first = crest(sizing_of(c));
    if (kv <= first) continue;
    const std::int64_t u = owners(sizing_of(c), kv_block, kv);
    const std::int64_t spilled = kv - std::max(request.past_len, first);
    for (LayerBytes& layer : bytes.layers) {
      layer.q += u * q * s.N * s.D * s.a;
      layer.attention += u * q * s.N * (s.D * s.a + s.lse);
      layer.kv += 2 * spilled * s.G * s.D * s.a;
    }
  }
  return bytes;
}

TEST(BytesSent, PoolByKeysSendsEachKeyOnceAndPartialOutputsInEitherReduction) {
  for (const PoolCase& c : kPoolCases) {
    for (const char* reduction : {"flat", "hierarchical"}) {
      for (const std::int64_t kv_block : {1024, 300}) {
        OptionValues options = options_of(c, "kv_blocks");
        options["reduction"] = reduction;
        options["kv_block"] = text(kv_block);
        expect_bytes("attention_pool", options, [&](const StepSetup& setup, const Symbols& s) {
          return kv_blocks_bytes(setup, s, c, kv_block);
        });
      }
    }
  }
}

TEST(BytesSent, MicrobatchesMoveTheSameBytesInMorePieces) {
  const PoolCase c = {2, 2, 4, PoolPolicy::fixed};
  for (const char* split : {"query_blocks", "kv_blocks"}) {
    OptionValues options = options_of(c, split);
    options["microbatches"] = "2";
    expect_bytes("attention_pool", options, [&](const StepSetup& setup, const Symbols& s) {
      return std::string(split) == "kv_blocks" ? kv_blocks_bytes(setup, s, c, 1024)
                                               : query_split_bytes(setup, s, c);
    });
  }
}

TEST(BytesSent, TwoLevelGathersQueriesAndKeysWithinAGroupOfSlices) {
  for (const auto& [n, m, pp] :
       {std::tuple{2, 2, 1}, {4, 4, 1}, {1, 8, 1}, {3, 2, 1}, {8, 1, 2}, {8, 4, 3}}) {
    expect_bytes("two_level", {{"head_groups", text(n)}, {"dim_slices", text(m)}, {"pp", text(pp)}},
                 [n = n, m = m, pp = pp](const StepSetup& /*setup*/, const Symbols& s) {
                   StepBytes bytes = tensor_parallel_bytes(s, n * m, pp - 1);
                   for (LayerBytes& layer : bytes.layers) {
                     layer.q = (m - 1) * s.T * s.N * s.D * s.a;
                     layer.kv = (m - 1) * s.T * kv_heads_held(s, n) * s.D * s.a;
                   }
                   return bytes;
                 });
  }
}

TEST(BytesSent, TwoLevelAllReducesScoresOfEveryQueryAndKey) {
  for (const auto& [n, m, key_blocks] :
       {std::tuple{2, 2, 1}, {4, 4, 1}, {4, 4, 3}, {1, 8, 7}, {3, 2, 1}, {8, 1, 2}}) {
    expect_bytes("two_level",
                 {{"head_groups", text(n)},
                  {"dim_slices", text(m)},
                  {"scores", "reduce_scores"},
                  {"key_blocks", text(key_blocks)}},
                 [n = n, m = m](const StepSetup& setup, const Symbols& s) {
                   StepBytes bytes = tensor_parallel_bytes(s, n * m, 0);
                   for (LayerBytes& layer : bytes.layers) {
                     for (const RequestShape& r : setup.step)
                       layer.scores += 2 * (m - 1) * r.q_len * s.N * (r.past_len + r.q_len) * s.a;
                   }
                   return bytes;
                 });
  }
}

TEST(BytesSent, GatheringQueriesAndKeysIsCheaperFromHeadDimKeysOn) {
  StepSetup setup = {.model = model_with_distinct_dimensions(),
                     .strategy = "two_level",
                     .options = {{"head_groups", "2"}, {"dim_slices", "4"}},
                     .step = {}};
  setup.model.num_kv_heads = setup.model.num_q_heads;
  const auto bytes_at = [&](std::int64_t kv_len, const char* scores) {
    setup.step = {{.past_len = kv_len - 1, .q_len = 1, .max_len = kv_len}};
    setup.options["scores"] = scores;
    const auto plan = planned(setup);
    if (!plan) return std::int64_t{-1};
    const LayerBytes layer = bytes_by_kind(*plan).layers.front();
    return layer.q + layer.kv + layer.scores;
  };
  const std::int64_t head_dim = setup.model.head_dim;
  EXPECT_EQ(bytes_at(head_dim, "reduce_scores"), bytes_at(head_dim, "gather_qk"));
  EXPECT_LT(bytes_at(head_dim - 1, "reduce_scores"), bytes_at(head_dim - 1, "gather_qk"));
  EXPECT_GT(bytes_at(head_dim + 1, "reduce_scores"), bytes_at(head_dim + 1, "gather_qk"));
}

TEST(BytesSent, CacheFitSendsTheResidualWherePartitionsMeet) {
  // One layer per partition: the capacity is that of one layer, weights and all, of one device.
  for (const auto& [devices, tp, boundaries] :
       {std::tuple{1, 1, 0}, {2, 1, 2}, {3, 1, 2}, {8, 1, 2}, {4, 2, 2}, {2, 2, 0}, {6, 3, 2}}) {
    const std::int64_t bytes_of_a_layer =
        ceil_div(count_parameters(model_with_distinct_dimensions()).per_layer(), tp) * 4;
    expect_bytes("cache_fit",
                 {{"devices", text(devices)},
                  {"tp", text(tp)},
                  {"capacity_kib", text(bytes_of_a_layer * 3 / 2 / 1024)}},
                 [tp = tp, boundaries = boundaries](const StepSetup& /*setup*/, const Symbols& s) {
                   return tensor_parallel_bytes(s, tp, boundaries);
                 });
  }
}

struct ContextCase {
  std::int64_t cp;
  std::int64_t pp;
  const char* blocks;
};
constexpr ContextCase kContextCases[] = {{2, 1, "contiguous"}, {3, 1, "contiguous"},
                                         {4, 2, "balanced"},   {8, 1, "balanced"},
                                         {5, 3, "balanced"},   {1, 2, "balanced"}};

OptionValues options_of(const ContextCase& c, const char* exchange) {
  return {{"cp", text(c.cp)},
          {"pp", text(c.pp)},
          {"blocks", c.blocks},
          {"exchange", exchange},
          {"kv_block", "256"}};
}

// Tokens are nowhere replicated: nothing is summed, and stages hand on every row once.
StepBytes context_parallel_bytes(const Symbols& s, const ContextCase& c) {
  StepBytes bytes;
  bytes.layers.resize(static_cast<std::size_t>(s.L));
  bytes.stages = (c.pp - 1) * s.T * s.H * s.a;
  bytes.logits = s.W * ((c.cp - 1) * s.H + s.V - ceil_div(s.V, c.cp)) * s.a;
  return bytes;
}

// The rank that has new token t of q.
std::int64_t rank_of_token(const ContextCase& c, std::int64_t t, std::int64_t q) {
  const bool balanced = std::string(c.blocks) == "balanced";
  const std::int64_t parts = balanced ? 2 * c.cp : c.cp;
  const std::int64_t block = t / ceil_div(q, parts);
  return block < c.cp ? block : parts - 1 - block;
}

TEST(BytesSent, ContextParallelAllGatherSendsNewKeysAndValuesToTheOthers) {
  for (const ContextCase& c : kContextCases) {
    expect_bytes("context_parallel", options_of(c, "all_gather"),
                 [&c](const StepSetup& /*setup*/, const Symbols& s) {
                   StepBytes bytes = context_parallel_bytes(s, c);
                   for (LayerBytes& layer : bytes.layers)
                     layer.kv = (c.cp - 1) * 2 * s.T * s.G * s.D * s.a;
                   return bytes;
                 });
  }
}

TEST(BytesSent, ContextParallelAllToAllSwapsTokensForHeads) {
  for (const ContextCase& c : kContextCases) {
    expect_bytes("context_parallel", options_of(c, "all_to_all"),
                 [&c](const StepSetup& setup, const Symbols& s) {
                   StepBytes bytes = context_parallel_bytes(s, c);
                   for (const RequestShape& request : setup.step) {
                     for (std::int64_t rank = 0; rank < c.cp; ++rank) {
                       std::int64_t foreign = 0;  // New tokens that other ranks have.
                       for (std::int64_t t = 0; t < request.q_len; ++t)
                         foreign += rank_of_token(c, t, request.q_len) != rank ? 1 : 0;
                       for (LayerBytes& layer : bytes.layers) {
                         layer.q += foreign * heads_of_rank(s, rank, c.cp) * s.D * s.a;
                         layer.kv += 2 * foreign * kv_heads_of_rank(s, rank, c.cp) * s.D * s.a;
                         layer.attention += foreign * heads_of_rank(s, rank, c.cp) * s.D * s.a;
                       }
                     }
                   }
                   return bytes;
                 });
  }
}

// Of steps with one new token a request the queries go to the keys.
TEST(BytesSent, ContextParallelRingSendsTheWholeCacheRoundInPrefills) {
  for (const ContextCase& c : kContextCases) {
    expect_bytes(
        "context_parallel", options_of(c, "ring"), [&c](const StepSetup& setup, const Symbols& s) {
          StepBytes bytes = context_parallel_bytes(s, c);
          const bool one_each = std::ranges::all_of(
              setup.step, [](const RequestShape& request) { return request.q_len <= 1; });
          if (one_each && c.cp > 1) {
            std::int64_t blocks = 1;
            for (const RequestShape& request : setup.step)
              blocks = std::max(blocks, ceil_div(request.past_len + request.q_len, 256));
            const std::int64_t others = std::min(c.cp, blocks) - 1;
            for (LayerBytes& layer : bytes.layers) {
              layer.q = others * s.T * s.N * s.D * s.a;
              layer.attention = others * s.T * s.N * (s.D * s.a + s.lse);
              for (const RequestShape& request : setup.step)
                layer.kv +=
                    request.past_len / 256 % c.cp == 0 ? 0 : 2 * request.q_len * s.G * s.D * s.a;
            }
            return bytes;
          }
          for (const RequestShape& request : setup.step) {
            std::int64_t foreign = 0;  // New tokens that lie in another rank's shard.
            for (std::int64_t t = 0; t < request.q_len; ++t)
              foreign +=
                  (request.past_len + t) / 256 % c.cp != rank_of_token(c, t, request.q_len) ? 1 : 0;
            const std::int64_t kv = request.past_len + request.q_len;
            for (LayerBytes& layer : bytes.layers) {
              layer.kv += 2 * foreign * s.G * s.D * s.a;
              layer.kv_rounds += (c.cp - 1) * 2 * kv * s.G * s.D * s.e;
            }
          }
          return bytes;
        });
  }
}

}  // namespace
}  // namespace weir
