#pragma once
// A random model in a folder of its own, open for running, and what it takes to run it.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "checkpoint/checkpoint.h"
#include "engine/generate.h"
#include "exec/executor.h"
#include "spec/model.h"
#include "strategy/strategy.h"
#include "tests/checkpoint/test_folder.h"

namespace weir {

// Two layers of 4 query and 2 KV heads of 16; runs in well under a millisecond per token.
[[nodiscard]] ModelSpec small_model_spec();

class SmallModel {
 public:
  explicit SmallModel(const ModelSpec& spec = small_model_spec());

  [[nodiscard]] const ModelSpec& spec() const { return spec_; }
  [[nodiscard]] std::string folder() const { return folder_.file("model"); }
  [[nodiscard]] const Checkpoint& checkpoint() const { return *checkpoint_; }

 private:
  TestFolder folder_;
  ModelSpec spec_;
  std::unique_ptr<Checkpoint> checkpoint_;
};

// What a run under one strategy needs, with unpinned devices of one thread each.
class SmallRun {
 public:
  // With ranks, the devices are theirs.
  SmallRun(const SmallModel& model, NamedStrategy strategy, DType kv_dtype, Ranks* ranks = nullptr);
  // The strategy must be one that the model allows.
  SmallRun(const SmallModel& model, const std::string& strategy, const OptionValues& values = {});

  [[nodiscard]] Generator& generator() { return *generator_; }
  [[nodiscard]] Executor& executor() { return *executor_; }
  [[nodiscard]] const PlanHeader& header() const { return header_; }
  [[nodiscard]] const Strategy& strategy() const { return *strategy_.strategy; }
  [[nodiscard]] const std::string& label() const { return strategy_.label; }

 private:
  NamedStrategy strategy_;
  PlanHeader header_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<Generator> generator_;
};

// `length` tokens drawn from the vocabulary.
[[nodiscard]] std::vector<std::int64_t> random_prompt(const ModelSpec& model, std::int64_t length,
                                                      std::uint64_t seed);

}  // namespace weir
