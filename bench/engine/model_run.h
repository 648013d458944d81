#pragma once
// A model with random weights, run under a strategy on this machine's cores, and how long its steps
// take.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/generate.h"
#include "exec/executor.h"
#include "measure/model_on_disk.h"
#include "spec/model.h"
#include "strategy/strategy.h"

namespace weir::bench {

struct Shape {
  std::int64_t num_layers = 0;
  std::int64_t hidden_size = 0;
  std::int64_t num_heads = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t vocab_size = 32000;
};
// A Llama of that shape with f16 weights, for prompts of up to 2^18 tokens.
[[nodiscard]] ModelSpec model_of(std::string name, const Shape& shape);

// The two that whole runs are measured on.
[[nodiscard]] ModelSpec small_model();
inline constexpr std::string_view kSmallTitle =
    "8 layers x 1,024 wide (16 heads x 64, FFN 4,096 gated, vocabulary 32,000)";
[[nodiscard]] ModelSpec notes_model();
inline constexpr std::string_view kNotesTitle =
    "4 layers x 4,096 wide (32 heads x 128, FFN 16,384 gated, vocabulary 32,000)";

// Weights of the layers and of the output: what every decode step reads.
[[nodiscard]] std::int64_t decode_weight_bytes(const ModelSpec& model);

struct Split {
  std::string strategy = "single";
  OptionValues options = {};
  std::int64_t cores_per_device = 1;
  std::int64_t in_flight = 1;  // Groups of requests.
};

struct Prompts {
  std::int64_t length = 1;
  std::int64_t count = 1;
  std::int64_t output_len = 1;
  int times =
      1;  // One after the other: the last one's prefill counts, and the decode steps of all.
};

// Seconds from the start to the first token of the last request, and of each decode step after it.
struct RunTimes {
  double prefill = 0;
  std::vector<double> decode_steps;
};

class ModelRun {
 public:
  // The model must outlive the run.
  static Result<std::unique_ptr<ModelRun>> make(const ModelOnDisk& model, const Split& split);
  Result<RunTimes> run(const Prompts& prompts);

  [[nodiscard]] Executor& executor() { return *executor_; }
  [[nodiscard]] const Strategy& strategy() const { return *strategy_; }
  [[nodiscard]] const PlanHeader& header() const { return header_; }

 private:
  ModelRun() = default;

  std::int64_t in_flight_ = 1;
  std::unique_ptr<Strategy> strategy_;
  std::unique_ptr<Executor> executor_;
  PlanHeader header_;
  std::unique_ptr<Generator> generator_;
};

}  // namespace weir::bench
