#pragma once
// The wire format of Protocol Buffers, as much of it as a writer of small messages needs: fields of
// varints, bytes and packed varints (protobuf.dev/programming-guides/encoding). Sixty lines in
// place of a compiler, a library and generated code.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace weir {

// One message, field by field. Fields are written even where they have their default value.
class ProtobufMessage {
 public:
  ProtobufMessage& varint(std::uint32_t field, std::uint64_t value) {
    append_key(field, kVarint);
    append_varint(bytes_, value);
    return *this;
  }
  ProtobufMessage& text(std::uint32_t field, std::string_view value) {
    append_key(field, kLengthDelimited);
    append_varint(bytes_, value.size());
    bytes_.append(value);
    return *this;
  }
  ProtobufMessage& message(std::uint32_t field, const ProtobufMessage& value) {
    return text(field, value.bytes_);
  }
  // A repeated field; nothing where it is empty.
  ProtobufMessage& packed(std::uint32_t field, std::span<const std::uint64_t> values) {
    if (values.empty()) return *this;
    std::string packed;
    for (const std::uint64_t value : values) append_varint(packed, value);
    return text(field, packed);
  }

  // As streams of messages are written: its length, then itself.
  void append_delimited(std::string& stream) const {
    append_varint(stream, bytes_.size());
    stream.append(bytes_);
  }

 private:
  static constexpr std::uint32_t kVarint = 0;
  static constexpr std::uint32_t kLengthDelimited = 2;

  void append_key(std::uint32_t field, std::uint32_t wire_type) {
    append_varint(bytes_, (field << 3) | wire_type);
  }
  static void append_varint(std::string& bytes, std::uint64_t value) {
    while (value >= 0x80) {
      bytes.push_back(static_cast<char>((value & 0x7F) | 0x80));
      value >>= 7;
    }
    bytes.push_back(static_cast<char>(value));
  }

  std::string bytes_;
};

}  // namespace weir
