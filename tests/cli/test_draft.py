"""Drafts from outside: the same text with and without, and what is said about them."""
import os
import subprocess
import tempfile
import unittest

from fmamba import GOLDEN, PROGRAM, TALES, Case, good, good_json, run

PROMPT = "The king had a daughter. The king had a son. The king had a daughter. The king had a"
WAYS = [
    ("--spec-type", "ngram"),
    ("--spec-type", "ngram", "--no-draft-adapt", "--draft-max", 7),
    ("--draft-model", TALES),
    ("-md", TALES, "--spec-type", "model", "--no-draft-adapt", "--draft-n", 3),
    ("--spec-type", "both", "--model-draft", TALES, "--draft-min", 2),
]


class Draft(Case):
    def test_the_answer_is_the_same(self):
        for sampling in (("--temp", 0), ("--temp", 0.9, "--seed", 4), ("--mirostat", 2, "--seed", 4, "--repeat-penalty", 1.2)):
            args = ("generate", "-p", PROMPT, "-n", 60, "--json", "--logprobs", 2, *sampling)
            want = good_json(*args)
            self.assertEqual(list(want), ["ids", "text", "stop", "logprobs"])
            for way in WAYS:
                got = good_json(*args, *way)
                drafted, accepted = got.pop("drafted"), got.pop("accepted")
                self.assertEqual(got, want, way)
                self.assertLessEqual(accepted, drafted)

    def test_the_model_agrees_with_itself(self):
        j = good_json("generate", "-p", PROMPT, "-n", 64, "--json", "--temp", 0, "--ignore-eos", "--draft-max", 15,
                      "-md", TALES, "--spec-type", "model", "--no-draft-adapt")
        self.assertEqual((j["drafted"], j["accepted"]), (60, 60))

    def test_choices_and_states(self):
        args = ("generate", "-p", PROMPT, "-n", 30, "--json", "--seed", 2, "--choices", 3)
        want, got = good_json(*args), good_json(*args, *WAYS[1])
        self.assertEqual([c["ids"] for c in got["choices"]], [c["ids"] for c in want["choices"]])
        with tempfile.TemporaryDirectory() as d:
            files = []
            for i, way in enumerate([(), *WAYS]):
                good("generate", "-p", PROMPT, "-n", 40, "--temp", 0, "--save-state", f"{d}/{i}", *way)
                with open(f"{d}/{i}", "rb") as f:
                    files.append(f.read())
            self.assertEqual(len(set(files)), 1)

    def test_run(self):
        args = ("run", PROMPT, "-n", 40, "--temp", 0)
        self.assertEqual(good(*args, *WAYS[1]), good(*args))
        p = run(*args, *WAYS[1], "--verbose")
        self.assertRegex(p.stderr, rb"drafts: [1-9]\d* tokens guessed, [1-9]\d* accepted \(\d+ %\)")

    def test_refused(self):
        self.fails(("generate", "-p", "x", "--spec-type", "model"), 1, "--draft-model")
        self.fails(("generate", "-p", "x", "-md", GOLDEN / "falcon-small"), 1, "draft model", "vocabulary")
        self.fails(("generate", "-p", "x", "-md", "none.gguf"), 1, "none.gguf")
        self.fails(("generate", "-p", "x", "--spec-type", "magic"), 2, "ngram")
        self.fails(("generate", "-p", "x", "--spec-type", "ngram", "--draft-max", 65), 2, "64")
        self.fails(("generate", "-p", "x", "--spec-type", "ngram", "--draft-max", 4, "--draft-min", 5), 1, "5 .. 4")

    def test_replay(self):
        with tempfile.TemporaryDirectory() as d:
            with open(f"{d}/ids", "w", encoding="utf-8") as f:
                f.write(" ".join(str(i % 20) for i in range(400)))
            with open(f"{d}/text", "w", encoding="utf-8") as f:
                f.write(("Once there was a king, and he had a garden. " * 40).strip())
            for path in ("ids", "text"):
                rows = good_json("bench", "--spec-replay", f"{d}/{path}", "-n", 40, "-r", 2, "--json", "--no-draft-adapt")
                self.assertEqual(len(rows), 3)
                self.assertEqual(rows[2]["tokens"], 80)
                self.assertEqual(sum(r["accepted"] for r in rows[:2]), rows[2]["accepted"])
                self.assertEqual(rows[2]["accepted"], rows[2]["drafted"])  # it repeats, so every guess is right
                self.assertGreater(rows[2]["accepted"], 60)
            self.assertIn("ratio", good("bench", "--spec-replay", f"{d}/ids", "-n", 40, "-r", 2))
            self.assertEqual(len(good("bench", "--spec-replay", f"{d}/ids", "-n", 40, "-r", 2, "--csv").splitlines()), 4)
            for form in ("--json", "--csv", "--no-json"):
                if not os.path.exists("/dev/full"):
                    break
                with open("/dev/full", "wb") as full:
                    p = subprocess.run([PROGRAM, "bench", "-m", TALES, "--spec-replay", f"{d}/ids", "-n", "20", "-r", "1", form],
                                       stdout=full, stderr=subprocess.PIPE, check=False)
                self.assertEqual(p.returncode, 1)
                self.assertIn(b"standard output", p.stderr)
            self.fails(("bench", "--spec-replay", f"{d}/ids", "-n", 200, "-r", 2), 1, "400 tokens")
            self.fails(("bench", "--spec-replay", f"{d}/ids", "-n", "3,4"), 1, "-n")


if __name__ == "__main__":
    unittest.main()
