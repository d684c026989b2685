"""The command line in a process of its own, and a small checkpoint to run it on."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

WORDS = ["<pad>", " corner", "centre", "north", "south", "twin"]
# What tells programs whether to use colours.
_COLOURS = ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES")
# A square with its centre inside, a duplicate of one corner, and a longer row.
ROWS = [[1, 1], [1, -1], [0, 0], [-1, 1], [-2, -1], [1, 1]]


def square_checkpoint(folder: Path, words: list[str] = WORDS) -> Path:
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
    (folder / "tokens.json").write_text(json.dumps(words))
    return folder


def run(
    *arguments: Any, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "verify", *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | (environment or {}),
        check=False,
        timeout=300,
    )


def run_on_terminal(
    *arguments: Any, environment: dict[str, str] | None = None, columns: int = 100
) -> tuple[int, str]:
    """Exit code, and all that a terminal is sent, standard error included."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    try:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        kept = {key: value for key, value in os.environ.items() if key not in _COLOURS}
        child = subprocess.Popen(
            [sys.executable, "-m", "verify", *map(str, arguments)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=kept | {"TERM": "xterm"} | (environment or {}),
        )
    finally:
        os.close(theirs)
    sent = b""
    with child, contextlib.suppress(OSError):  # Linux ends with an error where the other side is closed
        while data := os.read(ours, 1 << 16):
            sent += data
    os.close(ours)
    return child.returncode, sent.decode()
