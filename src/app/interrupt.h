#pragma once
// Ctrl-C asks for an end instead of ending the program: what there is is still printed. A second
// one ends it at once.

#include <atomic>

namespace weir {

void catch_interrupts();
// Set once Ctrl-C has been pressed.
[[nodiscard]] const std::atomic<bool>& interrupted();

}  // namespace weir
