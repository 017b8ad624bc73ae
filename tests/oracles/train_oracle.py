#!/usr/bin/env python3
"""What PyTorch computes for a training of the golden models: gradients of packed documents and of given states, and the first
losses of a run with AdamW.

usage: train_oracle.py [FOLDER ...]       (checkpoints below tests/data/golden; default: those that have a train.safetensors)

The model below is the slow path of transformers written out with a state that goes in and comes out, in float32; before
anything is recorded, its logits, loss and gradients are compared with those that transformers itself gave for the same
checkpoint (golden.safetensors, see transformers_oracle.py).  train.safetensors is only written again when a number has moved
by more than TOLERANCE of the largest in its tensor.  Needs torch and safetensors.
"""
import json
import math
import pathlib
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "data/golden"
TOLERANCE = 2e-5

# The run: tokens of a window, windows, the end of documents; options as tests/golden/test_training.c gives them to the trainer.
LENGTH, WINDOWS, EOS, STEPS = 24, 8, 3, 20
PEAK, FINAL, WARMUP, DECAY_BEGIN, TOTAL = 4e-3, 1 / 16, 200, 1000, 1600
BATCH_BEGIN, BATCH_END, RAMP = 2, 4, 700
BETAS, EPS, DECAY, CLIP, Z_LOSS = (0.9, 0.95), 1e-8, 0.1, 0.5, 1e-3


class Model:
    def __init__(self, folder):
        self.c = json.loads((folder / "config.json").read_text())
        self.p = {k: v.float().requires_grad_() for k, v in load_file(folder / "model.safetensors").items()}
        self.falcon = self.c["model_type"] == "falcon_mamba"

    def norm(self, x, w, eps):
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
        return x if w is None else x * w

    def zeros(self):
        c = self.c
        conv = torch.zeros(c["conv_kernel"] - 1, c["intermediate_size"])
        return [(conv, torch.zeros(c["intermediate_size"], c["state_size"])) for _ in range(c["num_hidden_layers"])]

    def mixer(self, x, state, layer):
        """x (T, d_model) and (conv (d_conv - 1, d_inner), h (d_inner, d_state)) to the same."""
        w = lambda name: self.p.get(f"backbone.layers.{layer}.mixer.{name}")
        conv, h = state
        T, N, K = len(x), self.c["state_size"], self.c["conv_kernel"]
        u, z = F.linear(x, w("in_proj.weight"), w("in_proj.bias")).chunk(2, -1)
        window = torch.cat([conv, u])
        u = F.silu(F.conv1d(window.T[None], w("conv1d.weight"), w("conv1d.bias"), groups=len(h))[0].T)
        dt, B, C = F.linear(u, w("x_proj.weight")).split([self.c["time_step_rank"], N, N], -1)
        if self.falcon:
            dt, B, C = (self.norm(v, None, self.c["mixer_rms_eps"]) for v in (dt, B, C))
        dt = F.softplus(F.linear(dt, w("dt_proj.weight"), w("dt_proj.bias")))
        A = -torch.exp(w("A_log"))
        y = []
        for t in range(T):
            h = torch.exp(dt[t, :, None] * A) * h + (dt[t] * u[t])[:, None] * B[t]
            y.append(h @ C[t])
        y = (torch.stack(y) + w("D") * u) * F.silu(z)
        return F.linear(y, w("out_proj.weight"), w("out_proj.bias")), (window[len(window) - (K - 1):], h)

    def forward(self, ids, state):
        x = self.p["backbone.embeddings.weight"][ids]
        after = []
        for i, s in enumerate(state):
            out, s = self.mixer(self.norm(x, self.p[f"backbone.layers.{i}.norm.weight"], self.c["layer_norm_epsilon"]), s, i)
            x = x + out
            after.append(s)
        x = self.norm(x, self.p["backbone.norm_f.weight"], self.c["layer_norm_epsilon"])
        return F.linear(x, self.p.get("lm_head.weight", self.p["backbone.embeddings.weight"])), after

    def clear(self):
        for p in self.p.values():
            p.grad = None

    def gradients(self, prefix):
        return {f"{prefix}grad.{k}": p.grad.clone() for k, p in self.p.items()}


def nll(logits, targets, z=0.0):
    """Sum over the scored rows (target >= 0) of cross entropy + z lse^2."""
    lse, scored = logits.logsumexp(-1), targets >= 0
    loss = lse - logits.gather(-1, targets.clamp(min=0)[:, None])[:, 0] + z * lse ** 2
    return loss[scored].sum()


def distance(a, b):
    return float((a - b).norm() / b.norm().clamp(min=1e-30))


def check_model(m, recorded):
    ids = recorded["input_ids"].long()[0]
    m.clear()
    logits, _ = m.forward(ids, m.zeros())
    loss = nll(logits[:-1], ids[1:]) / (len(ids) - 1)
    loss.backward()
    far = {"logits": distance(logits.detach(), recorded["logits"]), "loss": distance(loss.detach().view(1), recorded["loss"])}
    far |= {k: distance(g, recorded[k]) for k, g in m.gradients("").items()}
    worst = max(far, key=far.get)
    if far[worst] > TOLERANCE:
        sys.exit(f"the model here is not that of transformers: {worst} is {far[worst]:.1e} away")


# ---- Gradients of pieces ----

PIECES = [9, 1, 14, 2]  # tokens of each; a state before and a weight of the state after belong to each


def targets_of(ids, generator):
    """The next token of each, but the last of a piece and a few others, which are not scored."""
    targets = torch.cat([ids[1:], torch.tensor([-1])])
    targets[torch.rand(len(ids), generator=generator) < 0.15] = -1
    return targets


def flat(states):
    """(pieces, layers, d_conv - 1 + d_state, d_inner): as the program lays a state out."""
    return torch.stack([torch.stack([torch.cat([conv, h.T]) for conv, h in layers]) for layers in states])


def pieces(m, generator):
    """Packed documents, each from zeros; then the same from given states, with a loss that looks at the states after, too."""
    vocab, draw = m.c["vocab_size"], lambda s: torch.randn(s.shape, generator=generator)
    ids = [torch.randint(0, vocab, (n,), generator=generator) for n in PIECES]
    targets = [targets_of(i, generator) for i in ids]
    n = sum(int((t >= 0).sum()) for t in targets)
    out = {"pieces.ids": torch.cat(ids).int(), "pieces.targets": torch.cat(targets).int(), "pieces.n": torch.tensor(PIECES).int()}

    m.clear()
    loss = sum(nll(m.forward(i, m.zeros())[0], t) for i, t in zip(ids, targets)) / n
    loss.backward()
    out |= {"packed.loss": loss.detach().view(1)} | m.gradients("packed.")

    m.clear()
    before = [[(draw(c).requires_grad_(), draw(h).requires_grad_()) for c, h in m.zeros()] for _ in ids]
    weight = [[(0.01 * draw(c), 0.01 * draw(h)) for c, h in m.zeros()] for _ in ids]
    loss, pull, after = 0, 0, []
    for i, t, s, w in zip(ids, targets, before, weight):
        logits, end = m.forward(i, s)
        loss = loss + nll(logits, t) / n
        pull = pull + sum((a * b).sum() for x, y in zip(end, w) for a, b in zip(x, y))
        after.append([tuple(v.detach() for v in layer) for layer in end])
    (loss + pull).backward()
    grad = [[tuple(v.grad for v in layer) for layer in s] for s in before]
    out |= {"state.loss": loss.detach().view(1), "state.before": flat(before).detach(), "state.weight": flat(weight),
            "state.after": flat(after), "state.grad": flat(grad)}
    return out | m.gradients("state.")


# ---- Twenty steps ----


def rate_and_batch(tokens):
    u = min(tokens / RAMP, 1.0)
    batch = BATCH_END if u == 1.0 else int(BATCH_BEGIN + u * (BATCH_END - BATCH_BEGIN) + 0.5)
    if tokens < WARMUP:
        f = (tokens + 1) / WARMUP
    elif tokens < DECAY_BEGIN:
        f = 1.0
    else:
        f = FINAL ** min((tokens - DECAY_BEGIN) / (TOTAL - DECAY_BEGIN), 1.0)
    return PEAK * f * math.sqrt(batch / BATCH_END), batch


def window_loss(m, window):
    """Sum and number of the scored tokens of a window; a document ends with EOS, which predicts nothing."""
    inputs, targets = window[:-1], window[1:].clone()
    targets[inputs == EOS] = -1
    total, begin = 0, 0
    for end in [int(i) + 1 for i in (inputs == EOS).nonzero()] + [LENGTH]:
        if end > begin:
            total = total + nll(m.forward(inputs[begin:end], m.zeros())[0], targets[begin:end], Z_LOSS)
        begin = end
    return total, int((targets >= 0).sum())


def decays(name, p):
    return (p.dim() >= 2 and "A_log" not in name) and "norm" not in name


def training(m, generator):
    windows = torch.randint(0, m.c["vocab_size"], (WINDOWS, LENGTH + 1), generator=generator)
    windows[torch.rand(windows.shape, generator=generator) < 0.08] = EOS
    groups = [{"params": [p for k, p in m.p.items() if decays(k, p) == d], "weight_decay": DECAY * d} for d in (True, False)]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=BETAS, eps=EPS)
    tokens, taken, log = 0, 0, []
    for _ in range(STEPS):
        rate, batch = rate_and_batch(tokens)
        m.clear()
        sums = [window_loss(m, windows[(taken + i) % WINDOWS]) for i in range(batch)]
        loss = sum(s for s, _ in sums) / sum(n for _, n in sums)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(m.p.values(), CLIP)
        for g in optimizer.param_groups:
            g["lr"] = rate
        optimizer.step()
        log.append((float(loss.detach()), float(norm), rate, batch))
        tokens, taken = tokens + batch * LENGTH, taken + batch
    columns = torch.tensor(log, dtype=torch.float64).T.float()
    return {"train.windows": windows.int(), "train.loss": columns[0], "train.grad_norm": columns[1], "train.rate": columns[2],
            "train.batch": columns[3]}


def moved(old, new):
    if old is None or old.shape != new.shape or old.dtype != new.dtype:
        return float("inf")
    if not old.is_floating_point():
        return 0.0 if torch.equal(old, new) else float("inf")
    return float((old - new).abs().max() / old.abs().max().clamp(min=1e-30))


def refresh(folder):
    m, path, generator = Model(folder), folder / "train.safetensors", torch.Generator().manual_seed(42)
    check_model(m, load_file(folder / "golden.safetensors"))
    now = {k: v.contiguous() for k, v in (pieces(m, generator) | training(m, generator)).items()}
    recorded = load_file(path) if path.exists() else {}
    far = {k: moved(recorded.get(k), v) for k, v in now.items()}
    worst = max(far, key=far.get)
    print(f"torch, training {folder.name}: {worst} moved by {far[worst]:.1e} of its largest number")
    if far[worst] > TOLERANCE:
        save_file(now, path)


def main():
    torch.set_num_threads(1)
    names = sys.argv[1:] or sorted(p.parent.name for p in GOLDEN.glob("*/train.safetensors"))
    for name in names:
        refresh(GOLDEN / name)


if __name__ == "__main__":
    main()
