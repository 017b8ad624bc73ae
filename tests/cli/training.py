"""What the tests of `fmamba train` share: a folder with a text, a tokenizer and a run that takes a second or two."""
import json
import pathlib
import tempfile

from fmamba import SOURCE, Case, good

TEXT = SOURCE / "tests/data/bpe/text.txt"
CONFIG = """
model: {shape: tiny, tokenizer: tokenizer, d_model: 32, n_layer: 2, d_state: 4}
data: {train: [TEXT], val: TEXT, length: 32}
batch: {size: 2}
optimizer: {rate: 3e-3, dropout: 0.1}
schedule: {tokens: 2560, warmup: 640, decay_tokens: 800}
run: {out: OUT, save_every: 128, keep: 2}
"""


class Training(Case):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.d = pathlib.Path(self.folder.name)
        good("train-tokenizer", TEXT, "--vocab-size", 300, "-o", self.d / "tokenizer")
        text = CONFIG.replace("TEXT", str(TEXT)).replace("tokenizer: tokenizer", f"tokenizer: {self.d / 'tokenizer'}")
        (self.d / "run.yaml").write_text(text.replace("OUT", str(self.d / "run")), encoding="utf-8")

    def tearDown(self):
        self.folder.cleanup()

    def command(self, out, *pairs):
        """Arguments of a run into folder `out`, with keys changed."""
        sets = [x for pair in (f"run.out={self.d / out}", *pairs) for x in ("--set", pair)]
        return ["train", self.d / "run.yaml", "-t", 1, *sets]

    def checkpoints(self, out):
        """The whole checkpoints of a run by step, ascending."""
        return sorted(p for p in (self.d / out).glob("step-*") if not p.name.endswith(".tmp"))

    def log(self, out):
        return [json.loads(line) for line in (self.d / out / "log.jsonl").read_text(encoding="utf-8").splitlines()]

    def same_checkpoint(self, a, b):
        """Every file of both is the same to the byte."""
        names = sorted(p.name for p in a.iterdir())
        self.assertEqual(names, sorted(p.name for p in b.iterdir()))
        self.assertIn("optimizer.safetensors", names)
        for name in names:
            self.assertTrue((a / name).read_bytes() == (b / name).read_bytes(), f"{a / name} is not {b / name}")
