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
        if isinstance(end, SystemExit) and end.code != _INTERRUPTED:
            raise
        _leave()
    finally:
        if heeded:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # there is nothing more to tell


def _leave() -> None:
    """End with the code: sys.exit would end by the signal, had that come while Python was in an eval()."""
    import atexit

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    atexit._run_exitfuncs()  # what was shared with worker processes is given back
    os._exit(_INTERRUPTED)


if __name__ == "__main__":
    main()
