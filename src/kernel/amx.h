#pragma once
// Intel's Advanced Matrix Extensions (AMX): a unit beside the vector units that multiplies tiles of
// bf16 and adds up in f32, 16 times as many multiply-adds a cycle as two 512-bit vector units do in
// f32. Kernels use it for products of many rows, with operands cut into pieces of bf16 so that
// nothing is lost (amx-inl.h).

#include <cstdint>

#include "base/dtype.h"

namespace weir::kernel {

// Whether this processor has it and the operating system lets this process use it.
[[nodiscard]] bool amx_available();
// Whether kernels use it: where it is available, until told otherwise. For tests and benchmarks,
// between calls of kernels.
[[nodiscard]] bool amx_enabled();
void enable_amx(bool enabled);

// While it lives, the eight tiles of this thread have 16 rows of 64 bytes, but for the first six,
// which have `rows`. Only where AMX is available.
class TileRegisters {
 public:
  explicit TileRegisters(int rows = 16);
  ~TileRegisters();
  TileRegisters(const TileRegisters&) = delete;
  TileRegisters& operator=(const TileRegisters&) = delete;
};

// Products of bf16 pieces that take the place of one of an f32 by a value of that type (amx-inl.h).
[[nodiscard]] constexpr int products_of_pieces(DType dtype) {
  constexpr int kF32 = 6;
  constexpr int kF16 = 5;
  constexpr int kBf16 = 3;
  return dtype == DType::f32 ? kF32 : dtype == DType::f16 ? kF16 : kBf16;
}

// Multiplies tiles that are in registers, four for each round, and returns the floating-point
// operations that this was: what a kernel can reach at most. Nothing where AMX is not available.
double multiply_tiles_in_registers(std::int64_t rounds);

}  // namespace weir::kernel
