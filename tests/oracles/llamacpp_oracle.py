#!/usr/bin/env python3
"""What llama.cpp computes for the tales' reference model, quantised by fmamba.

usage: llamacpp_oracle.py PROGRAM FOLDER

PROGRAM (build/fmamba) writes tests/data/tales/tales.gguf in each recorded type into FOLDER, llama.cpp loads the files, and its
logits of the passage's last 64 positions are compared with tests/data/tales/llamacpp-TYPE.safetensors.  llama.cpp rounds
differently on different processors, so a file is only written again when its logits moved by more than TOLERANCE (relative L2).
Needs numpy, safetensors and llama-cpp-python.
"""
import pathlib
import subprocess
import sys

import numpy as np
from llama_cpp import Llama
from safetensors.numpy import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOLERANCE = 2e-3
LAST = 64


def log_softmax(z):
    z = z.astype(np.float64) - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def ask(path, ids):
    llm = Llama(str(path), n_ctx=512, n_batch=512, logits_all=True, verbose=False)
    llm.eval([int(i) for i in ids])
    z = np.array(llm.scores[:len(ids)], np.float32)
    nll = -log_softmax(z[:-1])[np.arange(len(ids) - 1), ids[1:]].mean()
    return {"input_ids": ids, "logits": z[-LAST:].astype(np.float16), "nll": np.array([nll], np.float32)}


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    for path in sorted((ROOT / "tests/data/tales").glob("llamacpp-*.safetensors")):
        kind = path.stem.removeprefix("llamacpp-")
        recorded, ours = load_file(path), pathlib.Path(sys.argv[2], f"{kind}.gguf")
        source = ROOT / "tests/data/tales/tales.gguf"
        subprocess.run([sys.argv[1], "quantize", source, ours, kind], check=True, stderr=subprocess.DEVNULL)
        now = ask(ours, recorded["input_ids"])
        old, new = recorded["logits"].astype(np.float64), now["logits"].astype(np.float64)
        far = np.linalg.norm(new - old) / np.linalg.norm(old)
        print(f"llama.cpp, {kind}: logits moved by {far:.1e}, nll {now['nll'][0]:.6f}, recorded {recorded['nll'][0]:.6f}")
        if not far <= TOLERANCE:
            save_file(now, path)


if __name__ == "__main__":
    main()
