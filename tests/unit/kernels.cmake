fm_unit_test(test_kernels LINKS kernels)
fm_unit_test(test_linear_back LINKS ops)

# The reference once more, as double, for differences.
set(fm_ref_double_sources "")
foreach(name norm conv scan softmax loss optim rows)
    list(APPEND fm_ref_double_sources ${PROJECT_SOURCE_DIR}/src/kernels/ref/${name}.c)
endforeach()
fm_unit_test(test_finite_differences SOURCES test_finite_differences.c ${fm_ref_double_sources} LINKS kernels)
if(TARGET test_finite_differences)
    target_compile_options(test_finite_differences PRIVATE -include ${CMAKE_CURRENT_SOURCE_DIR}/ref_double.h)
endif()
