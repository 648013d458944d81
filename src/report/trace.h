#pragma once
// A timeline as a trace to look at: JSON in Chrome's trace event format, which
// https://ui.perfetto.dev opens. Source: "Trace Event Format", Google, 2016.
//
//   process "run"       the run, its steps, and one track per request with its tokens
//   process per device  a track for each queue: compute and communication
//
// A task is a slice; where it waited for other members, a slice "wait" lies in it. Arrows lead from
// the member of a communication that came last to those that waited for it. What a device holds is
// a counter of its process. Times are microseconds since the start of the run, exact to the
// nanosecond.

#include <span>
#include <string>

#include "base/result.h"
#include "result/memory_trace.h"
#include "result/timeline.h"

namespace weir {

struct TraceOptions {
  bool arrows = true;                        // About as many as communication tasks.
  std::span<const MemoryTrace> memory = {};  // Of the same devices, one step after the other.
};

// The timeline must be sound (problems_of in result/timeline_check.h). Written as it is produced,
// so that memory does not grow with the text. Fails when the file cannot be written; an earlier one
// of that name then stays as it was.
[[nodiscard]] Status write_trace(const Timeline& timeline, const std::string& path,
                                 TraceOptions options = {});

// The same text, for short timelines.
[[nodiscard]] std::string trace_of(const Timeline& timeline, TraceOptions options = {});

}  // namespace weir
