#pragma once
// The weights of one device: exactly the slices that its tasks need, read from the checkpoint once
// and kept packed.

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "kernel/kernel.h"
#include "kernel/scratch.h"
#include "plan/placement.h"

namespace weir {

class DeviceWeights {
 public:
  DeviceWeights(const Checkpoint& checkpoint, const ModelSpec& model)
      : checkpoint_(checkpoint), model_(model) {}

  // Each loads the slice when it is first asked for, with the device's own cores so that its memory
  // is near them; throws std::bad_alloc when memory runs out. What they return stays valid as long
  // as this object.
  [[nodiscard]] const kernel::PackedWeights& matrix(Team& team, const WeightSlice& slice);
  [[nodiscard]] std::span<const float> vector(const WeightSlice& slice);
  // Rows of the embedding, straight from the checkpoint's mapping.
  [[nodiscard]] kernel::EmbeddingTable table(const WeightSlice& slice) const;

  [[nodiscard]] std::int64_t bytes() const { return bytes_; }

 private:
  struct Less {
    bool operator()(const WeightSlice& a, const WeightSlice& b) const;
  };

  const Checkpoint& checkpoint_;
  const ModelSpec& model_;
  kernel::Arena arena_;  // Of all matrices; outlives them.
  std::map<WeightSlice, std::unique_ptr<kernel::PackedWeights>, Less> matrices_;
  std::map<WeightSlice, std::vector<float>, Less> vectors_;
  std::int64_t bytes_ = 0;
};

}  // namespace weir
