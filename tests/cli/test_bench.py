"""fmamba bench beside another program (--peer) and beside the machine (--roofline)."""
import csv
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

from fmamba import PROGRAM, SOURCE, TALES, Case, good, good_json, is_sanitized, run

FAKE = pathlib.Path(__file__).with_name("fake_peer.py")
PEER = f"{sys.executable} '{FAKE}'"
SMALL = ("bench", "-t", 1, "-r", 3)


class Peer(Case):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.log = f"{self.folder.name}/log"

    def tearDown(self):
        self.folder.cleanup()

    def env(self, how=""):
        return {"FAKE_PEER": how, "FAKE_PEER_LOG": self.log}

    def calls(self):
        return [json.loads(line) for line in pathlib.Path(self.log).read_text().splitlines()]

    def test_rounds(self):
        rows = good_json(*SMALL, "-p", 8, "-n", 4, "--peer", PEER, "--json", env=self.env())
        self.assertEqual([r["test"] for r in rows], ["pp8", "tg4"])
        for row, first in zip(rows, (10, 40)):
            self.assertEqual((row["peer_min"], row["peer_tok_s"], row["peer_max"]), (first, first + 10, first + 20))
            self.assertTrue(0 < row["ratio_min"] <= row["ratio"] <= row["ratio_max"])
            self.assertTrue(row["min"] / row["peer_max"] <= row["ratio"] <= row["max"] / row["peer_min"])
        common = ["-m", os.path.realpath(TALES), "-t", "1"]
        calls = [[os.path.realpath(a) if a.endswith(".gguf") else a for a in call] for call in self.calls()]
        self.assertEqual(calls, 3 * [[*common, "-p", "8", "-n", "0", "-r", "1", "-o", "json"]]
                         + 3 * [[*common, "-p", "0", "-n", "4", "-r", "1", "-o", "json"]])

    def test_words_of_the_command(self):
        odd = PEER + r""" -m 'a b' -t 7 "x\"y" p\ q '$HOME' '*' ; | """
        good(*SMALL, "-p", 8, "-n", 0, "-r", 1, "--peer", odd, env=self.env())
        self.assertEqual(self.calls()[0][:11], ["-m", "a b", "-t", "7", 'x"y', "p q", "$HOME", "*", ";", "|", "-p"])

    def test_batches(self):
        rows = good_json(*SMALL, "-p", 8, "-n", 4, "--batch", "1,3", "-r", 1, "--peer", PEER, "--peer-batched", PEER, "--json",
                         env=self.env())
        self.assertEqual([r["peer_tok_s"] for r in rows], [10, 20, 30, 80])
        prefill, decode = self.calls()[2:]
        self.assertEqual(prefill[4:], "-c 27 -npp 8 -ntg 1 -npl 3 --output-format jsonl".split())
        self.assertEqual(decode[4:], "-c 15 -npp 1 -ntg 4 -npl 3 --output-format jsonl".split())
        rows = good_json(*SMALL, "-p", 8, "-n", 0, "--batch", 2, "-r", 1, "--peer", PEER, "--json", env=self.env())
        self.assertIsNone(rows[0]["ratio"])

    def test_table_and_csv(self):
        args = (*SMALL, "-p", 8, "-n", 0, "--peer", PEER)
        self.assertIn("ratio", good(*args, env=self.env()).splitlines()[1])
        rows = list(csv.DictReader(io.StringIO(good(*args, "--csv", env=self.env()))))
        self.assertEqual((rows[0]["test"], rows[0]["peer_tok_s"]), ("pp8", "50.0000"))

    def test_made_up_model_is_there_for_the_peer(self):
        env = dict(self.env(), TMPDIR=self.folder.name)
        good(*SMALL, "--shape", "tiny", "-p", 8, "-n", 0, "-r", 1, "--peer", PEER, env=env)
        self.assertTrue(self.calls()[0][1].startswith(self.folder.name))
        self.assertEqual(os.listdir(self.folder.name), ["log"])

    def test_made_up_model_goes_to_the_device(self):
        for model in (("-m", TALES), ("--shape", "tiny")):
            p = run(*SMALL, *model, "-p", 8, "-n", 0, "-r", 1, "--device", "cuda:99", env={"TMPDIR": self.folder.name})
            self.assertNotEqual(p.returncode, 0, model)
            self.assertIn(b"device cuda:99", p.stderr)
        self.assertEqual(os.listdir(self.folder.name), [])

    def test_we_sleep_meanwhile(self):
        rows = good_json("bench", "-t", 2, "-p", 8, "-n", 0, "-r", 1, "--peer", PEER, "--json", env=self.env("idle"))
        self.assertLessEqual(rows[0]["peer_tok_s"] - 1000, 2)  # ticks of 10 ms in half a second

    def test_failures(self):
        args = (*SMALL, "-p", 8, "-n", 0, "--json", "--peer")
        self.fails([*args, "no-such-program -x"], 1, "no-such-program", "No such file")
        self.fails([*args, ""], 1, "empty command")
        self.fails([*args, "a 'b"], 1, "quote is not closed")
        self.fails([*args, PEER], 1, "ended with code 3", "cannot load the model", env=self.env("fail"))
        self.fails([*args, PEER], 1, "did not print what llama-bench", env=self.env("garbage"))
        self.fails([*args, PEER], 1, "no rate of the test", env=self.env("other"))
        self.fails([*SMALL, "--peer-timeout", 0], 2, "peer-timeout")
        self.fails([*args, "sh -c 'kill -9 $$'"], 1, "signal 9")
        self.fails([*args, "yes --"], 1, "printed more than 16 MiB")

    def test_a_silent_peer_is_asked_again(self):
        """llama-batched-bench at times ends well and prints nothing."""
        self.fails([*SMALL, "-p", 8, "-n", 0, "-r", 1, "--json", "--peer", PEER], 1, "did not print", env=self.env("silent"))
        self.assertEqual(len(self.calls()), 4)

    def test_hanging_peer_is_killed_with_its_children(self):
        begun = time.monotonic()
        script = f"sh -c '\"{sys.executable}\" \"{FAKE}\"; true'"
        self.fails([*SMALL, "-p", 8, "-n", 0, "--json", "--peer-timeout", 1, "--peer", script], 1, "did not end within 1 s",
                   env=self.env("hang"))
        self.assertLess(time.monotonic() - begun, 60)


class Roofline(Case):
    def test_fields(self):
        rows = good_json("bench", "-t", 1, "-r", 2, "-p", 64, "-n", 8, "--batch", "1,4", "--roofline", "--json")
        self.assertEqual(len(rows), 4)
        for r in rows:
            self.assertTrue(0.1 < r["read_gb_s"] < 10000 and 0.1 < r["f32_gflop_s"] < 1e6, r)
            self.assertIn(r["limited_by"], ("memory", "f32", "bf16", "int8", "amx-bf16", "amx-int8"))
            self.assertTrue(r["limit_tok_s"] > 0 and 0 < r["reached"] < 20, r)  # a model of 15 MB may lie in a cache

    def test_arithmetic_of_a_decode_step(self):
        """All that is read: every tensor but the embedding, and the state twice."""
        info = good_json("inspect", TALES, "--json", "--tensors")
        tied = not any("output.weight" in t["name"] or "lm_head" in t["name"] for t in info["tensors"])
        size = sum(t["bytes"] for t in info["tensors"] if tied or "token_embd" not in t["name"]) + 2 * info["state_bytes"]
        row = good_json("bench", "-t", 1, "-r", 1, "-p", 0, "-n", 4, "--roofline", "--json")[0]
        part = row["limit_tok_s"] * size / (row["read_gb_s"] * 1e9)  # of what memory allows
        if is_sanitized() and row["limited_by"] != "memory":  # its arithmetic is slower still
            self.assertLess(part, 1.02)
            return
        self.assertEqual(row["limited_by"], "memory")
        self.assertAlmostEqual(part, 1, delta=0.02)

    def test_table_and_reference(self):
        text = good("bench", "-t", 1, "-r", 1, "-p", 8, "-n", 0, "--roofline", "--cpu", "ref")
        self.assertRegex(text, r"this machine, 1 threads: reads [\d.]+ GB/s.*f32 \d+ G/s \(scalar\)")
        self.assertNotIn("int8", text.splitlines()[0])


class Limits(Case):
    @unittest.skipUnless(shutil.which("script") and os.path.exists("/usr/bin/time"), "needs /usr/bin/time and script")
    def test_script(self):
        """The three lines; whether a bar holds on a busy machine is not this test's business, that memory's does is."""
        p = subprocess.run([SOURCE / "bench/limits.sh", TALES, "-t", "1"], env=dict(os.environ, FMAMBA=PROGRAM), check=False,
                           capture_output=True, text=True, timeout=100)
        self.assertEqual([line[:22].strip() for line in p.stdout.splitlines()],
                         ["start to first token", "peak memory", "idle CPU, of 5 s"], p.stderr)
        self.assertTrue(p.stdout.splitlines()[1].endswith("holds"), p.stdout)


if __name__ == "__main__":
    unittest.main()
