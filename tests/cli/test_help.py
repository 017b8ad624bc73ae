"""Help, the manual page, the completion, the environment."""
import re
import shutil
import subprocess
import tempfile
import unittest

from fmamba import TALES, Case, good, good_json, run

COMMANDS = ("run generate tokenize detokenize logits perplexity inspect train train-tokenizer shard state convert quantize synth "
            "bench version help").split()


class Help(Case):
    def test_every_command_explains_itself(self):
        overview = good("help")
        for name in COMMANDS:
            self.assertIn(f"  {name} ", overview)
            text = good(name, "--help")
            self.assertTrue(text.startswith("fmamba") or "usage" in text.lower(), text[:80])
            self.assertEqual(text, good("help", name))

    def test_version(self):
        self.assertRegex(good("--version"), r"^fmamba \d+\.\d+\.\d+\n")
        self.assertEqual(good("version"), good("--version"))
        self.assertEqual(list(good_json("version", "--json")), ["version", "kernels", "cpus"])

    def test_manual_page(self):
        page = good("help", "--man")
        self.assertTrue(page.startswith(".TH"))
        for name in COMMANDS:
            self.assertIn(name, page)
        if shutil.which("man"):
            p = subprocess.run(["man", "--warnings", "-l", "-"], input=page.encode(), capture_output=True, check=False)
            self.assertEqual(p.stderr, b"")

    def test_completion_is_valid_shell(self):
        p = subprocess.run(["bash", "-n"], input=good("help", "--completion").encode(), capture_output=True, check=False)
        self.assertEqual((p.returncode, p.stderr), (0, b""))

    def test_no_command(self):
        p = run()
        self.assertEqual(p.returncode, 2)
        self.assertIn(b"COMMAND", p.stdout + p.stderr)

    def test_the_environment_sets_options_and_flags_win(self):
        env = {"FM_TEMP": "0", "FM_N_PREDICT": "3", "FM_MODEL": TALES}
        self.assertEqual(len(good_json("generate", "-p", "The", "--json", env=env)["ids"]), 3)
        self.assertEqual(len(good_json("generate", "-p", "The", "--json", "-n", 5, env=env)["ids"]), 5)
        self.fails(("generate", "-p", "The"), 1, "none.gguf", env={"FM_MODEL": "none.gguf"})

    def test_output_for_programs_has_no_escapes(self):
        p = run("generate", "-p", "The", "-n", 3)
        self.assertIsNone(re.search(rb"\x1b", p.stdout + p.stderr))

    def test_options_of_llama_cpp_have_answers(self):
        """What changes nothing is accepted, with the reason where somebody may wonder; what would change the text is refused."""
        base = ("generate", "-p", "The", "-n", 2, "--temp", 0)
        plain = run(*base)
        self.assertEqual((plain.returncode, plain.stderr), (0, b""))
        for args, said in ((("-ngl", 99), b"-ngl has no effect: the whole model is where --device"),
                           (("-fa",), b"-fa has no effect: there is no attention"), (("-fa", "on"), b"-fa has"),
                           (("--flash-attn=auto",), b"--flash-attn"), (("-ctk", "q8_0"), b"there is no KV cache"),
                           (("--cache-type-v", "q8_0"), b"there is no KV cache"), (("--cache_type_v=q8_0",), b"no KV cache"),
                           (("--rope-freq-base", 10000), b"no positions"), (("--keep", -1), b"no context to run out of"),
                           (("-tb", 4), b"same threads"), (("-i",), b"`fmamba run` talks"), (("--jinja",), None),
                           (("-no-cnv",), None), (("--no-display-prompt",), None), (("--no-warmup",), None)):
            p = run(*base, *args)
            self.assertEqual((p.returncode, p.stdout), (0, plain.stdout), (args, p.stderr))
            self.assertEqual(p.stderr.count(b"\n"), 0 if said is None else 1, (args, p.stderr))
            self.assertIn(said or b"", p.stderr)
        self.assertEqual(run(*base, "--display-prompt").stdout, b"The" + plain.stdout)
        for args, said in ((("-cnv",), "`fmamba run` talks"), (("--grammar", "x"), "grammar"), (("--lora", "x"), "merge"),
                           (("-hf", "x"), "-m"), (("--prompt-cache", "x"), "--save-state"), (("-ctk",), "needs a value")):
            self.fails((*base, *args), 2, args[0], said)
        self.fails(("plot", "-fa"), 2, "unknown option '-fa'")

    def test_a_talk_takes_llama_cpps_words_for_it(self):
        template = tempfile.NamedTemporaryFile("w", suffix=".jinja")  # pylint: disable=consider-using-with
        self.addCleanup(template.close)
        template.write("{% for m in messages %}[{{ m.content }}]{% endfor %}")
        template.flush()
        args = ("run", "-p", "The", "-n", 4, "--temp", 0, "--chat-template", template.name)
        talk, plain = run(*args, "-st", "-cnv", "--no-display-prompt"), run(*args, "-no-cnv")
        self.assertEqual((talk.returncode, plain.returncode), (0, 0), talk.stderr + plain.stderr)
        self.assertEqual(talk.stdout, run(*args).stdout)
        self.assertNotEqual(talk.stdout, plain.stdout)
        self.assertEqual(plain.stdout.strip(), run("generate", *args[1:7]).stdout.strip())

    def test_seeds_have_64_bits(self):
        args = ("generate", "-p", "The", "-n", 12, "--json", "--seed")
        largest = 2**64 - 1
        texts = [good_json(*args, seed)["ids"] for seed in (largest, largest, largest - 1, 2**53, 2**53 + 1)]
        self.assertEqual(texts[0], texts[1])
        self.assertEqual(len({tuple(x) for x in texts}), 4)
        self.assertEqual(len({tuple(good_json(*args, -1)["ids"]) for _ in range(6)}) > 1, True)
        for wrong in (2**64, -2, "1.5", "x"):
            self.fails((*args, wrong), 2, "0 to 18446744073709551615, or -1")


if __name__ == "__main__":
    unittest.main()
