// Any bytes are either refused or give tensors that lie in the file as they claim.

#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/check.h"
#include "checkpoint/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto file = std::as_bytes(std::span(data, size));
  const auto entries = weir::parse_safetensors(file, "fuzz");
  if (entries) {
    std::set<std::string> names;
    std::int64_t total = 0;
    for (const weir::SafetensorsEntry& entry : *entries) {
      CHECK(names.insert(entry.name).second, "names are unique");
      CHECK(entry.begin >= 8 && entry.begin <= entry.end && std::cmp_less_equal(entry.end, size),
            "the tensor lies in the file");
      if (entry.dtype) {
        std::int64_t bytes = weir::size_in_bytes(*entry.dtype);
        CHECK(entry.begin % bytes == 0, "the tensor is aligned");
        for (const std::int64_t extent : entry.shape) bytes *= extent;
        CHECK(bytes == entry.end - entry.begin, "shape and dtype fit the data");
      }
      total += entry.end - entry.begin;
    }
    CHECK(std::cmp_less_equal(total, size), "tensors do not overlap");
  } else {
    CHECK(entries.error().message.find('\n') == std::string::npos, "a message is one line");
  }

  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto index = weir::parse_safetensors_index(text, "fuzz")) {
    for (const auto& [tensor, name] : *index) {
      CHECK(name.find('/') == std::string::npos, "a shard lies in the folder of the index");
    }
  }
  return 0;
}
