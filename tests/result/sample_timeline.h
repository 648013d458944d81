#pragma once
// A run small enough to work out by hand. Two devices, a prefill and a decode, two requests:
//
//   ns    0        10        20        30        40        50        60        70   ..   95   100
//   step            |-------------- prefill --------------|           |---- decode ------|
//   gpu0  compute   |attention|     |-- qkv_proj ---|                 |--add--|
//         comm             |w |---- all_reduce -----|(18, 22, 45)
//   gpu1  compute   |- o_proj --|(10, 22)                             |-- ffn_up --|(60, 90)
//         comm                  |---- all_reduce ---|(22, 22, 44)

#include <array>
#include <cstdint>

#include "result/timeline.h"

namespace weir {

inline Timeline sample_timeline() {
  const DeviceId gpu0{0};
  const DeviceId gpu1{1};
  Timeline timeline{.devices = {"gpu0", "gpu1"},
                    .start = {0},
                    .end = {100},
                    .steps = {{.prefill = true, .new_tokens = 2, .start = {10}, .end = {50}},
                              {.prefill = false, .new_tokens = 1, .start = {60}, .end = {95}}},
                    .requests = {{.input_tokens = 6, .arrival = {0}, .token_times = {{52}, {97}}},
                                 {.input_tokens = 3, .arrival = {2}, .token_times = {{52}}}},
                    .tasks = {}};
  const auto add = [&](std::int32_t step, std::uint32_t node, DeviceId device, OpKind kind,
                       std::array<std::int64_t, 3> times, std::int64_t flops, std::int64_t bytes) {
    timeline.tasks.push_back({.step = step,
                              .node = NodeId{node},
                              .device = device,
                              .kind = kind,
                              .layer = 0,
                              .microbatch = 0,
                              .start = {times[0]},
                              .ready = {times[1]},
                              .end = {times[2]},
                              .flops = flops,
                              .bytes = bytes});
  };
  // Out of order, as a timeline may be.
  add(1, 4, gpu1, OpKind::ffn_up, {60, 60, 90}, 9000, 600);
  add(0, 0, gpu0, OpKind::attention, {10, 10, 20}, 4000, 100);
  add(0, 1, gpu0, OpKind::all_reduce, {18, 22, 45}, 0, 64);
  add(0, 1, gpu1, OpKind::all_reduce, {22, 22, 44}, 0, 32);
  add(0, 2, gpu0, OpKind::qkv_proj, {25, 25, 40}, 3000, 300);
  add(0, 3, gpu1, OpKind::o_proj, {10, 10, 22}, 2000, 200);
  add(1, 5, gpu0, OpKind::add, {60, 60, 70}, 10, 40);
  return timeline;
}

}  // namespace weir
