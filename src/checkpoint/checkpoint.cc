#include "checkpoint/checkpoint.h"

#include <cstring>
#include <filesystem>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "base/json.h"
#include "checkpoint/model_tensors.h"

namespace weir {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSingleFile = "model.safetensors";
constexpr std::string_view kIndexFile = "model.safetensors.index.json";

struct Found {
  const SafetensorsFile* file = nullptr;
  const SafetensorsEntry* entry = nullptr;
};
using FoundTensors = std::map<std::string, Found, std::less<>>;

std::vector<std::string> names_of_shards(const std::map<std::string, std::string>& index) {
  std::set<std::string> names;
  for (const auto& [tensor, file] : index) names.insert(file);
  return {names.begin(), names.end()};
}

// An index and its shards must tell the same story.
std::vector<std::string> compare_with_index(const std::map<std::string, std::string>& index,
                                            const std::vector<std::string>& shards,
                                            const std::vector<SafetensorsFile>& files) {
  std::vector<std::string> problems;
  std::set<std::string> held;  // Tensors found where the index places them.
  for (std::size_t i = 0; i < files.size(); ++i) {
    for (const SafetensorsEntry& entry : files[i].entries()) {
      const auto named = index.find(entry.name);
      if (named == index.end() || named->second != shards[i]) {
        problems.push_back(
            fmt::format("{}: found tensor {}, which the index {}", shards[i], shown(entry.name),
                        named == index.end() ? "does not name" : "places in " + named->second));
      } else {
        held.insert(entry.name);
      }
    }
  }
  for (const auto& [tensor, shard] : index) {
    if (!held.contains(tensor)) {
      problems.push_back(
          fmt::format("{}: lacks tensor {}, which the index places there", shard, shown(tensor)));
    }
  }
  return problems;
}

Result<std::vector<SafetensorsFile>> open_shards(const fs::path& folder) {
  const std::string index_path = folder / kIndexFile;
  const auto text = read_text_file(index_path);
  if (!text) return tl::unexpected(text.error());
  const auto index = parse_safetensors_index(*text, index_path);
  if (!index) return tl::unexpected(index.error());
  const std::vector<std::string> shards = names_of_shards(*index);
  std::vector<SafetensorsFile> files;
  std::vector<std::string> problems;
  for (const std::string& shard : shards) {
    auto file = SafetensorsFile::open(folder / shard);
    if (file) {
      files.push_back(*std::move(file));
    } else {
      problems.push_back(file.error().message);
    }
  }
  if (problems.empty()) problems = compare_with_index(*index, shards, files);
  if (!problems.empty()) {
    return invalid_input(fmt::format("{}: {}", index_path, join_problems(problems)));
  }
  return files;
}

Result<std::vector<SafetensorsFile>> open_files(const fs::path& folder) {
  std::error_code error;
  if (!fs::is_directory(folder, error)) {
    return invalid_input(fmt::format("{}: is not a folder", folder.string()));
  }
  if (fs::exists(folder / kSingleFile, error)) {
    auto file = SafetensorsFile::open(folder / kSingleFile);
    if (!file) return tl::unexpected(file.error());
    std::vector<SafetensorsFile> files;
    files.push_back(*std::move(file));
    return files;
  }
  if (fs::exists(folder / kIndexFile, error)) return open_shards(folder);
  return invalid_input(fmt::format("{}: found neither {} nor {}{}", folder.string(), kSingleFile,
                                   kIndexFile,
                                   fs::exists(folder / "pytorch_model.bin", error)
                                       ? " (pytorch_model.bin is not read: convert it)"
                                       : ""));
}

// One problem, or nothing if the stored tensor is what the model needs.
std::string mismatch(const ModelTensor& wanted, const FoundTensors& found) {
  const auto at = found.find(wanted.name);
  if (at == found.end()) {
    return fmt::format("missing {} [{}]", wanted.name, fmt::join(wanted.shape, ", "));
  }
  const SafetensorsEntry& entry = *at->second.entry;
  if (entry.shape != wanted.shape) {
    return fmt::format("{}: found shape [{}], config.json wants [{}]", wanted.name,
                       fmt::join(entry.shape, ", "), fmt::join(wanted.shape, ", "));
  }
  if (!entry.dtype) {
    return fmt::format("{}: found dtype {}, allowed one of: F32, BF16, F16", wanted.name,
                       entry.format_dtype);
  }
  return {};
}

std::vector<std::string> find_problems(const ModelSpec& model,
                                       const std::vector<ModelTensor>& wanted,
                                       const FoundTensors& found) {
  std::vector<std::string> problems;
  std::set<std::string_view> wanted_names;
  for (const ModelTensor& tensor : wanted) {
    wanted_names.insert(tensor.name);
    if (std::string problem = mismatch(tensor, found); !problem.empty()) {
      problems.push_back(std::move(problem));
    }
  }
  for (const auto& [name, unused] : found) {
    if (!wanted_names.contains(name) && !is_ignored_tensor(model, name)) {
      problems.push_back(fmt::format("unexpected {}", shown(name)));
    }
  }
  return problems;
}

}  // namespace

Result<Checkpoint> Checkpoint::open(const std::string& folder, const ModelSpec& model) {
  auto files = open_files(folder);
  if (!files) return tl::unexpected(files.error());
  FoundTensors found;
  for (const SafetensorsFile& file : *files) {
    for (const SafetensorsEntry& entry : file.entries()) {
      found.emplace(entry.name, Found{.file = &file, .entry = &entry});
    }
  }
  const std::vector<ModelTensor> wanted = model_tensors(model);
  if (const auto problems = find_problems(model, wanted, found); !problems.empty()) {
    return invalid_input(fmt::format("{}: tensors of {}: {}", folder, to_string(model.architecture),
                                     join_problems(problems)));
  }

  WeightMap weights;
  for (const ModelTensor& tensor : wanted) {
    const Found& stored = found.find(tensor.name)->second;
    const DType dtype = *stored.entry->dtype;
    const std::byte* data = stored.file->data(*stored.entry);
    for (const WeightKind kind : tensor.weights) {
      const auto [rows, cols] = shape_of(model, kind);
      weights.emplace(
          std::pair(kind, tensor.layer),
          StoredWeight{
              .data = data, .dtype = dtype, .rows = rows, .cols = cols, .row_stride = cols});
      data += rows * cols * size_in_bytes(dtype);
    }
  }
  if (model.tied_embeddings) {
    weights.emplace(std::pair(WeightKind::lm_head, std::int64_t{0}),
                    weights.at({WeightKind::embedding, 0}));
  }
  return Checkpoint(*std::move(files), std::move(weights));
}

StoredWeight Checkpoint::weight(WeightKind kind, std::int64_t layer) const {
  const auto found = weights_.find({kind, is_per_layer(kind) ? layer : 0});
  CHECK(found != weights_.end(), "the model has no such weight");
  return found->second;
}

// FNV-1a.
std::uint64_t Checkpoint::fingerprint() const {
  constexpr std::int64_t kSamples = 8;
  std::uint64_t hash = 0xcbf29ce484222325;
  const auto add = [&](std::uint64_t word) { hash = (hash ^ word) * 0x100000001b3; };
  for (const auto& [key, weight] : weights_) {
    for (const std::int64_t number : {weight.rows, weight.cols, size_in_bytes(weight.dtype)})
      add(static_cast<std::uint64_t>(number));
    for (std::int64_t sample = 0; sample < kSamples; ++sample) {
      const std::int64_t row = weight.rows * sample / kSamples;
      const std::int64_t col = weight.cols * sample / kSamples;
      std::uint64_t bits = 0;
      std::memcpy(&bits,
                  static_cast<const std::byte*>(weight.data) +
                      (row * weight.row_stride + col) * size_in_bytes(weight.dtype),
                  static_cast<std::size_t>(size_in_bytes(weight.dtype)));
      add(bits);
    }
  }
  return hash;
}

}  // namespace weir
