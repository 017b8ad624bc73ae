"""Seeing a training: the live line, the log, held-out text and samples; what a run says is what it did."""
import fcntl
import json
import math
import os
import pathlib
import pty
import re
import signal
import struct
import subprocess
import tempfile
import termios
import time
import unittest
from xml.etree import ElementTree

from fmamba import PROGRAM, SOURCE, Case, good, good_json, run

DATA = SOURCE / "tests/data/bpe"
BASE = """
model: {shape: tiny, n_layer: 1, d_model: 32, d_state: 4, tokenizer: %(d)s/tokenizer}
data: {train: [%(text)s], val: %(text)s, length: 32}
batch: {size: 2, micro: 2}
optimizer: {rate: 3e-3}
schedule: {tokens: 640, warmup: 64}
run: {out: %(d)s/run, eval_every: 256, sample: "the ", sample_tokens: 4, peak_gflops: 100}
"""


class TrainLog(Case):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.d = cls.folder.name
        good("train-tokenizer", DATA / "text.txt", "--vocab-size", 480, "-o", f"{cls.d}/tokenizer")
        pathlib.Path(cls.d, "run.yaml").write_text(BASE % {"d": cls.d, "text": DATA / "text.txt"}, encoding="utf-8")

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def train(self, name, *settings, code=0, flags=()):
        """Gives what was said and the log, a list of objects."""
        sets = [a for s in (f"run.out={self.d}/{name}", *settings) for a in ("--set", s)]
        p = run("train", f"{self.d}/run.yaml", "-t", 1, *flags, *sets)
        text = p.stderr.decode(errors="replace")
        self.assertEqual(p.returncode, code, text)
        self.assertEqual(p.stdout, b"")
        return text, self.log(name)

    def log(self, name):
        lines = pathlib.Path(self.d, name, "log.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def test_the_log(self):
        said, log = self.train("plain")
        steps = [x for x in log if "loss" in x]
        vocab = json.loads(pathlib.Path(self.d, "plain/step-00000010/config.json").read_text())["vocab_size"]
        self.assertEqual([x["step"] for x in steps], list(range(1, 11)))
        self.assertEqual([x["tokens"] for x in steps], [64 * i for i in range(1, 11)])
        for x in steps:
            self.assertAlmostEqual(x["ppl"], math.exp(x["loss"]), delta=1e-9 * x["ppl"])
            self.assertEqual(x["batch"], 2)
            self.assertGreater(x["tok_s"], 0)
            self.assertGreater(x["grad_norm"], 0)
            # Forward and backward of one layer, d_model 32, d_inner 64, dt_rank 2, d_state 4, d_conv 4.
            flops = 3 * (64 * (6 * 32 + 4 * 2 + 11 * 4 + 2 * 4 + 15) + 2 * 32 * vocab)
            self.assertAlmostEqual(x["mfu"], flops * x["tok_s"] / 100e9, delta=1e-9)
        self.assertNotIn("\033", said)
        self.assertNotIn("\r", said)
        for word in ("loss", "ppl", "lr", "batch 2", "tok/s", "MFU", "norm", "left", "bits per byte", "writes: the |"):
            self.assertIn(word, said)
        self.assertEqual([x["tokens"] for x in log if "sample" in x], [256, 512, 640])

    def test_held_out_text_is_scored_as_perplexity_does(self):
        for weights in ("f32", "bf16-stochastic"):
            _, log = self.train(weights, f"optimizer.weights={weights}")
            evaluations = [x for x in log if "val_loss" in x]
            self.assertEqual([x["tokens"] for x in evaluations], [256, 512, 640])
            got = good_json("perplexity", "-m", f"{self.d}/{weights}/step-00000010", "-f", DATA / "text.txt", "--window", 32,
                            "--reset", "--json", "--any-bytes")
            self.assertEqual(got["nll"], evaluations[-1]["val_loss"])
            self.assertEqual(got["bits_per_byte"], evaluations[-1]["bits_per_byte"])
        self.assertIn("BF16", good("inspect", "-m", f"{self.d}/bf16-stochastic/step-00000010"))

    def test_the_live_line_at_a_terminal(self):
        """Drawn over itself without escape codes, no wider than the terminal, and gone before other sentences."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
        command = [PROGRAM, "train", f"{self.d}/run.yaml", "-t", "1", "--set", f"run.out={self.d}/tty"]
        p = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, close_fds=True)
        os.close(slave)
        said = b""
        while True:
            try:
                more = os.read(master, 4096)
            except OSError:  # the other side is gone
                more = b""
            if not more:
                break
            said += more
        self.assertEqual(p.wait(), 0)
        os.close(master)
        self.assertNotIn(b"\033", said)
        lines = [x for x in re.split(rb"[\r\n]", said) if x.startswith(b"step ")]
        self.assertTrue(lines)
        self.assertTrue(all(len(x) <= 59 for x in lines), lines)
        for sentence in re.findall(rb"[^\r\n]*fmamba: step[^\r\n]*", said):
            self.assertTrue(sentence.startswith(b"fmamba: "), sentence)

    def test_quiet_and_rare_lines(self):
        said, log = self.train("quiet", "run.log_every=320", flags=("--quiet",))
        self.assertEqual(said, "")
        self.assertEqual([x["step"] for x in log if "loss" in x], [1, 5, 10])

    def test_spreads(self):
        said, log = self.train("spread", flags=("--stats-every", "320"))
        spreads = [x for x in log if "layers" in x]
        self.assertEqual([x["tokens"] for x in spreads], [320, 640])
        for x in spreads:
            self.assertEqual(len(x["layers"]), 1)
            for name in ("dt", "B", "C", "h"):
                least, mean, most, rms = x["layers"][0][name]
                self.assertTrue(least < mean < most and rms > abs(mean))
        self.assertEqual(said.count("what the scans work with"), 2)

    SPIKED = ("data.train=%s/spiked.txt", "schedule.tokens=4800", "schedule.warmup=0", "batch.size=1", "stability.window=10",
              "stability.loss_z=12", "stability.limit=50", "run.eval_every=0", "run.seed=3")

    def spiked(self, name, *more, code=0):
        """A text that repeats itself, but for one place."""
        noise = " ".join(str(i * i * 7919 % 997) for i in range(60))
        pathlib.Path(self.d, "spiked.txt").write_text("the cat sat on the mat. " * 40 + noise + " the cat sat on the mat." * 60)
        return self.train(name, *(s.replace("%s", self.d) for s in self.SPIKED), *more, code=code)

    def test_spikes_are_skipped(self):
        said, log = self.spiked("skip")
        events = [x for x in log if "outlier" in x]
        self.assertTrue(events)
        self.assertEqual({x["outlier"] for x in events}, {"skipped"})
        self.assertTrue(all(x["loss_z"] > 12 for x in events))
        self.assertIn("deviations: skipped", said)
        _, log = self.spiked("note", "stability.action=note")
        self.assertEqual({x["outlier"] for x in log if "outlier" in x}, {"noted"})

    def test_spikes_are_gone_back_from(self):
        said, log = self.spiked("rewind", "stability.action=rewind", "run.save_every=960")
        events = [x for x in log if x.get("outlier") == "rewound"]
        self.assertTrue(events)
        for x in events:
            self.assertEqual(x["back_to_step"] % 30, 0)
            after = [y for y in log[log.index(x) + 1:] if "loss" in y][0]
            self.assertEqual(after["step"], x["back_to_step"] + 1)
        self.assertIn("deviations: rewound", said)
        said, _ = self.spiked("often", "stability.action=rewind", "run.save_every=960", "stability.limit=0", code=1)
        self.assertIn("stability.loss_z", said)

    def test_an_interrupted_run_goes_back_to_the_same_place(self):
        """Stopped (Ctrl-C saves) and killed again and again, spikes, skips and chances of rounding and all: the same files."""
        more = ("stability.action=rewind", "run.save_every=640", "optimizer.weights=bf16-stochastic", "run.keep=0")
        self.spiked("whole", *more)
        settings = [s.replace("%s", self.d) for s in self.SPIKED] + list(more) + [f"run.out={self.d}/parts"]
        command = [PROGRAM, "train", f"{self.d}/run.yaml", "-t", "2", "-q", *(a for s in settings for a in ("--set", s))]
        log = pathlib.Path(self.d, "parts/log.jsonl")
        for i, lines in enumerate((10, 45, 30, 50, 40)):
            seen = log.stat().st_size if log.exists() else 0
            p = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            while p.poll() is None and (not log.exists() or log.stat().st_size < seen + lines * 150):
                time.sleep(0.002)
            p.send_signal(signal.SIGKILL if i % 2 else signal.SIGINT)
            p.wait()
        self.assertEqual(subprocess.run(command, check=False).returncode, 0)
        self.assertTrue([x for x in self.log("whole") if x.get("outlier") == "rewound"])
        last = sorted(pathlib.Path(self.d, "whole").glob("step-*"))[-1].name
        for name in ("model.safetensors", "optimizer.safetensors", "trainer.json"):
            whole, parts = (pathlib.Path(self.d, run, last, name).read_bytes() for run in ("whole", "parts"))
            self.assertTrue(whole == parts, name)

    def test_not_finite(self):
        """The first step throws the weights out of all bounds, and its checkpoint is not called good."""
        self.train("nan", "schedule.tokens=128")
        said, _ = self.train("nan", "optimizer.rate=1e30", "optimizer.clip=0", "schedule.warmup=0", "run.save_every=64",
                             "run.keep=0", code=1)
        for word in ("step 4: the loss is ", "last good checkpoint is", "nan/step-00000002;", "not finite is the"):
            self.assertIn(word, said)
        self.assertTrue(pathlib.Path(self.d, "nan/step-00000003").is_dir())
        self.assertTrue(pathlib.Path(self.d, "nan/step-00000002").is_dir())
        self.assertNotIn("NaN", pathlib.Path(self.d, "nan/log.jsonl").read_text())

    def test_pictures(self):
        self.train("drawn")
        for logs in ((f"{self.d}/drawn",), (f"{self.d}/drawn/log.jsonl", f"{self.d}/drawn")):
            good("plot", *logs, "-o", f"{self.d}/p.svg")
            page = ElementTree.parse(f"{self.d}/p.svg").getroot()
            texts = [x.text for x in page.iter("{http://www.w3.org/2000/svg}text")]
            self.assertEqual(texts.count("drawn"), len(logs))
            for word in ("Learning rate", "Batch, windows", "Tokens per second"):
                self.assertIn(word, texts)
            self.assertNotIn("nan", pathlib.Path(f"{self.d}/p.svg").read_text())
        good("plot", f"{self.d}/drawn", "-o", f"{self.d}/p.png")
        self.assertEqual(pathlib.Path(f"{self.d}/p.png").read_bytes()[:8], b"\x89PNG\r\n\x1a\n")

    def test_sweep(self):
        settings = ["--set", f"run.out={self.d}/swept", "--set", "schedule.tokens=320", "--set", "schedule.warmup=0"]
        p = run("train", f"{self.d}/run.yaml", "-t", 1, "--quiet", *settings, "--sweep", "1e-4:1e30:3", "--sweep-norms")
        self.assertEqual(p.returncode, 0, p.stderr)
        table = p.stdout.decode().splitlines()
        self.assertEqual([row.split()[0] for row in table[1:4]], ["1.00e-04", "1.00e+13", "1.00e+30"])
        self.assertIn("suggested with the norms: optimizer.rate", table[4])
        self.assertIn("suggested without the norms", table[5])
        lines = [json.loads(x) for x in pathlib.Path(self.d, "swept/sweep/sweep.jsonl").read_text().splitlines()]
        self.assertEqual([x["norms"] for x in lines], [True] * 3 + [False] * 3)
        ends = [float(x) if x != "diverged" else None for x in table[1].split()[1:]]
        self.assertEqual(ends, [round(lines[0]["loss"], 4), round(lines[3]["loss"], 4)])
        page = pathlib.Path(self.d, "swept/sweep/sweep.svg").read_text()
        self.assertIn("without the norms", page)
        # The same weights for all: what a run of its own loses in its first step.
        first = [json.loads(pathlib.Path(x, "log.jsonl").read_text().splitlines()[0])["loss"]
                 for x in sorted(pathlib.Path(self.d, "swept/sweep").glob("norms-*"))]
        self.assertEqual(len(set(first)), 1)
        self.fails(("train", f"{self.d}/run.yaml", "--sweep", "1:0:3"), 1, "LOWEST:HIGHEST:N")
        self.fails(("train", f"{self.d}/run.yaml", "--sweep-norms"), 2, "--sweep")

    def test_bad_logs(self):
        damaged = pathlib.Path(self.d, "damaged.jsonl")
        damaged.write_text('{"tokens": 1, "loss": 3}\n{"tokens": 2, "lo\n{"tokens": 3, "loss": 1e29}\n'
                           '{"tokens": 4, "loss": -1e29, "rate": 0, "batch": 1e-200, "tok_s": 0}\n')
        for name in ("q.svg", "q.png"):
            p = run("plot", damaged, "-o", f"{self.d}/{name}")
            self.assertEqual(p.returncode, 0, p.stderr)
            self.assertIn("line 2 is damaged", p.stderr.decode())
        text = pathlib.Path(self.d, "q.svg").read_text()
        self.assertNotIn("nan", text)
        self.assertNotIn("inf", text)
        pathlib.Path(self.d, "empty.jsonl").write_text("")
        self.fails(("plot", f"{self.d}/empty.jsonl", "-o", f"{self.d}/q.svg"), 1, "no step", "log.jsonl")
        self.fails(("plot", f"{self.d}/none.jsonl", "-o", f"{self.d}/q.svg"), 1, "none.jsonl")
        self.fails(("plot", damaged, "-o", f"{self.d}/q.gif"), 1, ".svg or .png")
        self.fails(("plot", damaged), 2, "-o")
        for setting, words in (("optimizer.weights=f16", "bf16-stochastic"), ("stability.action=stop", "rewind"),
                               ("model.norms=maybe", "shape"), ("run.sample_tokens=0", "at least 1")):
            self.fails(("train", f"{self.d}/run.yaml", "--set", setting), 1, setting.split("=")[0], words)
        self.fails(("plot", damaged, "-o", f"{self.d}/none/q.png"), 1, "none/q.png")


if __name__ == "__main__":
    unittest.main()
