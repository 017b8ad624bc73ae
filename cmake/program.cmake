# build/fmamba, the program.  It links the modules themselves, not the library: it may use what the public header hides.

if(NOT TARGET fm_cli)
    return()
endif()

target_compile_definitions(fm_cli PRIVATE FM_DATA_DIR="${CMAKE_INSTALL_FULL_DATADIR}/fmamba")

# Line editing in "fmamba chat" is a comfort: without libedit lines are read plainly.
if(NOT CMAKE_CROSSCOMPILING)
    find_package(PkgConfig)
    if(PKG_CONFIG_FOUND)
        pkg_check_modules(EDIT IMPORTED_TARGET libedit)
    endif()
    if(EDIT_FOUND)
        target_compile_definitions(fm_cli PRIVATE FM_HAVE_LIBEDIT=1)
        target_link_libraries(fm_cli PUBLIC PkgConfig::EDIT)
    else()
        message(STATUS "fmamba chat without line editing: install libedit-dev (or run scripts/deps) to have it")
    endif()
endif()

add_executable(fmamba_program $<TARGET_OBJECTS:fm_cli>)
set_target_properties(fmamba_program PROPERTIES OUTPUT_NAME fmamba LINKER_LANGUAGE C
    RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
target_link_libraries(fmamba_program PRIVATE fm_cli)
