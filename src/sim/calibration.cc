#include "sim/calibration.h"

#include <array>
#include <cmath>

namespace weir {
namespace {

constexpr double kMicro = 1e-6;
constexpr double kGiga = 1e9;
constexpr double kPico = 1e-12;

// NCCL 2.27 on DGX A100, all_reduce and all_gather of 512 B to 512 MiB on 2, 4 and 8 GPUs.
constexpr CollectiveConstants kAmpereCollectives = {.launch = {8.05 * kMicro},
                                                    .hop = {0.90 * kMicro},
                                                    .packed_efficiency = 0.457,
                                                    .packed_launch = {3.63 * kMicro},
                                                    .packed_limit = {900'000},
                                                    .inline_efficiency = 0.02,
                                                    .bulk_efficiency = 0.750,
                                                    .bulk_launch = {20.8 * kMicro},
                                                    .bulk_hop = {3.93 * kMicro},
                                                    .local_copy = 0.667,
                                                    .switch_efficiency = 0,
                                                    .switch_launch = {}};
// The same of DGX H100, whose switches add.
constexpr CollectiveConstants kHopperCollectives = {.launch = {4.80 * kMicro},
                                                    .hop = {0.79 * kMicro},
                                                    .packed_efficiency = 0.451,
                                                    .packed_launch = {1.32 * kMicro},
                                                    .packed_limit = {1'900'000},
                                                    .inline_efficiency = 0.09,
                                                    .bulk_efficiency = 0.836,
                                                    .bulk_launch = {12.5 * kMicro},
                                                    .bulk_hop = {1.5 * kMicro},
                                                    .local_copy = 0.677,
                                                    .switch_efficiency = 0.590,
                                                    .switch_launch = {68.5 * kMicro}};

// vLLM's kernel on DGX H100, 256 B to 8 MiB on 2, 4 and 8 GPUs; on A100 it was not measured, so the
// launches are longer there as NCCL's are.
constexpr CustomAllReduceConstants kHopperCustom = {.one_shot_launch = {4.35 * kMicro},
                                                    .two_shot_launch = {8.51 * kMicro},
                                                    .peer = {0.07 * kMicro},
                                                    .one_shot_efficiency = 0.583,
                                                    .two_shot_efficiency = 0.736};
constexpr CustomAllReduceConstants kAmpereCustom = {.one_shot_launch = {7.3 * kMicro},
                                                    .two_shot_launch = {14.3 * kMicro},
                                                    .peer = {0.12 * kMicro},
                                                    .one_shot_efficiency = 0.583,
                                                    .two_shot_efficiency = 0.736};

// Kernels: ai-dynamo/aiconfigurator@095f58a5, collected in CUDA graphs. Power: on H200 from the
// same source's board power (8192^3 in bf16 at 691 W, streams of 4 TB/s at 580 W); on H100 and
// A100 such that their capped rates come out (H100 802 TFLOP/s at 700 W; the A100 of 300 W is 20%
// below that of 400 W in large products: microsoft/vidur@7d475133).
constexpr GpuCalibration kA100 = {
    .name = "A100",
    .stack = "A100 SXM 80 GB, vLLM 0.14 (cuBLAS, FlashAttention 2), NCCL 2.27",
    .flops_per_sm_clock = 2048,
    .memory_bandwidth = {2039 * kGiga},
    .gemm = {.launch = {3.59 * kMicro},
             .memory_efficiency = 0.730,
             .l2_efficiency = 0.8,
             .tensor_efficiency = 0.846,
             .tile_overhead = {1.70 * kMicro},
             .sm_bandwidth = {28.6 * kGiga},
             .split_overhead = {1.15 * kMicro}},
    .attention = {.launch = {5.68 * kMicro},
                  .memory_efficiency = 0.95,
                  .tensor_efficiency = 0.651,
                  .step_overhead = {0.489 * kMicro},
                  .sm_bandwidth = {19.0 * kGiga},
                  .tile_latency = {3.08 * kMicro},
                  .tile_occupancy = 1.38,
                  .split_overhead = {6.47 * kMicro},
                  .split_cost = {0.029 * kMicro},
                  .overlap = 2.79,
                  .append_passes = 2.52},
    .power = {.static_watts = 80, .joules_per_flop = 0.99 * kPico, .joules_per_byte = 100 * kPico},
    .collective = kAmpereCollectives,
    .custom_all_reduce = kAmpereCustom};

// The card of 300 W, measured by others with another stack: what differs is its memory.
constexpr GpuCalibration a100_pcie() {
  GpuCalibration pcie = kA100;
  pcie.name = "A100 PCIe";
  pcie.stack = "A100 80 GB of 300 W, PyTorch 2 kernels (microsoft/vidur@7d475133)";
  pcie.memory_bandwidth = {1935 * kGiga};
  pcie.gemm.memory_efficiency = 0.84;
  return pcie;
}

constexpr std::array kCalibrations = {
    kA100,
    a100_pcie(),
    GpuCalibration{.name = "H100",
                   .stack = "H100 SXM, vLLM 0.24 (cuBLASLt, FlashAttention 3), NCCL 2.27",
                   .flops_per_sm_clock = 4096,
                   .memory_bandwidth = {3350 * kGiga},
                   .gemm = {.launch = {1.98 * kMicro},
                            .memory_efficiency = 0.853,
                            .l2_efficiency = 1.5,
                            .tensor_efficiency = 0.844,
                            .tile_overhead = {0.771 * kMicro},
                            .sm_bandwidth = {54.1 * kGiga},
                            .split_overhead = {1.77 * kMicro}},
                   .attention = {.launch = {9.85 * kMicro},
                                 .memory_efficiency = 0.949,
                                 .tensor_efficiency = 0.771,
                                 .step_overhead = {0.095 * kMicro},
                                 .sm_bandwidth = {310 * kGiga},
                                 .tile_latency = {2.19 * kMicro},
                                 .tile_occupancy = 0.97,
                                 .split_overhead = {1.75 * kMicro},
                                 .split_cost = {0.0175 * kMicro},
                                 .overlap = 1.01,
                                 .append_passes = 1.66},
                   .power = {.static_watts = 100,
                             .joules_per_flop = 0.73 * kPico,
                             .joules_per_byte = 115 * kPico},
                   .collective = kHopperCollectives,
                   .custom_all_reduce = kHopperCustom},
    GpuCalibration{.name = "H200",
                   .stack = "H200 SXM, vLLM 0.22 (cuBLASLt, FlashAttention 3)",
                   .flops_per_sm_clock = 4096,
                   .memory_bandwidth = {4800 * kGiga},
                   .gemm = {.launch = {1.79 * kMicro},
                            .memory_efficiency = 0.864,
                            .l2_efficiency = 1.5,
                            .tensor_efficiency = 0.740,
                            .tile_overhead = {0.887 * kMicro},
                            .sm_bandwidth = {59.7 * kGiga},
                            .split_overhead = {2.51 * kMicro}},
                   .attention = {.launch = {6.45 * kMicro},
                                 .memory_efficiency = 0.948,
                                 .tensor_efficiency = 0.935,
                                 .step_overhead = {0.331 * kMicro},
                                 .sm_bandwidth = {246 * kGiga},
                                 .tile_latency = {2.75 * kMicro},
                                 .tile_occupancy = 0.99,
                                 .split_overhead = {1.74 * kMicro},
                                 .split_cost = {0.029 * kMicro},
                                 .overlap = 1.46,
                                 .append_passes = 0.30},
                   .power = {.static_watts = 120,
                             .joules_per_flop = 0.78 * kPico,
                             .joules_per_byte = 115 * kPico},
                   .collective = kHopperCollectives,
                   .custom_all_reduce = kHopperCustom},
};

// How many times larger one of two rates is than the other, as a logarithm.
double distance(double a, double b) { return std::abs(std::log(a / b)); }

double distance(const GpuCalibration& calibration, const DeviceType& type) {
  double sum = 0;
  const auto peak = type.matrix_flops.of(DType::bf16);
  if (peak && type.num_cores && type.clock_ghz) {
    const double per_clock =
        peak->value / static_cast<double>(*type.num_cores) / (*type.clock_ghz * kGiga);
    // Another architecture is further away than any memory.
    constexpr double kArchitectureWeight = 100;
    sum += kArchitectureWeight * std::round(distance(per_clock, calibration.flops_per_sm_clock));
  }
  if (type.memory_bandwidth)
    sum += distance(type.memory_bandwidth->value, calibration.memory_bandwidth.value);
  return sum;
}

}  // namespace

const GpuCalibration& calibration_for(const DeviceType& type) {
  const GpuCalibration* nearest = kCalibrations.data();
  for (const GpuCalibration& calibration : kCalibrations) {
    if (distance(calibration, type) < distance(*nearest, type)) nearest = &calibration;
  }
  return *nearest;
}

}  // namespace weir
