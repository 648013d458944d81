#include "plan/plan_json.h"

#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "plan/plan_json_bound.h"
#include "tests/plan/plans_for_tests.h"

namespace weir {
namespace {

using nlohmann::json;

// Every field away from its default, bounds of every form.
Plan rich_plan() {
  Plan plan = tensor_parallel_plan();
  plan.model.sliding_window = {};
  plan.model.weight_dtype = DType::bf16;
  plan.model.eos_token_ids = {2, 3};
  plan.model.rope.scaling = Llama3Rope{};
  plan.strategy = "quotes \" and \\ and \n lines";
  plan.kv_dtype = DType::f16;
  plan.logits = LogitsWanted::all;
  plan.devices[1].memory_bytes = std::int64_t{1} << 40;
  plan.layouts.push_back(
      {.kind = LayoutKind::softmax,
       .pieces = {{.device = DeviceId{1},
                   .box = {.request = Range::of(0, 1),
                           .token = {.begin = Bound::at(4096), .end = Bound::before_end(1)},
                           .head = {.begin = {.offset = 1, .index = 3, .parts = 8},
                                    .end = {.index = 8, .parts = 8}},
                           .dim = {.begin = {.offset = -2, .parts = 5}, .end = Bound::end()}},
                   .over = {.token = Range::block(2, 3)}},
                  {.device = DeviceId{0}, .box = {}, .over = {}}}});
  return plan;
}

std::string error_of(const json& document) {
  const Result<Plan> plan = plan_from_json(document, "plan.json");
  return plan ? "" : plan.error().message;
}

TEST(PlanJson, ReadsBackWhatItWrote) {
  for (const Plan& plan :
       {single_device_plan(), tensor_parallel_plan(), two_stage_plan(), rich_plan()}) {
    const Result<Plan> read = plan_from_json(plan_to_json(plan), "plan.json");
    ASSERT_TRUE(read) << read.error().message;
    EXPECT_EQ(*read, plan);
  }
}

TEST(PlanJson, TheTextIsTheSameDocument) {
  const Plan plan = rich_plan();
  const auto document = parse_json(plan_to_json_text(plan), "plan.json");
  ASSERT_TRUE(document) << document.error().message;
  EXPECT_EQ(*document, plan_to_json(plan));
}

TEST(PlanJson, TheTextHasOneRowPerLine) {
  const Plan plan = two_stage_plan();
  const std::string text = plan_to_json_text(plan);
  EXPECT_NE(text.find("\n    {\"id\": 0, \"kind\": \"embed\", \"layer\": -1, \"microbatch\": 0, "
                      "\"devices\": 0, \"inputs\": [], \"outputs\": [0]},\n"),
            std::string::npos);
  const auto lines = static_cast<std::size_t>(std::ranges::count(text, '\n'));
  const std::size_t rows = plan.limits.size() + plan.microbatches.size() + plan.devices.size() +
                           plan.groups.size() + plan.layouts.size() + plan.values.size() +
                           plan.nodes.size();
  // Two braces, seven scalars or objects, and two lines around each of seven tables.
  EXPECT_EQ(lines, rows + 2 + 7 + 2 * 7);
}

TEST(PlanJson, BoundsHaveOneSpellingEach) {
  const std::vector<std::pair<Bound, std::string>> spellings = {
      {Bound::end(), "end"},
      {Bound::before_end(1), "end-1"},
      {{.offset = 7, .index = 1, .parts = 1}, "end+7"},
      {Bound::block(3, 8), "3/8"},
      {{.offset = 1, .index = 3, .parts = 8}, "3/8+1"},
      {{.offset = -12, .index = 3, .parts = 8}, "3/8-12"},
      {{.index = 8, .parts = 8}, "8/8"},
      {{.offset = 4, .parts = 2}, "0/2+4"}};
  for (const auto& [bound, text] : spellings) {
    EXPECT_EQ(text_of(bound), text);
    EXPECT_EQ(parse_bound(text), bound) << text;
  }
}

TEST(PlanJson, WhatIsNoBoundIsRefused) {
  for (const char* text : {"", "end ", "END", "end-", "end--1", "end+1x", "3", "3/", "/8", "3/0",
                           "9/8", "-1/8", "3/8+", "3 /8", "3/8+99999999999", "99999999999/8"}) {
    EXPECT_EQ(parse_bound(text), std::nullopt) << text;
  }
}

TEST(PlanJson, OmittedAxesAreWhole) {
  json document = plan_to_json(single_device_plan());
  document["layouts"][0]["pieces"][0] = {{"device", 0}};
  const Result<Plan> plan = plan_from_json(document, "plan.json");
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->layouts[0].pieces[0], Piece{});
}

struct Damage {
  const char* pointer;
  json value;
  const char* message;
};

TEST(PlanJson, SaysWhatIsWrongWhere) {
  const json good = plan_to_json(single_device_plan());
  const std::vector<Damage> cases = {
      {"/format", "chakra", "format: found \"chakra\", allowed \"weir-plan\""},
      {"/version", 1, "version: found 1, allowed an integer in 2..2"},
      {"/logits", "some", "logits: found \"some\", allowed one of: none, last, all"},
      {"/kv_dtype", "fp8", "kv_dtype: found \"fp8\", allowed one of: f32, bf16, f16"},
      {"/model/config/num_hidden_layers", 0, "model.config.num_hidden_layers: found 0"},
      {"/limits/0/q_len", -1, "limits[0].q_len: found -1"},
      {"/limits/0/id", 1, "limits[0].id: found 1, allowed an integer in 0..0"},
      {"/microbatches/0",
       {0, 2},
       "microbatches[0]: found [0, 2], allowed [begin, end] with both "
       "in 0..1"},
      {"/devices/0/memory_bytes", -1, "devices[0].memory_bytes: found -1"},
      {"/devices/0/compute/2", 99, "devices[0].compute[2]: found 99, allowed an integer in 0..26"},
      {"/groups/0/devices/0", 1, "groups[0].devices[0]: found 1, allowed an integer in 0..0"},
      {"/layouts/0/kind", "part",
       "layouts[0].kind: found \"part\", allowed one of: whole, sum, "
       "softmax"},
      {"/layouts/0/pieces/0/device", 3, "layouts[0].pieces[0].device: found 3"},
      {"/layouts/0/pieces/0/head",
       {0, "9/8"},
       "layouts[0].pieces[0].head: found [0, \"9/8\"], "
       "allowed [begin, end]"},
      {"/layouts/0/pieces/0/dim",
       {0, 3000000000},
       "layouts[0].pieces[0].dim: found [0, "
       "3000000000]"},
      {"/layouts/0/pieces/0/over", 3, "layouts[0].pieces[0].over: found 3, allowed an object"},
      {"/values/0/role", "w", "values[0].role: found \"w\", allowed one of: residual, normed"},
      {"/values/0/layer", 2, "values[0].layer: found 2, allowed an integer in -1..1"},
      {"/values/0/microbatch", 1, "values[0].microbatch: found 1, allowed an integer in 0..0"},
      {"/values/0/layout", -1, "values[0].layout: found -1"},
      {"/values/0/rows", "first", "values[0].rows: found \"first\", allowed one of: all, last"},
      {"/nodes/1/kind", "send", "nodes[1].kind: found \"send\", allowed one of: embed"},
      {"/nodes/1/devices", 1, "nodes[1].devices: found 1, allowed an integer in 0..0"},
      {"/nodes/1/inputs/0", 1000, "nodes[1].inputs[0]: found 1000"},
      {"/nodes/1/outputs", json::array({1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}),
       "nodes[1].outputs: found an array of 17, allowed an array of at most 16 ids"},
      {"/nodes/1/seconds", 3, "nodes[1].seconds: unknown key"},
      {"/seconds", 3, "seconds: unknown key"},
      {"/nodes", 3, "nodes: found 3, allowed an array"},
  };
  for (const Damage& damage : cases) {
    json document = good;
    document[json::json_pointer(damage.pointer)] = damage.value;
    EXPECT_NE(error_of(document).find(damage.message), std::string::npos)
        << damage.pointer << "\n  wanted: " << damage.message
        << "\n  found: " << error_of(document);
  }
}

TEST(PlanJson, EveryTopLevelKeyIsRequired) {
  const json good = plan_to_json(single_device_plan());
  for (const auto& [key, unused] : good.items()) {
    json document = good;
    document.erase(key);
    EXPECT_NE(error_of(document).find(key), std::string::npos) << key;
  }
}

TEST(PlanJson, ListsEveryProblemAtOnce) {
  json document = plan_to_json(single_device_plan());
  document["version"] = 0;
  document["values"][3]["layout"] = 100;
  document["nodes"][5]["kind"] = "nothing";
  const std::string error = error_of(document);
  EXPECT_TRUE(error.starts_with("plan.json: version:")) << error;
  EXPECT_NE(error.find("values[3].layout"), std::string::npos) << error;
  EXPECT_NE(error.find("nodes[5].kind"), std::string::npos) << error;
}

TEST(PlanJson, WhatIsNoPlanAtAllIsRefused) {
  for (const json& document : {json(), json(3), json::array(), json::object(), json("plan")})
    EXPECT_FALSE(error_of(document).empty());
}

TEST(PlanJson, ReadingStopsAfterManyProblems) {
  json document = plan_to_json(single_device_plan());
  document["nodes"] = json::array();
  for (int i = 0; i < 100000; ++i) document["nodes"].push_back(json::object());
  const std::string error = error_of(document);
  EXPECT_NE(error.find("nodes[0].id: missing"), std::string::npos);
  // Some 200 problems are looked for, 20 are spelled out.
  EXPECT_LT(error.size(), 20000U);
}

}  // namespace
}  // namespace weir
