"""Learning a vocabulary from text: the file is what Hugging Face's tokenizers wrote for the same text."""
import json
import pathlib
import tempfile
import unittest

from fmamba import SOURCE, Case, good, good_json, run

DATA = SOURCE / "tests/data/bpe"
FALCON = ("train-tokenizer", DATA / "text.txt", "--vocab-size", 480)


class TrainTokenizer(Case):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.d = self.folder.name

    def tearDown(self):
        self.folder.cleanup()

    def check(self, name, *args):
        good(*args, "-o", f"{self.d}/{name}")
        got = json.loads(pathlib.Path(self.d, name, "tokenizer.json").read_text(encoding="utf-8"))
        want = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
        self.assertEqual(got, want)
        ids = want["model"]["vocab"]
        self.assertEqual(list(got["model"]["vocab"]), sorted(ids, key=ids.get))

    def test_the_files_of_tokenizers(self):
        self.check("falcon", *FALCON, "-t", 1)
        self.check("gpt2", "train-tokenizer", DATA / "text.txt", DATA / "text.jsonl", "--vocab-size", 480,
                   "--pretokenizer", "gpt2", "--min-frequency", 0, "--special", "<|endoftext|>", "--special", "<|pad|>", "-t", 2)
        self.check("llama3", "train-tokenizer", DATA / "text.jsonl", "--vocab-size", 2000, "--pretokenizer", "llama3",
                   "--min-frequency", 3, "--special", "<|pad|>", "--special", "<|endoftext|>")

    def test_the_folder_is_a_tokenizer(self):
        good(*FALCON, "-o", f"{self.d}/t")
        config = json.loads(pathlib.Path(self.d, "t/tokenizer_config.json").read_text(encoding="utf-8"))
        self.assertEqual(config["eos_token"], "<|endoftext|>")
        text = "Once upon a time, 世界 12345<|endoftext|>"
        ids = good_json("tokenize", "-m", f"{self.d}/t", "-p", text, "--json")
        self.assertEqual(ids[-1], 0)
        back = good("detokenize", "-m", f"{self.d}/t", "--ids", ",".join(map(str, ids)))
        self.assertEqual(back.rstrip("\n"), text)

    def test_what_is_wrong(self):
        out = ("-o", f"{self.d}/t")
        self.fails((*FALCON, *out, "--pretokenizer", "bert"), 2, "falcon|gpt2|llama3")
        self.fails(FALCON, 2, "-o FOLDER")
        self.fails(("train-tokenizer", *out), 2)
        self.fails(("train-tokenizer", f"{self.d}/none.txt", *out), 1, "none.txt")
        self.fails(("train-tokenizer", DATA / "text.txt", "--vocab-size", 256, *out), 1, "at least 257")
        pathlib.Path(self.d, "empty.txt").write_bytes(b"")
        self.fails(("train-tokenizer", f"{self.d}/empty.txt", *out), 1, "no text")
        self.assertFalse(pathlib.Path(self.d, "t").exists())

    def test_a_text_with_few_pairs(self):
        pathlib.Path(self.d, "few.txt").write_bytes(b"ab ab \xff\xff")
        p = run("train-tokenizer", f"{self.d}/few.txt", "-o", f"{self.d}/t")
        self.assertEqual(p.returncode, 0)
        self.assertIn(b"no other pair", p.stderr)


if __name__ == "__main__":
    unittest.main()
