// Where the compiler's target has no AMX.

#include "kernel/amx.h"

namespace weir::kernel {

bool amx_available() { return false; }
bool amx_enabled() { return false; }
void enable_amx(bool) {}
double multiply_tiles_in_registers(std::int64_t) { return 0; }

}  // namespace weir::kernel
