#include "tests/app/program.h"

#include <array>
#include <csignal>
#include <utility>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"

namespace weir {
namespace {

constexpr std::chrono::seconds kPatience{240};

struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    CHECK(pipe2(ends.data(), O_CLOEXEC) == 0, "a pipe can be made");
    read_end = ends[0];
    write_end = ends[1];
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() {
    close(read_end);
    if (write_end >= 0) close(write_end);
  }
  void close_write() {
    close(write_end);
    write_end = -1;
  }
  int read_end = -1;
  int write_end = -1;
};

pid_t start(std::vector<std::string>& command, const Pipe& out, const Pipe& err) {
  std::vector<char*> argv;
  for (std::string& word : command) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, out.write_end, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err.write_end, STDERR_FILENO);
  pid_t child = 0;
  const int error = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  CHECK(error == 0, "the program can be started");
  return child;
}

// Appends what there is; false at the end of the stream.
bool read_some(int descriptor, std::string& text) {
  std::array<char, 4096> chunk{};
  const ssize_t count = read(descriptor, chunk.data(), chunk.size());
  if (count <= 0) return false;
  text.append(chunk.data(), static_cast<std::size_t>(count));
  return true;
}

}  // namespace

ProgramResult run_weir(std::vector<std::string> arguments, ProgramOptions options) {
  arguments.insert(arguments.begin(), WEIR_BINARY_DIR "/weir");
  return run_program(std::move(arguments), options);
}

ProgramResult run_program(std::vector<std::string> command, ProgramOptions options) {
  Pipe out;
  Pipe err;
  const pid_t child = start(command, out, err);
  out.close_write();
  err.close_write();

  ProgramResult result;
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  std::array<pollfd, 2> streams = {pollfd{.fd = out.read_end, .events = POLLIN, .revents = 0},
                                   pollfd{.fd = err.read_end, .events = POLLIN, .revents = 0}};
  while (streams[0].fd >= 0 || streams[1].fd >= 0) {
    poll(streams.data(), streams.size(), 1000);
    if (streams[0].revents != 0 && !read_some(out.read_end, result.out)) streams[0].fd = -1;
    if (streams[1].revents != 0 && !read_some(err.read_end, result.err)) streams[1].fd = -1;
    const bool all_said = streams[0].fd < 0 && streams[1].fd < 0;
    if (options.on_output && (all_said || !result.out.empty())) {
      options.on_output();
      options.on_output = {};
    }
    if (options.interrupt_after &&
        result.out.size() + result.err.size() >= *options.interrupt_after) {
      kill(child, SIGINT);
      options.interrupt_after.reset();
    }
    if (options.give_up && options.give_up()) {
      kill(child, SIGKILL);
      break;
    }
    if (std::chrono::steady_clock::now() > deadline) {
      ADD_FAILURE() << "the program did not end in time";
      kill(child, SIGKILL);
      break;
    }
  }
  if (options.on_output) options.on_output();
  int status = 0;
  waitpid(child, &status, 0);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace weir
