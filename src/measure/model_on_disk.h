#pragma once
// A model with random weights that lives as long as what is measured with it.

#include <utility>

#include "base/result.h"
#include "base/temporary_folder.h"
#include "checkpoint/checkpoint.h"
#include "spec/model.h"

namespace weir {

// Written to a temporary folder, which goes with it.
class ModelOnDisk {
 public:
  static Result<ModelOnDisk> make(const ModelSpec& model);
  [[nodiscard]] const ModelSpec& spec() const { return spec_; }
  [[nodiscard]] const Checkpoint& checkpoint() const { return checkpoint_; }

 private:
  ModelOnDisk(TemporaryFolder folder, ModelSpec spec, Checkpoint checkpoint)
      : folder_(std::move(folder)), spec_(std::move(spec)), checkpoint_(std::move(checkpoint)) {}

  TemporaryFolder folder_;  // Outlives the checkpoint that is mapped from it.
  ModelSpec spec_;
  Checkpoint checkpoint_;
};

}  // namespace weir
