"""Rigorous answers about which tokens a language model can and cannot say.

verify.token(30208, model="whisper-tiny.en") decides one token; verify.audit(path) re-checks a saved
certificate; verify.say(path) puts its witness into the model itself; verify.show(path) renders one;
verify.load_model(name) loads a model; verify.from_transformers and verify.from_hooked take one in memory;
verify.pack writes its readout to a file. docs/soundness.md says what a verdict means and why it holds.
"""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "audit",
    "decide_all",
    "from_hooked",
    "from_transformers",
    "load_model",
    "pack",
    "say",
    "show",
    "token",
]

# `typing` takes as long to import as the rest of the start: Ctrl-C is not yet heeded here (see __main__.py).
TYPE_CHECKING = False
if TYPE_CHECKING:
    from verify.api import audit, decide_all, load_model, pack, say, show, token
    from verify.models.hooked import from_hooked
    from verify.models.live import from_transformers


def __getattr__(name: str) -> object:
    """Import the library's verbs on first use, so that `import verify` costs nothing."""
    if name == "from_transformers":
        from verify.models.live import from_transformers

        return from_transformers
    if name == "from_hooked":
        from verify.models.hooked import from_hooked

        return from_hooked
    if name in __all__:
        from verify import api

        return getattr(api, name)
    raise AttributeError(f"module 'verify' has no attribute {name!r}")
