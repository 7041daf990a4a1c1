# How every folder of the house is built: one library target a folder, its tests beside its sources.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release or RelWithDebInfo" FORCE)
endif()

find_program(PITCREW_CCACHE ccache)
if(PITCREW_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_C_COMPILER_LAUNCHER ${PITCREW_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${PITCREW_CCACHE})
endif()

find_package(Threads REQUIRED)

# The flags that all of our own code is held to; third-party headers come in as SYSTEM.
add_library(pitcrew_options INTERFACE)
target_include_directories(pitcrew_options INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(pitcrew_options INTERFACE -Wall -Wextra -Werror -Wno-missing-field-initializers
  -Wnon-virtual-dtor -Woverloaded-virtual -Wimplicit-fallthrough)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 reports these inside inlined standard containers and coroutine frames (GCC bugs 105329, 105562, 107919).
  target_compile_options(pitcrew_options INTERFACE -Wno-restrict -Wno-maybe-uninitialized -Wno-dangling-pointer
    -Wno-stringop-overflow -Wno-array-bounds -Wno-stringop-overread)
endif()
target_link_libraries(pitcrew_options INTERFACE Threads::Threads)
if(PITCREW_SANITIZE)
  target_compile_options(pitcrew_options INTERFACE -fsanitize=${PITCREW_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(pitcrew_options INTERFACE -fsanitize=${PITCREW_SANITIZE})
endif()

# pitcrew_library(NAME [DEPS target…] [TEST_DEPS target…] [LABELS label…])
#
# The library of the current folder: every *.cpp in it that isn't a test, a main or a benchmark. A folder without
# sources becomes an interface library. Its *_test.cpp become one program NAME_test, run by ctest with the label `unit`
# and whatever LABELS add (`concurrent`: also run under the thread sanitizer).
function(pitcrew_library NAME)
  cmake_parse_arguments(ARG "" "" "DEPS;TEST_DEPS;LABELS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS *.cpp)
  set(tests ${sources})
  list(FILTER tests INCLUDE REGEX "_test\\.cpp$")
  list(FILTER sources EXCLUDE REGEX "(_test|_bench|/main)\\.cpp$")
  if(sources)
    add_library(${NAME} STATIC ${sources})
    target_link_libraries(${NAME} PUBLIC pitcrew_options ${ARG_DEPS})
  else()
    add_library(${NAME} INTERFACE)
    target_link_libraries(${NAME} INTERFACE pitcrew_options ${ARG_DEPS})
  endif()
  if(PITCREW_TESTS AND tests)
    pitcrew_test(${NAME}_test SOURCES ${tests} DEPS ${NAME} ${ARG_TEST_DEPS} LABELS unit ${ARG_LABELS})
  endif()
endfunction()

# pitcrew_program(NAME [SOURCES file…] [DEPS target…]): a program in build/<preset>/bin; SOURCES defaults to main.cpp.
function(pitcrew_program NAME)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  if(NOT ARG_SOURCES)
    set(ARG_SOURCES main.cpp)
  endif()
  add_executable(${NAME} ${ARG_SOURCES})
  target_link_libraries(${NAME} PRIVATE pitcrew_options ${ARG_DEPS})
endfunction()

# pitcrew_test(NAME SOURCES file… [DEPS target…] [LABELS label…] [TIMEOUT seconds] [ARGS arg…]): a GoogleTest program.
function(pitcrew_test NAME)
  if(NOT PITCREW_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPS;LABELS;ARGS" ${ARGN})
  find_package(GTest REQUIRED)
  add_executable(${NAME} ${ARG_SOURCES})
  target_link_libraries(${NAME} PRIVATE pitcrew_options ${ARG_DEPS} GTest::gmock GTest::gtest GTest::gtest_main)
  target_compile_definitions(${NAME} PRIVATE PITCREW_SOURCE_DIR="${PROJECT_SOURCE_DIR}" PITCREW_BIN_DIR="${CMAKE_RUNTIME_OUTPUT_DIRECTORY}")
  add_test(NAME ${NAME} COMMAND ${NAME} ${ARG_ARGS})
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  set_tests_properties(${NAME} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT})
endfunction()

# pitcrew_run_needs(target…): what a test labelled "run" starts; the target run_targets builds all of it.
function(pitcrew_run_needs)
  if(NOT TARGET run_targets)
    add_custom_target(run_targets)
  endif()
  add_dependencies(run_targets ${ARGN})
endfunction()

# pitcrew_fuzz(NAME SOURCES file… [DEPS target…]): a libFuzzer target; its corpus is tests/fuzz/corpus/NAME.
function(pitcrew_fuzz NAME)
  if(NOT PITCREW_FUZZ)
    return()
  endif()
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${NAME} ${ARG_SOURCES})
  if(NOT TARGET fuzz_targets)
    add_custom_target(fuzz_targets)
  endif()
  add_dependencies(fuzz_targets ${NAME})
  target_link_libraries(${NAME} PRIVATE pitcrew_options ${ARG_DEPS})
  target_compile_options(${NAME} PRIVATE -fsanitize=fuzzer)
  target_link_options(${NAME} PRIVATE -fsanitize=fuzzer)
endfunction()
