#pragma once
// Writing a whole model as a Hugging Face folder: config.json, generation_config.json,
// tokenizer.json, tokenizer_config.json and safetensors in one file or in shards. Values are
// streamed, so the model may be larger than memory.

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/result.h"
#include "base/units.h"
#include "checkpoint/byte_tokenizer.h"
#include "checkpoint/model_tensors.h"
#include "checkpoint/safetensors_writer.h"
#include "spec/model.h"

namespace weir {

struct ModelProgress {
  Bytes written;
  Bytes total;  // Of tensor data.
};

struct WriteModelOptions {
  std::uint64_t seed = 0;
  // Replace a folder that holds a model (and nothing else); without it only a new or an empty
  // folder is allowed.
  bool replace = false;
  Bytes max_shard = {std::int64_t{4} << 30};
  std::function<void(ModelProgress)> progress = {};
};

// What a model is made of, beside its spec.
struct ModelContent {
  // Makes the source of one tensor's values; called once per tensor, in the order of
  // `model_tensors`.
  std::function<TensorFill(const ModelTensor&)> values;
  std::span<const WordToken> words;  // Of the byte tokenizer.
};

// Writes `folder`, whose parent must exist: whole, or not at all. Weights are stored as
// model.weight_dtype. Fails before writing where the disk has not the room.
[[nodiscard]] Status write_model_folder(const std::string& folder, const ModelSpec& model,
                                        const ModelContent& content,
                                        const WriteModelOptions& options);

}  // namespace weir
