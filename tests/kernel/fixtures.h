#pragma once
// Random operands, and running a test on every instruction set that this machine has.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include "base/dtype.h"
#include "base/random.h"
#include "kernel/amx.h"
#include "kernel/kernel.h"

namespace weir::kernel {

// Calls body() once per compiled target that the machine can run, best first, and before that on
// AMX tiles where it has them.
template <class Body>
void on_every_target(const Body& body) {
  if (amx_available()) {
    SCOPED_TRACE("AMX");
    body();
  }
  const bool amx = amx_enabled();
  enable_amx(false);
  for (const std::int64_t target : hwy::SupportedAndGeneratedTargets()) {
    SCOPED_TRACE(hwy::TargetName(target));
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    body();
  }
  hwy::SetSupportedTargetsForTest(0);
  hwy::GetChosenTarget().DeInit();
  enable_amx(amx);
}

inline float random_value(Random& random) { return static_cast<float>(2 * random.uniform() - 1); }

inline DType random_dtype(Random& random) {
  constexpr DType kAll[] = {DType::f32, DType::bf16, DType::f16};
  return kAll[random.integer(0, 2)];
}

// A value that no test computes: what lies between rows must still be there afterwards.
inline constexpr float kUntouched = 12345.0F;

// Rows further apart than they are wide.
struct OwnedMatrix {
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t row_stride = 0;
  std::vector<float> values;

  OwnedMatrix(std::int64_t num_rows, std::int64_t num_cols, std::int64_t gap)
      : rows(num_rows),
        cols(num_cols),
        row_stride(num_cols + gap),
        values(static_cast<std::size_t>(num_rows * (num_cols + gap)), kUntouched) {}

  void randomise(Random& random, double largest = 1) {
    for (std::int64_t row = 0; row < rows; ++row) {
      for (std::int64_t col = 0; col < cols; ++col) {
        at(row, col) = static_cast<float>(largest) * random_value(random);
      }
    }
  }
  [[nodiscard]] float& at(std::int64_t row, std::int64_t col) {
    return values[static_cast<std::size_t>(row * row_stride + col)];
  }
  [[nodiscard]] Matrix view() { return {values.data(), rows, cols, row_stride}; }
  [[nodiscard]] ConstMatrix const_view() const { return {values.data(), rows, cols, row_stride}; }
};

// Equal within `tolerance` everywhere, gaps between rows included.
inline void expect_near(const OwnedMatrix& actual, const OwnedMatrix& expected, double tolerance) {
  ASSERT_EQ(actual.values.size(), expected.values.size());
  for (std::size_t i = 0; i < actual.values.size(); ++i) {
    ASSERT_NEAR(actual.values[i], expected.values[i], tolerance) << "at index " << i;
  }
}

// Stored values of any dtype, at an address aligned for that dtype and no better.
class Stored {
 public:
  Stored(DType dtype, std::int64_t count) : dtype_(dtype) {
    bytes_.resize(static_cast<std::size_t>((count + 1) * size_in_bytes(dtype)));
  }
  void randomise(Random& random) {
    const std::int64_t size = size_in_bytes(dtype_);
    for (std::int64_t i = 0; (i + 1) * size <= static_cast<std::int64_t>(bytes_.size()); ++i) {
      set(i - 1, random_value(random));
    }
  }
  void set(std::int64_t index, float value) {
    std::byte* const to = bytes_.data() + (index + 1) * size_in_bytes(dtype_);
    if (dtype_ == DType::f32) {
      std::memcpy(to, &value, sizeof(value));
      return;
    }
    const std::uint16_t bits = dtype_ == DType::bf16 ? f32_to_bf16(value) : f32_to_f16(value);
    std::memcpy(to, &bits, sizeof(bits));
  }
  [[nodiscard]] std::byte* data() { return bytes_.data() + size_in_bytes(dtype_); }
  [[nodiscard]] const std::byte* data() const { return bytes_.data() + size_in_bytes(dtype_); }
  [[nodiscard]] DType dtype() const { return dtype_; }
  [[nodiscard]] const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  DType dtype_;
  std::vector<std::byte> bytes_;
};

}  // namespace weir::kernel
