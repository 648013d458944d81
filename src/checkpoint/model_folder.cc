#include "checkpoint/model_folder.h"

#include <filesystem>
#include <limits>
#include <system_error>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "checkpoint/staging.h"

namespace weir {
namespace {

using nlohmann::json;
using Shard = std::vector<TensorSource>;

constexpr int kIndent = 2;

// Consecutive tensors go into one shard as long as it stays within `max_shard`; a tensor that is
// larger by itself has a shard of its own.
std::vector<Shard> split_into_shards(std::vector<TensorSource> tensors, Bytes max_shard) {
  std::vector<Shard> shards(1);
  Bytes size{};
  for (TensorSource& tensor : tensors) {
    const Bytes added = size_of(tensor);
    if (size + added > max_shard && !shards.back().empty()) {
      shards.emplace_back();
      size = {};
    }
    size += added;
    shards.back().push_back(std::move(tensor));
  }
  return shards;
}

std::string shard_name(std::size_t index, std::size_t count) {
  if (count == 1) return "model.safetensors";
  return fmt::format("model-{:05}-of-{:05}.safetensors", index + 1, count);
}

json index_of(const std::vector<Shard>& shards, Bytes total) {
  json weight_map = json::object();
  for (std::size_t i = 0; i < shards.size(); ++i) {
    for (const TensorSource& tensor : shards[i]) {
      weight_map[tensor.name] = shard_name(i, shards.size());
    }
  }
  return {{"metadata", {{"total_size", total.value}}}, {"weight_map", weight_map}};
}

json token_ids(const std::vector<std::int64_t>& ids) {
  if (ids.empty()) return nullptr;
  return ids.size() == 1 ? json(ids.front()) : json(ids);
}

// Names the word with this id as `role`, if there is such a word.
void name_token(json& config, std::string_view role, std::span<const WordToken> words,
                std::int64_t id) {
  const std::int64_t word = id - kNumByteTokens;
  if (word >= 0 && std::cmp_less(word, words.size())) {
    config[role] = words[static_cast<std::size_t>(word)].text;
  }
}

json tokenizer_config(const ModelSpec& model, std::span<const WordToken> words) {
  json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"clean_up_tokenization_spaces", false},
                 {"model_max_length", model.max_position}};
  if (model.bos_token_id) name_token(config, "bos_token", words, *model.bos_token_id);
  if (!model.eos_token_ids.empty()) {
    name_token(config, "eos_token", words, model.eos_token_ids.front());
  }
  return config;
}

Status write_descriptions(const std::filesystem::path& folder, const ModelSpec& model,
                          std::span<const WordToken> words) {
  const json generation = {
      {"bos_token_id", model.bos_token_id ? json(*model.bos_token_id) : json(nullptr)},
      {"eos_token_id", token_ids(model.eos_token_ids)},
      {"do_sample", false}};
  const std::pair<std::string_view, std::string> files[] = {
      {"config.json", config_of(model).dump(kIndent)},
      {"generation_config.json", generation.dump(kIndent)},
      {"tokenizer.json", byte_tokenizer(words, model.vocab_size).dump()},
      {"tokenizer_config.json", tokenizer_config(model, words).dump(kIndent)},
  };
  for (const auto& [name, text] : files) {
    if (auto written = write_text_file(folder / name, text + "\n"); !written) return written;
  }
  return {};
}

Status check_room(const std::filesystem::path& folder, Bytes needed) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  if (error || std::cmp_greater_equal(space.available, needed.value)) return {};
  return run_failed(fmt::format("{}: the weights need {} bytes, the disk has {} left",
                                folder.parent_path().string(), needed.value, space.available));
}

}  // namespace

Status write_model_folder(const std::string& folder, const ModelSpec& model,
                          const ModelContent& content, const WriteModelOptions& options) {
  std::vector<TensorSource> tensors;
  Bytes total{};
  for (const ModelTensor& tensor : model_tensors(model)) {
    tensors.push_back({.name = tensor.name,
                       .dtype = model.weight_dtype,
                       .shape = tensor.shape,
                       .fill = content.values(tensor)});
    total += size_of(tensors.back());
  }
  auto staged = StagedFolder::create(folder, options.replace ? StagedFolder::Existing::replace_model
                                                             : StagedFolder::Existing::refuse);
  if (!staged) return tl::unexpected(staged.error());
  const std::filesystem::path path = staged->path();
  if (auto room = check_room(path, total); !room) return room;
  if (auto written = write_descriptions(path, model, content.words); !written) return written;

  const std::vector<Shard> shards = split_into_shards(std::move(tensors), options.max_shard);
  if (shards.size() > 1) {
    const std::string index = index_of(shards, total).dump(kIndent) + "\n";
    auto written = write_text_file(path / "model.safetensors.index.json", index);
    if (!written) return written;
  }
  Bytes before{};
  for (std::size_t i = 0; i < shards.size(); ++i) {
    const auto report = [&](Bytes written) {
      if (options.progress) options.progress({.written = before + written, .total = total});
    };
    auto written = write_safetensors(path / shard_name(i, shards.size()), shards[i], report);
    if (!written) return written;
    for (const TensorSource& tensor : shards[i]) before += size_of(tensor);
  }
  return staged->commit();
}

}  // namespace weir
