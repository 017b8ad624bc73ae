"""What the tests of the command line share: running the program, reading .npy files, finding the models."""
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import unittest

PROGRAM = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else "fmamba"
SOURCE = pathlib.Path(__file__).resolve().parents[2]
TALES = str(SOURCE / "tests/data/tales/tales.gguf")
GOLDEN = SOURCE / "tests/data/golden"


def run(*args, stdin=b"", env=None):
    """Runs the program; gives the finished process with bytes in stdout and stderr."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("FM_")}
    environment["FM_MODEL"] = TALES  # wherever the program was built
    environment.update(env or {})
    if isinstance(stdin, str):
        stdin = stdin.encode()
    return subprocess.run([PROGRAM, *map(str, args)], input=stdin, capture_output=True, env=environment, timeout=100, check=False)


def is_sanitized():
    """Whether the program was built with a sanitizer, which takes memory and time for itself."""
    program = pathlib.Path(shutil.which(PROGRAM)).read_bytes()
    return any(name in program for name in (b"__asan_init", b"__tsan_init"))


def good(*args, **more):
    """As run(), and it must succeed; gives stdout as text."""
    p = run(*args, **more)
    if p.returncode != 0:
        raise AssertionError(f"{args}: exit code {p.returncode}: {p.stderr.decode(errors='replace')}")
    return p.stdout.decode()


def good_json(*args, **more):
    return json.loads(good(*args, **more))


def read_npy(path):
    """(shape, list of floats) of a float32 .npy file."""
    data = pathlib.Path(path).read_bytes()
    assert data[:8] == b"\x93NUMPY\x01\x00"
    n = struct.unpack("<H", data[8:10])[0]
    header = eval(data[10:10 + n].decode(), {}, {})  # a dictionary of literals that the program itself wrote
    assert header["descr"] == "<f4" and not header["fortran_order"]
    body = data[10 + n:]
    return header["shape"], struct.unpack(f"<{len(body) // 4}f", body)


class Case(unittest.TestCase):
    def fails(self, args, code, *words, **more):
        """The command fails with this code and a sentence that has the words in it; nothing goes to stdout."""
        p = run(*args, **more)
        text = p.stderr.decode(errors="replace")
        self.assertEqual(p.returncode, code, text)
        for word in words:
            self.assertIn(word, text)
        self.assertEqual(p.stdout, b"")
        self.assertTrue(text.startswith("fmamba: "), text)
