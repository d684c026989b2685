"""GLUE. How to install what only some commands need. Wrong here = advice that does not help."""

from __future__ import annotations

# The extras of pyproject.toml by name. The packages are named, not the extra: that works from any folder,
# wherever this package was installed from.
EXTRAS = {
    "torch": ("torch>=2.6", "transformers>=5"),
    "distributed": ("distributed>=2024.1",),
    "parquet": ("pyarrow>=15",),
    "gguf": ("gguf>=0.16",),
    "plot": ("matplotlib>=3.8",),
}


def install(extra: str) -> str:
    """The command line that installs the packages of an extra, with their versions, for a message."""
    return " ".join(["pip install", *(f'"{requirement}"' for requirement in EXTRAS[extra])])
