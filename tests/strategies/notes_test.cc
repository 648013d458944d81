// The configurations of the source notes as plans: complete, with a device on every node and a
// shape on every edge; and the notes' "dimension analysis" beside what the plans hold. Batches of 8
// stand for the notes' 1024 and 128: shapes name the requests, and nothing else depends on them.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/json.h"
#include "checkpoint/preset.h"
#include "plan/shape_text.h"
#include "tests/strategies/planned_step.h"

namespace weir {
namespace {

constexpr std::int64_t kBatch = 8;

struct Configuration {
  std::string name;
  std::string preset;
  std::string strategy;
  OptionValues options;
  std::int64_t seq_len;
  std::int64_t devices;                 // Those that the note counts.
  std::set<OpKind> communication = {};  // Kinds that the plan has, and no others.
};

OptionValues pool_options(const char* split) {
  return {{"tp", "8"}, {"pool", "32"}, {"pool_policy", "linear"}, {"split", split}};
}

std::vector<Configuration> configurations() {
  using enum OpKind;
  const std::set<OpKind> stages = {all_reduce, copy, gather};
  const std::set<OpKind> no_pool = {all_reduce, gather};
  const std::set<OpKind> pool = {all_reduce, copy, kv_copy, gather};
  const auto by_queries = pool_options("query_blocks");
  return {
      {"baseline", "fa-pool-4l", "tp_pp", {{"tp", "8"}, {"pp", "2"}}, 8192, 16, stages},
      {"pool at 4096", "fa-pool-4l", "attention_pool", by_queries, 4096, 8, no_pool},
      {"pool at 8192", "fa-pool-4l", "attention_pool", by_queries, 8192, 16, pool},
      {"pool at 16384", "fa-pool-4l", "attention_pool", by_queries, 16384, 24, pool},
      {"pool at 32768", "fa-pool-4l", "attention_pool", by_queries, 32768, 40, pool},
      // What lies up to the threshold stays on the base devices: 4 and 12 blocks of 1024 beyond it.
      {"keys at 8192", "fa-pool-4l", "attention_pool", pool_options("kv_blocks"), 8192, 12, pool},
      {"keys at 16384", "fa-pool-4l", "attention_pool", pool_options("kv_blocks"), 16384, 20, pool},
      {"two levels",
       "two-level-2l",
       "two_level",
       {{"head_groups", "4"}, {"dim_slices", "4"}},
       10000,
       16,
       {all_reduce, all_gather, kv_copy, gather}},
      {"two levels by scores",
       "two-level-2l",
       "two_level",
       {{"head_groups", "4"}, {"dim_slices", "4"}, {"scores", "reduce_scores"}},
       10000,
       16,
       {all_reduce, gather}},
      {"cache of two layers",
       "cache-16l",
       "cache_fit",
       {{"devices", "16"}, {"capacity_kib", "1000000"}},
       10000,
       8,  // Two layers to a partition.
       {copy}},
  };
}

std::optional<PlannedStep> plan_of(const Configuration& configuration) {
  const auto model =
      preset_model(configuration.preset,
                   {.dtype = configuration.preset == "cache-16l" ? DType::bf16 : DType::f32});
  if (!model) {
    ADD_FAILURE() << model.error().message;
    return std::nullopt;
  }
  const RequestShape request = {
      .past_len = 0, .q_len = configuration.seq_len, .max_len = configuration.seq_len};
  return planned({.model = *model,
                  .strategy = configuration.strategy,
                  .options = configuration.options,
                  .step = StepShape(kBatch, request)});
}

Configuration named(std::string_view name) {
  const auto all = configurations();
  return *std::ranges::find(all, name, &Configuration::name);
}

std::int64_t count(const Plan& plan, OpKind kind, std::int32_t layer) {
  return std::ranges::count_if(
      plan.nodes, [&](const Node& node) { return node.kind == kind && node.layer == layer; });
}

TEST(NotesPlans, HaveEveryOpOfEveryLayerFromTheEmbeddingToTheLogits) {
  using enum OpKind;
  for (const Configuration& configuration : configurations()) {
    SCOPED_TRACE(configuration.name);
    const auto step = plan_of(configuration);
    ASSERT_TRUE(step);
    const Plan& plan = step->plan.plan();
    const auto last = static_cast<std::int32_t>(plan.model.num_layers) - 1;
    EXPECT_EQ(count(plan, embed, -1), 1);
    for (std::int32_t layer = 0; layer <= last; ++layer) {
      for (const OpKind kind :
           {attn_norm, qkv_proj, rope, o_proj, ffn_norm, ffn_up, OpKind::activation, ffn_down}) {
        EXPECT_EQ(count(plan, kind, layer), 1) << to_string(kind) << layer;
      }
      EXPECT_EQ(count(plan, attention, layer) + count(plan, attend_scores, layer), 1) << layer;
      EXPECT_EQ(count(plan, kv_append, layer) + count(plan, kv_copy, layer), 1) << layer;
      EXPECT_EQ(count(plan, add, layer), 2) << layer;
    }
    EXPECT_EQ(count(plan, final_norm, last), 1);
    EXPECT_EQ(count(plan, lm_head, last), 1);
  }
}

TEST(NotesPlans, AddBothBranchesToTheResidualThatTheyBranchedFrom) {
  for (const Configuration& configuration : configurations()) {
    SCOPED_TRACE(configuration.name);
    const auto step = plan_of(configuration);
    ASSERT_TRUE(step);
    const Plan& plan = step->plan.plan();
    for (const Node& node : plan.nodes) {
      if (node.kind != OpKind::add) continue;
      EXPECT_EQ(plan.at(node.inputs[0]).role, Role::residual);
      const Role branch = plan.at(node.inputs[1]).role;
      EXPECT_TRUE(branch == Role::attn_branch || branch == Role::ffn_branch);
      // The norm at the head of the branch reads the same value that the branch is added to.
      const OpKind norm = branch == Role::attn_branch ? OpKind::attn_norm : OpKind::ffn_norm;
      EXPECT_TRUE(std::ranges::any_of(plan.nodes, [&](const Node& other) {
        return other.kind == norm && other.inputs[0] == node.inputs[0];
      }));
    }
  }
}

TEST(NotesPlans, HaveADeviceOnEveryNodeAndAsManyAsTheNotesCount) {
  for (const Configuration& configuration : configurations()) {
    SCOPED_TRACE(configuration.name);
    const auto step = plan_of(configuration);
    ASSERT_TRUE(step);
    std::set<DeviceId> used;
    for (const Node& node : step->plan->nodes) {
      const auto& devices = step->plan->at(node.devices);
      EXPECT_FALSE(devices.empty());
      used.insert(devices.begin(), devices.end());
    }
    EXPECT_EQ(static_cast<std::int64_t>(used.size()), configuration.devices);
  }
}

TEST(NotesPlans, HaveAShapeOnEveryEdge) {
  for (const Configuration& configuration : configurations()) {
    SCOPED_TRACE(configuration.name);
    const auto step = plan_of(configuration);
    ASSERT_TRUE(step);
    for (const Value& value : step->plan->values) {
      const std::string shape = shape_text(step->plan.plan(), value);
      EXPECT_TRUE(shape.starts_with('[') && shape.ends_with(']')) << shape;
    }
  }
}

TEST(NotesPlans, HaveTheCommunicationThatTheirLayoutsAskFor) {
  for (const Configuration& configuration : configurations()) {
    SCOPED_TRACE(configuration.name);
    const auto step = plan_of(configuration);
    ASSERT_TRUE(step);
    std::set<OpKind> found;
    for (const Node& node : step->plan->nodes) {
      if (queue_of(node.kind) == Queue::comm) found.insert(node.kind);
    }
    const auto names = [](const std::set<OpKind>& kinds) {
      std::string text;
      for (const OpKind kind : kinds) text += fmt::format("{} ", to_string(kind));
      return text;
    };
    EXPECT_EQ(names(found), names(configuration.communication));
  }
}

TEST(NotesPlans, HaveNoCycleAndNothingBesideTheWayFromTokensToLogits) {
  for (const Configuration& configuration : configurations()) {
    SCOPED_TRACE(configuration.name);
    const auto step = plan_of(configuration);
    ASSERT_TRUE(step);
    const Plan& plan = step->plan.plan();
    ASSERT_EQ(step->plan.topological_order().size(), plan.nodes.size());
    std::vector<bool> reached(plan.values.size(), false);  // From the embedding.
    for (const NodeId id : step->plan.topological_order()) {
      const Node& node = plan.at(id);
      const bool follows =
          node.kind == OpKind::embed ||
          std::ranges::any_of(node.inputs, [&](ValueId input) { return reached[index_of(input)]; });
      EXPECT_TRUE(follows) << to_string(node.kind);
      for (const ValueId output : node.outputs) {
        EXPECT_FALSE(reached[index_of(output)]) << "written twice";
        reached[index_of(output)] = follows;
      }
    }
    EXPECT_EQ(plan.values.back().role, Role::logits);
    EXPECT_TRUE(reached.back());
  }
}

// The note's own layer of 3.75 GB fits even less; its dimensions come to 0.40 GB.
TEST(NotesPlans, ALayerOfTheSixteenLayerNetworkFitsNoCacheOfFiftyMegabytes) {
  const auto model = preset_model("cache-16l", {.dtype = DType::bf16});
  ASSERT_TRUE(model);
  const OptionValues cache = {{"devices", "16"}, {"capacity_kib", "48828"}};
  const auto one_token = make_strategy("cache_fit", cache, *model);
  ASSERT_FALSE(one_token);
  EXPECT_TRUE(one_token.error().message.starts_with(
      "--capacity_kib: one layer needs 402833536 bytes (weights 402669568, "))
      << one_token.error().message;
  EXPECT_NE(one_token.error().message.find("the cache holds 49999872"), std::string::npos);
  // The note's batch, all of it in flight: activations and workspace outgrow the weights.
  OptionValues batch = cache;
  batch["batch_tokens"] = std::to_string(128 * 10000);
  const auto whole_batch = make_strategy("cache_fit", batch, *model);
  ASSERT_FALSE(whole_batch);
  EXPECT_NE(whole_batch.error().message.find("(weights 402669568, activations "), std::string::npos)
      << whole_batch.error().message;
  // Split further, it fits: 9 devices to a layer.
  OptionValues split = cache;
  split["split_layers"] = "yes";
  const auto pieces = make_strategy("cache_fit", split, *model);
  ASSERT_TRUE(pieces);
  EXPECT_EQ(pieces->strategy->num_devices(), 9);
}

// A line of the golden file: what a device holds, and what the note says.
class Dimensions {
 public:
  void heading(const std::string& text) { text_ += fmt::format("\n{}\n", text); }
  void line(const std::string& what, const std::string& plan, const std::string& note,
            const std::string& verdict) {
    text_ += fmt::format("  {:<34} {:<22} note: {:<38} {}\n", what, plan, note, verdict);
  }
  [[nodiscard]] const std::string& text() const { return text_; }

 private:
  std::string text_ =
      "What one device holds in the plans of the notes' configurations, beside the notes' "
      "dimension analysis.\nBatches of 8 requests; q_len = kv_len = the sequence length.\n";
};

const Node& node_of(const Plan& plan, OpKind kind) {
  return *std::ranges::find_if(
      plan.nodes, [&](const Node& node) { return node.kind == kind && node.layer == 0; });
}

std::string input(const Plan& plan, OpKind kind, std::size_t i, std::uint32_t device) {
  return shape_text(plan, plan.at(node_of(plan, kind).inputs[i]), DeviceId{device});
}

std::string output(const Plan& plan, OpKind kind, std::size_t i, std::uint32_t device) {
  return shape_text(plan, plan.at(node_of(plan, kind).outputs[i]), DeviceId{device});
}

void add_baseline(Dimensions& table) {
  using enum OpKind;
  const auto step = plan_of(named("baseline"));
  ASSERT_TRUE(step);
  const Plan& plan = step->plan.plan();
  table.heading("Baseline, tp = 8, pp = 2, device 0");
  table.line("q", output(plan, qkv_proj, 0, 0), "[batch_size, seq_len, 4, 128]", "agrees");
  table.line("k", output(plan, qkv_proj, 1, 0), "[batch_size, seq_len, 4, 128]", "agrees");
  table.line("v", output(plan, qkv_proj, 2, 0), "[batch_size, seq_len, 4, 128]", "agrees");
  table.line("K cache", output(plan, kv_append, 0, 0), "none given", "");
  table.line("attention output", output(plan, attention, 0, 0), "4096 -> 512 per GPU",
             "agrees: 4 heads x 128");
  table.line("residual", output(plan, add, 0, 0), "4096 -> 512 per GPU",
             "differs: whole on each, as all-reduced sums are");
  table.line("gate", output(plan, ffn_up, 0, 0), "4096 -> 2048 per GPU", "agrees");
  table.line("up", output(plan, ffn_up, 1, 0), "4096 -> 2048 per GPU", "agrees");
  table.line("down, in", input(plan, ffn_down, 0, 0), "2048 -> 4096 per GPU", "agrees");
  table.line("down, out (partial sums)", output(plan, ffn_down, 0, 0), "2048 -> 4096 per GPU",
             "agrees");
  const Node& sum = node_of(plan, all_reduce);
  table.line("devices of an all-reduce", fmt::format("{}", plan.at(sum.devices).size()),
             "all-reduce across 8 GPUs", "agrees");
  const auto& second = plan.devices[8].compute;
  table.line("first layer of device 8", fmt::format("{}", plan.at(second.front()).layer),
             "stage 1 (layers 2-3)", "agrees");
}

void add_pool(Dimensions& table, std::int64_t seq_len, const std::string& pool_in_note) {
  using enum OpKind;
  const auto step = plan_of(named(fmt::format("pool at {}", seq_len)));
  ASSERT_TRUE(step);
  const Plan& plan = step->plan.plan();
  const auto pool = static_cast<std::int64_t>(plan.at(node_of(plan, attention).devices).size());
  table.heading(fmt::format("Pool at {} tokens, tp = 8, linear, query_blocks, device 8", seq_len));
  table.line("pool devices", fmt::format("{}", pool), pool_in_note, "agrees");
  table.line("q, of each request", input(plan, attention, 0, 8), "[batch_size, b, 32, 128]",
             fmt::format("agrees: b = {}", (seq_len + pool - 1) / pool));
  table.line("K, of each request", input(plan, attention, 1, 8), "[batch_size, seq_len, 32, 128]",
             "agrees");
  table.line("V, of each request", input(plan, attention, 2, 8), "[batch_size, seq_len, 32, 128]",
             "agrees");
  table.line("output, of each request", output(plan, attention, 0, 8), "[batch_size, b, 32, 128]",
             "agrees");
  const Node& node = node_of(plan, attention);
  const std::int64_t kv = value_bytes_by_device(plan, node.inputs[1], step->lengths)[8] +
                          value_bytes_by_device(plan, node.inputs[2], step->lengths)[8];
  const std::int64_t in_note = seq_len * 4096 * 2 * 4;
  table.line("K and V of one request, bytes", fmt::format("{}", kv / kBatch),
             fmt::format("seq_len x 4096 x 2 x 4 = {}", in_note),
             kv / kBatch == in_note ? "agrees, for one sequence and one layer" : "differs");
  table.line("K and V of 1024, 4 layers, GB",
             fmt::format("{}", kv / kBatch * 1024 * 4 / 1000000000), "45 GB per pool GPU in all",
             "differs: the note leaves out batch and layers");
}

void add_pool_decode(Dimensions& table) {
  const Configuration pool = named("pool at 8192");
  const auto model = preset_model(pool.preset, {});
  ASSERT_TRUE(model);
  const auto step = planned({.model = *model,
                             .strategy = pool.strategy,
                             .options = pool.options,
                             .step = {{.past_len = 8191, .q_len = 1, .max_len = 8192}}});
  ASSERT_TRUE(step);
  const Plan& plan = step->plan.plan();
  const auto tiles =
      value_bytes_by_device(plan, node_of(plan, OpKind::attention).outputs[0], step->lengths);
  const auto busy = std::ranges::count_if(tiles, [](std::int64_t bytes) { return bytes > 0; });
  table.heading("Pool at 8192 tokens, one token of decode");
  table.line("pool devices with a query", fmt::format("{} of 8", busy), "TPOT falls with the pool",
             "differs: one token has one query block");
}

void add_two_levels(Dimensions& table) {
  using enum OpKind;
  for (const char* name : {"two levels", "two levels by scores"}) {
    const auto step = plan_of(named(name));
    ASSERT_TRUE(step);
    const Plan& plan = step->plan.plan();
    const bool by_scores = count(plan, score_slice, 0) > 0;
    table.heading(fmt::format("Two levels, m = 4, n = 4, {}, device 5",
                              by_scores ? "reduce_scores" : "gather_qk"));
    table.line("q as projected", output(plan, qkv_proj, 0, 5), "4 heads, 512/4 = 128", "agrees");
    table.line("v as projected", output(plan, qkv_proj, 2, 5), "4 heads, 512/4 = 128", "agrees");
    table.line("q as attended with", input(plan, by_scores ? score_slice : attention, 0, 5),
               "4 heads, 512/4 = 128",
               by_scores ? "agrees" : "differs: a softmax needs whole scores, so whole q");
    table.line("K as attended to", input(plan, by_scores ? score_slice : attention, 1, 5),
               "4 heads, 512/4 = 128",
               by_scores ? "agrees" : "differs: a softmax needs whole scores, so whole K");
    if (by_scores) {
      table.line("partial scores", output(plan, score_slice, 0, 5), "not mentioned",
                 "all-reduced over the 4 slices");
    }
    table.line("attention output", output(plan, by_scores ? attend_scores : attention, 0, 5),
               "4 heads, 512/4 = 128", "agrees");
    table.line("FFN hidden", output(plan, OpKind::activation, 0, 5), "32768 (16 devices)",
               "agrees: 32768/16");
  }
}

void add_cache(Dimensions& table) {
  const auto model = preset_model("cache-16l", {.dtype = DType::bf16});
  ASSERT_TRUE(model);
  const ParameterCount parameters = count_parameters(*model);
  table.heading("Sixteen layers, BF16");
  table.line("parameters of a layer", fmt::format("{}", parameters.per_layer()),
             "30B / 16 = 1875000000", "differs: 4 x 4096^2 + 2 x 4096 x 16384 and norms");
  table.line("bytes of a layer", fmt::format("{}", 2 * parameters.per_layer()), "3.75 GB",
             "differs, by a factor of 9.3");
  table.line("layers in a cache of 50 MB",
             fmt::format("{}", 50000000 / (2 * parameters.per_layer())),
             "floor(C / memory_per_layer) >= 1", "differs: 0 by either figure");
}

TEST(NotesPlans, HoldWhatTheDimensionAnalysisOfTheNotesSays) {
  Dimensions table;
  add_baseline(table);
  add_pool(table, 8192, "8");
  add_pool(table, 16384, "16");
  add_pool(table, 32768, "min(ceil(32768/1024), 32) = 32");
  add_pool_decode(table);
  add_two_levels(table);
  add_cache(table);
  const std::string path = WEIR_SOURCE_DIR "/tests/strategies/golden/dimensions.txt";
  const char* rewrite = std::getenv("WEIR_REWRITE_GOLDENS");
  if (rewrite != nullptr && std::string_view(rewrite) == "1") {
    std::ofstream(path, std::ios::binary) << table.text();
    return;
  }
  const Result<std::string> expected = read_text_file(path);
  ASSERT_TRUE(expected) << expected.error().message;
  EXPECT_EQ(table.text(), *expected)
      << "If this is meant: WEIR_REWRITE_GOLDENS=1 rewrites " << path;
}

}  // namespace
}  // namespace weir
