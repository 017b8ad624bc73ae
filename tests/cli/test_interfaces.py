"""The interfaces that scripts of others call: their forms and what they give."""
import json
import math
import os
import pathlib
import tempfile
import unittest

from fmamba import GOLDEN, SOURCE, TALES, Case, good, good_json, read_npy, run

PASSAGE = SOURCE / "tests/data/tales/passage.txt"


class Interfaces(Case):
    def test_logits_do_not_depend_on_the_chunk(self):
        with tempfile.TemporaryDirectory() as d:
            ids = ",".join(str(i * 7 % 200) for i in range(40))
            files = []
            for chunk in (512, 1, 7):
                path = f"{d}/{chunk}.npy"
                good("logits", "-m", GOLDEN / "falcon-small", "--ids", ids, "-o", path, "--chunk", chunk)
                files.append(pathlib.Path(path).read_bytes())
            self.assertEqual(files[0], files[1])
            self.assertEqual(files[0], files[2])
            shape, _ = read_npy(f"{d}/1.npy")
            self.assertEqual(shape, (40, 320))

    def test_logits_as_json_and_npy_agree(self):
        with tempfile.TemporaryDirectory() as d:
            j = good_json("logits", "-m", GOLDEN / "falcon-odd", "--ids", "1,2,3")
            good("logits", "-m", GOLDEN / "falcon-odd", "--ids", "1,2,3", "-o", f"{d}/x.npy")
            shape, values = read_npy(f"{d}/x.npy")
            self.assertEqual(shape, (3, 131))
            self.assertEqual(j["ids"], [1, 2, 3])
            flat = [v for row in j["logits"] for v in row]
            self.assertTrue(all(abs(a - b) <= 1e-6 * abs(b) for a, b in zip(flat, values)))

    def test_hidden_states(self):
        with tempfile.TemporaryDirectory() as d:
            good("logits", "-m", GOLDEN / "falcon-small", "--ids", "5,6,7,8", "--hidden", "-o", f"{d}/h.npy")
            self.assertEqual(read_npy(f"{d}/h.npy")[0], (4, 4, 64))

    def test_generate(self):
        j = good_json("generate", "-p", "Once upon a time", "-n", 12, "--temp", 0, "--ignore-eos", "--json")
        self.assertEqual(list(j), ["ids", "text", "stop"])
        self.assertEqual((len(j["ids"]), j["stop"]), (12, "length"))
        self.assertEqual(j["text"], good("detokenize", "--ids", ",".join(map(str, j["ids"]))))
        by_ids = good_json("tokenize", "--json", stdin="Once upon a time")
        again = good_json("generate", "--ids", ",".join(map(str, by_ids)), "-n", 12, "--temp", 0, "--ignore-eos", "--json")
        self.assertEqual(again["ids"], j["ids"])

    def test_ways_to_hold_the_weights(self):
        args = ("generate", "-p", "The king", "-n", 6, "--temp", 0, "--json")
        want = good_json(*args)
        self.assertEqual(good_json(*args, "--no-mmap"), want)
        self.assertEqual(good_json(*args, env={"FM_MMAP": "off"}), want)
        p = run(*args, "--mlock")
        if p.returncode == 0:
            self.assertEqual(json.loads(p.stdout), want)
        else:  # the limit on locked memory is below five megabytes here
            self.assertIn(b"ulimit -l", p.stderr)

    def test_the_guard_on_the_length(self):
        n_prompt = len(good_json("tokenize", "--json", "-p", "Once upon a time"))
        args = ("generate", "-p", "Once upon a time", "--temp", 0, "--ignore-eos", "--json")
        for n in (20, -1):
            j = good_json(*args, "-n", n, "-c", n_prompt + 6)
            self.assertEqual((len(j["ids"]), j["stop"]), (6, "length"))
        self.assertEqual(good_json(*args, "-n", 20, "-c", n_prompt)["ids"], [])
        self.assertEqual(len(good_json(*args, "-n", 5, "-c", n_prompt + 6, "--choices", 2)["choices"][1]["ids"]), 5)
        self.assertEqual(good("run", "Once upon a time", "--temp", 0, "-c", n_prompt + 6),
                         good("run", "Once upon a time", "--temp", 0, "-n", 6))
        self.assertEqual(good("run", "Once upon a time", "-n", 0).strip(), "")

    def test_generate_without_a_tokenizer(self):
        j = good_json("generate", "-m", GOLDEN / "mamba-small", "--ids", "1,2,3", "-n", 4, "--temp", 0, "--json")
        self.assertEqual((len(j["ids"]), j["text"]), (4, None))

    def test_the_prompt_is_printed_only_on_request(self):
        args = ("generate", "-p", "Once upon a time", "-n", 5, "--temp", 0)
        plain, echo = good(*args), good(*args, "--echo")
        self.assertFalse(plain.startswith("Once"))
        self.assertEqual(echo, "Once upon a time" + plain)

    def test_seeds_choices_and_threads(self):
        args = ("generate", "-p", "The king", "-n", 10, "--seed", 7, "--json")
        j = good_json(*args, "--choices", 3)
        alone = good_json(*args)
        self.assertEqual(j["choices"][0]["ids"], alone["ids"])
        self.assertEqual(len({tuple(c["ids"]) for c in j["choices"]}), 3)
        self.assertEqual(good_json(*args, "-t", 1)["ids"], good_json(*args, "-t", 3, "--chunk", 1)["ids"])

    def test_stop_strings(self):
        whole = good_json("generate", "-p", "Once upon a time", "-n", 40, "--temp", 0, "--json")
        stop = whole["text"][20:26]
        j = good_json("generate", "-p", "Once upon a time", "-n", 40, "--temp", 0, "--json", "--stop", stop)
        self.assertEqual(j["stop"], "stop")
        self.assertEqual(j["text"], whole["text"][:whole["text"].index(stop)])

    def test_logprobs(self):
        j = good_json("generate", "-p", "The", "-n", 3, "--temp", 0, "--json", "--logprobs", 5)
        self.assertEqual(len(j["logprobs"]), 3)
        for token, logprob in zip(j["ids"], j["logprobs"]):
            self.assertEqual(logprob["top"][0]["id"], token)
            self.assertEqual(logprob["top"][0]["logprob"], logprob["logprob"])
            self.assertLess(sum(math.exp(t["logprob"]) for t in logprob["top"]), 1)

    def test_ids_may_be_a_list_a_file_or_json(self):
        want = good("detokenize", "--ids", "15,274,544")
        with tempfile.TemporaryDirectory() as d:
            for i, text in enumerate(("15,274,544", "15 274\n544\n", "[15, 274, 544]", "15,\r\n274,\r\n544,\r\n",
                                      "\ufeff[15,274,\n544]\n")):
                path = pathlib.Path(d, f"ids{i}")
                path.write_text(text)
                self.assertEqual(good("detokenize", "--ids", path), want)
        self.assertEqual(good("detokenize", "--ids", "-", stdin="[15, 274, 544]"), want)
        for text in ("15, 274, 544", "15\t274\n544", " [15,\n 274, 544] ", "15,274,544,"):
            self.assertEqual(good("detokenize", "--ids", text), want)
        for text in ("", "[]", " "):
            self.assertEqual(good("detokenize", "--ids", text), "")

    def test_the_command_line_wins_over_the_environment(self):
        want = good("tokenize", "--json", "-p", "The king")
        with tempfile.TemporaryDirectory() as d:
            pathlib.Path(d, "t").write_text("The king")
            self.assertEqual(good("tokenize", "--json", "-f", f"{d}/t", env={"FM_PROMPT": "The fox"}), want)
            self.assertEqual(good("tokenize", "--json", "-p", "The king", env={"FM_FILE": "/nowhere"}), want)
        self.assertEqual(good("tokenize", "--json", env={"FM_PROMPT": "The king"}), want)

    def test_logits_to_standard_output(self):
        args = ("logits", "-m", GOLDEN / "falcon-odd", "--ids", "1,2")
        self.assertEqual(good_json(*args, "-o", "-"), good_json(*args))
        self.assertFalse(pathlib.Path("-").exists())

    def test_samplers_by_llama_cpps_names(self):
        args = ("generate", "-p", "The king", "-n", 8, "--seed", 3, "--typical", "0.7", "--top-k", 30, "--samplers")
        self.assertEqual(good(*args, "top-k;typ_p;temp"), good(*args, "top_k;typical;temperature"))

    def test_a_configuration_without_model_type(self):
        args = ("--ids", "1,2,3")
        for name in ("falcon-odd", "mamba-small"):
            with tempfile.TemporaryDirectory() as d:
                config = json.loads((GOLDEN / name / "config.json").read_text())
                del config["model_type"]
                pathlib.Path(d, "config.json").write_text(json.dumps(config))
                os.symlink(GOLDEN / name / "model.safetensors", f"{d}/model.safetensors")
                self.assertEqual(good("logits", "-m", d, *args), good("logits", "-m", GOLDEN / name, *args))

    def test_special_tokens_in_text(self):
        self.assertEqual(good_json("tokenize", "--json", "-p", "<|im_end|>"), [2])
        self.assertGreater(len(good_json("tokenize", "--json", "-p", "<|im_end|>", "--no-parse-special")), 1)

    def test_escapes_only_on_request(self):
        plain, escaped = (good_json("tokenize", "--json", "-p", "a\\nb", *e) for e in ((), ("-e",)))
        self.assertEqual(good("detokenize", "--ids", json.dumps(plain)), "a\\nb")
        self.assertEqual(good("detokenize", "--ids", json.dumps(escaped)), "a\nb")
        for text, means in ((r"\u00e9\uD83D\uDE00", "\u00e9\U0001F600"), (r"\uD83D\u0041", "\uFFFDA"), (r"\uD83D", "\uFFFD")):
            pair = good_json("tokenize", "--json", "-e", "-p", text)
            self.assertEqual(pair, good_json("tokenize", "--json", "-p", means), text)

    def test_vocabularies_open_alone(self):
        vocab = SOURCE / "tests/data/vocab/falcon.gguf"
        ids = good_json("tokenize", "-m", vocab, "--json", stdin="Hello world 123")
        self.assertEqual(good("detokenize", "-m", vocab, "--ids", json.dumps(ids)), "Hello world 123")

    def test_perplexity(self):
        j = good_json("perplexity", "-f", PASSAGE, "--json")
        ids = good_json("tokenize", "--json", "-f", PASSAGE)
        self.assertEqual(j["tokens"], len(ids) - 1)
        self.assertAlmostEqual(j["ppl"], math.exp(j["nll"]), places=9)
        text = PASSAGE.read_bytes()
        first = len(good("detokenize", "--ids", str(ids[0])).encode())
        self.assertEqual(j["bytes"], len(text) - first)
        self.assertAlmostEqual(j["bits_per_byte"], j["nll"] * j["tokens"] / math.log(2) / j["bytes"], places=9)
        self.assertEqual(good_json("perplexity", "--ids", json.dumps(ids), "--json"), j)

    def test_perplexity_in_windows(self):
        ids = good_json("tokenize", "--json", "-f", PASSAGE)
        j = good_json("perplexity", "--ids", json.dumps(ids), "--window", 100, "--reset", "--json")
        windows = (len(ids) - 1) // 100
        self.assertEqual(j["tokens"], 100 * windows)
        parts = [good_json("perplexity", "--ids", json.dumps(ids[100 * i:100 * i + 101]), "--json")["nll"]
                 for i in range(windows)]
        self.assertAlmostEqual(j["nll"], sum(parts) / windows, places=9)
        rolling = good_json("perplexity", "--ids", json.dumps(ids), "--window", 100, "--json")
        self.assertEqual(rolling["tokens"], len(ids))
        whole = good_json("perplexity", "--ids", json.dumps([0] + ids), "--json")
        in_one = good_json("perplexity", "--ids", json.dumps(ids), "--window", 10000, "--json")
        self.assertAlmostEqual(in_one["nll"], whole["nll"], places=9)

    def test_inspect(self):
        j = good_json("inspect", TALES, "--json")
        for key, value in (("arch", "falcon_mamba"), ("n_params", 7353600), ("d_inner", 512), ("vocab", 4096), ("eos", [0, 2])):
            self.assertEqual(j[key], value)
        self.assertAlmostEqual(j["mixer_rms_eps"], 1e-6)
        self.assertEqual(j["mixer_rms_eps_source"], "fmamba.mixer_rms_eps")
        self.assertEqual(len(j["tensors"]), 123)
        j = good_json("inspect", TALES, "--json", "--mixer-rms-eps", "1e-5")
        self.assertAlmostEqual(j["mixer_rms_eps"], 1e-5)

    def test_inspect_for_a_gpu(self):
        p = run("inspect", TALES, "--json", "--device", "cuda", "--batch", 4, "-b", 64)
        if p.returncode:
            self.assertIn(b"built without CUDA", p.stderr)
            return
        j = json.loads(p.stdout)
        self.assertEqual(j["device_bytes"], sum(j[f"device_{k}_bytes"] for k in ("weight", "state", "scratch")))
        more = good_json("inspect", TALES, "--json", "--device", "cuda", "--batch", 8, "-b", 64)
        self.assertEqual(more["device_state_bytes"], 2 * j["device_state_bytes"])
        half = good_json("inspect", TALES, "--json", "--device", "cuda", "--batch", 4, "-b", 64, "--states", "bf16")
        floats = 12 * 512 * (3 + 16)  # 12 layers of a window of 3 and 16 states, of which the states halve
        self.assertEqual(19 * half["device_state_bytes"], 11 * j["device_state_bytes"])
        self.assertEqual(j["state_bytes"], 4 * floats)
        self.fails(("inspect", TALES, "--device", "cuda", "--batch", "1,2"), 1, "--batch 1,2")

    def test_bench(self):
        j = good_json("bench", "-p", "16,32", "-n", 4, "--batch", "1,2", "-r", 2, "-t", 1, "--json")
        self.assertEqual([(r["test"], r["batch"]) for r in j],
                         [("pp16", 1), ("pp32", 1), ("tg4", 1), ("pp16", 2), ("pp32", 2), ("tg4", 2)])
        for r in j:
            self.assertTrue(0 < r["min"] <= r["tok_s"] <= r["max"])
        j = good_json("bench", "--shape", "tiny", "--type", "q8_0", "-p", 8, "-n", 0, "-r", 1, "--json")
        self.assertEqual(j[0]["test"], "pp8")

    def test_run_once(self):
        self.assertEqual(good("run", "Once", "upon", "a", "time", "-n", 5, "--temp", 0),
                         good("generate", "-p", "Once upon a time", "-n", 5, "--temp", 0))
        self.assertEqual(good("run", "-n", 5, "--temp", 0, stdin="Once upon a time\n"),
                         good("run", "Once upon a time", "-n", 5, "--temp", 0))

    def test_messages_form_no_special_tokens(self):
        args = ("run", "--chat-template", "chatml", "-n", 1, "--temp", 0, "-v")
        counts = []
        for text in ("abc", "<|im_end|>"):
            p = run(*args, text)
            self.assertEqual(p.returncode, 0)
            counts.append(int(p.stderr.decode().split("prompt: ")[1].split()[0]))
        content = [len(good_json("tokenize", "--json", "--no-parse-special", "-p", t)) for t in ("abc", "<|im_end|>")]
        self.assertEqual(counts[1] - counts[0], content[1] - content[0])


if __name__ == "__main__":
    unittest.main()
