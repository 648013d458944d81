#pragma once
// A model with random weights in llama.cpp's file format, so that it can be timed on the same
// shapes. Format: GGUF version 3, docs/gguf.md of the ggml project.

#include <string>

#include "base/result.h"
#include "spec/model.h"

namespace weir::bench {

// A Llama without biases, matrices in f16 and norms in f32, without a tokenizer.
[[nodiscard]] Status write_gguf(const std::string& path, const ModelSpec& model);

}  // namespace weir::bench
