"""What bad input gets: a sentence that names the file or the number, and an exit code."""
import json
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import tempfile
import unittest

import gguf
from fmamba import GOLDEN, PROGRAM, SOURCE, TALES, Case, good, run

SMALL = GOLDEN / "falcon-small"
IDS = ",".join(["1"] * 20)


class Errors(Case):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.d = pathlib.Path(self.folder.name)

    def tearDown(self):
        self.folder.cleanup()

    def broken(self, name, change=None, config=None):
        """A copy of a small model, with changed weights or configuration."""
        d = self.d / name
        shutil.copytree(SMALL, d)
        (d / "golden.safetensors").unlink()
        os.chmod(d / "model.safetensors", 0o644)
        if change:
            (d / "model.safetensors").write_bytes(change((d / "model.safetensors").read_bytes()))
        if config:
            j = json.loads((d / "config.json").read_text())
            config(j)
            os.chmod(d / "config.json", 0o644)
            (d / "config.json").write_text(json.dumps(j))
        return d

    def refuses(self, model, *words):
        self.fails(("logits", "-m", model, "--ids", "1,2"), 1, *words)

    def test_usage(self):
        self.fails(("generat",), 2, "did you mean 'generate'")
        self.fails(("generate", "--tmp", "1"), 2, "--temp")
        self.fails(("generate", "--temp", "warm"), 2, "temp", "warm")
        for name, value in (("temp", 101), ("repeat-penalty", 1e4), ("repeat-last-n", 65537), ("dry-allowed-length", 0),
                            ("mirostat-lr", 1.5)):
            self.fails(("generate", f"--{name}", value, "-n", 1, "-p", "x"), 2, name, "expected")
        self.fails(("quantize", TALES), 2, "too few")
        self.fails(("version", "now"), 2, "now")
        self.fails(("state", "melt", "x"), 2, "melt")
        self.fails(("state", "create", "-p", "x"), 2, "-o FILE")
        self.fails(("state", "fork", "x"), 2, "-o FILE")
        self.fails(("perplexity", "-p", "a b", "--reset"), 2, "--window")
        self.fails(("generate", "--ids", "1", "-p", "x"), 2, "more than once")
        self.fails(("tokenize", "-f", "x", "-p", "x"), 2, "more than once")
        self.fails(("train", "x.yaml", "--states", "bf16"), 2, "--states")
        self.fails(("run", "hello", "-p", "x"), 2, "more than once")

    def test_states_in_bf16_are_for_a_gpu(self):
        self.fails(("generate", "--states", "bf16", "--ids", "1", "-n", "1"), 1, "tales.gguf", "--device cuda", "--states f32")
        self.fails(("generate", "--states", "f16", "--ids", "1", "-n", "1"), 2, "f16", "bf16|f32")

    def test_input(self):
        self.fails(("generate", "--ids", "99999", "-n", "1"), 1, "99999", "4095")
        self.fails(("generate", "--ids", "1,x", "-n", "1"), 1, "1,x", "neither a list")
        for ids in ("1,,2", "-1", "1,-2", "[1,[2]]", "[1,2],3", "4294967297", "99999999999999999999", "1-2"):
            self.fails(("generate", "--ids", ids, "-n", "1"), 1, "--ids", "not a token id")
        self.fails(("generate", "--ids", "[1,2", "-n", "1"), 1, "']' is missing")
        for text in (b'{"ids": [1]}', b"1\0002", b"\xff\xfe1\x00"):
            (self.d / "ids").write_bytes(text)
            self.fails(("generate", "--ids", self.d / "ids", "-n", "1"), 1, str(self.d / "ids"), "not a token id")
        self.fails(("generate", "--ids", "[]", "-n", "1"), 1, "empty")
        self.fails(("run", ""), 1, "prompt is empty")
        self.fails(("generate", "-n", "1"), 1, "empty")
        self.fails(("generate", "-n", "1"), 1, "UTF-8", "byte 3", stdin=b"abc\xff")
        self.fails(("generate", "-f", self.d / "none", "-n", "1"), 1, "none")
        self.fails(("generate", "-p", "a b c d", "-c", "2"), 1, "-c")
        self.fails(("generate", "-m", SMALL, "-p", "text"), 1, "tokenizer", "--ids")
        d = self.broken("words")
        (d / "tokenizer.json").write_text('{"model": {"type": "WordPiece", "vocab": {}}}')
        for args in (("generate", "-p", "text"), ("run", "text")):
            self.fails((*args, "-m", d), 1, "words/tokenizer.json", "WordPiece", "--ids")
        self.fails(("perplexity", "--ids", "5"), 1, "nothing to predict")
        self.fails(("generate", "-p", "a", "--samplers", "topk"), 1, "topk", "top_k")
        self.fails(("generate", "-p", "a", "--logit-bias", "5=3"), 1, "5=3")

    def test_paths(self):
        self.refuses(self.d / "missing.gguf", "missing.gguf")
        self.refuses(self.d, "config.json")
        (self.d / "config.json").write_text("{}")
        self.refuses(self.d, "safetensors")
        (self.d / "pytorch_model.bin").write_bytes(b"PK")
        self.refuses(self.d, "pytorch_model.bin", "safetensors")
        self.refuses(SMALL / "model.safetensors", "directory")
        (self.d / "x.gguf").write_bytes(b"")
        self.refuses(self.d / "x.gguf", "x.gguf")

    def test_safetensors(self):
        self.refuses(self.broken("cut", lambda b: b[:-100]), "model.safetensors")
        self.refuses(self.broken("header", lambda b: b[:40]), "model.safetensors")
        self.refuses(self.broken("length", lambda b: struct.pack("<Q", 1 << 60) + b[8:]), "model.safetensors")

        def nan(b):
            n = struct.unpack("<Q", b[:8])[0]
            header = json.loads(b[8:8 + n])
            begin = 8 + n + header["backbone.layers.1.mixer.in_proj.weight"]["data_offsets"][0]
            return b[:begin] + b"\x00\x00\xc0\x7f" + b[begin + 4:]

        self.refuses(self.broken("nan", nan), "layers.1.mixer.in_proj")
        self.refuses(self.broken("missing", lambda b: b.replace(b"layers.2.mixer.D", b"layers.2.mixer.E")), "layers.2.mixer.D")
        self.refuses(self.broken("extra", config=lambda j: j.update(num_hidden_layers=2)), "2 layers")
        self.refuses(self.broken("shape", config=lambda j: j.update(state_size=8)), "expected", "d_state")

    def test_config(self):
        self.refuses(self.broken("arch", config=lambda j: j.update(model_type="llama")), "llama")
        bitsandbytes = self.broken("bnb", config=lambda j: j.update(quantization_config={"load_in_4bit": True}))
        self.refuses(bitsandbytes, "quantization_config")
        self.refuses(self.broken("zero", config=lambda j: j.update(hidden_size=0, intermediate_size=1 << 62)), "config")
        text = self.broken("text", config=lambda j: j.update(hidden_size="64"))
        self.refuses(text, "text", "config.json", '"hidden_size"', "whole number")
        d = self.broken("json")
        os.chmod(d / "config.json", 0o644)
        (d / "config.json").write_text('{"model_type": "falcon_mamba", ')
        self.refuses(d, "config.json")

    def test_gguf(self):
        data = pathlib.Path(TALES).read_bytes()

        def file(name, content):
            (self.d / name).write_bytes(content)
            return self.d / name

        self.refuses(file("cut.gguf", data[:-1000]), "cut.gguf")
        self.refuses(file("short.gguf", data[:3000]), "short.gguf")
        self.refuses(file("magic.gguf", b"XXXX" + data[4:]), "magic.gguf")
        self.refuses(file("big.gguf", data[:4] + struct.pack(">I", 3) + data[8:]), "big-endian")
        self.refuses(file("old.gguf", data[:4] + struct.pack("<I", 1) + data[8:]), "version")
        self.assertEqual(good("logits", "-m", file("two.gguf", data[:4] + struct.pack("<I", 2) + data[8:]), "--ids", "1,2"),
                         good("logits", "-m", TALES, "--ids", "1,2"))
        self.refuses(SOURCE / "tests/data/vocab/falcon.gguf", "falcon.gguf")
        run("convert", SMALL, self.d / "small.gguf")
        small = (self.d / "small.gguf").read_bytes().replace(b"blk.0.ssm_conv1d.bias", b"blk.0.ssm_conv1d.bia_")
        self.refuses(file("bias.gguf", small), "bias.gguf", "blk.0.ssm_conv1d.bias", "missing")
        five = struct.pack("<Q", 5)
        self.refuses(file("arch.gguf", data.replace(five + b"mamba", five + b"rwkv7", 1)), "rwkv7")

    def test_chat_templates(self):
        self.fails(("run", "--chat-template", "chatlm", "hi"), 1, "chatlm", "chatml")
        for text, word in (("{% for m in messages", "no end"), ("{{ raise_exception('not today') }}", "not today")):
            (self.d / "t.jinja").write_text(text)
            self.fails(("run", "--chat-template", self.d / "t.jinja", "hi"), 1, "t.jinja", "line 1", word)

    def test_a_model_is_not_written_over_itself(self):
        path = self.d / "m.gguf"
        shutil.copy(TALES, path)
        os.symlink(path, self.d / "link.gguf")
        for args in (("quantize", path, path, "q4_0"), ("convert", path, self.d / "link.gguf")):
            self.fails(args, 1, "one file", "another name")
        self.assertEqual(path.read_bytes(), pathlib.Path(TALES).read_bytes())

    def test_what_is_read_is_not_written_over(self):
        model, text = self.d / "m.gguf", self.d / "x.txt"
        shutil.copy(TALES, model)
        text.write_text("Once upon a time")
        os.symlink(text, self.d / "link.txt")
        for args, lost in ((("logits", "-m", model, "-p", "Once", "-o", model), model),
                           (("gradients", "-m", model, "--ids", "1,2", "-o", model), model),
                           (("state", "create", "-m", model, "-p", "Once", "-o", model), model),
                           (("state", "create", "-f", text, "-o", text), text),
                           (("generate", "-m", model, "-p", "Once", "-n", 1, "--save-state", model), model),
                           (("shard", text, "--tokenizer", model, "-o", model), model),
                           (("shard", text, "--tokenizer", model, "-o", self.d / "link.txt"), text)):
            with self.subTest(args[0]):
                self.fails(args, 2, str(args[-1]), "would be lost")
        self.assertEqual(model.read_bytes(), pathlib.Path(TALES).read_bytes())
        self.assertEqual(text.read_text(), "Once upon a time")

    def test_an_answer_is_printed_though_its_state_cannot_be_saved(self):
        p = run("generate", "-p", "Once", "-n", 3, "--json", "--save-state", self.d / "no/x.state")
        self.assertEqual(p.returncode, 1)
        self.assertEqual(len(json.loads(p.stdout)["ids"]), 3)
        self.assertIn("no/x.state", p.stderr.decode())

    def test_a_token_type_that_is_no_number(self):
        """`convert` reads the vocabulary by itself."""
        metadata, tensors = gguf.read(TALES)
        key = gguf.text("tokenizer.ggml.token_type")
        n = struct.unpack("<Q", next(m for m in metadata if m.startswith(key))[len(key) + 8:][:8])[0]
        words = struct.pack("<IIQ", gguf.ARRAY, gguf.STRING, n) + gguf.text("x") * n
        gguf.write(self.d / "types.gguf", [key + words if m.startswith(key) else m for m in metadata], tensors)
        self.fails(("convert", self.d / "types.gguf", self.d / "out"), 1, "types.gguf", "byte-level BPE")
        self.assertFalse((self.d / "out").exists())

    def test_unwritable_outputs_leave_nothing(self):
        self.fails(("convert", TALES, self.d / "no/where.gguf"), 1, "no/where.gguf")
        target = self.d / "t.gguf"
        target.write_bytes(b"kept")
        self.fails(("quantize", self.broken("cut2", lambda b: b[:-100]), target, "q8_0"), 1, "model.safetensors")
        self.fails(("quantize", TALES, target, "q9_0"), 1, "q9_0")
        self.assertEqual(target.read_bytes(), b"kept")
        self.assertEqual(sorted(p.name for p in self.d.iterdir()), ["cut2", "t.gguf"])

    def test_a_full_disk_leaves_the_target_untouched(self):
        target = self.d / "t.gguf"
        target.write_bytes(b"kept")

        def limit():  # writing beyond 100 kB fails, as on a full disk
            resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))

        for args in (["convert", TALES, target], ["quantize", TALES, target, "q8_0"],
                     ["synth", "--shape", "tiny", "--type", "f32", "-o", target], ["logits", "--ids", IDS, "-o", ""],
                     ["state", "create", "-p", "Once", "-o", target]):
            if args[0] == "logits":
                args[-1] = self.d / "t.npy"
                args[-1].write_bytes(b"kept")
            p = subprocess.run([PROGRAM, *map(str, args)], capture_output=True, check=False, preexec_fn=limit,
                               restore_signals=False, env=dict(os.environ, FM_MODEL=TALES))
            self.assertEqual(p.returncode, 1, p.stderr)
            self.assertIn(str(args[-1] if args[0] == "logits" else target).encode(), p.stderr)
        self.assertEqual(target.read_bytes(), b"kept")
        self.assertEqual(sorted(p.name for p in self.d.iterdir()), ["t.gguf", "t.npy"])

    @unittest.skipUnless(os.path.exists("/dev/full"), "needs /dev/full")
    def test_a_full_standard_output(self):
        with open("/dev/full", "wb") as full:
            p = subprocess.run([PROGRAM, "inspect", TALES, "--json"], stdout=full, stderr=subprocess.PIPE, check=False)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"standard output", p.stderr)

    def test_nothing_crashes_on_noise(self):
        import random
        rng = random.Random(5)
        data = pathlib.Path(TALES).read_bytes()[:200000]
        for i in range(40):
            bad = bytearray(data)
            for _ in range(8):
                bad[rng.randrange(20000)] = rng.randrange(256)
            (self.d / "noise.gguf").write_bytes(bytes(bad))
            p = run("logits", "-m", self.d / "noise.gguf", "--ids", "1")
            self.assertEqual(p.returncode, 1, (i, p.stderr))


if __name__ == "__main__":
    unittest.main()
