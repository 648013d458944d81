#include "bench/engine/gguf.h"

#include <fmt/format.h>
#include <bit>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <vector>

#include "base/dtype.h"
#include "base/random.h"

namespace weir::bench {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF is little-endian");

constexpr std::uint32_t kVersion = 3;
constexpr std::uint64_t kAlignment = 32;

// Of values and of tensors, as the format numbers them.
enum class ValueType : std::uint32_t { u32 = 4, f32 = 6, string = 8 };
enum class TensorType : std::uint32_t { f32 = 0, f16 = 1 };

struct Tensor {
  std::string name;
  std::int64_t rows = 0;  // 0: a vector of `cols`.
  std::int64_t cols = 0;

  [[nodiscard]] bool is_vector() const { return rows == 0; }
  [[nodiscard]] std::uint64_t bytes() const {
    return static_cast<std::uint64_t>(is_vector() ? 4 * cols : 2 * rows * cols);
  }
};

std::vector<Tensor> tensors_of(const ModelSpec& model) {
  const std::int64_t hidden = model.hidden_size;
  const std::int64_t ffn = model.intermediate_size;
  const std::int64_t q = model.num_q_heads * model.head_dim;
  const std::int64_t kv = model.num_kv_heads * model.head_dim;
  std::vector<Tensor> tensors = {{"token_embd.weight", model.vocab_size, hidden},
                                 {"output_norm.weight", 0, hidden},
                                 {"output.weight", model.vocab_size, hidden}};
  for (std::int64_t layer = 0; layer < model.num_layers; ++layer) {
    const auto add = [&](std::string_view name, std::int64_t rows, std::int64_t cols) {
      tensors.push_back({fmt::format("blk.{}.{}.weight", layer, name), rows, cols});
    };
    add("attn_norm", 0, hidden);
    add("attn_q", q, hidden);
    add("attn_k", kv, hidden);
    add("attn_v", kv, hidden);
    add("attn_output", hidden, q);
    add("ffn_norm", 0, hidden);
    add("ffn_gate", ffn, hidden);
    add("ffn_up", ffn, hidden);
    add("ffn_down", hidden, ffn);
  }
  return tensors;
}

class Writer {
 public:
  explicit Writer(const std::string& path) : file_(path, std::ios::binary) {}

  template <class Number>
  void number(Number value) {
    file_.write(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void string(std::string_view text) {
    number<std::uint64_t>(text.size());
    file_.write(text.data(), static_cast<std::streamsize>(text.size()));
  }
  void pair(std::string_view key, std::int64_t value) {
    string(key);
    number(ValueType::u32);
    number(static_cast<std::uint32_t>(value));
  }
  void pair(std::string_view key, float value) {
    string(key);
    number(ValueType::f32);
    number(value);
  }
  void pair(std::string_view key, std::string_view value) {
    string(key);
    number(ValueType::string);
    string(value);
  }
  void align() {
    while (static_cast<std::uint64_t>(file_.tellp()) % kAlignment != 0) file_.put('\0');
  }
  [[nodiscard]] bool close() {
    file_.close();
    return static_cast<bool>(file_);
  }

 private:
  std::ofstream file_;
};

void write_header(Writer& writer, const ModelSpec& model, const std::vector<Tensor>& tensors) {
  constexpr std::uint64_t kPairs = 11;
  for (const char c : {'G', 'G', 'U', 'F'}) writer.number(c);
  writer.number(kVersion);
  writer.number<std::uint64_t>(tensors.size());
  writer.number(kPairs);
  writer.pair("general.architecture", std::string_view("llama"));
  writer.pair("llama.block_count", model.num_layers);
  writer.pair("llama.context_length", model.max_position);
  writer.pair("llama.embedding_length", model.hidden_size);
  writer.pair("llama.feed_forward_length", model.intermediate_size);
  writer.pair("llama.attention.head_count", model.num_q_heads);
  writer.pair("llama.attention.head_count_kv", model.num_kv_heads);
  writer.pair("llama.attention.layer_norm_rms_epsilon", static_cast<float>(model.rms_norm_eps));
  writer.pair("llama.rope.dimension_count", model.rope.rotary_dim);
  writer.pair("llama.vocab_size", model.vocab_size);
  writer.pair("tokenizer.ggml.model", std::string_view("no_vocab"));
  std::uint64_t offset = 0;
  for (const Tensor& tensor : tensors) {
    writer.string(tensor.name);
    writer.number<std::uint32_t>(tensor.is_vector() ? 1 : 2);
    writer.number<std::uint64_t>(static_cast<std::uint64_t>(tensor.cols));
    if (!tensor.is_vector()) writer.number(static_cast<std::uint64_t>(tensor.rows));
    writer.number(tensor.is_vector() ? TensorType::f32 : TensorType::f16);
    writer.number(offset);
    offset += (tensor.bytes() + kAlignment - 1) / kAlignment * kAlignment;
  }
  writer.align();
}

}  // namespace

Status write_gguf(const std::string& path, const ModelSpec& model) {
  const std::vector<Tensor> tensors = tensors_of(model);
  Writer writer(path);
  write_header(writer, model, tensors);
  Random random(1);
  for (const Tensor& tensor : tensors) {
    if (tensor.is_vector()) {
      for (std::int64_t i = 0; i < tensor.cols; ++i) writer.number(1.0F);
    } else {
      // Between -w/2 and w/2, with the deviation 1 / sqrt(cols).
      const double width = std::sqrt(12.0 / static_cast<double>(tensor.cols));
      for (std::int64_t i = 0; i < tensor.rows * tensor.cols; ++i)
        writer.number(f32_to_f16(static_cast<float>((random.uniform() - 0.5) * width)));
    }
    writer.align();
  }
  if (!writer.close()) return run_failed(fmt::format("{} cannot be written", path));
  return {};
}

}  // namespace weir::bench
