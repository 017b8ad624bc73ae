"""GGUF files for tests: read as lists, changed, written again.  Little endian, version 3."""
import pathlib
import struct

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9
U16, I32 = 2, 5


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, form):
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def string(self):
        return self.take(self.number("Q"))

    def skip(self, kind):
        if kind == STRING:
            self.string()
        elif kind == ARRAY:
            element, n = self.number("I"), self.number("Q")
            for _ in range(n):
                self.skip(element)
        else:
            self.take(SIZES[kind])


def read(path):
    """(metadata: [bytes of each key, type and value], tensors: [(name, dims, type, bytes)])."""
    r = Reader(pathlib.Path(path).read_bytes())
    assert r.take(8) == b"GGUF\x03\0\0\0"
    n_tensors, n_kv = r.number("Q"), r.number("Q")
    metadata, heads = [], []
    for _ in range(n_kv):
        begin = r.at
        r.string()
        r.skip(r.number("I"))
        metadata.append(r.data[begin:r.at])
    for _ in range(n_tensors):
        name = r.string()
        dims = [r.number("Q") for _ in range(r.number("I"))]
        heads.append((name, dims, r.number("I"), r.number("Q")))
    base = -(-r.at // 32) * 32
    ends = sorted(h[3] for h in heads)[1:] + [len(r.data) - base]
    return metadata, [(n, d, t, r.data[base + o:base + ends[i]]) for i, (n, d, t, o) in
                      enumerate(sorted(heads, key=lambda h: h[3]))]


def text(s):
    s = s.encode() if isinstance(s, str) else s
    return struct.pack("<Q", len(s)) + s


def kv(key, kind, value):
    """One entry of the metadata: a string, or a number of the type."""
    form = {U16: "<H", I32: "<i"}
    return text(key) + struct.pack("<I", kind) + (text(value) if kind == STRING else struct.pack(form[kind], value))


def write(path, metadata, tensors):
    heads, data = b"", b""
    for name, dims, kind, body in tensors:
        heads += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, len(data))
        data += body + bytes(-len(body) % 32)
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)) + b"".join(metadata) + heads
    pathlib.Path(path).write_bytes(out + bytes(-len(out) % 32) + data)


def split(path, prefix, n):
    """prefix-00001-of-0000N.gguf ..., as llama.cpp's gguf-split makes them."""
    metadata, tensors = read(path)
    for i in range(n):
        part = tensors[i * len(tensors) // n:(i + 1) * len(tensors) // n]
        own = [kv("split.no", U16, i), kv("split.count", U16, n), kv("split.tensors.count", I32, len(tensors))]
        write(f"{prefix}-{i + 1:05d}-of-{n:05d}.gguf", (metadata if i == 0 else []) + own, part)
