#include <algorithm>
#include <array>
#include <map>

#include "base/random.h"
#include "plan/placement.h"
#include "plan/transfers.h"
#include "plan/work.h"
#include "tests/plan/broken_plans.h"
#include "tests/plan/tensor_pipeline_plans.h"

namespace weir {
namespace {

template <class Table>
auto& any_of(Random& random, Table& table) {
  return table[static_cast<std::size_t>(
      random.integer(0, static_cast<std::int64_t>(std::size(table)) - 1))];
}

template <class Id, class Table>
Id any_id(Random& random, const Table& table) {
  return static_cast<Id>(random.integer(0, static_cast<std::int64_t>(table.size()) - 1));
}

std::vector<NodeId>& any_queue(Random& random, Plan& plan) {
  PlanDevice& device = any_of(random, plan.devices);
  return random.integer(0, 1) == 0 || device.comm.empty() ? device.compute : device.comm;
}

Range& any_range(Random& random, Plan& plan) {
  Piece& piece = any_of(random, any_of(random, plan.layouts).pieces);
  Box& box = random.integer(0, 3) == 0 ? piece.over : piece.box;
  return *std::array{&box.request, &box.token, &box.head,
                     &box.dim}[static_cast<std::size_t>(random.integer(0, 3))];
}

// Ways to damage a plan. Ids stay in their tables, so that later checks are reached too.
using Mutation = void (*)(Random&, Plan&);

void swap_queue_entries(Random& random, Plan& plan) {
  auto& queue = any_queue(random, plan);
  std::swap(any_of(random, queue), any_of(random, queue));
}
void swap_queue_neighbours(Random& random, Plan& plan) {
  auto& queue = any_queue(random, plan);
  if (queue.size() < 2) return;
  const auto place =
      static_cast<std::size_t>(random.integer(0, static_cast<std::int64_t>(queue.size()) - 2));
  std::swap(queue[place], queue[place + 1]);
}
void drop_queue_entry(Random& random, Plan& plan) {
  auto& queue = any_queue(random, plan);
  queue.erase(queue.begin() + random.integer(0, static_cast<std::int64_t>(queue.size()) - 1));
}
void queue_elsewhere(Random& random, Plan& plan) {
  auto& queue = any_queue(random, plan);
  auto& other = any_queue(random, plan);
  other.push_back(any_of(random, queue));
}
void drop_piece(Random& random, Plan& plan) {
  auto& pieces = any_of(random, plan.layouts).pieces;
  if (pieces.size() > 1)
    pieces.erase(pieces.begin() + random.integer(0, static_cast<std::int64_t>(pieces.size()) - 1));
}
void repeat_piece(Random& random, Plan& plan) {
  auto& pieces = any_of(random, plan.layouts).pieces;
  pieces.push_back(any_of(random, pieces));
}
void move_piece(Random& random, Plan& plan) {
  any_of(random, any_of(random, plan.layouts).pieces).device =
      any_id<DeviceId>(random, plan.devices);
}
void shift_bound(Random& random, Plan& plan) {
  Range& range = any_range(random, plan);
  Bound& bound = random.integer(0, 1) == 0 ? range.begin : range.end;
  bound.offset += static_cast<std::int32_t>(random.integer(-2, 2));
}
void cut_by_length(Random& random, Plan& plan) {
  const std::int64_t parts = random.integer(1, 4);
  any_range(random, plan) = Range::block(random.integer(0, parts - 1), parts);
}
void change_layout_kind(Random& random, Plan& plan) {
  any_of(random, plan.layouts).kind = static_cast<LayoutKind>(random.integer(0, 2));
}
void redirect_input(Random& random, Plan& plan) {
  Node& node = any_of(random, plan.nodes);
  if (!node.inputs.empty()) any_of(random, node.inputs) = any_id<ValueId>(random, plan.values);
}
void exchange_inputs(Random& random, Plan& plan) {
  Node& first = any_of(random, plan.nodes);
  Node& second = any_of(random, plan.nodes);
  if (first.kind == second.kind) std::swap(first.inputs, second.inputs);
}
void redirect_output(Random& random, Plan& plan) {
  any_of(random, any_of(random, plan.nodes).outputs) = any_id<ValueId>(random, plan.values);
}
void change_op(Random& random, Plan& plan) {
  any_of(random, plan.nodes).kind =
      static_cast<OpKind>(random.integer(0, static_cast<std::int64_t>(OpKind::kv_copy)));
}
void change_role(Random& random, Plan& plan) {
  any_of(random, plan.values).role =
      static_cast<Role>(random.integer(0, static_cast<std::int64_t>(Role::logits)));
}
void relayout(Random& random, Plan& plan) {
  any_of(random, plan.values).layout = any_id<LayoutId>(random, plan.layouts);
}
void relabel_layer(Random& random, Plan& plan) {
  const auto layer = static_cast<std::int32_t>(random.integer(-1, plan.model.num_layers - 1));
  if (random.integer(0, 1) == 0) {
    any_of(random, plan.nodes).layer = layer;
  } else {
    any_of(random, plan.values).layer = layer;
  }
}
void relabel_microbatch(Random& random, Plan& plan) {
  any_of(random, plan.nodes).microbatch = any_id<std::int32_t>(random, plan.microbatches);
}
void change_members(Random& random, Plan& plan) {
  any_of(random, plan.nodes).devices = any_id<GroupId>(random, plan.groups);
}
void change_lengths(Random& random, Plan& plan) {
  RequestLengths& lengths = any_of(random, plan.limits);
  lengths.q_len = random.integer(-1, 8);
  lengths.kv_len = random.integer(-1, 8);
}
void change_partition(Random& random, Plan& plan) {
  Interval& requests = any_of(random, plan.microbatches);
  requests.begin += random.integer(-1, 1);
  requests.end += random.integer(-1, 1);
}
void change_model(Random& random, Plan& plan) {
  plan.model.num_layers += random.integer(-1, 1);
  plan.model.gated_ffn = random.integer(0, 1) == 0;
}

constexpr Mutation kMutations[] = {swap_queue_entries, swap_queue_neighbours,
                                   drop_queue_entry,   queue_elsewhere,
                                   drop_piece,         repeat_piece,
                                   move_piece,         shift_bound,
                                   cut_by_length,      change_layout_kind,
                                   redirect_input,     exchange_inputs,
                                   redirect_output,    change_op,
                                   change_role,        relayout,
                                   relabel_layer,      relabel_microbatch,
                                   change_members,     change_lengths,
                                   change_partition,   change_model};

Plan random_plan(Random& random) {
  TensorPipelineCase choice = {.tp = random.integer(1, 4),
                               .pp = random.integer(1, 2),
                               .microbatches = random.integer(1, 3),
                               .limits = {}};
  const std::int64_t batch_size = random.integer(1, 3);
  for (std::int64_t i = 0; i < batch_size; ++i) {
    const std::int64_t q_len = random.integer(0, 5);
    choice.limits.push_back({.q_len = q_len, .kv_len = q_len + random.integer(0, 8)});
  }
  return tensor_pipeline_plan(choice);
}

// Every device walks its two queues; joint nodes wait for all their members. True when all is done.
bool runs_to_its_end(const Plan& plan) {
  struct Walk {
    std::size_t compute = 0;
    std::size_t comm = 0;
  };
  std::vector<Walk> walks(plan.devices.size());
  std::vector<bool> written(plan.values.size(), true);
  for (const Node& node : plan.nodes) {
    for (const ValueId output : node.outputs) written[index_of(output)] = false;
  }
  const auto is_next = [&](NodeId id, DeviceId device) {
    const PlanDevice& queues = plan.devices[index_of(device)];
    const Walk& walk = walks[index_of(device)];
    return queue_of(plan.at(id).kind) == Queue::compute
               ? walk.compute < queues.compute.size() && queues.compute[walk.compute] == id
               : walk.comm < queues.comm.size() && queues.comm[walk.comm] == id;
  };
  std::size_t done = 0;
  for (bool progress = true; progress;) {
    progress = false;
    for (std::size_t i = 0; i < plan.nodes.size(); ++i) {
      const auto id = static_cast<NodeId>(i);
      const Node& node = plan.at(id);
      const auto& members = plan.at(node.devices);
      const bool ready =
          std::ranges::all_of(members, [&](DeviceId device) { return is_next(id, device); }) &&
          std::ranges::all_of(node.inputs, [&](ValueId input) { return written[index_of(input)]; });
      if (!ready) continue;
      for (const DeviceId device : members) {
        Walk& walk = walks[index_of(device)];
        ++(queue_of(node.kind) == Queue::compute ? walk.compute : walk.comm);
      }
      for (const ValueId output : node.outputs) written[index_of(output)] = true;
      ++done;
      progress = true;
    }
  }
  return done == plan.nodes.size();
}

// All that readers ask of a valid plan.
std::int64_t sum_of_figures(const ValidPlan& valid) {
  const Plan& plan = valid.plan();
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < plan.nodes.size(); ++i) {
    const auto id = static_cast<NodeId>(i);
    for (const DeviceId device : plan.at(plan.at(id).devices))
      sum += work_of(plan, plan.at(id), device, plan.limits).bytes();
    sum += bytes_sent(plan, id, plan.limits);
    if (queue_of(plan.at(id).kind) == Queue::compute && plan.at(id).kind != OpKind::slice) continue;
    for (const Transfer& transfer : transfers_of(plan, id, plan.limits))
      sum += bytes_of(plan, plan.at(id), transfer);
  }
  for (std::uint32_t device = 0; device < plan.devices.size(); ++device) {
    for (const WeightSlice& slice : weights_on(plan, DeviceId{device})) sum += slice.elements();
  }
  return sum;
}

TEST(Law3Validity, ADamagedPlanIsRefusedOrStillRuns) {
  std::size_t refused = 0;
  std::size_t accepted = 0;
  for (std::uint64_t seed = 0; seed < 6000; ++seed) {
    Random random(seed);
    Plan plan = random_plan(random);
    const auto mutation = static_cast<std::size_t>(seed % std::size(kMutations));
    kMutations[mutation](random, plan);
    const auto valid = validate(plan);
    if (!valid) {
      EXPECT_FALSE(valid.error().empty()) << "seed " << seed;
      ++refused;
      continue;
    }
    ++accepted;
    EXPECT_EQ(valid->topological_order().size(), plan.nodes.size()) << "seed " << seed;
    EXPECT_TRUE(runs_to_its_end(plan)) << "seed " << seed;
    EXPECT_GE(sum_of_figures(*valid), 0) << "seed " << seed;
  }
  EXPECT_GT(refused, 3000U);
  EXPECT_GT(accepted, 100U);  // Some damage does no harm: equal entries swapped, unused axes cut.
}

TEST(Law3Validity, PlansThatAreDamagedSeveralTimesDoNotCrashIt) {
  for (std::uint64_t seed = 0; seed < 2000; ++seed) {
    Random random(seed);
    Plan plan = random_plan(random);
    for (int i = 0; i < 4; ++i) any_of(random, kMutations)(random, plan);
    const auto valid = validate(plan);
    if (valid) {
      EXPECT_TRUE(runs_to_its_end(plan)) << "seed " << seed;
    } else {
      EXPECT_FALSE(valid.error().empty()) << "seed " << seed;
    }
  }
}

TEST(Law2Order, ADeadlockIsExactlyWhatDoesNotRun) {
  // Only queues are disturbed, each node staying in its queues: whether that is harmless is decided
  // by walking them.
  std::size_t stuck = 0;
  for (std::uint64_t seed = 0; seed < 1500; ++seed) {
    Random random(seed);
    Plan plan = random_plan(random);
    swap_queue_neighbours(random, plan);
    const bool runs = runs_to_its_end(plan);
    EXPECT_EQ(validate(plan).has_value(), runs) << "seed " << seed;
    stuck += runs ? 0 : 1;
  }
  EXPECT_GT(stuck, 100U);
  EXPECT_LT(stuck, 1500U);
}

}  // namespace
}  // namespace weir
