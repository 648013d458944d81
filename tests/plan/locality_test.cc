#include "plan/locality.h"

#include <algorithm>

#include "tests/plan/broken_plans.h"
#include "tests/plan/tensor_pipeline_plans.h"

namespace weir {
namespace {

// What validate says of the node; the test fails where it says something of another one.
Problems said_of(const Plan& plan, NodeId node) {
  Problems texts;
  for (const std::string& problem : problems_in(plan)) {
    const std::string prefix = name(plan, node) + ": ";
    EXPECT_EQ(problem.substr(0, prefix.size()), prefix) << problem;
    texts.push_back(problem.substr(std::min(prefix.size(), problem.size())));
  }
  return texts;
}

Plan two_devices() { return tensor_pipeline_plan({.tp = 2, .model = tiny_model(1)}); }

TEST(Locality, KvHeadsOfQueryHeadsAreTheirGroups) {
  const ModelSpec model = tiny_model();  // Two query heads per KV head.
  EXPECT_EQ(kv_heads_of(model, {.begin = 0, .end = 4}), (Interval{.begin = 0, .end = 2}));
  EXPECT_EQ(kv_heads_of(model, {.begin = 1, .end = 2}), (Interval{.begin = 0, .end = 1}));
  EXPECT_EQ(kv_heads_of(model, {.begin = 1, .end = 3}), (Interval{.begin = 0, .end = 2}));
  EXPECT_EQ(kv_heads_of(model, {.begin = 2, .end = 2}), Interval{});
}

TEST(Locality, KAndVAreAppendedWhereTheyAreComputed) {
  Plan plan = two_devices();
  const NodeId append = node_at(plan, OpKind::kv_append);
  const ValueId v = at(plan, append).inputs[1];
  Layout& layout = own_layout(plan, v);
  std::swap(layout.pieces[0].device, layout.pieces[1].device);
  EXPECT_EQ(said_of(plan, append),
            (Problems{"device 0, piece request [0, 1) head [0, 1) dim [0, 8): its v is not "
                      "computed there",
                      "device 1, piece request [0, 1) head [1, 2) dim [0, 8): its v is not "
                      "computed there"}));
}

TEST(Locality, ACacheThatMovesNeedsAKvCopy) {
  Plan plan = two_devices();
  const NodeId append = node_at(plan, OpKind::kv_append);
  Layout& before = own_layout(plan, at(plan, append).inputs[2]);
  std::swap(before.pieces[0].device, before.pieces[1].device);
  EXPECT_EQ(said_of(plan, append), Problems{"the cache before and after are laid out differently, "
                                            "which needs a kv_copy"});
}

TEST(Locality, TilesHaveTheirKeysAndValues) {
  Plan plan = two_devices();
  const NodeId append = node_at(plan, OpKind::kv_append);
  const NodeId attention = node_at(plan, OpKind::attention);
  // The cache is moved to device 0 alone; the tiles stay on both.
  at(plan, append).kind = OpKind::kv_copy;
  for (PlanDevice& device : plan.devices) {
    std::erase(device.compute, append);
    device.comm.insert(device.comm.begin() + 1, append);
  }
  Layout& cache = own_layout(plan, at(plan, append).outputs[0]);
  cache.pieces[1].device = DeviceId{0};
  EXPECT_EQ(said_of(plan, attention),
            Problems{"device 1, piece request [0, 1) head [2, 4) dim [0, 8): k_cache of heads [1, "
                     "2) at positions [0, end) is not all there"});
}

TEST(Locality, TilesHaveTheirQueries) {
  Plan plan = two_devices();
  const NodeId attention = node_at(plan, OpKind::attention);
  Layout& tiles = own_layout(plan, at(plan, attention).outputs[0]);
  tiles.pieces[0].box.head = Range::of(0, 1);
  tiles.pieces.push_back(tiles.pieces[0]);
  tiles.pieces.back().box.head = Range::of(1, 2);
  const NodeId projection = node_at(plan, OpKind::o_proj);
  EXPECT_EQ(problems_in(plan),
            (Problems{name(plan, attention) +
                          ": device 0, piece request [0, 1) head [0, 1) dim [0, 8): its q is not "
                          "there",
                      name(plan, attention) +
                          ": device 0, piece request [0, 1) head [1, 2) dim [0, 8): its q is not "
                          "there",
                      name(plan, projection) +
                          ": device 0, piece request [0, 1) head [0, 1) dim [0, 32): its input "
                          "request [0, 1) token [0, 1) head [0, 2) dim [0, 8) is not there"}));
}

TEST(Locality, ProjectionsContractWhatIsThere) {
  Plan plan = two_devices();
  const NodeId projection = node_at(plan, OpKind::o_proj);
  Layout& branch = own_layout(plan, at(plan, projection).outputs[0]);
  std::swap(branch.pieces[0].over, branch.pieces[1].over);
  EXPECT_EQ(said_of(plan, projection),
            (Problems{"device 0, piece request [0, 1) head [0, 1) dim [0, 32): its input request "
                      "[0, 1) token [0, 1) head [2, 4) dim [0, 8) is not there",
                      "device 1, piece request [0, 1) head [0, 1) dim [0, 32): its input request "
                      "[0, 1) token [0, 1) head [0, 2) dim [0, 8) is not there"}));
}

TEST(Locality, ProjectionsReadWholeRows) {
  Plan plan = two_devices();
  const NodeId up = node_at(plan, OpKind::ffn_up);
  // Half of the tokens' normed rows on each device.
  const NodeId norm = node_at(plan, OpKind::ffn_norm);
  Layout& normed = own_layout(plan, at(plan, norm).outputs[0]);
  for (std::size_t i = 0; i < 2; ++i)
    normed.pieces[i].box.token = Range::block(static_cast<std::int64_t>(i), 2);
  Problems expected = {name(plan, norm) + ": input 0 is laid out otherwise than the output"};
  for (int output = 0; output < 2; ++output) {
    for (int device = 0; device < 2; ++device) {
      expected.push_back(fmt::format(
          "{}: device {}, piece request [0, 1) head [0, 1) dim [{}, {}): its rows of normed are "
          "not there whole",
          name(plan, up), device, 32 * device, 32 * device + 32));
    }
  }
  EXPECT_EQ(problems_in(plan), expected);
}

TEST(Locality, QIsMadeOfItsOwnRows) {
  Plan plan = tensor_pipeline_plan({.tp = 2,
                                    .limits = {{.q_len = 3, .kv_len = 3}},
                                    .model = tiny_model(1),
                                    .logits = LogitsWanted::last});
  const NodeId projection = node_at(plan, OpKind::qkv_proj);
  auto& inputs = at(plan, projection).inputs;
  ASSERT_EQ(inputs.size(), 2U);  // Of the last row, and of all.
  std::ranges::reverse(inputs);
  const Problems said = said_of(plan, projection);
  EXPECT_EQ(said.size(), 6U);  // q, k and v on two devices.
  EXPECT_EQ(said.front(),
            "device 0, piece request [0, 1) token [end-1, end) head [0, 2) dim "
            "[0, 8): its rows of normed are not there whole");
}

TEST(Locality, NormsAndEmbeddingsNeedWholeRows) {
  Plan plan = tensor_pipeline_plan({.model = tiny_model(1)});
  const NodeId embed = node_at(plan, OpKind::embed, {.layer = -1});
  const LayoutId rows = plan.at(plan.at(embed).outputs[0]).layout;
  for (Value& value : plan.values) {
    if (value.layout == rows) value.layout = static_cast<LayoutId>(plan.layouts.size());
  }
  Layout halves;
  for (const std::int64_t half : {0, 1}) {
    halves.pieces.push_back({.device = DeviceId{0},
                             .box = {.request = Range::of(0, 1),
                                     .head = Range::of(0, 1),
                                     .dim = Range::of(16 * half, 16 * half + 16)},
                             .over = {}});
  }
  plan.layouts.push_back(halves);
  const Problems found = problems_in(plan);
  const auto expect_of = [&](NodeId node, const char* text) {
    EXPECT_NE(std::ranges::find(found, name(plan, node) +
                                           ": device 0, piece request [0, 1) head "
                                           "[0, 1) dim [16, 32): " +
                                           text),
              found.end())
        << text;
  };
  expect_of(embed, "embeds whole rows only");
  expect_of(embed, "needs whole rows");
  expect_of(node_at(plan, OpKind::attn_norm), "needs whole rows");
  expect_of(node_at(plan, OpKind::ffn_norm), "needs whole rows");
}

// One device that holds each head in two slices of its dimension.
Plan sliced_heads(ModelSpec model, std::int64_t cut) {
  const TensorPipelineCase choice = {.model = std::move(model)};
  StepLayouts layouts = tensor_pipeline_layouts(choice);
  LayerLayouts& layer = layouts.microbatches[0].distinct[0];
  layer.q.pieces.push_back(layer.q.pieces[0]);
  layer.q.pieces[0].box.dim = Range::of(0, cut);
  layer.q.pieces[1].box.dim = Range::of(cut, 8);
  return lower(tensor_pipeline_header(choice), layouts);
}

TEST(Locality, RotaryPairsStayTogether) {
  EXPECT_EQ(problems_in(sliced_heads(tiny_model(1), 4)), Problems{});
  const Plan plan = sliced_heads(tiny_model(1), 3);
  EXPECT_EQ(said_of(plan, node_at(plan, OpKind::rope)),
            (Problems{"device 0, piece request [0, 1) head [0, 4) dim [0, 3): cuts a rotary pair",
                      "device 0, piece request [0, 1) head [0, 4) dim [3, 8): cuts a rotary "
                      "pair"}));
}

TEST(Locality, DimensionsThatDoNotRotateMayBeCutAnywhere) {
  ModelSpec model = tiny_model(1);
  model.rope.rotary_dim = 4;
  EXPECT_EQ(problems_in(sliced_heads(model, 5)), Problems{});
}

TEST(Locality, NormsOfQAndKNeedWholeHeads) {
  ModelSpec model = tiny_model(1);
  model.qk_norm = true;
  const Plan plan = sliced_heads(model, 4);
  EXPECT_EQ(said_of(plan, node_at(plan, OpKind::rope)),
            (Problems{"device 0, piece request [0, 1) head [0, 4) dim [0, 4): q/k norm needs whole "
                      "heads",
                      "device 0, piece request [0, 1) head [0, 4) dim [4, 8): q/k norm needs whole "
                      "heads"}));
}

TEST(Locality, ElementwiseOpsWriteWhereTheyRead) {
  Plan plan = two_devices();
  const NodeId activation = node_at(plan, OpKind::activation);
  Layout& hidden = own_layout(plan, at(plan, activation).inputs[0]);
  std::swap(hidden.pieces[0].device, hidden.pieces[1].device);
  EXPECT_EQ(said_of(plan, activation), Problems{"input 0 is laid out otherwise than the output"});
}

TEST(Locality, CollectivesAreWhatTheirLayoutsSay) {
  for (const OpKind wrong : {OpKind::reduce_scatter, OpKind::all_gather, OpKind::all_to_all,
                             OpKind::broadcast, OpKind::gather, OpKind::reduce}) {
    Plan plan = two_devices();
    const NodeId reduce = node_at(plan, OpKind::all_reduce);
    at(plan, reduce).kind = wrong;
    EXPECT_EQ(said_of(plan, reduce),
              Problems{fmt::format("its layouts do not make a {}", to_string(wrong))});
  }
}

TEST(Locality, CopiesCanDoWhateverACollectiveDoes) {
  Plan plan = two_devices();
  at(plan, node_at(plan, OpKind::all_reduce)).kind = OpKind::copy;
  EXPECT_EQ(problems_in(plan), Problems{});
}

// The partial sums of o_proj, moved into other partials before they are reduced.
Plan moved_partials(const std::vector<Range>& terms) {
  Plan plan = two_devices();
  const NodeId reduce = node_at(plan, OpKind::all_reduce, {.skip = 1});
  const ValueId branch = at(plan, reduce).inputs[0];
  plan.values.push_back(plan.at(branch));
  const auto moved = static_cast<ValueId>(plan.values.size() - 1);
  Layout& layout = own_layout(plan, moved);
  for (std::size_t i = 0; i < 2; ++i) layout.pieces[i].over.head = terms[i];
  const auto copy = static_cast<NodeId>(plan.nodes.size());
  plan.nodes.push_back({.kind = OpKind::copy,
                        .layer = 0,
                        .devices = plan.at(reduce).devices,
                        .inputs = {branch},
                        .outputs = {moved}});
  at(plan, reduce).inputs[0] = moved;
  for (PlanDevice& device : plan.devices)
    device.comm.insert(std::ranges::find(device.comm, reduce), copy);
  return plan;
}

TEST(Locality, PartialsAreCopiedWithAllTheirTerms) {
  EXPECT_EQ(problems_in(moved_partials({Range::of(2, 4), Range::of(0, 2)})), Problems{});
  const Plan plan = moved_partials({Range::of(0, 1), Range::of(1, 4)});
  EXPECT_EQ(said_of(plan, node_at(plan, OpKind::copy)),
            (Problems{"device 0, piece request [0, 1) head [0, 1) dim [0, 32): its terms are not "
                      "those of the parts that it is sent",
                      "device 1, piece request [0, 1) head [0, 1) dim [0, 32): its terms are not "
                      "those of the parts that it is sent"}));
}

TEST(Locality, WholeValuesDoNotBecomePartials) {
  Plan plan = two_devices();
  const NodeId reduce = node_at(plan, OpKind::all_reduce, {.skip = 1});
  const NodeId sum = node_at(plan, OpKind::add);
  const ValueId reduced = at(plan, reduce).outputs[0];
  plan.values.push_back(plan.at(at(plan, reduce).inputs[0]));
  const auto torn = static_cast<ValueId>(plan.values.size() - 1);
  const auto copy = static_cast<NodeId>(plan.nodes.size());
  plan.nodes.push_back({.kind = OpKind::copy,
                        .layer = 0,
                        .devices = plan.at(reduce).devices,
                        .inputs = {reduced},
                        .outputs = {torn}});
  at(plan, sum).inputs[1] = torn;
  EXPECT_EQ(problems_in(plan),
            (Problems{name(plan, sum) + ": input 1 is laid out otherwise than the output",
                      name(plan, copy) + ": a whole value cannot become sum partials"}));
}

TEST(Locality, NodesStandWhereTheirLayoutsSayAndOnlyTheWrongOneIsNamed) {
  Plan plan = tensor_pipeline_plan({.tp = 2});
  const NodeId norm = node_at(plan, OpKind::ffn_norm);
  plan.groups.push_back({DeviceId{0}});
  at(plan, norm).devices = static_cast<GroupId>(plan.groups.size() - 1);
  EXPECT_EQ(problems_in(plan),
            Problems{name(plan, norm) + ": stands on other devices than its layouts say"});
}

}  // namespace
}  // namespace weir
