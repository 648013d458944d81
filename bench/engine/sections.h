#pragma once
// The parts of the benchmark, each a piece of Markdown with its own ceilings.

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace weir::bench {

using Progress = std::function<void(std::string_view)>;

struct SectionOptions {
  Progress progress;
  std::string pictures;                  // The folder for pictures.
  std::string programs;                  // Where kernel_bench lies.
  std::optional<std::string> llama_cpp;  // A llama-bench binary.
  std::optional<std::string> torch;      // A Python interpreter that has torch.
};

// What kernel_bench prints, on one core and on all.
[[nodiscard]] Result<std::string> kernels_section(const SectionOptions& options);
// Prefill and decode of a small model, and of the source notes' model.
[[nodiscard]] Result<std::string> small_model_section(const SectionOptions& options);
[[nodiscard]] Result<std::string> notes_model_section(const SectionOptions& options);
// Two cores against one: tensor parallel, and a pool of one.
[[nodiscard]] Result<std::string> two_cores_section(const SectionOptions& options);
// What starting an op, a barrier and a transfer cost.
[[nodiscard]] Result<std::string> costs_section(const SectionOptions& options);
// Partitions that fit a cache, and a sweep of their size.
[[nodiscard]] Result<std::string> cache_fit_section(const SectionOptions& options);
// Memory of prompts up to 131,072 tokens.
[[nodiscard]] Result<std::string> long_prompt_section(const SectionOptions& options);
// llama.cpp and PyTorch, as far as they are given.
[[nodiscard]] Result<std::string> peers_section(const SectionOptions& options);

}  // namespace weir::bench
