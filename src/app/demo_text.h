#pragma once
// The text in which the demo hides what it looks for.

#include <string_view>

namespace weir {

// The opening chapters of Jane Austen's "Pride and Prejudice" (1813, public domain): ASCII, more
// than 16384 bytes.
[[nodiscard]] std::string_view demo_text();

}  // namespace weir
