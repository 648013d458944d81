#pragma once
// A suite with a folder of its own, and a tiny model in it that the program itself has written.

#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "tests/app/program.h"
#include "tests/checkpoint/test_folder.h"

namespace weir {

class TinyModelTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<TestFolder>();
    const ProgramResult made = run_weir({"model", "new", "--preset", "tiny", "--out", tiny()});
    ASSERT_EQ(made.exit_code, 0) << made.err;
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static std::string tiny() { return folder_->file("tiny"); }
  static std::string file(const std::string& name) { return folder_->file(name); }

 private:
  inline static std::unique_ptr<TestFolder> folder_;
};

}  // namespace weir
