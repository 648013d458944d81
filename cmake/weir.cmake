# One library target per folder of src/, one test binary per folder of tests/. Sources are listed by hand where they lie.

add_library(weir_warnings INTERFACE)
target_compile_options(weir_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wconversion;-Wno-sign-conversion;-Wshadow;-Werror>)

# weir_library(<folder> SOURCES <files> [DEPENDS <folders>] [LIBRARIES <imported targets>])
function(weir_library folder)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPENDS;LIBRARIES")
  add_library(weir_${folder} STATIC ${arg_SOURCES})
  target_include_directories(weir_${folder} PUBLIC ${PROJECT_SOURCE_DIR}/src)
  list(TRANSFORM arg_DEPENDS PREPEND weir_)
  target_link_libraries(weir_${folder} PUBLIC ${arg_DEPENDS} ${arg_LIBRARIES} PRIVATE weir_warnings)
endfunction()

# weir_test(<folder> SOURCES <files> [DEPENDS <folders>] [LIBRARIES <imported targets>] [LABELS <labels>])
# The binary is <folder>_test; every TEST in it becomes a CTest entry.
function(weir_test folder)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPENDS;LIBRARIES;LABELS")
  if(NOT BUILD_TESTING)
    return()
  endif()
  add_executable(${folder}_test ${arg_SOURCES})
  list(TRANSFORM arg_DEPENDS PREPEND weir_)
  target_include_directories(${folder}_test PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_definitions(${folder}_test PRIVATE WEIR_SOURCE_DIR="${PROJECT_SOURCE_DIR}"
                                                    WEIR_BINARY_DIR="${PROJECT_BINARY_DIR}")
  target_link_libraries(${folder}_test PRIVATE ${arg_DEPENDS} ${arg_LIBRARIES} GTest::gtest_main weir_warnings)
  if(NOT arg_LABELS)
    set(arg_LABELS unit)
  endif()
  gtest_discover_tests(${folder}_test PROPERTIES LABELS "${arg_LABELS}" DISCOVERY_TIMEOUT 60)
endfunction()

# weir_fuzzer(<name> SOURCES <files> DEPENDS <folders>): a libFuzzer target, only in the fuzz preset (Clang).
function(weir_fuzzer name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPENDS")
  if(NOT WEIR_FUZZ)
    return()
  endif()
  add_executable(${name}_fuzz ${arg_SOURCES})
  list(TRANSFORM arg_DEPENDS PREPEND weir_)
  target_link_libraries(${name}_fuzz PRIVATE ${arg_DEPENDS} weir_warnings)
  target_link_options(${name}_fuzz PRIVATE -fsanitize=fuzzer)
endfunction()
