#!/usr/bin/env python3
"""What ggml writes for the block formats: the vectors of tests/unit/test_quant.c.

usage: quant_oracle.py GGML_BASE_LIBRARY

Writes tests/data/quant/ggml.txt: per line a type, a case, whether columns have importance, and the bytes that
ggml_quantize_chunk() of the library makes of the case's rows.  The rows themselves come from the counter below, so that the test
can make them again.  Needs numpy.
"""
import ctypes
import pathlib
import sys

import numpy as np

TYPES = {"Q8_0": 8, "Q4_0": 2, "Q4_1": 3, "Q5_0": 6, "Q5_1": 7, "Q2_K": 10, "Q3_K": 11, "Q4_K": 12, "Q5_K": 13, "Q6_K": 14,
         "IQ4_NL": 20, "IQ4_XS": 23}
COLS = 512
CASES = ["normal", "small", "outlier", "positive", "zero", "constant", "steps"]


def mix(k):
    """A 32-bit hash (the finaliser of MurmurHash3), the same in test_quant.c."""
    k = np.asarray(k, np.uint64) & 0xFFFFFFFF
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        k ^= k >> np.uint64(shift)
        k = (k * np.uint64(factor)) & np.uint64(0xFFFFFFFF)
    return (k ^ (k >> np.uint64(16))).astype(np.uint32)


def uniform(seed, n):
    """n floats in [-1, 1) with 24 bits each, exact in float32."""
    words = mix(np.arange(n) + np.uint64(seed) * np.uint64(1 << 16))
    return (words >> 8).astype(np.float32) / np.float32(1 << 23) - np.float32(1)


def row(case):
    k = CASES.index(case)
    sums = uniform(4 * k, COLS) + uniform(4 * k + 1, COLS) + uniform(4 * k + 2, COLS)
    if case == "small":
        return sums * np.float32(2.0 ** -20)
    if case == "outlier":
        sums[::37] *= np.float32(32)
        return sums
    if case == "positive":
        return np.abs(sums)
    if case == "zero":
        return sums * np.float32(0)
    if case == "constant":
        return np.full(COLS, 0.375, np.float32)
    if case == "steps":
        return np.round(sums * np.float32(4)) * np.float32(0.25)
    return sums


def importance():
    return (uniform(1000, COLS) + np.float32(1)) ** 2 + np.float32(0.0009765625)


def main():
    lib = ctypes.CDLL(sys.argv[1])
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64,
                                        ctypes.c_int64, ctypes.c_void_p]
    out = []
    weights = importance()
    for name, number in TYPES.items():
        for case in CASES:
            for weighted in (0, 1):
                x = np.ascontiguousarray(row(case), np.float32)
                buffer = ctypes.create_string_buffer(COLS * 4)
                n = lib.ggml_quantize_chunk(number, x.ctypes.data, buffer, 0, 1, COLS, weights.ctypes.data if weighted else None)
                out.append(f"{name} {case} {weighted} {buffer.raw[:n].hex()}\n")
    path = pathlib.Path(__file__).resolve().parents[1] / "data/quant/ggml.txt"
    path.write_text("".join(out))
    print(f"{len(out)} cases, {path.stat().st_size} bytes")


main()
