#!/usr/bin/env python3
"""Checks fmamba's model files against the packages that define the formats (gguf, safetensors, numpy).

  format_oracle.py make FOLDER      writes peer.gguf, peer.safetensors and peer.npy, the fixtures of tests/data/format
  format_oracle.py read FILE ...    reads files that fmamba wrote: every key and tensor must come out, or the exit status is 1
"""
import sys
from pathlib import Path


def make(folder):
    import gguf
    import numpy as np
    from safetensors.numpy import save_file

    w = gguf.GGUFWriter(folder / "peer.gguf", "mamba")
    w.add_uint8("k.u8", 250)
    w.add_int8("k.i8", -7)
    w.add_uint16("k.u16", 65535)
    w.add_int16("k.i16", -32768)
    w.add_uint32("k.u32", 2**32 - 1)
    w.add_int32("k.i32", -(2**31))
    w.add_uint64("k.u64", 2**64 - 1)
    w.add_int64("k.i64", -(2**63))
    w.add_float32("k.f32", 1e-5)
    w.add_float64("k.f64", 0.1)
    w.add_bool("k.bool", True)
    w.add_string("k.string", "caf\u00e9")
    w.add_array("k.strings", ["a", "", "\u20ac"])
    w.add_array("k.ints", [1, -2, 3])
    w.add_array("k.floats", [0.5, -1.5])
    w.add_tensor("f32", np.arange(6, dtype=np.float32).reshape(2, 3))
    w.add_tensor("f16", np.arange(4, dtype=np.float16) / 2)
    q8 = gguf.quants.quantize(np.arange(192, dtype=np.float32).reshape(3, 64) - 96, gguf.GGMLQuantizationType.Q8_0)
    w.add_tensor("q8_0", q8, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    w.add_tensor("i32", np.arange(5, dtype=np.int32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()

    arrays = {
        "f32": np.arange(6, dtype=np.float32).reshape(2, 3),
        "f16": np.arange(4, dtype=np.float16) / 2,
        "conv": np.arange(8, dtype=np.float32).reshape(2, 1, 4),
        "scalar": np.array(2.5, dtype=np.float32),
        "empty": np.zeros((0, 3), dtype=np.float32),
        "i64": np.arange(3, dtype=np.int64),
        "b": np.array([True, False]),
        "u16": np.arange(3, dtype=np.uint16),
    }
    save_file(arrays, folder / "peer.safetensors", metadata={"format": "pt", "note": "caf\u00e9 \"quoted\""})
    np.save(folder / "peer.npy", np.arange(6, dtype=np.float32).reshape(2, 3))


def read_gguf(path):
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(path)
    for field in reader.fields.values():
        field.contents()
    for tensor in reader.tensors:
        if not np.issubdtype(tensor.data.dtype, np.integer) or tensor.data.dtype == np.uint8:
            gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    return f"{len(reader.fields)} keys, {len(reader.tensors)} tensors"


def read_safetensors(path):
    from safetensors import deserialize, safe_open

    with safe_open(path, framework="np") as f:
        metadata = f.metadata()
    # Not through NumPy, which has no bfloat16: the package still checks every shape, type and offset.
    tensors = deserialize(Path(path).read_bytes())
    return f"{len(tensors)} tensors, metadata {metadata}"


def read_npy(path):
    import numpy as np

    array = np.load(path, allow_pickle=False)
    return f"shape {array.shape}, {array.dtype}, sum {array.sum()}"


def main(args):
    if len(args) == 2 and args[0] == "make":
        make(Path(args[1]))
        return 0
    if len(args) < 2 or args[0] != "read":
        print(__doc__, file=sys.stderr)
        return 2
    readers = {".gguf": read_gguf, ".safetensors": read_safetensors, ".npy": read_npy}
    failed = 0
    for path in args[1:]:
        try:
            print(f"{path}: {readers[Path(path).suffix](path)}")
        except Exception as error:  # whatever a package raises is the finding
            print(f"{path}: {type(error).__name__}: {error}")
            failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
