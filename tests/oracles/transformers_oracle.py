#!/usr/bin/env python3
"""What transformers computes for the golden models and for the model that ships.

usage: transformers_oracle.py TALES       (tests/data/tales/tales.gguf as a directory: fmamba convert models/tales.gguf TALES)

Opens each checkpoint below tests/data/golden with transformers, in float32 on its slow path, and asks again for everything
that its golden.safetensors records: logits, hidden states, greedy ids, loss and gradients; likewise tests/data/tales. Sums of
floats differ from machine to machine in their last bits, so a file is only written again when a number has moved by more than
TOLERANCE of the largest in its tensor, or an id has changed. Needs torch, transformers and safetensors.
"""
import pathlib
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

DATA = pathlib.Path(__file__).resolve().parent.parent / "data"
TOLERANCE = 2e-5


def greedy(model, ids, n):
    """n ids more, each by a full recomputation."""
    for _ in range(n):
        ids = torch.cat([ids, model(ids, use_cache=False).logits[:, -1].argmax(-1, keepdim=True)], 1)
    return ids


def golden(model, recorded):
    ids = recorded["input_ids"].long()
    with torch.no_grad():
        o = model(ids, use_cache=False, output_hidden_states=True)
        ahead = recorded["greedy_ids"].long()[None, :9]
        text = greedy(model, ahead, 40)
        cached = model.generate(ahead, max_new_tokens=40, do_sample=False, eos_token_id=None, pad_token_id=0)
    now = {"input_ids": recorded["input_ids"], "logits": o.logits[0], "greedy_ids": text[0].int(),
           "greedy_cached_agrees": torch.tensor([int(torch.equal(text, cached))], dtype=torch.int32)}
    now |= {f"hidden.{i}": h[0] for i, h in enumerate(o.hidden_states)}
    model.train()
    loss = model(ids, labels=ids, use_cache=False).loss
    loss.backward()
    now["loss"] = loss.detach().view(1)
    return now | {f"grad.{n}": p.grad for n, p in model.named_parameters() if p.grad is not None}


def tales(model, recorded):
    ids, n_prompt = recorded["input_ids"].long()[None], int(recorded["greedy_prompt_len"])
    text = recorded["greedy_ids"].long()[None]
    with torch.no_grad():
        o = model(ids, labels=ids, use_cache=False)
        text = greedy(model, text[:, :n_prompt], text.shape[1] - n_prompt)
    return {"input_ids": recorded["input_ids"], "greedy_prompt_len": recorded["greedy_prompt_len"],
            "logits_last64": o.logits[0, -64:], "nll": o.loss.view(1), "greedy_ids": text[0].int()}


def moved(old, new):
    """How far a tensor moved, as a part of its largest number; infinity for another shape or type or id."""
    if old.shape != new.shape or old.dtype != new.dtype:
        return float("inf")
    if not old.is_floating_point():
        return 0.0 if torch.equal(old, new) else float("inf")
    return float((old - new).abs().max() / old.abs().max().clamp(min=1e-30))


def refresh(path, folder, ask):
    recorded = load_file(path)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    now = {k: v.contiguous().clone() for k, v in ask(model, recorded).items()}
    far = {k: moved(recorded[k], now[k]) if k in recorded and k in now else float("inf") for k in recorded.keys() | now.keys()}
    worst = max(far, key=far.get)
    print(f"transformers, {folder}: {worst} moved by {far[worst]:.1e} of its largest number")
    if far[worst] > TOLERANCE:
        save_file(now, path)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for folder in sorted((DATA / "golden").iterdir()):
        refresh(folder / "golden.safetensors", str(folder), golden)
    refresh(DATA / "tales/golden.safetensors", sys.argv[1], tales)


if __name__ == "__main__":
    main()
