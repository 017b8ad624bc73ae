"""Runs of training from the command line: milestones, a decay from a checkpoint, stages, and what is refused."""
import fcntl
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import tempfile
import unittest

from fmamba import PROGRAM, SOURCE, Case, good, is_sanitized, run

DATA = SOURCE / "tests/data/bpe"
WINDOW, STEP = 32, 64


class Train(Case):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.d = pathlib.Path(self.folder.name)
        good("train-tokenizer", DATA / "text.txt", "--vocab-size", 480, "-o", self.d / "t")

    def tearDown(self):
        self.folder.cleanup()

    def args(self, out, *pairs, **keys):
        keys = {"model.shape": "tiny", "model.d_model": 32, "model.n_layer": 1, "model.tokenizer": self.d / "t",
                "data.train": DATA / "text.txt", "data.length": WINDOW, "batch.size": STEP // WINDOW, "run.out": self.d / out,
                **keys}
        return ("train", *pairs, "-t", 1, *(x for k, v in keys.items() for x in ("--set", f"{k}={v}")))

    def log(self, out):
        lines = (self.d / out / "log.jsonl").read_text(encoding="utf-8").splitlines()
        return [x for x in map(json.loads, lines) if "loss" in x]

    def checkpoints(self, out):
        return sorted(p.name for p in (self.d / out).glob("step-*"))

    def test_milestones_stay(self):
        good(*self.args("a", **{"schedule.tokens": 10 * STEP, "schedule.decay_tokens": 3 * STEP, "run.keep": 0,
                                "run.save_every": STEP, "run.milestone_every": 4 * STEP}))
        # Every fourth, the last before the decay, the newest, whose weights no step has tried, and the one before it.
        self.assertEqual(self.checkpoints("a"), [f"step-{i:08}" for i in (4, 7, 8, 9, 10)])

    def test_a_decay_from_a_checkpoint_is_the_decay_of_a_run(self):
        plan = {"schedule.decay_tokens": 4 * STEP, "schedule.warmup": STEP, "schedule.decay": "1-sqrt"}
        good(*self.args("whole", **plan, **{"schedule.tokens": 10 * STEP}))
        good(*self.args("stable", **{"schedule.warmup": STEP, "schedule.tokens": 6 * STEP}))
        stable = self.d / "stable/step-00000006"
        good(*self.args("decay", "--decay-from", stable, **plan))
        self.assertEqual([(x["step"], x["loss"], x["rate"]) for x in self.log("whole")[6:]],
                         [(x["step"], x["loss"], x["rate"]) for x in self.log("decay")])
        weights = [(self.d / p / "step-00000010/model.safetensors").read_bytes() for p in ("whole", "decay")]
        self.assertEqual(*weights)
        self.fails(self.args("stable", "--decay-from", stable, **plan), 1, "name another run.out")
        self.fails(self.args("x", "--decay-from", stable), 1, "schedule.decay_tokens is missing")
        self.fails(self.args("x", "--decay-from", stable, **{**plan, "schedule.warmup": 7 * STEP}), 1, "within the warm-up")
        self.fails(self.args("x", "--decay-from", self.d / "none", **plan), 1, "none/trainer.json")

    def test_a_decay_goes_on_where_it_stopped(self):
        plan = {"schedule.decay_tokens": 4 * STEP, "run.save_every": STEP}
        good(*self.args("stable", **{"schedule.tokens": 3 * STEP}))
        run = self.args("decay", "--decay-from", self.d / "stable/step-00000003", **plan)
        good(*run)
        whole = self.log("decay")
        (self.d / "decay/log.jsonl").unlink()
        for name in self.checkpoints("decay"):
            if name > "step-00000005":
                for p in (self.d / "decay" / name).iterdir():
                    p.unlink()
                (self.d / "decay" / name).rmdir()
        good(*run)
        self.assertEqual([(x["step"], x["loss"], x["rate"]) for x in self.log("decay")],
                         [(x["step"], x["loss"], x["rate"]) for x in whole[2:]])

    def write_config(self, stages):
        path = self.d / "run.yaml"
        path.write_text("data:\n  stages:\n" + "".join(f"    - {s}\n" for s in stages), encoding="utf-8")
        return path

    def test_stages(self):
        config = self.write_config(["length=16 weights=1", f"from={4 * WINDOW} length=32"])
        good(*self.args("s", config, **{"schedule.tokens": 8 * WINDOW}))
        self.assertEqual([x["tokens"] for x in self.log("s")], [32, 64, 96, 128, 192, 256])
        for stages, sentence in ((["from=x"], "stage 1 of data.stages: \"from=x\", expected a whole number"),
                                 (["lenght=3"], "expected from=TOKENS, length=TOKENS or weights=W,W,..."),
                                 (["weights=1,2"], "one number of 0 or more for each source"),
                                 (["weights=0"], "stage 1 takes nothing"),
                                 (["from=5"], "expected the first to begin at 0"),
                                 (["length=32"] * 33, "data.stages has more than 32 items"),
                                 (["length=24", "from=9 length=32"], "expected a divisor of the longest")):
            with self.subTest(stages):
                self.fails(self.args("x", self.write_config(stages), **{"schedule.tokens": 64}), 1, sentence)

    def test_less_than_a_window_is_refused_with_numbers(self):
        (self.d / "short.txt").write_text("a few words", encoding="utf-8")
        self.fails(self.args("x", **{"schedule.tokens": 64, "data.train": self.d / "short.txt"}), 1,
                   "a window takes 32 and the one after")

        (self.d / "nine.txt").write_text("nine words of text, fewer than there are in a window", encoding="utf-8")
        self.fails(self.args("y", **{"schedule.tokens": 64, "data.val": self.d / "nine.txt"}), 1, "nine.txt",
                   "do not fill one window of 32", "data.length")

    def test_numbers_that_would_only_train_badly(self):
        for key, value, word in (("optimizer.dropout", 1, "below 1"), ("optimizer.dropout", 1.5, "below 1"),
                                 ("optimizer.beta2", 0.99999999, "below 1"), ("batch.size", 1 << 32, "below 2^32")):
            self.fails(self.args("x", **{"schedule.tokens": 64, key: value}), 1, key.split(".")[1], word)

    def test_as_many_sources_as_there_may_be(self):
        """A run of 32 files is resumed."""
        shutil.copy(DATA / "text.txt", self.d / "a.txt")
        for i in range(32):
            (self.d / f"{i}.txt").hardlink_to(self.d / "a.txt")
        files = "[" + ", ".join(str(self.d / f"{i}.txt") for i in range(32)) + "]"
        config = self.d / "many.yaml"
        config.write_text(f"data:\n  train: {files}\n", encoding="utf-8")
        args = list(self.args("many", config, **{"schedule.tokens": 2 * STEP, "run.save_every": STEP}))
        at = args.index(f"data.train={DATA / 'text.txt'}")
        del args[at - 1:at + 1]
        good(*args)
        self.assertIn("going on from", run(*args).stderr.decode())

    def test_two_trainings_do_not_share_a_folder(self):
        (self.d / "run").mkdir()
        held = os.open(self.d / "run", os.O_RDONLY)
        fcntl.flock(held, fcntl.LOCK_EX)
        self.fails(self.args("run", **{"schedule.tokens": 64}), 1, "another training", "run.out")
        os.close(held)
        good(*self.args("run", **{"schedule.tokens": 64}))

    def test_an_estimate_needs_no_data(self):
        text = good("train", "--estimate", "--set", "model.shape=mamba-130m", "--set", "data.length=2048", "-t", 1)
        for part in ("mamba-130m: 129135360 parameters", "261.5 MFLOP forward, 0.7845 GFLOP", "moments 985.2 MiB",
                     "batch.chunk=256 batch.truncate=true", "<- as configured", "1 window of 2048 tokens"):
            self.assertIn(part, text)
        self.fails(("train", "--estimate"), 1, "model.from or model.shape is missing")
        self.fails(("train", "--estimate", "--set", "model.shape=mamba-13m"), 1, "expected one of falcon-mamba-7b")

    def limited(self, gib, *args):
        """The command's error when it may only take so much."""
        if is_sanitized():
            self.skipTest("a sanitizer takes more than the limit for itself")
        command = " ".join(shlex.quote(str(a)) for a in (PROGRAM, *args))
        p = subprocess.run(["sh", "-c", f"ulimit -v {gib << 20}; exec {command}"], capture_output=True, timeout=100, check=False)
        self.assertEqual(p.returncode, 1, p.stderr)
        return p.stderr.decode()

    def test_what_cannot_fit_is_refused_before_the_first_step(self):
        keys = {"schedule.tokens": 64, "model.d_model": 4096, "model.n_layer": 64, "model.shape": "falcon-mamba-7b"}
        text = self.limited(8, *self.args("big", **keys))
        for part in ("training falcon-mamba-7b takes 10", "are free: ", "choose a smaller model.shape"):
            self.assertIn(part, text)
        self.assertFalse((self.d / "big").exists())
        keys = {"schedule.tokens": 64, "data.length": 1 << 20, "model.d_model": 64, "model.n_layer": 4}
        text = self.limited(8, *self.args("long", **keys))
        self.assertIn("are free: batch.chunk", text)
        self.assertNotIn("still too much", text)


if __name__ == "__main__":
    unittest.main()
