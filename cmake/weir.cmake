# One library target per folder of src/, one test binary per folder of tests/. Sources are listed by hand where they lie.

add_library(weir_warnings INTERFACE)
target_compile_options(weir_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wconversion;-Wno-sign-conversion;-Wshadow;-Werror>)

# Sources built as one, eight at a time, which the presets that are built as a whole ask for: what all of them instantiate from
# common headers costs 1.5 to 3 s a source. No name may be twice in what lies in one folder, not even in unnamed
# namespaces (a source with SKIP_UNITY_BUILD_INCLUSION is built by itself). The preset `clang` builds every source by itself.
if(CMAKE_UNITY_BUILD)
  set(CMAKE_UNITY_BUILD_BATCH_SIZE 8)
  # GCC takes what is included for a header, whose classes must not have members of unnamed namespaces' types.
  target_compile_options(weir_warnings INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-subobject-linkage>)
endif()

# What tests tell Open MPI: there may be more ranks than cores, and in a container everybody is root. Others ignore it.
set(WEIR_MPI_ENVIRONMENT OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_ALLOW_RUN_AS_ROOT=1
                         OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1)

# Build all fuzzers, all benchmarks. `./dev` finds the binaries in fuzzers.txt and benches.txt in the build folder.
add_custom_target(weir_fuzzers)
add_custom_target(weir_benches)
# Build what the tests with the label mpi start.
add_custom_target(weir_mpi_tests)

# What most sources include, parsed once for the libraries (a tenth of their compile time) and once, with GoogleTest, for
# the tests (a quarter). Every source still includes what it uses: the preset `clang` builds without precompiled headers.
set(WEIR_COMMON_HEADERS
  <algorithm> <array> <chrono> <cmath> <filesystem> <fstream> <functional> <map> <memory> <optional> <random> <set> <span>
  <string> <string_view> <thread> <unordered_map> <utility> <variant> <vector>
  <fmt/format.h> <fmt/ranges.h> <nlohmann/json.hpp> <tl/expected.hpp>)

# weir_library(<folder> SOURCES <files> [DEPENDS <folders>] [LIBRARIES <imported targets>])
function(weir_library folder)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPENDS;LIBRARIES")
  add_library(weir_${folder} STATIC ${arg_SOURCES})
  target_include_directories(weir_${folder} PUBLIC ${PROJECT_SOURCE_DIR}/src)
  list(TRANSFORM arg_DEPENDS PREPEND weir_)
  target_link_libraries(weir_${folder} PUBLIC ${arg_DEPENDS} ${arg_LIBRARIES} PRIVATE weir_warnings)
  if(folder STREQUAL base)
    target_precompile_headers(weir_base PRIVATE ${WEIR_COMMON_HEADERS})
  else()
    target_precompile_headers(weir_${folder} REUSE_FROM weir_base)
  endif()
endfunction()

# weir_embed_files(<output> FILES <files> HEADER <header> TYPE <struct> FUNCTION <name>): the source <output> in the current build
# folder, in which FUNCTION() returns the files' names and texts, in the given order, as a span of TYPE. HEADER declares both.
function(weir_embed_files output)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "HEADER;TYPE;FUNCTION" "FILES")
  set(script ${PROJECT_SOURCE_DIR}/cmake/embed_files.cmake)
  list(JOIN arg_FILES "|" joined)
  add_custom_command(
    OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/${output}
    COMMAND ${CMAKE_COMMAND} -DOUTPUT=${CMAKE_CURRENT_BINARY_DIR}/${output} "-DFILES=${joined}" -DHEADER=${arg_HEADER}
            -DTYPE=${arg_TYPE} -DFUNCTION=${arg_FUNCTION} -P ${script}
    DEPENDS ${arg_FILES} ${script}
    VERBATIM)
endfunction()

# How tests are compiled. What they compute with is in the libraries: -O3 would only take longer.
set(WEIR_TEST_OPTIONS $<$<NOT:$<CONFIG:Debug>>:-O1>)

# weir_test_options(<target>): WEIR_TEST_OPTIONS, and the tests' precompiled headers.
function(weir_test_options target)
  target_compile_options(${target} PRIVATE ${WEIR_TEST_OPTIONS})
  if(NOT TARGET weir_test_headers)
    file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/test_headers.cc CONTENT "")
    add_library(weir_test_headers OBJECT ${PROJECT_BINARY_DIR}/test_headers.cc)
    target_link_libraries(weir_test_headers PRIVATE weir_base GTest::gtest weir_warnings)
    target_precompile_headers(weir_test_headers PRIVATE ${WEIR_COMMON_HEADERS} <gtest/gtest.h>)
    target_compile_options(weir_test_headers PRIVATE ${WEIR_TEST_OPTIONS})
  endif()
  target_precompile_headers(${target} REUSE_FROM weir_test_headers)
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
  weir_test_options(${folder}_test)
  if(NOT arg_LABELS)
    set(arg_LABELS unit)
  endif()
  gtest_discover_tests(${folder}_test PROPERTIES LABELS "${arg_LABELS}" DISCOVERY_TIMEOUT 60)
endfunction()

# weir_skipped_test(<name> <why> <label>): in place of tests that cannot run here, one CTest entry that is skipped and says why.
function(weir_skipped_test name why label)
  if(NOT BUILD_TESTING)
    return()
  endif()
  add_test(NAME ${name}.skipped COMMAND ${CMAKE_COMMAND} -E echo "skipped: ${why}")
  set_tests_properties(${name}.skipped PROPERTIES LABELS ${label} SKIP_REGULAR_EXPRESSION "^skipped")
endfunction()

# weir_rank_test(<name> SOURCES <files> [DEPENDS <folders>] RANKS <numbers>): the binary <name>_test, which mpiexec starts as
# so many ranks; one CTest entry for each number. Its main is tests/comm/rank_tests.cc. Without MPI there is one entry, which is
# skipped and says why.
function(weir_rank_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPENDS;RANKS")
  if(NOT BUILD_TESTING)
    return()
  endif()
  if(NOT WEIR_HAS_MPI OR NOT MPIEXEC_EXECUTABLE)
    weir_skipped_test(${name} "found no MPI (libopenmpi-dev openmpi-bin)" mpi)
    return()
  endif()
  add_executable(${name}_test ${arg_SOURCES})
  list(TRANSFORM arg_DEPENDS PREPEND weir_)
  target_include_directories(${name}_test PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name}_test PRIVATE ${arg_DEPENDS} GTest::gtest weir_warnings)
  weir_test_options(${name}_test)
  add_dependencies(weir_mpi_tests ${name}_test)
  foreach(ranks ${arg_RANKS})
    add_test(NAME ${name}.${ranks}_ranks
             COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${ranks} $<TARGET_FILE:${name}_test>)
    set_tests_properties(${name}.${ranks}_ranks PROPERTIES LABELS mpi TIMEOUT 60 RUN_SERIAL ON
                         ENVIRONMENT "${WEIR_MPI_ENVIRONMENT}")
  endforeach()
endfunction()

# weir_fuzzer(<name> SOURCES <files> DEPENDS <folders>): a libFuzzer target, only in the fuzz preset (Clang).
# Seeds, where there are some, lie in tests/fuzz/corpus/<name>/.
function(weir_fuzzer name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPENDS")
  if(NOT WEIR_FUZZ)
    return()
  endif()
  add_executable(${name}_fuzz ${arg_SOURCES})
  list(TRANSFORM arg_DEPENDS PREPEND weir_)
  target_link_libraries(${name}_fuzz PRIVATE ${arg_DEPENDS} weir_warnings)
  target_link_options(${name}_fuzz PRIVATE -fsanitize=fuzzer)
  add_dependencies(weir_fuzzers ${name}_fuzz)
  set_property(GLOBAL APPEND PROPERTY WEIR_FUZZERS ${name}_fuzz)
endfunction()

# weir_bench(<name> SOURCES <files> [DEPENDS <folders>] [LIBRARIES <imported targets>]): the Google Benchmark binary
# <name>_bench. Built by the target weir_benches only, so that tests do not wait for it.
function(weir_bench name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEPENDS;LIBRARIES")
  if(NOT benchmark_FOUND)
    return()
  endif()
  add_executable(${name}_bench EXCLUDE_FROM_ALL ${arg_SOURCES})
  list(TRANSFORM arg_DEPENDS PREPEND weir_)
  target_include_directories(${name}_bench PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name}_bench PRIVATE ${arg_DEPENDS} ${arg_LIBRARIES} benchmark::benchmark_main weir_warnings)
  add_dependencies(weir_benches ${name}_bench)
  set_property(GLOBAL APPEND PROPERTY WEIR_BENCHES ${name}_bench)
endfunction()

# Writes fuzzers.txt and benches.txt, one binary's name per line. Called once, after all targets exist.
function(weir_write_manifests)
  foreach(kind fuzzers benches)
    string(TOUPPER WEIR_${kind} property)
    get_property(names GLOBAL PROPERTY ${property})
    list(TRANSFORM names APPEND "\n")
    list(JOIN names "" lines)
    file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/${kind}.txt CONTENT "${lines}")
  endforeach()
endfunction()
