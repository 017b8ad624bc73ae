# libfmamba.so and libfmamba.a, both made of the same objects; both let out the FM_API functions and nothing else.

set(fm_objects "")
foreach(module IN LISTS FM_LIBRARY_MODULES)
    if(TARGET fm_${module})
        list(APPEND fm_objects $<TARGET_OBJECTS:fm_${module}>)
    endif()
endforeach()
if(NOT fm_objects)
    return()
endif()
# What nvcc made is no object of the kernels' target, and CUDA's runtime is taken in as well (src/kernels/cuda.cmake).
get_property(fm_cuda_objects GLOBAL PROPERTY FM_CUDA_OBJECTS)
get_property(fm_cuda_libraries GLOBAL PROPERTY FM_CUDA_LIBRARIES)
if(fm_cuda_objects)
    set_source_files_properties(${fm_cuda_objects} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
endif()

add_library(fmamba_shared SHARED ${fm_objects} ${fm_cuda_objects})
set_target_properties(fmamba_shared PROPERTIES OUTPUT_NAME fmamba EXPORT_NAME fmamba
    VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}
    LINKER_LANGUAGE C LIBRARY_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
target_link_libraries(fmamba_shared PRIVATE ${fm_cuda_libraries} Threads::Threads m)
target_link_options(fmamba_shared PRIVATE -Wl,--exclude-libs,ALL)
if(NOT FM_SANITIZE)
    target_link_options(fmamba_shared PRIVATE -Wl,--no-undefined)
endif()

# A plain archive would show every fm_ function of every folder to its user; one object with its hidden symbols made local
# shows only the public ones.
set(fm_joined ${PROJECT_BINARY_DIR}/modules/fmamba.o)
list(FILTER fm_cuda_libraries INCLUDE REGEX "[.]a$")
set(fm_cuda_archive ${fm_cuda_libraries})
add_custom_command(OUTPUT ${fm_joined}
    COMMAND ${CMAKE_LINKER} -r -o ${fm_joined} ${fm_objects} ${fm_cuda_objects} ${fm_cuda_archive}
    COMMAND ${CMAKE_OBJCOPY} --localize-hidden ${fm_joined}
    COMMAND ${CMAKE_OBJCOPY} --wildcard --keep-global-symbol=fm_* ${fm_joined}
    DEPENDS ${fm_objects} ${fm_cuda_objects} COMMAND_EXPAND_LISTS VERBATIM)
set_source_files_properties(${fm_joined} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
add_library(fmamba_static STATIC ${fm_joined})
set_target_properties(fmamba_static PROPERTIES OUTPUT_NAME fmamba EXPORT_NAME fmamba_static
    LINKER_LANGUAGE C ARCHIVE_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR})
target_link_libraries(fmamba_static PUBLIC Threads::Threads m)

foreach(library fmamba_shared fmamba_static)
    target_include_directories(${library} INTERFACE
        $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
endforeach()
