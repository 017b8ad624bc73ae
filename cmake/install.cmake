# What "make install" puts where.  The program, both libraries, the header, pkg-config and CMake files, the shipped models.

include(CMakePackageConfigHelpers)
if(NOT TARGET fmamba_shared)
    return()
endif()

install(TARGETS fmamba_shared fmamba_static EXPORT fmamba_targets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(FILES include/fmamba.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(fm_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/fmamba)
install(EXPORT fmamba_targets NAMESPACE fmamba:: DESTINATION ${fm_package_dir} FILE fmambaTargets.cmake)
configure_package_config_file(cmake/fmambaConfig.cmake.in ${PROJECT_BINARY_DIR}/fmambaConfig.cmake
    INSTALL_DESTINATION ${fm_package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/fmambaConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/fmambaConfig.cmake ${PROJECT_BINARY_DIR}/fmambaConfigVersion.cmake
    DESTINATION ${fm_package_dir})

# pkg-config works out its prefix from where the file lies, so that a moved tree still works.
file(RELATIVE_PATH fm_pc_to_prefix ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
configure_file(cmake/fmamba.pc.in ${PROJECT_BINARY_DIR}/fmamba.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/fmamba.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

if(TARGET fmamba_program)
    install(TARGETS fmamba_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
    if(NOT CMAKE_CROSSCOMPILING)
        # Both come from the program's own option tables, so they cannot disagree with it.
        install(CODE "execute_process(COMMAND $<TARGET_FILE:fmamba_program> help --man
            OUTPUT_FILE ${PROJECT_BINARY_DIR}/fmamba.1 ERROR_QUIET RESULT_VARIABLE rc)
            if(NOT rc EQUAL 0)
                file(REMOVE ${PROJECT_BINARY_DIR}/fmamba.1)
            endif()
            execute_process(COMMAND $<TARGET_FILE:fmamba_program> help --completion
            OUTPUT_FILE ${PROJECT_BINARY_DIR}/fmamba.bash ERROR_QUIET RESULT_VARIABLE rc)
            if(NOT rc EQUAL 0)
                file(REMOVE ${PROJECT_BINARY_DIR}/fmamba.bash)
            endif()")
        install(FILES ${PROJECT_BINARY_DIR}/fmamba.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 OPTIONAL)
        install(FILES ${PROJECT_BINARY_DIR}/fmamba.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions
            RENAME fmamba OPTIONAL)
    endif()
endif()
install(DIRECTORY models/ DESTINATION ${CMAKE_INSTALL_DATADIR}/fmamba/models OPTIONAL)
