#include "checkpoint/safetensors.h"

#include <span>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace weir {
namespace {

// A file with this header, its true length before it, and `data_bytes` zeros behind it.
std::string file_with(std::string_view header, std::size_t data_bytes) {
  std::string file;
  for (std::size_t i = 0; i < 8; ++i) {
    file.push_back(static_cast<char>((header.size() >> (8 * i)) & 0xFF));
  }
  return file + std::string(header) + std::string(data_bytes, '\0');
}

Result<std::vector<SafetensorsEntry>> parse(const std::string& file) {
  return parse_safetensors(std::as_bytes(std::span(file.data(), file.size())), "f");
}

// The message for a header whose tensors should fill `data_bytes` bytes.
std::string refusal(std::string_view header, std::size_t data_bytes = 8) {
  const auto entries = parse(file_with(header, data_bytes));
  return entries ? "accepted" : entries.error().message;
}

TEST(Safetensors, ReadsTensorsInTheOrderOfTheirData) {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"b":{"dtype":"BF16","shape":[3],"data_offsets":[8,14]},)"
      R"("a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},)"
      R"("none":{"dtype":"F16","shape":[0,5],"data_offsets":[8,8]}})";
  const std::string padded = header + std::string(8 - header.size() % 8, ' ');
  const auto entries = parse(file_with(padded, 14));
  ASSERT_TRUE(entries) << entries.error().message;
  ASSERT_EQ(entries->size(), 3U);
  const auto begin = static_cast<std::int64_t>(8 + padded.size());
  EXPECT_EQ((*entries)[0].name, "a");
  EXPECT_EQ((*entries)[0].dtype, DType::f32);
  EXPECT_EQ((*entries)[0].shape, (std::vector<std::int64_t>{1, 2}));
  EXPECT_EQ((*entries)[0].begin, begin);
  EXPECT_EQ((*entries)[1].name, "none");
  EXPECT_EQ((*entries)[2].begin, begin + 8);
  EXPECT_EQ((*entries)[2].end, begin + 14);
}

TEST(Safetensors, ReadsDtypesThatOnlyOtherProgramsComputeWith) {
  const auto entries =
      parse(file_with(R"({"mask":{"dtype":"BOOL","shape":[8],"data_offsets":[0,8]}})", 8));
  ASSERT_TRUE(entries);
  EXPECT_EQ(entries->front().dtype, std::nullopt);
  EXPECT_EQ(entries->front().format_dtype, "BOOL");
}

TEST(Safetensors, RefusesAHeaderLengthBeyondTheFile) {
  EXPECT_EQ(parse("1234567").error().message, "f: found 7 bytes, allowed at least 8");
  const std::string file = file_with("{}", 0);
  EXPECT_EQ(parse(file.substr(0, 9)).error().message,
            "f: header length: found 2, allowed at most 1 (the file has 9 bytes)");
  EXPECT_EQ(parse(std::string(8, '\xFF') + "{}").error().message,
            "f: header length: found 18446744073709551615, allowed at most 2 (the file has 10 "
            "bytes)");
}

TEST(Safetensors, RefusesAHeaderThatIsNoObjectOfTensors) {
  EXPECT_EQ(refusal(" {}"), "f: header: allowed only a JSON object");
  EXPECT_EQ(refusal("[]"), "f: header: allowed only a JSON object");
  EXPECT_EQ(refusal("{\"a\":"), "f: header: not valid JSON at byte 6 of the header");
  EXPECT_EQ(refusal("{} x"), "f: header: not valid JSON at byte 4 of the header");
  EXPECT_EQ(refusal(R"({"a":[1]})"), R"(f: header: "a": found an array, allowed an object)");
  EXPECT_EQ(refusal(R"({"__metadata__":{"x":{}}})"),
            R"(f: header: "__metadata__": found an object, allowed only strings)");
  EXPECT_EQ(refusal("{\"a\":" + std::string(100000, '[')),
            R"(f: header: "a": found an array, allowed an object)");
}

TEST(Safetensors, RefusesATensorWithoutOneOfItsFields) {
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","shape":[2]}})"),
            R"(f: header: tensor "a": allowed exactly dtype, shape and two data_offsets)");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})"),
            R"(f: header: tensor "a": allowed exactly dtype, shape and two data_offsets)");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})"),
            R"(f: header: tensor "a": "shape": found -2, allowed whole numbers that are not )"
            "negative");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})"),
            R"(f: header: tensor "a": "shape": found 2.0, allowed whole numbers that are not )"
            "negative");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}})"),
            R"(f: header: tensor "a": "x": found 1, allowed dtype: a string, shape and )"
            "data_offsets: arrays");
}

TEST(Safetensors, RefusesNamesThatComeTwice) {
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                    R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})"),
            R"(f: header: "a" is there twice)");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","shape":[2],"shape":[1],"data_offsets":[0,8]}})"),
            R"(f: header: tensor "a": shape is there twice)");
}

TEST(Safetensors, RefusesAnUnknownDtype) {
  EXPECT_TRUE(refusal(R"({"a":{"dtype":"F4","shape":[2],"data_offsets":[0,8]}})")
                  .starts_with(R"(f: tensor "a": dtype: found "F4", allowed one of: F32, BF16,)"));
}

TEST(Safetensors, RefusesDataOfAnotherSizeThanShapeAndDtypeNeed) {
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})"),
            R"(f: tensor "a": found 8 bytes of data, but shape [3] of F32 needs 12)");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F16","shape":[],"data_offsets":[0,8]}})"),
            R"(f: tensor "a": found 8 bytes of data, but shape [] of F16 needs 2)");
}

TEST(Safetensors, RefusesShapesThatOverflow) {
  // 2^62 * 4 bytes wraps to 0, and so would 2^32 * 2^32.
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}})"),
            R"(f: tensor "a": found 0 bytes of data, but shape [4611686018427387904] of F32 )"
            "needs more than any file has");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"I8","shape":[4294967296,4294967296],"data_offsets":[0,0]}})"),
            R"(f: tensor "a": found 0 bytes of data, but shape [4294967296, 4294967296] of I8 )"
            "needs more than any file has");
  EXPECT_EQ(
      refusal(R"({"a":{"dtype":"I8","shape":[0,18446744073709551615],"data_offsets":[0,0]}})", 0),
      R"(f: tensor "a": shape: found 18446744073709551615, allowed at most )"
      "9223372036854775807");
}

TEST(Safetensors, RefusesOffsetsOutsideTheData) {
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}})"),
            R"(f: tensor "a": data_offsets: found [0, 16], allowed within 0..8)");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[8,4]}})"),
            R"(f: tensor "a": data_offsets: found [8, 4], allowed within 0..8)");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551612,0]}})"),
            R"(f: tensor "a": data_offsets: found [18446744073709551612, 0], allowed within 0..8)");
}

TEST(Safetensors, RefusesOverlapsGapsAndLeftovers) {
  EXPECT_EQ(refusal(R"({"a":{"dtype":"I8","shape":[5],"data_offsets":[0,5]},)"
                    R"("b":{"dtype":"I8","shape":[4],"data_offsets":[4,8]}})"),
            R"(f: tensor "b": data begins at byte 117 of the file, which overlaps the tensor )"
            "before it (allowed: 118)");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"I8","shape":[3],"data_offsets":[0,3]},)"
                    R"("b":{"dtype":"I8","shape":[4],"data_offsets":[4,8]}})"),
            R"(f: tensor "b": data begins at byte 117 of the file, which leaves a gap )"
            "(allowed: 116)");
  EXPECT_EQ(refusal(R"({"a":{"dtype":"I8","shape":[6],"data_offsets":[0,6]}})"),
            "f: found 2 bytes after the last tensor, allowed none");
}

TEST(Safetensors, RefusesDataThatIsNotAligned) {
  EXPECT_EQ(refusal(R"({"ab":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})"),
            R"(f: tensor "ab": data begins at byte 63 of the file, allowed a multiple of 4 for )"
            "F32");
}

TEST(Safetensors, PrintsHostileNamesOnOneLine) {
  const std::string message =
      refusal(R"({"a\nb\u001b[31m":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})");
  EXPECT_EQ(message,
            R"(f: tensor "a\nb\u001b[31m": found 8 bytes of data, but shape [3] of F32 needs 12)");
}

TEST(SafetensorsIndex, ReadsTheWeightMap) {
  const auto index = parse_safetensors_index(
      R"({"metadata":{"total_size":8},"weight_map":{"a":"1.safetensors","b":"2.safetensors"}})",
      "i");
  ASSERT_TRUE(index);
  EXPECT_EQ(index->at("b"), "2.safetensors");
}

TEST(SafetensorsIndex, RefusesFilesOutsideTheFolder) {
  for (const std::string_view name : {"../x.safetensors", "/etc/x.safetensors", "a/x.safetensors",
                                      "..", ".safetensors", "x.bin"}) {
    const std::string text =
        R"({"weight_map":{"a":")" + std::string(name) + R"(","b":"b.safetensors"}})";
    const auto index = parse_safetensors_index(text, "i");
    ASSERT_FALSE(index) << name;
    EXPECT_EQ(index.error().message,
              R"(i.weight_map["a"]: found ")" + std::string(name) +
                  "\", allowed the plain name of a .safetensors file in the same folder");
  }
}

TEST(SafetensorsIndex, RefusesAnIndexWithoutFiles) {
  EXPECT_EQ(parse_safetensors_index(R"({"weight_map":{}})", "i").error().message,
            "i.weight_map: found an object, allowed an object that names a file for each tensor");
  EXPECT_FALSE(parse_safetensors_index(R"({"weight_map":{"a":1}})", "i"));
  EXPECT_FALSE(parse_safetensors_index("[]", "i"));
}

}  // namespace
}  // namespace weir
