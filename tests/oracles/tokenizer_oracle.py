#!/usr/bin/env python3
"""Encodes random text with Hugging Face's tokenizers, for tests/unit/test_tokenizer.c to be compared with.

    python3 tests/oracles/tokenizer_oracle.py tests/data/vocab [--seed 1] [--count 500] [--json DIR]

Reads <name>.vocab in the given folder and writes <name>.cases there: two lines a case, a JSON string and its ids.  --json writes
tokenizer.json files of the same four tokenizers as well, merges spelled in both ways.  Needs the package tokenizers
(the committed files come from 0.23.3).

A .vocab file has a line per token: its spelling in the byte alphabet, then "#" for a control token, "+" for an added one, or the
lengths of the left sides of the merges that make it, in order.
"""

import argparse
import json
import os
import random
import unicodedata

from tokenizers import Tokenizer

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(regex):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": regex}


def split(regex):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


FALCON = sequence(
    {"type": "Punctuation", "behavior": "Contiguous"},
    byte_level(True),
    {"type": "Digits", "individual_digits": False},
    split("[0-9][0-9][0-9]"),
)
MODELS = {
    "falcon": {"pre": FALCON},
    "gpt-2": {"pre": byte_level(True)},
    "gpt-neox": {"pre": byte_level(True), "nfc": True},
    "llama-3": {"pre": sequence(split(LLAMA3), byte_level(False)), "ignore_merges": True},
}


def read_vocab(path):
    tokens, merges, added = {}, [], []
    with open(path, encoding="utf-8", newline="\n") as f:
        for i, line in enumerate(f):
            token, _, how = line.rstrip("\n").partition(" ")
            if how in ("#", "+"):
                text = token if how == "#" else token.replace("Ġ", " ")
                added.append({"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
                              "normalized": how == "+", "special": how == "#"})
                if how == "+":
                    continue
            tokens[token] = i
            if how and how != "#":
                merges += [(token[: int(n)], token[int(n) :]) for n in how.split(",")]
    return tokens, merges, added


def tokenizer_json(path, model, pairs):
    tokens, merges, added = read_vocab(path)
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": {"type": "NFC"} if model.get("nfc") else None,
        "pre_tokenizer": model["pre"],
        "post_processor": byte_level(True),
        "decoder": byte_level(True),
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "ignore_merges": model.get("ignore_merges", False), "vocab": tokens,
                  "merges": [list(m) if pairs else " ".join(m) for m in merges]},
    }


RANGES = [(0x00, 0x7F)] * 4 + [
    (0x80, 0x24F), (0x300, 0x36F), (0x370, 0x52F), (0x590, 0x6FF), (0x900, 0xD7F), (0xE00, 0xEFF), (0x1100, 0x11FF),
    (0x1E00, 0x20CF), (0x2100, 0x2BFF), (0x3000, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7FF), (0xE000, 0xFFFF),
    (0x10000, 0x1FFFF), (0x20000, 0x323AF), (0xE0000, 0x10FFFF),
]
SPACES = "  \t\n\r\v\f\x1c\x85\xa0\u1680\u2003\u200b\u2028\u202f\u3000"
PIECES = [
    "'s", "'S", "'re", "'LL", "'\u017f", "\u2019s", "'", "''d", "<|endoftext|>", "<|eot_id|>", "...", "!!",
    "\U0001F469\u200D\U0001F4BB", "\U0001F1E9\U0001F1EA", "e\u0301", "\u00e9", "\u1e69", "s\u0323\u0307", "\uac01",
    "\u1100\u1161\u11a8", "\u0958", "\u212b", "\u00b2", "x\u00b3", "\u00bd", "\u0663", "\u2167", "\u4e00\u4e8c",
    "http://a.b/c?d=1", "foo_bar", "3.14", "1,000", "\ufb01",
]
WORDS = """the quick brown fox jumps over lazy dogs It I'm you're THEY'LL naïve Straße Москва 你好 世界 日本語 한국어 العربية हिन्दी
return int x""".split()


def random_char(rng):
    low, high = rng.choice(RANGES)
    while True:
        cp = rng.randint(low, high)
        if not 0xD800 <= cp < 0xE000:
            return chr(cp)


def random_text(rng):
    out = []
    for _ in range(rng.randint(1, 9)):
        kind = rng.randrange(8)
        if kind == 0:
            out.append("".join(rng.choice(SPACES) for _ in range(rng.randint(1, 4))))
        elif kind == 1:
            out.append(rng.choice(" \n") * rng.randint(1, 9))
        elif kind == 2:
            out.append("".join(rng.choice("0123456789") for _ in range(rng.randint(1, 8))))
        elif kind == 3:
            out.append("".join(random_char(rng) for _ in range(rng.randint(1, 3))))
        elif kind == 4:
            out.append(rng.choice(PIECES))
        elif kind == 5:
            out.append("".join(rng.choice("!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~") for _ in range(rng.randint(1, 3))))
        else:
            out.append(rng.choice(["", " "]) + rng.choice(WORDS))
    return "".join(out)


def same_everywhere(text):
    """Left out: marks that Unicode 9 does not know, which the normaliser of the package leaves in place."""
    return not any(unicodedata.combining(c) and not unicodedata.ucd_3_2_0.combining(c) for c in text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--json", metavar="DIR")
    args = parser.parse_args()
    for name, model in MODELS.items():
        vocab = os.path.join(args.folder, name + ".vocab")
        both = [json.dumps(tokenizer_json(vocab, model, pairs), ensure_ascii=False) for pairs in (False, True)]
        for text, suffix in zip(both, ("", "-pairs")):
            if args.json:
                with open(os.path.join(args.json, name + suffix + ".json"), "w", encoding="utf-8") as f:
                    f.write(text)
        tokenizer = Tokenizer.from_str(both[0])
        rng = random.Random(f"{args.seed} {name}")
        with open(os.path.join(args.folder, name + ".cases"), "w", encoding="utf-8", newline="\n") as f:
            n = 0
            while n < args.count:
                text = random_text(rng)
                if model.get("nfc") and not same_everywhere(text):
                    continue
                n += 1
                ids = tokenizer.encode(text, add_special_tokens=False).ids
                f.write(json.dumps(text) + "\n" + " ".join(map(str, ids)) + "\n")


if __name__ == "__main__":
    main()
