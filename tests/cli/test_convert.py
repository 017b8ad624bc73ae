"""Converting, quantising, making up."""
import pathlib
import tempfile
import unittest

from fmamba import GOLDEN, TALES, Case, good, good_json, read_npy


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

    def test_types(self):
        for wanted, shown in (("q4_k", "Q4_K"), ("Q4_K_M", "Q4_K"), ("q4_k_s", "Q4_K"), ("iq4_xs", "IQ4_XS"), ("F16", "F16")):
            good("quantize", TALES, f"{self.d}/q.gguf", wanted)
            self.assertEqual(good_json("inspect", f"{self.d}/q.gguf", "--json")["type"], shown)
        good("convert", f"{self.d}/q.gguf", f"{self.d}/f.gguf", "--type", "f32")
        self.assertEqual(good_json("inspect", f"{self.d}/f.gguf", "--json")["type"], "F32")

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
