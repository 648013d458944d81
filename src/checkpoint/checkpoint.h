#pragma once
// The weights of a model as a Hugging Face folder stores them: finds the bytes of every logical
// weight (spec/weights.h), whatever the architecture calls or fuses them. Everything is checked
// when the folder is opened; afterwards a weight is a pointer into a mapped file, and only the
// pages that are touched are read.

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "base/result.h"
#include "checkpoint/safetensors.h"
#include "spec/model.h"
#include "spec/weights.h"

namespace weir {

// One logical weight in the shape of `shape_of(model, kind)`: row r begins at element
// r * row_stride. The memory is read-only and belongs to the checkpoint.
struct StoredWeight {
  const void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t rows = 0;
  std::int64_t cols = 0;
  std::int64_t row_stride = 0;  // In elements, at least `cols`.
};

// Movable, not copyable. Reading from several threads is safe.
class Checkpoint {
 public:
  // Opens model.safetensors, or the shards that model.safetensors.index.json names. Fails when a
  // file lies about itself, and when tensors are missing, unexpected, of another shape than `model`
  // says or of a dtype that Weir does not compute with; the error lists all of them.
  [[nodiscard]] static Result<Checkpoint> open(const std::string& folder, const ModelSpec& model);

  // The model must have the weight. `layer` is ignored for weights that no layer owns; lm_head of a
  // tied model is the embedding. Valid as long as the checkpoint (or what it was moved to) lives.
  [[nodiscard]] StoredWeight weight(WeightKind kind, std::int64_t layer) const;

  // The same for the same weights, another one for others: of a few values of every weight, so that
  // little of the files is read. Copies that differ in single values are not told apart.
  [[nodiscard]] std::uint64_t fingerprint() const;

 private:
  using WeightMap = std::map<std::pair<WeightKind, std::int64_t>, StoredWeight>;
  Checkpoint(std::vector<SafetensorsFile> files, WeightMap weights)
      : files_(std::move(files)), weights_(std::move(weights)) {}

  std::vector<SafetensorsFile> files_;
  WeightMap weights_;
};

}  // namespace weir
