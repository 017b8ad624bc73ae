"""State files from the command line."""
import pathlib
import struct
import tempfile
import unittest

from fmamba import GOLDEN, TALES, Case, good, good_json



def crc64(data):
    """CRC-64/XZ, bit by bit."""
    crc = 2**64 - 1
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xC96C5795D7870F42 if crc & 1 else 0)
    return crc ^ 2**64 - 1


GREEDY = ("-n", 12, "--temp", 0, "--ignore-eos", "--json")


class States(Case):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.a, self.b, self.c = (f"{self.folder.name}/{n}.state" for n in "abc")

    def tearDown(self):
        self.folder.cleanup()

    def test_a_text_in_parts_is_the_whole_text(self):
        whole = good_json("generate", "-p", "Once upon a time there was", *GREEDY)["ids"]
        good("state", "create", "-p", "Once upon a time", "-o", self.a)
        good("state", "append", self.a, "-p", " there was", "-o", self.b)
        self.assertEqual(good_json("generate", "--state", self.b, *GREEDY)["ids"], whole)
        self.assertEqual(good_json("generate", "--state", self.a, "-p", " there was", *GREEDY)["ids"], whole)
        self.assertEqual(good_json("generate", "--state", self.b, "-t", 1, "--chunk", 1, *GREEDY)["ids"], whole)

    def test_show(self):
        good("state", "create", "--ids", "5,6,7", "-o", self.a)
        j = good_json("state", "show", self.a, "--json")
        self.assertEqual((j["tokens"], j["model"], j["type"], j["mark_tokens"]), (3, "tales", "f32", None))
        self.assertEqual(len(j["model_id"]), 64)
        self.assertIn("tokens   3", good("state", "show", self.a))
        self.assertEqual(good_json("state", "append", self.a, "--ids", "8,9", "-o", self.b, "--json"),
                         good_json("state", "show", self.b, "--json"))

    def test_rewind_and_fork(self):
        good("state", "create", "-p", "Once", "-o", self.a)
        first = pathlib.Path(self.a).read_bytes()
        good("state", "append", self.a, "-p", " upon")
        self.assertEqual(good_json("state", "show", self.a, "--json")["mark_tokens"], 1)
        good("state", "fork", self.a, "-o", self.b)
        self.assertEqual(pathlib.Path(self.a).read_bytes(), pathlib.Path(self.b).read_bytes())
        good("state", "rewind", self.a, "-o", self.c)
        self.assertEqual(pathlib.Path(self.c).read_bytes(), first)
        good("state", "rewind", self.a)
        self.assertEqual(pathlib.Path(self.a).read_bytes(), first)
        self.fails(("state", "rewind", self.a), 1, "no earlier state")
        good("state", "append", self.a, "-p", " upon", "--no-mark")
        self.fails(("state", "rewind", self.a), 1, "no earlier state")

    def test_bf16_is_smaller_and_says_so(self):
        good("state", "create", "-p", "Once", "-o", self.a)
        good("state", "create", "-p", "Once", "-o", self.b, "--type", "bf16")
        a, b = (pathlib.Path(p).stat().st_size for p in (self.a, self.b))
        self.assertEqual(a - b, 466944 // 2)
        self.assertIn("bf16", good("state", "show", self.b))

    def test_damage_is_found(self):
        good("state", "create", "-p", "Once", "-o", self.a)
        data = pathlib.Path(self.a).read_bytes()
        for n in (0, 7, 300, 384, len(data) // 2, len(data) - 1):
            pathlib.Path(self.b).write_bytes(data[:n])
            self.fails(("state", "show", self.b), 1, self.b)
        for at in (9, 60, 340, 1000, len(data) - 3):
            bad = bytearray(data)
            bad[at] ^= 4
            pathlib.Path(self.b).write_bytes(bytes(bad))
            self.fails(("state", "show", self.b), 1, self.b)
        pathlib.Path(self.b).write_bytes(data + b"x")
        self.fails(("state", "show", self.b), 1, "cut off or damaged")

    def test_a_forged_state_is_of_another_model(self):
        """The right id and checksum, but fewer numbers than the model has."""
        good("state", "create", "-p", "Once", "-o", self.a)
        head = bytearray(pathlib.Path(self.a).read_bytes()[:320])
        struct.pack_into("<QQ", head, 24 + 5 * 8, 1, 16)  # vocab, recurrent numbers
        body = bytes(head) + struct.pack("<QQ48x", 3, 1) + struct.pack("<17f", *[0.5] * 17)
        pathlib.Path(self.b).write_bytes(body + struct.pack("<Q", crc64(body)))
        good("state", "show", self.b)
        for more in ((), ("--force",)):
            self.fails(("generate", "--state", self.b, "-n", 1, *more), 1, "only continues in the model that made it")

    def test_other_models_and_other_quantisations(self):
        good("state", "create", "-p", "Once", "-o", self.a)
        self.fails(("generate", "-m", GOLDEN / "falcon-small", "--state", self.a, "-n", 1), 1, "tales", "falcon-small")
        quantised = f"{self.folder.name}/q8.gguf"
        good("quantize", TALES, quantised, "q8_0")
        self.fails(("generate", "-m", quantised, "--state", self.a, "-n", 1), 1, "Q8_0", "BF16")
        self.assertEqual(len(good_json("generate", "-m", quantised, "--state", self.a, "--force", *GREEDY)["ids"]), 12)

    def test_a_state_saved_while_generating(self):
        whole = good_json("generate", "-p", "The fox", "-n", 20, "--seed", 3, "--json")["ids"]
        half = good_json("generate", "-p", "The fox", "-n", 10, "--seed", 3, "--json", "--save-state", self.a)["ids"]
        rest = good_json("generate", "--state", self.a, "-n", 10, "--seed", 3, "--json")["ids"]
        self.assertEqual(half + rest, whole)


if __name__ == "__main__":
    unittest.main()
