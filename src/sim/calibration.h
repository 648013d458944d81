#pragma once
// The constants of the GPU and collective models: what no data sheet says. They are few, each has a
// physical meaning, and each set was fitted on published measurements of one GPU with one software
// stack. Nothing here is a table of times: shapes enter through the formulas of gpu_model.h and
// collectives.h only. docs/accuracy.md says how well they do on data that they were not fitted on.

#include <string_view>

#include "base/units.h"
#include "spec/cluster.h"

namespace weir {

// Dense matrix products, bf16 or f16 operands.
struct GemmConstants {
  Seconds launch = {};           // From one kernel to the next in a CUDA graph: the least time.
  double memory_efficiency = 1;  // Of the HBM peak, that large streams reach.
  double l2_efficiency = 1;      // Of L2's measured rate; above 1 where clusters of blocks share
                                 // what they load (Hopper's multicast).
  double tensor_efficiency = 1;  // Of the tensor peak, inside a tile's main loop.
  Seconds tile_overhead = {};    // Filling a tile's pipeline and writing its result.
  BytesPerSecond sm_bandwidth = {};  // What one SM can draw from memory: few tiles cannot fill HBM.
  Seconds split_overhead = {};       // Adding up the parts of a product whose depth was split.
};

// FlashAttention over a paged cache: tiles of 128 queries that walk blocks of 128 keys.
struct AttentionConstants {
  Seconds launch = {};
  double memory_efficiency = 1;
  double tensor_efficiency = 1;  // Of the tensor peak, inside a step over a block of keys.
  Seconds step_overhead = {};    // Softmax and synchronisation of one step over a block of keys.
  BytesPerSecond sm_bandwidth = {};  // Keys and values that one SM can draw.
  Seconds tile_latency = {};         // Before a tile's first step and after its last.
  double tile_occupancy = 1;    // The share of tile_latency that other tiles of the SM do not hide.
  Seconds split_overhead = {};  // A second kernel merges when keys are split,
  Seconds split_cost = {};      // and takes this long for each split.
  double overlap = 4;  // Exponent p of (compute^p + memory^p)^(1/p): large where the two hide each
                       // other.
  double append_passes = 0;  // Times that new K and V cross HBM in the measured call: stacks that
                             // write the cache inside it. Only `weir accuracy` uses it.
};

// Power beyond what data sheets say. The energy of arithmetic over its time, plus `static_watts`,
// may not exceed the limit: that is why large products on Hopper run below their peak.
struct PowerConstants {
  double static_watts = 0;     // A GPU at work, before any operation.
  double joules_per_flop = 0;  // bf16 tensor operations.
  double joules_per_byte = 0;  // HBM to registers.
};

// Collectives inside one NVLink domain, NCCL's rings.
struct CollectiveConstants {
  Seconds launch = {};           // The least time of a collective.
  Seconds hop = {};              // One step of a ring, small-message protocols.
  double packed_efficiency = 1;  // Of the port, LL128: data and flags in one line.
  Seconds packed_launch = {};    // Over `launch`.
  Bytes packed_limit = {};       // Sent per device; NCCL's small rings change to `bulk` here.
  double inline_efficiency = 1;  // Of the port, LL: a flag beside every word.
  double bulk_efficiency = 1;    // Of the port, Simple.
  Seconds bulk_launch = {};      // Over `launch`.
  Seconds bulk_hop = {};
  double local_copy = 0;         // Share of the port's rate that a device's own part costs.
  double switch_efficiency = 0;  // Of the port, in-network reduction (NVLS); 0: none.
  Seconds switch_launch = {};    // Over `launch`.
};

// One all_reduce kernel that reads its peers' buffers (vLLM, TensorRT-LLM): at once, or its own
// part first and then the others'.
struct CustomAllReduceConstants {
  Seconds one_shot_launch = {};
  Seconds two_shot_launch = {};
  Seconds peer = {};               // For every member beyond two.
  double one_shot_efficiency = 1;  // Of the port.
  double two_shot_efficiency = 1;
};
// Larger messages are left to NCCL. Source: vLLM, custom_all_reduce.py, max_size.
inline constexpr Bytes kCustomAllReduceLimit{8 << 20};

struct GpuCalibration {
  std::string_view name;                 // "A100"
  std::string_view stack;                // What software was measured, by whom.
  double flops_per_sm_clock = 0;         // Tensor, dense bf16: tells the architectures apart.
  BytesPerSecond memory_bandwidth = {};  // Peak of the GPU measured.
  GemmConstants gemm;
  AttentionConstants attention;
  PowerConstants power;
  CollectiveConstants collective;
  CustomAllReduceConstants custom_all_reduce;
};

// The calibration of the same architecture whose memory bandwidth is nearest; where the
// architecture is unknown (or cannot be told: no num_cores or clock_ghz), of all.
[[nodiscard]] const GpuCalibration& calibration_for(const DeviceType& type);

// Beyond one NVLink domain, where the cluster file gives no latency.
// Source: ai-dynamo/aiconfigurator systems/*.yaml, p2p_latency (labelled nonofficial).
inline constexpr Seconds kDefaultHopLatency{10e-6};
// Between two threads of one machine, through shared memory: a flag is written and seen.
inline constexpr Seconds kSharedMemoryLatency{1e-6};
// NVIDIA on NVIDIA/nccl-tests issue 290: 46-48 GB/s of a 50 GB/s card.
inline constexpr double kNicEfficiency = 0.94;
// PCIe's packet headers at 256 B payload: 256 / (256 + 24).
inline constexpr double kPcieEfficiency = 0.91;

}  // namespace weir
