"""GLUE. The command `verify`, and `python -m verify`. Ctrl-C ends it quietly, even while it is imported."""

from __future__ import annotations

import os
import signal

_INTERRUPTED = 130


def main() -> None:
    """Run the command line; it ends in SystemExit."""
    # Where SIGINT is ignored, as in a background job, it stays so.
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heeded:
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    from verify.cli import main as run

    try:
        if heeded:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    except (KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, KeyboardInterrupt) or end.code == _INTERRUPTED:
            # Everything was told (click flushes), and no file is open: what Python does at its end would tell
            # of a second Ctrl-C, and may end by the signal instead of the code.
            os._exit(_INTERRUPTED)
        raise
    finally:
        if heeded:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # there is nothing more to tell


if __name__ == "__main__":
    main()
