"""Converting, quantising, making up."""
import json
import pathlib
import struct
import subprocess
import tempfile
import unittest

import gguf
from fmamba import GOLDEN, PROGRAM, TALES, Case, good, good_json, read_npy, run


class Conversions(Case):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.d = self.folder.name

    def tearDown(self):
        self.folder.cleanup()

    def logits(self, model, ids="1,2,3,4,5,6,7,8"):
        good("logits", "-m", model, "--ids", ids, "-o", f"{self.d}/x.npy")
        return read_npy(f"{self.d}/x.npy")[1]

    def test_there_and_back(self):
        for name in ("falcon-odd", "falcon-bias", "mamba-noconvb"):
            gguf, back = f"{self.d}/{name}.gguf", f"{self.d}/{name}"
            good("convert", GOLDEN / name, gguf)
            good("convert", gguf, back)
            want = self.logits(GOLDEN / name)
            self.assertEqual(self.logits(back), want)
            near = self.logits(gguf)
            self.assertTrue(all(abs(a - b) < 1e-4 * max(1, abs(b)) for a, b in zip(near, want)))

    def test_the_shipped_model_as_a_directory(self):
        good("convert", TALES, f"{self.d}/tales")
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            self.assertTrue(pathlib.Path(self.d, "tales", name).exists())
        args = ("-p", "Once upon a time", "-n", 8, "--temp", 0, "--json")
        self.assertEqual(good_json("generate", "-m", f"{self.d}/tales", *args), good_json("generate", *args))

    def test_what_a_crashed_run_left_is_not_published(self):
        """A folder under the name that this process number would take first, as in a container, where it is always 1."""
        script = 'mkdir "$2.tmp.$$" && touch "$2.tmp.$$/model-00009-of-00009.safetensors" && exec "$0" convert "$1" "$2"'
        command = ["sh", "-c", script, PROGRAM, GOLDEN / "falcon-small", f"{self.d}/out"]
        p = subprocess.run(command, capture_output=True, check=False)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertNotIn("model-00009-of-00009.safetensors", [f.name for f in pathlib.Path(self.d, "out").iterdir()])
        left = [f.name for f in pathlib.Path(self.d).iterdir() if ".tmp." in f.name]
        self.assertEqual(len(left), 1, left)

    def test_shards(self):
        """A directory of several files gives what one file does, and every tensor is where the index says."""
        good("convert", TALES, f"{self.d}/one", "--type", "f32")
        good("convert", TALES, f"{self.d}/many", "--type", "f32", "--shard-size", 2)
        index = json.loads(pathlib.Path(self.d, "many/model.safetensors.index.json").read_text())
        files = sorted(p.name for p in pathlib.Path(self.d, "many").glob("*.safetensors"))
        self.assertGreater(len(files), 2)
        self.assertEqual(files[0], f"model-00001-of-{len(files):05d}.safetensors")
        self.assertEqual(sorted(set(index["weight_map"].values())), files)
        sizes = 0
        for name in files:
            data = pathlib.Path(self.d, "many", name).read_bytes()
            n = struct.unpack("<Q", data[:8])[0]
            tensors = json.loads(data[8:8 + n])
            tensors.pop("__metadata__", None)
            self.assertEqual({index["weight_map"][t] for t in tensors}, {name})
            self.assertTrue(len(tensors) == 1 or len(data) - 8 - n <= 2000000)
            sizes += len(data) - 8 - n
        self.assertEqual(index["metadata"]["total_size"], sizes)
        self.assertEqual(self.logits(f"{self.d}/many"), self.logits(f"{self.d}/one"))

    def test_split_files(self):
        gguf.split(TALES, f"{self.d}/t", 3)
        first = f"{self.d}/t-00001-of-00003.gguf"
        self.assertEqual(self.logits(first), self.logits(TALES))
        good("convert", first, f"{self.d}/joined.gguf")
        good("convert", TALES, f"{self.d}/whole.gguf")
        self.assertEqual(pathlib.Path(self.d, "joined.gguf").read_bytes(), pathlib.Path(self.d, "whole.gguf").read_bytes())
        self.fails(("inspect", f"{self.d}/t-00002-of-00003.gguf"), 1, "00001-of-00003")
        pathlib.Path(self.d, "t-00003-of-00003.gguf").unlink()
        self.fails(("inspect", first), 1, "t-00003-of-00003.gguf")

    def test_importance(self):
        """An importance matrix changes the matrices that it names, and only those."""
        good("convert", TALES, f"{self.d}/f.gguf", "--type", "f32")
        _, tensors = gguf.read(f"{self.d}/f.gguf")
        name, (columns, _), _, _ = next(t for t in tensors if t[0] == b"blk.0.ssm_in.weight")
        sums = struct.pack(f"<{columns}f", *(1 + i % 7 * 30 for i in range(columns)))
        gguf.write(f"{self.d}/im.gguf", [gguf.kv("general.type", gguf.STRING, "imatrix")],
                   [(name + b".in_sum2", [columns, 1], 0, sums), (name + b".counts", [1, 1], 0, struct.pack("<f", 4))])
        good("quantize", f"{self.d}/f.gguf", f"{self.d}/plain.gguf", "q4_k")
        good("quantize", f"{self.d}/f.gguf", f"{self.d}/weighted.gguf", "q4_k", "--imatrix", f"{self.d}/im.gguf")
        plain, weighted = (gguf.read(f"{self.d}/{n}.gguf")[1] for n in ("plain", "weighted"))
        self.assertEqual([a[0] for a, b in zip(plain, weighted) if a != b], [name])
        self.fails(("quantize", f"{self.d}/f.gguf", f"{self.d}/x.gguf", "q4_k", "--imatrix", f"{self.d}/f.gguf"), 1, "imatrix")

    def test_types(self):
        for wanted, shown in (("q4_k", "Q4_K"), ("Q4_K_M", "Q4_K"), ("q4_k_s", "Q4_K"), ("iq4_xs", "IQ4_XS"),
                              ("int4_g128", "INT4_G128"), ("F16", "F16")):
            good("quantize", TALES, f"{self.d}/q.gguf", wanted)
            self.assertEqual(good_json("inspect", f"{self.d}/q.gguf", "--json")["type"], shown)
        good("convert", f"{self.d}/q.gguf", f"{self.d}/f.gguf", "--type", "f32")
        self.assertEqual(good_json("inspect", f"{self.d}/f.gguf", "--json")["type"], "F32")

    def tied(self, name, copy_embedding):
        """A golden model whose configuration ties the head to the embedding, though the file has a head."""
        source, folder = GOLDEN / "falcon-small", pathlib.Path(self.d, name)
        folder.mkdir()
        config = json.loads((source / "config.json").read_text())
        config["tie_word_embeddings"] = True
        (folder / "config.json").write_text(json.dumps(config))
        data = bytearray((source / "model.safetensors").read_bytes())
        size = struct.unpack("<Q", data[:8])[0]
        tensors = json.loads(data[8:8 + size])
        names = ("backbone.embeddings.weight", "lm_head.weight")
        (a, b), (c, d) = ([8 + size + x for x in tensors[t]["data_offsets"]] for t in names)
        if copy_embedding:
            data[c:d] = data[a:b]
        (folder / "model.safetensors").write_bytes(data)
        return folder

    def test_a_head_that_differs_is_not_tied(self):
        """As in transformers 5 and later: it is used, and said so; a head that is the embedding again is no matter for words."""
        args = ("generate", "--ids", "5,6,7", "-n", 8, "--temp", 0, "--json", "-m")
        plain, differs, same = run(*args, GOLDEN / "falcon-small"), self.tied("differs", False), self.tied("same", True)
        p = run(*args, differs)
        self.assertEqual((p.returncode, p.stdout), (0, plain.stdout), p.stderr)
        self.assertIn(b"lm_head.weight is there and differs", p.stderr)
        self.assertFalse(good_json("inspect", differs, "--json")["tied_head"])
        p = run(*args, same)
        self.assertEqual((p.returncode, p.stderr), (0, b""))
        self.assertNotEqual(p.stdout, plain.stdout)
        self.assertTrue(good_json("inspect", same, "--json")["tied_head"])
        for folder in (differs, same):  # the same model afterwards, without a word
            text = run(*args, folder).stdout
            good("convert", folder, f"{folder}.gguf")
            p = run(*args, f"{folder}.gguf")
            self.assertEqual((p.stdout, p.stderr), (text, b""))
            good("convert", f"{folder}.gguf", f"{folder}.hf")
            p = run(*args, f"{folder}.hf")
            self.assertEqual((p.stdout, p.stderr), (text, b""))

    def test_made_up_models(self):
        good("synth", "--shape", "tiny", "--type", "q4_k", "-o", f"{self.d}/a.gguf")
        good("synth", "--shape", "tiny", "--type", "q4_k", "-o", f"{self.d}/b.gguf", "-t", 1)
        good("synth", "--shape", "tiny", "--type", "q4_k", "-o", f"{self.d}/c.gguf", "--seed", 2)
        a, b, c = (pathlib.Path(self.d, f"{n}.gguf").read_bytes() for n in "abc")
        self.assertEqual(a, b)
        self.assertNotEqual(a, c)
        self.assertEqual(len(good_json("generate", "-m", f"{self.d}/a.gguf", "-p", "any text", "-n", 4, "--ignore-eos",
                                       "--json")["ids"]), 4)
        self.assertIn("falcon-mamba-7b", good("synth").split())


if __name__ == "__main__":
    unittest.main()
