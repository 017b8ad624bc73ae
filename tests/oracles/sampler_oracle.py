#!/usr/bin/env python3
"""What the samplers should leave of a distribution: the cases of tests/unit/test_sampler.c.

usage: sampler_oracle.py

Writes tests/data/sampler/cases.txt.  Every sampler here follows its definition (docs/sampling.md) in float64 and in the
plainest way: DRY compares every pair of places, truncations sort everything.  A random case in which something hangs
by less than MARGIN is left out, since single precision may decide it otherwise; exact ties stay in, for they have rules.
Needs numpy.

A case is a line "case NAME", lines "KEYWORD values..." and "end".  Keywords: set NAME VALUE, order LIST, mu VALUE, bias ID VALUE,
allowed, eos, breakers, prompt, output IDS, logits VALUES; expected: survive ID P ID P ..., with
mirostat also uncut ID P ... (before its cut), logprob ID VALUE ...
"""
import math
import pathlib

import numpy as np

VOCAB = 40
MARGIN = 2e-5
ORDER = "bias;penalties;dry;temperature;top_n_sigma;min_p;top_k;typical;top_p;xtc"
DEFAULTS = {"temperature": 1, "dynatemp_range": 0, "dynatemp_exponent": 1, "top_k": 0, "top_p": 1, "min_p": 0, "typical_p": 1,
            "top_n_sigma": 0, "xtc_probability": 0, "xtc_threshold": 0.1, "repeat_penalty": 1, "presence_penalty": 0,
            "frequency_penalty": 0, "repeat_last_n": 64, "dry_multiplier": 0, "dry_base": 1.75, "dry_allowed_length": 2,
            "dry_penalty_last_n": -1, "mirostat": 0, "mirostat_tau": 5, "mirostat_eta": 0.1, "min_tokens": 0}


class Close(Exception):
    """A decision hangs by less than MARGIN."""


class Chain:
    """Candidates (ids, z) on their way through the samplers of a case."""

    def __init__(self, case):
        self.case = case
        self.ids = np.arange(VOCAB)
        raw = np.array(case["logits"], np.float32).astype(np.float64)
        self.real = np.isfinite(raw)
        self.uncut = None  # probabilities before mirostat's cut
        self.z = np.nan_to_num(raw, nan=-1e30, posinf=1e30, neginf=-1e30)

    def __getitem__(self, name):
        v = self.case["set"].get(name, DEFAULTS[name])
        return v if isinstance(v, int) else float(np.float32(v))

    def p(self):
        e = np.exp(self.z - self.z.max())
        return e / e.sum()

    def take(self, which):
        self.ids, self.z, self.real = self.ids[which], self.z[which], self.real[which]

    def best_first(self):
        return np.lexsort((self.ids, -self.z))

    def decide(self, distances):
        distances = np.abs(np.asarray(distances, np.float64))
        if not self.case.get("exact") and np.any(distances < MARGIN):
            raise Close

    def bias(self):
        before = self.z.copy()
        for i, b in self.case.get("bias", []):
            self.z[i] += np.float32(b)
        if len(self.case.get("output", [])) < self["min_tokens"]:
            self.z[self.case["eos"]] = -np.inf
        allowed = np.isin(self.ids, self.case.get("allowed", self.ids))
        if np.all(self.z[allowed] == -np.inf):
            self.z = before
        self.take(allowed & (self.z > -np.inf))

    def penalties(self):
        out, n = self.case.get("output", []), self["repeat_last_n"]
        text = self.case.get("prompt", []) + out
        window = text if n < 0 else text[len(text) - min(n, len(text)):]
        for k, i in enumerate(self.ids):
            if i in window:
                self.z[k] = self.z[k] / self["repeat_penalty"] if self.z[k] > 0 else self.z[k] * self["repeat_penalty"]
            self.z[k] -= self["frequency_penalty"] * out.count(i) + self["presence_penalty"] * (out.count(i) > 0)

    def dry(self):
        if not self["dry_multiplier"]:
            return
        text, n = self.case.get("prompt", []) + self.case.get("output", []), self["dry_penalty_last_n"]
        text = text if n < 0 else text[len(text) - min(n, len(text)):]
        breakers, longest = self.case.get("breakers", []), {}
        for j in range(1, len(text)):  # text[j] follows an earlier copy of the end of the text
            k = 0
            while k < j and text[j - 1 - k] == text[-1 - k] and text[-1 - k] not in breakers:
                k += 1
            if k >= self["dry_allowed_length"] and text[j] not in breakers:
                longest[text[j]] = max(longest.get(text[j], 0), k)
        for k, i in enumerate(self.ids):
            if i in longest:
                self.z[k] -= self["dry_multiplier"] * self["dry_base"] ** (longest[i] - self["dry_allowed_length"])

    def temperature(self):
        t = self["temperature"]
        if t and self["dynatemp_range"] and len(self.ids) > 1:
            p = self.p()
            h = -sum(x * math.log(x) for x in p if x > 0) / math.log(len(p))
            lo, hi = max(0, t - self["dynatemp_range"]), t + self["dynatemp_range"]
            t = lo + (hi - lo) * h ** self["dynatemp_exponent"]
        if t:
            self.z = np.maximum((self.z - self.z.max()) / t, -1e30)
        else:
            self.take(self.best_first()[:1])

    def top_n_sigma(self):
        if self["top_n_sigma"] <= 0:
            return
        least = self.z.max() - self["top_n_sigma"] * (self.z[self.real].std() if self.real.any() else 0)
        self.decide((self.z - least)[self.z < self.z.max()])
        self.take(self.z >= least)

    def min_p(self):
        if self["min_p"] <= 0:
            return
        p = self.p()
        self.decide((p / p.max() - self["min_p"])[p < p.max()])
        self.take(p >= self["min_p"] * p.max())

    def top_k(self):
        if self["top_k"] > 0:
            best = self.best_first()
            if self["top_k"] < len(best) and self.z[best[self["top_k"] - 1]] != self.z[best[self["top_k"]]]:
                self.decide(self.z[best[self["top_k"] - 1]] - self.z[best[self["top_k"]]])
            self.take(np.sort(best[:self["top_k"]]))

    def typical(self):
        if self["typical_p"] >= 1:
            return
        p = self.p()
        with np.errstate(divide="ignore"):
            info = np.where(p > 0, -np.log(np.where(p > 0, p, 1)), np.inf)
        score = np.abs(info - np.sum(np.where(p > 0, p * np.where(p > 0, info, 0), 0)))
        order = np.lexsort((self.ids, score))
        kept, total = 0, 0.0
        while kept < len(order) and total <= self["typical_p"]:
            total += p[order[kept]]
            kept += 1
            self.decide(total - self["typical_p"])
        if kept < len(order) and score[order[kept - 1]] != score[order[kept]]:
            self.decide(score[order[kept - 1]] - score[order[kept]])
        self.take(np.sort(order[:kept]))

    def top_p(self):
        if self["top_p"] >= 1:
            return
        order, total, kept = self.best_first(), 0.0, 0
        p = self.p()
        while kept < len(order) and (kept == 0 or total < self["top_p"]):
            total += p[order[kept]]
            kept += 1
            self.decide(total - self["top_p"])
        self.take(np.sort(order[:kept]))

    def xtc(self):
        if self["xtc_probability"] <= 0 or self["xtc_threshold"] > 0.5:
            return
        assert self["xtc_probability"] == 1
        p = self.p()
        self.decide(p - self["xtc_threshold"])
        above = [k for k in self.best_first() if p[k] >= self["xtc_threshold"]]
        if len(above) >= 2:
            self.take(np.array([k for k in range(len(p)) if k not in above[:-1]]))

    def mirostat(self):
        mu = self.case.get("mu", 2 * self["mirostat_tau"])
        p, best = self.p(), self.best_first()
        self.uncut = dict(zip(self.ids.tolist(), p))
        if len(p) == 1:
            return None
        if self["mirostat"] == 2:
            self.decide(-np.log2(p) - mu)
            which = -np.log2(p) <= mu
            which[best[0]] = True
            return self.take(which)
        ranks = np.arange(1, min(100, len(p)) + 1)
        t = np.log(ranks[1:] / ranks[:-1])
        b = np.log(p[best[:len(ranks) - 1]] / p[best[1:len(ranks)]])
        s = np.sum(t * b) / np.sum(t * t)
        factor = 1 / math.log(VOCAB) if abs(s - 1) < 1e-9 else (s - 1) / (1 - VOCAB ** -(s - 1))
        k = (factor * 2 ** mu) ** (1 / s)
        self.decide((k - round(k)) / 10)
        return self.take(np.sort(best[:max(1, min(int(k), len(p)))]))

    def run(self):
        self.bias()
        for name in self.case.get("order", ORDER).split(";"):
            if name and name != "bias" and not (self["mirostat"] and name in ("top_k", "top_p", "typical")):
                getattr(self, name)()
        if self["mirostat"]:
            self.mirostat()
        return [(int(i), float(x)) for i, x in zip(self.ids, self.p()) if x > 1e-12]


def logits(rng, scale=2.0):
    return [round(float(x), 3) for x in rng.normal(0, scale, VOCAB)]


def named_cases():
    rng = np.random.default_rng(1)
    plain, out = logits(rng), []
    ties = [float(i % 4) for i in range(VOCAB)]
    flat = [0.0] * 4 + [-100.0] * (VOCAB - 4)
    text = [1, 2, 3, 4, 9, 1, 2, 3, 5, 1, 2, 3]

    def add(name, z=plain, exact=False, **k):
        fields = {f: k.pop(f) for f in ("bias", "allowed", "eos", "breakers", "prompt", "output", "order", "mu") if f in k}
        out.append({"name": name, "logits": z, "exact": exact, "set": k, **fields})

    add("plain")
    add("greedy", temperature=0)
    add("greedy_ties", ties, temperature=0)
    add("cold", temperature=1e-6)
    add("hot", temperature=100)
    for k in (-1, 0, 1, 7, VOCAB, VOCAB + 1, 1 << 30):
        add(f"top_k_{k}", top_k=k)
    for k in (1, 3, 10, 13):
        add(f"top_k_ties_{k}", ties, top_k=k)
    for p in (0.0, 0.3, 0.999, 1.0):
        add(f"top_p_{p}", top_p=p)
    add("top_p_reaches_exactly", flat, True, top_p=0.5)
    add("top_p_ties", ties, top_p=0.2)
    for p in (0.0, 0.05, 0.5, 1.0):
        add(f"min_p_{p}", min_p=p)
    add("min_p_1_ties", ties, min_p=1.0)
    for p in (0.0, 0.2, 0.9, 1.0):
        add(f"typical_{p}", typical_p=p)
    add("typical_ties", ties, typical_p=0.4)
    add("typical_exactly", flat, True, typical_p=0.5)
    for n in (-1.0, 0.0, 0.5, 1.0, 3.0):
        add(f"sigma_{n}", top_n_sigma=n)
    add("sigma_after_temperature", top_n_sigma=1.0, temperature=3.0)
    for t in (0.001, 0.05, 0.1, 0.5, 0.51, 1.0):
        add(f"xtc_{t}", xtc_probability=1, xtc_threshold=t)
    add("xtc_two_halves", [5.0, 5.0] + [-100.0] * (VOCAB - 2), True, xtc_probability=1, xtc_threshold=0.5)
    add("dynatemp", temperature=1.0, dynatemp_range=0.5)
    add("dynatemp_exponent", temperature=0.7, dynatemp_range=1.0, dynatemp_exponent=2.5)
    add("order_temperature_last", order="min_p;top_p;temperature", temperature=0.5, top_p=0.8, min_p=0.02)
    add("order_temperature_first", order="temperature;min_p;top_p", temperature=0.5, top_p=0.8, min_p=0.02)
    add("order_empty", order=";", temperature=0.5, top_p=0.1)
    add("order_twice", order="temperature;temperature", temperature=0.5)
    bad = list(plain)
    bad[0], bad[5], bad[6], bad[7] = math.nan, -math.inf, math.nan, -math.inf
    add("nan_and_inf", bad)
    add("nan_and_inf_filtered", bad, top_p=0.9, typical_p=0.95, top_k=20, min_p=0.001)
    add("nan_and_inf_sigma", bad, top_n_sigma=1.0)
    add("nan_and_inf_sigma_hot", bad, top_n_sigma=1.0, temperature=50.0)
    add("one_infinity", [math.inf] + plain[1:], temperature=2.0, top_p=0.9)
    add("all_nan", [math.nan] * VOCAB)
    add("all_minus_infinity", [-math.inf] * VOCAB, top_n_sigma=1.0, top_k=5)
    add("bias", bias=[(3, 2.5), (3, 1.0), (4, -math.inf), (39, -100.0)])
    add("bias_behind_the_rest", order="typical;penalties;bias", typical_p=0.9, bias=[(3, 2.5), (4, -math.inf)])
    add("bias_not_named", order="temperature", bias=[(3, 2.5)], allowed=[3, 4, 5], eos=[4], min_tokens=1)
    add("bias_huge", bias=[(3, 3e38), (3, 3e38), (4, 100.0)], temperature=2.0, repeat_penalty=0.01, output=[3])
    add("allowed", allowed=[0, 7, 7, 39])
    add("allowed_one", allowed=[7])
    add("allowed_but_banned", allowed=[7, 8], bias=[(7, -math.inf), (8, -math.inf), (9, 5.0)])
    add("everything_banned", bias=[(i, -math.inf) for i in range(VOCAB)])
    add("eos_only_too_early", allowed=[2], eos=[2], min_tokens=5, temperature=0)
    add("min_tokens_open", eos=[2, 3], min_tokens=2, output=[1], prompt=[4, 4])
    add("min_tokens_reached", eos=[2, 3], min_tokens=2, output=[1, 1])
    history = [int(i) for i in rng.integers(0, VOCAB, 90)]
    for n in (0, 1, 5, 64, -1):
        add(f"repeat_last_{n}", repeat_penalty=1.5, repeat_last_n=n, prompt=history[:70], output=history[70:])
    add("repeat_reward", repeat_penalty=0.5, output=[1, 2, 3])
    add("presence", presence_penalty=1.5, prompt=[1, 2, 3], output=[3, 4, 4])
    add("frequency", frequency_penalty=0.5, prompt=[1, 2, 3], output=[3, 4, 4])
    add("penalties_together", repeat_penalty=1.2, presence_penalty=-1.0, frequency_penalty=0.3, prompt=[1, 5], output=[5, 6, 6])
    add("dry", dry_multiplier=0.8, prompt=text)
    for n in (0, 3, 4, 7, 8, 12, 100):
        add(f"dry_window_{n}", dry_multiplier=0.8, dry_penalty_last_n=n, prompt=text)
    for n in (1, 3, 4):
        add(f"dry_allowed_{n}", dry_multiplier=0.8, dry_allowed_length=n, prompt=text)
    add("dry_breaker_last", dry_multiplier=0.8, prompt=text, breakers=[3])
    add("dry_breaker_inside", dry_multiplier=0.8, dry_allowed_length=1, prompt=text, breakers=[2])
    add("dry_breaker_exempt", dry_multiplier=0.8, prompt=text, breakers=[4])
    add("dry_run", dry_multiplier=0.5, output=[7] * 9)
    add("dry_base_1", dry_multiplier=0.5, dry_base=1, output=[7] * 9)
    add("dry_base_0", dry_multiplier=0.5, dry_base=0, output=[7] * 9)
    add("dry_long", dry_multiplier=0.5, dry_base=3.0, output=[7] * 300)
    for mu in (0.5, 2.0, 5.0, 30.0, -3.0):
        add(f"mirostat_2_{mu}", mirostat=2, mu=mu, top_k=1)
        add(f"mirostat_1_{mu}", mirostat=1, mu=mu, top_p=0.01, typical_p=0.5)
    add("mirostat_2_cold", mirostat=2, temperature=0.3, mirostat_tau=1.0)
    add("mirostat_1_min_p", mirostat=1, min_p=0.05, mirostat_tau=1.5)
    return out


def random_case(rng, k):
    choices = {"temperature": [0.3, 0.7, 1.3, 2.0], "dynatemp_range": [0.25], "top_k": [3, 9, 20], "top_p": [0.5, 0.9, 0.98],
               "min_p": [0.01, 0.1], "typical_p": [0.3, 0.8], "top_n_sigma": [0.8, 1.5], "repeat_penalty": [0.8, 1.3],
               "presence_penalty": [0.6, -0.4], "frequency_penalty": [0.2], "repeat_last_n": [0, 8, -1],
               "dry_multiplier": [0.4, 1.5], "dry_base": [1.2, 2.0], "dry_allowed_length": [1, 3], "dry_penalty_last_n": [10, 25],
               "mirostat": [1, 2]}
    given = {n: v[rng.integers(len(v))] for n, v in choices.items() if rng.random() < (0.1 if n == "mirostat" else 0.4)}
    if rng.random() < 0.2:
        given.update(xtc_probability=1, xtc_threshold=0.08)
    names = ORDER.split(";")
    if rng.random() < 0.5:
        names = names[:3] + [names[3 + i] for i in rng.permutation(7)]
    text = [int(i) for i in rng.integers(0, 5, 40)]
    n = int(rng.integers(0, 40))
    return {"name": f"random_{k}", "logits": logits(rng, 1 + 2 * rng.random()), "set": given, "order": ";".join(names),
            "prompt": text[:n], "output": text[n:], "breakers": [int(rng.integers(0, 5))] if rng.random() < 0.4 else [],
            "bias": [(int(rng.integers(VOCAB)), round(float(rng.normal()), 2))]}


def number(v):
    return f"{v:.9g}"


def spell(case):
    chain = Chain(case)
    survivors = chain.run()
    lines = [f"case {case['name']}"]
    lines += [f"set {n} {number(v)}" for n, v in case["set"].items()]
    lines += [f"bias {i} {number(b)}" for i, b in case.get("bias", [])]
    lines += [f"{n} {' '.join(map(str, case[n]))}" for n in ("allowed", "eos", "breakers", "prompt", "output") if case.get(n)]
    lines += [f"order {case['order']}"] if "order" in case else []
    lines += [f"mu {number(case['mu'])}"] if "mu" in case else []
    lines.append("logits " + " ".join(number(x) for x in case["logits"]))
    lines.append("survive " + " ".join(f"{i} {number(p)}" for i, p in survivors))
    if chain.uncut:
        lines.append("uncut " + " ".join(f"{i} {number(chain.uncut[i])}" for i, _ in survivors))
    z = np.array(case["logits"], np.float32).astype(np.float64)
    if np.all(np.isfinite(z)):
        norm = z.max() + np.log(np.exp(z - z.max()).sum())
        lines.append("logprob " + " ".join(f"{i} {z[i] - norm:.15g}" for i in (0, 17, VOCAB - 1)))
    return lines + ["end"]


def main():
    lines, rng, kept = [f"vocab {VOCAB}"], np.random.default_rng(2), 0
    for case in named_cases():
        lines += spell(case)
    while kept < 80:
        case = random_case(rng, kept)
        try:
            lines += spell(case)
            kept += 1
        except Close:
            pass
    path = pathlib.Path(__file__).resolve().parent.parent / "data" / "sampler" / "cases.txt"
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
