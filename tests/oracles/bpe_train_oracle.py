#!/usr/bin/env python3
"""Trains byte-level BPE with Hugging Face's tokenizers, for `fmamba train-tokenizer` to be compared with.

    python3 tests/oracles/bpe_train_oracle.py tests/data/bpe                  records <name>.json for text.txt and text.jsonl
    python3 tests/oracles/bpe_train_oracle.py --compare FMAMBA TEXT [--vocab-size 4096] [--pretokenizer falcon]
                                                                              trains both on TEXT now, and compares the files
    python3 tests/oracles/bpe_train_oracle.py --random FMAMBA [--count 200]   the same for small random texts

Needs the package tokenizers (the committed files come from 0.23.3).
"""

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tokenizer_oracle import LLAMA3

CASES = [  # name, files, vocabulary, pre-tokeniser, least frequency, special tokens
    ("falcon", ["text.txt"], 480, "falcon", 2, ["<|endoftext|>"]),
    ("gpt2", ["text.txt", "text.jsonl"], 480, "gpt2", 0, ["<|endoftext|>", "<|pad|>"]),
    ("llama3", ["text.jsonl"], 2000, "llama3", 3, ["<|pad|>", "<|endoftext|>"]),
]


def pre_tokenizer(name):
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name == "gpt2":
        return byte_level
    if name == "llama3":
        steps = [pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                 pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    else:
        steps = [pre_tokenizers.Punctuation("contiguous"), byte_level, pre_tokenizers.Digits(individual_digits=False),
                 pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")]
    return pre_tokenizers.Sequence(steps)


def texts(paths, specials):
    """What stands between special tokens: training itself would take them for text."""
    cut = "|".join(re.escape(s) for s in sorted(specials, key=len, reverse=True))
    for path in paths:
        with open(path, encoding="utf-8", newline="") as f:
            whole = f.read()
        lines = [json.loads(line)["text"] for line in whole.split("\n") if line] if path.endswith(".jsonl") else [whole]
        for line in lines:
            yield from (t for t in re.split(cut, line) if t)


def train(paths, vocab, pre, frequency, specials):
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre == "llama3"))
    tokenizer.pre_tokenizer = pre_tokenizer(pre)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, min_frequency=frequency, show_progress=False,
        special_tokens=[AddedToken(s, special=True, normalized=False) for s in specials],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts(paths, specials), trainer)
    result = json.loads(tokenizer.to_str())
    result["decoder"]["add_prefix_space"] = False  # decoding does not read it, and the constructor does not take it
    return result


def train_here(program, folder, paths, vocab, pre, frequency, specials):
    args = [program, "train-tokenizer", *paths, "-o", folder, "--vocab-size", vocab, "--pretokenizer", pre,
            "--min-frequency", frequency]
    for s in specials:
        args += ["--special", s]
    subprocess.run([str(a) for a in args], check=True, stderr=subprocess.DEVNULL)
    Tokenizer.from_file(f"{folder}/tokenizer.json")
    with open(f"{folder}/tokenizer.json", encoding="utf-8") as f:
        return json.load(f)


def difference(ours, theirs):
    """None when equal, else where they part."""
    if ours == theirs and list(ours["model"]["vocab"]) == sorted(theirs["model"]["vocab"], key=theirs["model"]["vocab"].get):
        return None
    a, b = ours["model"]["merges"], theirs["model"]["merges"]
    first = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    return (f"{len(a)} and {len(b)} merges; from {first} on {a[first:first + 3]} and {b[first:first + 3]}; "
            f"other parts equal: {[k for k in theirs if ours.get(k) == theirs[k]]}")


def compare(program, path, vocab, pre):
    with tempfile.TemporaryDirectory() as folder:
        begin = time.time()
        theirs = train([path], vocab, pre, 2, ["<|endoftext|>"])
        middle = time.time()
        ours = train_here(program, folder, [path], vocab, pre, 2, ["<|endoftext|>"])
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(f"{path}, {vocab}, {pre}: {difference(ours, theirs) or 'the same file'}; {len(ours['model']['merges'])} merges; "
              f"tokenizers {middle - begin:.2f} s, fmamba {time.time() - middle:.2f} s, {used.ru_maxrss / 1024:.0f} MiB")
        return ours == theirs


def random_text(rng):
    letters = rng.choice(["ab", "ab ", "-", "-= ", "aé你 \n", "abc \n'1", "012 ", "a."])
    words = ["".join(rng.choice(letters) * rng.randint(1, rng.choice([1, 3, 9])) for _ in range(rng.randint(1, 9)))
             for _ in range(rng.randint(1, 60))]
    return rng.choice(["", " ", "<|endoftext|>"]).join(rng.choice(words) for _ in range(rng.randint(1, 300)))


def compare_random(program, count, seed):
    wrong = undecided = 0
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(count):
            with open(f"{folder}/text.txt", "w", encoding="utf-8", newline="") as f:
                f.write(random_text(rng))
            what = ([f"{folder}/text.txt"], rng.choice([270, 300, 1000]), rng.choice(["falcon", "gpt2", "llama3"]),
                    rng.choice([0, 2, 5]), ["<|endoftext|>"])
            theirs = train(*what)
            why = difference(train_here(program, folder, *what), theirs)
            if why and difference(theirs, train(*what)):  # tokenizers takes equal candidates in the order of a hash table
                undecided += 1
            elif why:
                wrong += 1
                print(f"text {i} of seed {seed}, {what[1:]}: {why}"[:600])
    print(f"{count} random texts, {wrong} differ, {undecided} of which tokenizers gives several answers")
    return wrong == 0


def record(folder):
    for name, files, *rest in CASES:
        with open(f"{folder}/{name}.json", "w", encoding="utf-8") as f:
            json.dump(train([os.path.join(folder, p) for p in files], *rest), f, ensure_ascii=False, separators=(",", ":"))
            f.write("\n")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("folder", nargs="?")
    p.add_argument("--compare", nargs=2, metavar=("FMAMBA", "TEXT"))
    p.add_argument("--random", metavar="FMAMBA")
    p.add_argument("--vocab-size", type=int, default=4096)
    p.add_argument("--pretokenizer", default="falcon")
    p.add_argument("--count", type=int, default=200)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    if a.compare:
        sys.exit(not compare(*a.compare, a.vocab_size, a.pretokenizer))
    if a.random:
        sys.exit(not compare_random(a.random, a.count, a.seed))
    record(a.folder)


if __name__ == "__main__":
    main()
