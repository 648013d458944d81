#pragma once
// What ranks say to each other over the connections of a rank watch: a character each, and why a
// rank gives up as a line. It comes over the network, so whatever comes is taken in somehow.

#include <cstddef>
#include <string>
#include <string_view>

namespace weir {

enum class WatchWord : char {
  beat = 'b',     // The sender's process runs.
  goodbye = 'g',  // To rank 0: the sender is through.
  cause = 'c',    // To rank 0: why the sender gives up, up to the end of the line.
  end = 'e',      // Somebody is lost, and the sender says who.
};

inline constexpr std::size_t kLongestCause = 4096;

// The line that says `cause`, which is shortened and made one line where it has to be.
[[nodiscard]] std::string cause_line(std::string_view cause);

// One side of a connection: puts together what comes in pieces.
class WatchEar {
 public:
  enum class Heard { nothing, goodbye, cause, end };
  // What has been said up to the end of these bytes. The first word that is no beat is the last.
  Heard hear(std::string_view bytes);
  [[nodiscard]] const std::string& cause() const { return cause_; }

 private:
  void hear(char word);

  Heard heard_ = Heard::nothing;
  bool in_cause_ = false;
  std::string cause_;
};

}  // namespace weir
