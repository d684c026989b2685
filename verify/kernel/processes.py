"""TRUSTED. Processes of this machine that end when the work does, is interrupted, or its process is killed.

If this is wrong, work is lost or goes on unseen; nothing is computed here.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor


@contextlib.contextmanager
def processes(count: int, prepare: Callable[..., None], *arguments: Any) -> Iterator[Executor]:
    """A pool of processes, each of which calls `prepare(*arguments)` first."""
    context = multiprocessing.get_context("spawn")
    with _safe_path():
        pool = ProcessPoolExecutor(count, context, _begin, (os.getpid(), prepare, arguments))
        try:
            yield pool
        except BaseException:
            for process in list(getattr(pool, "_processes", {}).values()):
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """New processes begin as `python -c`, which takes modules from the working directory first. That may be a
    stranger's folder of certificates: its files must not stand in for modules.
    """
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


def _begin(parent: int, prepare: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """In a new process: no reaction to Ctrl-C, an end when the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    prepare(*arguments)


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
