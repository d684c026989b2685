"""The command line in a process of its own, and a small checkpoint to run it on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

WORDS = ["<pad>", " corner", "centre", "north", "south", "twin"]
# A square with its centre inside, a duplicate of one corner, and a longer row.
ROWS = [[1, 1], [1, -1], [0, 0], [-1, 1], [-2, -1], [1, 1]]


def square_checkpoint(folder: Path) -> Path:
    """A small RMSNorm checkpoint in the usual layout, with a tokenizer."""
    folder.mkdir()
    tensors = {
        "model.embed_tokens.weight": np.array(ROWS, dtype=np.float32),
        "model.norm.weight": np.ones(2, dtype=np.float32),
    }
    save_file(tensors, str(folder / "model.safetensors"))
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 2,
        "vocab_size": len(ROWS),
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokens.json").write_text(json.dumps(WORDS))
    return folder


def run(*arguments: Any, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "verify", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False, timeout=300)
