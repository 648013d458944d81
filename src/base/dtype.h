#pragma once
// The number formats in which Weir stores tensors, their sizes, and exact conversions to and from
// f32. Arithmetic is always done in f32 or wider; a dtype says how values are kept.

#include <cstdint>
#include <optional>
#include <string_view>

namespace weir {

enum class DType : std::uint8_t { f32, bf16, f16 };

[[nodiscard]] std::int64_t size_in_bytes(DType dtype);
[[nodiscard]] std::string_view to_string(DType dtype);
// Accepts Weir's names and those of published configs ("float32", "bfloat16", "float16", "F32",
// "BF16", "F16").
[[nodiscard]] std::optional<DType> parse_dtype(std::string_view name);

// Relative rounding error of one conversion into the dtype (half a unit in the last place): 2^-24,
// 2^-8, 2^-11.
[[nodiscard]] double unit_roundoff(DType dtype);

// Bit patterns of one value. To-f32 is exact; from-f32 rounds to nearest even, keeps NaN a NaN, and
// overflows to infinity.
[[nodiscard]] float bf16_to_f32(std::uint16_t bits);
[[nodiscard]] std::uint16_t f32_to_bf16(float value);
[[nodiscard]] float f16_to_f32(std::uint16_t bits);
[[nodiscard]] std::uint16_t f32_to_f16(float value);

}  // namespace weir
