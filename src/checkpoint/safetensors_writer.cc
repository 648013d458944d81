#include "checkpoint/safetensors_writer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/check.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/staging.h"

namespace weir {
namespace {

static_assert(std::endian::native == std::endian::little, "tensor data is little-endian");

constexpr std::int64_t kChunkElements = std::int64_t{1} << 16;  // 256 KiB of f32.
constexpr std::size_t kHeaderAlignment = 8;

std::string_view format_name(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "F32";
    case DType::bf16:
      return "BF16";
    case DType::f16:
      return "F16";
  }
  CHECK(false, "unknown dtype");
}

// Length and JSON, padded with spaces so that the data begins aligned.
std::string header_of(std::span<const TensorSource* const> tensors) {
  // Loaders in Python refuse files that do not say which framework's layout they hold.
  nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
  std::int64_t begin = 0;
  for (const TensorSource* tensor : tensors) {
    CHECK(!header.contains(tensor->name), "two tensors have one name");
    const std::int64_t end = begin + size_of(*tensor).value;
    header[tensor->name] = {{"dtype", format_name(tensor->dtype)},
                            {"shape", tensor->shape},
                            {"data_offsets", {begin, end}}};
    begin = end;
  }
  std::string text = header.dump();
  text.append((kHeaderAlignment - text.size() % kHeaderAlignment) % kHeaderAlignment, ' ');
  const auto length = std::bit_cast<std::array<char, 8>>(static_cast<std::uint64_t>(text.size()));
  return std::string(length.data(), length.size()) + text;
}

// Rounds `values` to `dtype` into `stored`.
void round_to(DType dtype, std::span<const float> values, std::vector<std::byte>& stored) {
  stored.resize(values.size() * static_cast<std::size_t>(size_in_bytes(dtype)));
  if (dtype == DType::f32) {
    std::memcpy(stored.data(), values.data(), stored.size());
    return;
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::uint16_t bits =
        dtype == DType::bf16 ? f32_to_bf16(values[i]) : f32_to_f16(values[i]);
    std::memcpy(stored.data() + i * sizeof(bits), &bits, sizeof(bits));
  }
}

}  // namespace

std::int64_t num_elements(std::span<const std::int64_t> shape) {
  std::int64_t count = 1;
  for (const std::int64_t extent : shape) count *= extent;
  return count;
}

Bytes size_of(const TensorSource& tensor) {
  return {num_elements(tensor.shape) * size_in_bytes(tensor.dtype)};
}

Status write_safetensors(const std::string& path, std::span<const TensorSource> tensors,
                         const WriteProgress& progress) {
  std::vector<const TensorSource*> ordered;
  for (const TensorSource& tensor : tensors) ordered.push_back(&tensor);
  std::ranges::stable_sort(ordered, [](const TensorSource* a, const TensorSource* b) {
    return size_in_bytes(a->dtype) > size_in_bytes(b->dtype);
  });
  const std::string header = header_of(ordered);
  if (static_cast<std::int64_t>(header.size()) > kMaxSafetensorsHeaderBytes) {
    return invalid_input(fmt::format("{}: {} tensors need a header of {} bytes, allowed at most {}",
                                     path, tensors.size(), header.size(),
                                     kMaxSafetensorsHeaderBytes));
  }
  auto file = StagedFile::create(path);
  if (!file) return tl::unexpected(file.error());
  if (auto written = file->write(header); !written) return written;

  std::vector<float> values;
  std::vector<std::byte> stored;
  Bytes done{};
  for (const TensorSource* tensor : ordered) {
    for (std::int64_t left = num_elements(tensor->shape); left > 0;) {
      values.resize(static_cast<std::size_t>(std::min(left, kChunkElements)));
      tensor->fill(values);
      round_to(tensor->dtype, values, stored);
      if (auto written = file->write(stored); !written) return written;
      left -= static_cast<std::int64_t>(values.size());
      done += {static_cast<std::int64_t>(stored.size())};
      if (progress) progress(done);
    }
  }
  return file->commit();
}

}  // namespace weir
