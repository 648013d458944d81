#include "app/request_flags.h"

#include <gtest/gtest.h>

namespace weir {
namespace {

ModelSpec model_of_long_texts() {
  ModelSpec model;
  model.hidden_size = 16384;
  model.num_q_heads = 128;
  model.head_dim = 128;
  model.intermediate_size = 53248;
  model.vocab_size = 128256;
  model.max_position = std::int64_t{1} << 23;
  return model;
}

TEST(CheckLengths, RefusesWhatIsLongerThanTheModelsPositions) {
  const ModelSpec model = model_of_long_texts();
  EXPECT_TRUE(check_lengths(model, {.prompt_len = (1 << 23) - 2, .output_len = 2}));
  EXPECT_EQ(check_lengths(model, {.prompt_len = (1 << 23) - 1, .output_len = 2}).error().message,
            "--prompt-len: found 8388607 and --output-len 2, allowed 8388608 together "
            "(max_position)");
}

TEST(CheckLengths, RefusesMoreRequestsThanTheirOperationsCanBeCounted) {
  const ModelSpec model = model_of_long_texts();
  RequestOptions requests = {.batch_size = 64, .prompt_len = (1 << 21) - 2, .output_len = 2};
  EXPECT_EQ(check_lengths(model, requests).error().message,
            "--batch: found 64 requests of 2097152 tokens, allowed 16: their operations cannot be "
            "counted");
  requests.batch_size = 16;
  EXPECT_TRUE(check_lengths(model, requests));
}

}  // namespace
}  // namespace weir
