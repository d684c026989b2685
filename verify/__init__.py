"""Rigorous answers about which tokens a language model can and cannot say.

verify.token(30208, model="whisper-tiny.en") decides one token; verify.audit(path) re-checks a saved
certificate; verify.say(path) puts its witness into the model itself; verify.show(path) renders one;
verify.load_model(name) loads a model. docs/soundness.md says what a verdict means and why it holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["__version__", "audit", "load_model", "say", "show", "token"]

if TYPE_CHECKING:
    from verify.api import audit, load_model, say, show, token


def __getattr__(name: str) -> object:
    """Import the library's verbs on first use, so that `import verify` costs nothing."""
    if name in ("audit", "load_model", "say", "show", "token"):
        from verify import api

        return getattr(api, name)
    raise AttributeError(f"module 'verify' has no attribute {name!r}")
