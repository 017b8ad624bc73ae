"""Every command in a ```sh block of the README and of docs/ that begins with build/fmamba works, in the order of the page."""
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

from fmamba import PROGRAM, SOURCE


def commands(page):
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.S):
        for line in block.splitlines():
            if line.startswith("build/fmamba"):
                yield line


class Docs(unittest.TestCase):
    def test_commands(self):
        n = 0
        for page in [SOURCE / "README.md", *sorted((SOURCE / "docs").rglob("*.md"))]:
            with tempfile.TemporaryDirectory() as d:
                os.mkdir(f"{d}/build")
                os.symlink(PROGRAM, f"{d}/build/fmamba")
                for name in ("README.md", "models", "tests", "docs"):
                    os.symlink(SOURCE / name, f"{d}/{name}")
                for line in commands(page):
                    environment = dict(os.environ, FM_MODEL=str(SOURCE / "models/tales.gguf"))
                    p = subprocess.run(line, shell=True, cwd=d, env=environment, capture_output=True, check=False,
                                       stdin=subprocess.DEVNULL, timeout=100)
                    self.assertEqual(p.returncode, 0, f"{page.name}: {line}: {p.stderr.decode()}")
                    n += 1
        self.assertGreater(n, 10)


if __name__ == "__main__":
    unittest.main()
