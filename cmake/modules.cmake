# fm_module(name SOURCES a.c ... LINKS base ...)
#
# The library of one folder of src/.  Its headers are included as "name/x.h", and that path exists only for those who link
# the module: build/inc/name holds one symlink, name -> src/name.  So an include that points up does not compile.
# LINKS are modules, or any other CMake target or library; they are passed on to whoever links this one.

function(fm_resolve_links out)
    set(resolved "")
    foreach(link IN LISTS ARGN)
        if(TARGET fm_${link})
            list(APPEND resolved fm_${link})
        else()
            list(APPEND resolved ${link})
        endif()
    endforeach()
    set(${out} "${resolved}" PARENT_SCOPE)
endfunction()

function(fm_module name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LINKS")
    if(arg_UNPARSED_ARGUMENTS OR NOT arg_SOURCES)
        message(FATAL_ERROR "fm_module(${name}): expected SOURCES ... LINKS ..., found '${ARGN}'")
    endif()
    fm_resolve_links(links ${arg_LINKS})
    set(inc ${PROJECT_BINARY_DIR}/inc/${name})
    file(MAKE_DIRECTORY ${inc})
    file(CREATE_LINK ${PROJECT_SOURCE_DIR}/src/${name} ${inc}/${name} SYMBOLIC)

    add_library(fm_${name} STATIC ${arg_SOURCES})
    target_include_directories(fm_${name} PUBLIC ${inc} ${PROJECT_SOURCE_DIR}/include)
    target_compile_options(fm_${name} PRIVATE -Wdouble-promotion)
    target_link_libraries(fm_${name} PUBLIC ${links} Threads::Threads m)
    set_target_properties(fm_${name} PROPERTIES ARCHIVE_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/modules)
endfunction()

# src/<name>, when it has been written.
function(fm_add_folder name)
    if(EXISTS ${PROJECT_SOURCE_DIR}/src/${name}/CMakeLists.txt)
        add_subdirectory(${PROJECT_SOURCE_DIR}/src/${name})
    endif()
endfunction()

# fm_unit_test(name [SOURCES ...] LINKS module ... [TIMEOUT seconds] [SLOW])
#
# A cmocka program, tests/unit/<name>.c unless SOURCES say otherwise.  SLOW tests are built with the rest, but run only by
# "make test-slow" (ctest -C slow).
function(fm_unit_test name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "SLOW" "TIMEOUT" "SOURCES;LINKS")
    if(arg_UNPARSED_ARGUMENTS)
        message(FATAL_ERROR "fm_unit_test(${name}): '${arg_UNPARSED_ARGUMENTS}' is not an argument of it")
    endif()
    if(NOT TARGET fm_cmocka)
        return()
    endif()
    if(NOT arg_SOURCES)
        set(arg_SOURCES ${name}.c)
    endif()
    fm_resolve_links(links ${arg_LINKS})
    add_executable(${name} ${arg_SOURCES})
    target_link_libraries(${name} PRIVATE ${links} fm_cmocka)
    target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests ${PROJECT_SOURCE_DIR}/include)
    target_compile_definitions(${name} PRIVATE FM_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    fm_register_test(${name} LABEL unit TIMEOUT "${arg_TIMEOUT}" SLOW ${arg_SLOW} COMMAND ${name})
endfunction()

# One ctest with our defaults: 120 seconds, a label, and left out of the daily run when it is slow.
function(fm_register_test name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "LABEL;TIMEOUT;SLOW" "COMMAND")
    set(configurations "")
    set(labels ${arg_LABEL})
    if(arg_SLOW)
        set(configurations CONFIGURATIONS slow)
        list(APPEND labels slow)
    endif()
    if(NOT arg_TIMEOUT)
        set(arg_TIMEOUT 120)
    endif()
    add_test(NAME ${name} COMMAND ${arg_COMMAND} ${configurations})
    set_tests_properties(${name} PROPERTIES LABELS "${labels}" TIMEOUT ${arg_TIMEOUT}
        ENVIRONMENT "UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1")
endfunction()

# fm_fuzz(name [SOURCES ...] LINKS module ...)
#
# tests/fuzz/<name>.c defines LLVMFuzzerTestOneInput.  With FM_FUZZ it becomes a libFuzzer program; without, an ordinary test
# that replays tests/fuzz/corpus/<name>/ and a few thousand fixed mutations of it.
function(fm_fuzz name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LINKS")
    if(NOT arg_SOURCES)
        set(arg_SOURCES ${name}.c)
    endif()
    fm_resolve_links(links ${arg_LINKS})
    if(FM_FUZZ)
        add_executable(${name} ${arg_SOURCES})
        target_link_options(${name} PRIVATE -fsanitize=fuzzer)
        set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/fuzz)
        add_dependencies(fuzz_targets ${name})
    else()
        add_executable(${name} ${arg_SOURCES} ${PROJECT_SOURCE_DIR}/tests/fuzz/replay_main.c)
        fm_register_test(${name} LABEL fuzz COMMAND ${name} ${PROJECT_SOURCE_DIR}/tests/fuzz/corpus/${name})
    endif()
    target_link_libraries(${name} PRIVATE ${links})
    target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests ${PROJECT_SOURCE_DIR}/include)
    target_compile_definitions(${name} PRIVATE FM_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    # libFuzzer's entry points have no header to declare them in.
    target_compile_options(${name} PRIVATE -Wno-missing-prototypes)
endfunction()
