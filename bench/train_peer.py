#!/usr/bin/env python3
"""Training by fmamba beside PyTorch: the same shape, the same windows, AdamW, one machine, by turns.

usage: train_peer.py FMAMBA --shape NAME --text FILE --tokenizer DIR [--length 512] [--rounds 3] [--steps 2] [--set KEY=VALUE]

PyTorch runs the model of transformers with its parallel scan (package mambapy), in float32 on as many threads as there are CPUs;
both take one window a step, clip the norm and update every weight.  A round is so many steps of each, after one that does not
count; a process of fmamba starts anew in each round, and its first step does not count either.  Printed are tokens per second of
each round, the medians, and the median ratio with the least and the largest.  Needs torch, transformers and mambapy:
bench/peers.md.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import torch
import transformers

CONFIG = """
model: {{shape: {shape}, tokenizer: {tokenizer}}}
data: {{train: [{text}], length: {length}}}
batch: {{size: 1, micro: 1}}
optimizer: {{rate: 1e-4, weight_decay: 0.1, clip: 1}}
schedule: {{tokens: {tokens}}}
run: {{out: {out}}}
"""


def train(args, folder):
    """One run of fmamba from new weights: tokens per second of each step but the first."""
    out = folder / "run"
    config = CONFIG.format(shape=args.shape, tokenizer=args.tokenizer, text=args.text, length=args.length, out=out,
                           tokens=args.length * (args.steps + 1))
    (folder / "train.yaml").write_text(config)
    options = [word for setting in args.set for word in ("--set", setting)]
    subprocess.run([args.fmamba, "train", folder / "train.yaml", "-q", *options], check=True)
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    ends = [row["time_s"] for row in rows if "tok_s" in row]
    config = json.loads(next(out.glob("step-*/config.json")).read_text())
    subprocess.run(["rm", "-r", out], check=True)
    return args.length * (len(ends) - 1) / (ends[-1] - ends[0]), config


class Peer:
    def __init__(self, config, length):
        kind = config.pop("model_type")
        model_config = transformers.AutoConfig.for_model(kind, **config)
        model_config.use_mambapy = True
        torch.set_num_threads(os.cpu_count())
        self.model = transformers.AutoModelForCausalLM.from_config(model_config).float().train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)
        self.length, self.vocab = length, config["vocab_size"]

    def step(self):
        ids = torch.randint(self.vocab, (1, self.length))
        loss = self.model(input_ids=ids, labels=ids, use_cache=False).loss
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()

    def rate(self, steps):
        self.step()
        begin = time.perf_counter()
        for _ in range(steps):
            self.step()
        return self.length * steps / (time.perf_counter() - begin)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("fmamba")
    p.add_argument("--shape", required=True)
    p.add_argument("--text", required=True)
    p.add_argument("--tokenizer", required=True)
    p.add_argument("--length", type=int, default=512)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--steps", type=int, default=2)
    p.add_argument("--set", action="append", default=[])
    args = p.parse_args()
    ours, theirs, peer = [], [], None
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {os.cpu_count()} CPUs")
    with tempfile.TemporaryDirectory() as folder:
        for i in range(args.rounds):
            rate, config = train(args, pathlib.Path(folder))
            peer = peer or Peer(config, args.length)
            ours.append(rate)
            theirs.append(peer.rate(args.steps))
            print(f"round {i + 1}: fmamba {ours[-1]:.1f} tok/s, PyTorch {theirs[-1]:.1f} tok/s, "
                  f"{ours[-1] / theirs[-1]:.2f}x", flush=True)
    ratios = sorted(a / b for a, b in zip(ours, theirs))
    print(f"median: fmamba {statistics.median(ours):.1f}, PyTorch {statistics.median(theirs):.1f} tok/s, "
          f"{statistics.median(ratios):.2f}x ({ratios[0]:.2f}, {ratios[-1]:.2f})")


if __name__ == "__main__":
    main()
