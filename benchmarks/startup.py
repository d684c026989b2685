"""Seconds to the first output: of `verify --help`, and of `verify token 30208` on a terminal. Best of ten."""

import os
import pty
import subprocess
import sys
import tempfile
import time


def first_output(*arguments: str) -> float:
    """Seconds until the command shows its first byte on a terminal; it is stopped there."""
    ours, theirs = pty.openpty()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", "verify", *arguments]
        running = subprocess.Popen(command, stdout=theirs, stderr=theirs, cwd=folder)
        os.close(theirs)
        os.read(ours, 1)
        seconds = time.perf_counter() - start
        running.kill()
        running.wait()
        os.close(ours)
    return seconds


for arguments in (["--help"], ["token", "30208"]):
    best = min(first_output(*arguments) for _ in range(10))
    print(f"verify {' '.join(arguments)}: {best:.2f} s")
