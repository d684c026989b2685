"""Seconds to the first output of `verify --help`, best of ten."""

import subprocess
import sys
import time

times = []
for _ in range(10):
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "verify", "--help"], stdout=subprocess.DEVNULL, check=True)
    times.append(time.perf_counter() - start)
print(f"verify --help: {min(times):.2f} s")
