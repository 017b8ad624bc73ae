"""Token shards from the command line, and training on them: the same losses as on the text itself."""
import gzip
import json
import os
import pathlib
import tempfile
import threading
import unittest

from fmamba import SOURCE, Case, good

DATA = SOURCE / "tests/data/bpe"
SMALL = ("--set", "model.shape=tiny", "--set", "model.d_model=32", "--set", "model.n_layer=1", "--set", "data.length=32",
         "--set", "batch.size=2", "--set", "schedule.tokens=128", "-t", 1)


class Shard(Case):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.d = self.folder.name
        good("train-tokenizer", DATA / "text.txt", "--vocab-size", 480, "-o", f"{self.d}/t")

    def tearDown(self):
        self.folder.cleanup()

    def shard(self, out, *args):
        good("shard", DATA / "text.txt", DATA / "text.jsonl", "--tokenizer", f"{self.d}/t", "-o", f"{self.d}/{out}", *args)

    def losses(self, out, train):
        good("train", *SMALL, "--set", f"run.out={self.d}/{out}", "--set", f"model.tokenizer={self.d}/t",
             "--set", f"data.train={train}")
        lines = pathlib.Path(self.d, out, "log.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["loss"] for line in lines if "loss" in json.loads(line)]

    def test_training_on_a_shard_is_training_on_its_text(self):
        good("shard", DATA / "text.txt", "--tokenizer", f"{self.d}/t", "-o", f"{self.d}/a.tokens", "-t", 2)
        from_shard = self.losses("one", f"{self.d}/a.tokens")
        self.assertEqual(len(from_shard), 2)
        self.assertEqual(from_shard, self.losses("two", DATA / "text.txt"))

    def test_a_series_is_the_same_for_any_number_of_threads(self):
        self.shard("a", "--shard-tokens", 500, "-t", 1)
        self.shard("b", "--shard-tokens", "0.5k", "-t", 2)
        a, b = sorted(pathlib.Path(self.d).glob("a-*.tokens")), sorted(pathlib.Path(self.d).glob("b-*.tokens"))
        self.assertGreater(len(a), 2)
        self.assertEqual([p.read_bytes() for p in a], [p.read_bytes() for p in b])
        self.assertEqual(a[0].name, "a-00000.tokens")

    def test_packed_text_and_pipes(self):
        text = (DATA / "text.txt").read_bytes()
        packed = pathlib.Path(self.d, "text.txt.gz")
        packed.write_bytes(gzip.compress(text[:900]) + gzip.compress(text[900:]))
        pipe = f"{self.d}/pipe.txt"
        os.mkfifo(pipe)
        for name, source in (("plain", DATA / "text.txt"), ("packed", packed), ("piped", pipe)):
            writer = threading.Thread(target=lambda: pathlib.Path(pipe).write_bytes(text))
            if source == pipe:
                writer.start()
            good("shard", source, "--tokenizer", f"{self.d}/t", "-o", f"{self.d}/{name}.tokens")
            self.assertEqual(*(pathlib.Path(self.d, f"{n}.tokens").read_bytes() for n in (name, "plain")))
        writer.join()
        good("train-tokenizer", packed, "--vocab-size", 480, "-o", f"{self.d}/u")
        self.assertEqual(*(pathlib.Path(self.d, t, "tokenizer.json").read_bytes() for t in "tu"))

    def test_what_is_wrong(self):
        self.fails(("shard", DATA / "text.txt", "-o", f"{self.d}/x"), 2, "--tokenizer")
        self.fails(("shard", DATA / "text.txt", "--tokenizer", f"{self.d}/t"), 2, "-o FILE")
        self.fails(("shard", f"{self.d}/none.txt", "--tokenizer", f"{self.d}/t", "-o", f"{self.d}/x"), 1, "none.txt")
        self.assertFalse(pathlib.Path(self.d, "x").exists())
        self.fails(("shard", DATA / "text.txt", "--tokenizer", f"{self.d}/t", "-o", f"{self.d}/x", "--shard-tokens", "0.0001k"),
                   2, "--shard-tokens: expected a whole number")
        shard = pathlib.Path(self.d, "c.tokens")
        self.shard("c.tokens")
        whole = bytearray(shard.read_bytes())
        train = ("train", *SMALL, "--set", f"model.tokenizer={self.d}/t", "--set", f"data.train={shard}")
        whole[200] ^= 1  # found when the first window is read
        shard.write_bytes(whole)
        self.fails((*train, "-q", "--set", f"run.out={self.d}/q"), 1, "step 1: ", "c.tokens: tokens 0 .. ", "are damaged")
        shard.write_bytes(whole[:-3])
        self.fails((*train, "--set", f"run.out={self.d}/r"), 1, "cut off", "c.tokens")


if __name__ == "__main__":
    unittest.main()
