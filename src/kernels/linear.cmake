# The matrix products: sources, and the instructions each file may use.  Included by CMakeLists.txt of this folder.
set(FM_LINEAR_SOURCES ref/linear.c ref/codes.c ref/pack.c)

# -O3 unrolls the tiles, which keep their sums in registers only when every index is a constant.
function(fm_linear_file file)
    if(NOT FM_SANITIZE)
        list(PREPEND ARGN -O3)
    endif()
    string(JOIN " " flags ${ARGN})
    set_source_files_properties(${file} PROPERTIES COMPILE_FLAGS "${flags}")
endfunction()

fm_linear_file(ref/pack.c)
fm_linear_file(ref/linear.c)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    set(fm_linear_avx2 -mavx2 -mfma -mf16c)
    set(fm_linear_avx512 ${fm_linear_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512cd)
    fm_linear_file(simd/linear_avx2.c ${fm_linear_avx2})
    fm_linear_file(simd/linear_avx512.c ${fm_linear_avx512})
    fm_linear_file(simd/linear_avx512_vnni.c ${fm_linear_avx512} -mavx512vnni)
    fm_linear_file(simd/linear_avx512_bf16.c ${fm_linear_avx512} -mavx512bf16)
    fm_linear_file(simd/linear_amx.c ${fm_linear_avx512} -mavx512vnni -mamx-tile -mamx-int8)
    list(APPEND FM_LINEAR_SOURCES simd/linear_avx2.c simd/linear_avx512.c simd/linear_avx512_vnni.c simd/linear_avx512_bf16.c
        simd/linear_amx.c)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
    fm_linear_file(simd/linear_neon.c)
    fm_linear_file(simd/linear_neon_dotprod.c -march=armv8.2-a+dotprod)
    list(APPEND FM_LINEAR_SOURCES simd/linear_neon.c simd/linear_neon_dotprod.c)
endif()
