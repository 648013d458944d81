#pragma once
// Writing the safetensors format from a stream of values, so that a file may be larger than memory.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "base/units.h"

namespace weir {

// Writes the next out.size() elements, in row-major order, into `out`. Called until the tensor is
// complete.
using TensorFill = std::function<void(std::span<float> out)>;

struct TensorSource {
  std::string name;
  DType dtype = DType::f32;  // Values are rounded to it.
  std::vector<std::int64_t> shape;
  TensorFill fill;
};

[[nodiscard]] std::int64_t num_elements(std::span<const std::int64_t> shape);
[[nodiscard]] Bytes size_of(const TensorSource& tensor);

// Called now and then with the bytes of tensor data that have been written to this file.
using WriteProgress = std::function<void(Bytes written)>;

// Writes `tensors`, whose names must be unique, to `path`: whole, or not at all (a full disk is an
// error that leaves nothing behind). Data lies in the given order, but wider dtypes first, so that
// every tensor is aligned.
[[nodiscard]] Status write_safetensors(const std::string& path,
                                       std::span<const TensorSource> tensors,
                                       const WriteProgress& progress = {});

}  // namespace weir
