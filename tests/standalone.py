"""The standalone auditor as a module, and the corpus, for the tests that compare the two checkers."""

from __future__ import annotations

import csv
import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

CORPUS = Path(__file__).resolve().parent / "corpus"
AUDITOR = CORPUS.parent.parent / "certificates" / "audit.py"
_NAME = "certificates.audit"

with (CORPUS / "index.tsv").open(newline="", encoding="utf-8") as _file:
    INDEX = list(csv.DictReader(_file, delimiter="\t", quoting=csv.QUOTE_NONE))


def model_files(model: str) -> tuple[list[str], str | None]:
    """(weights, config) of a model of the corpus, as the standalone auditor takes them; "-" has neither."""
    if model == "-":
        return [], None
    folder = CORPUS / "models" / model
    config = folder / "config.json"
    return [str(folder / "model.safetensors")], str(config) if config.exists() else None


@cache
def load_standalone() -> ModuleType:
    """certificates/audit.py as a module of its own; nothing of verify comes with it."""
    spec = importlib.util.spec_from_file_location(_NAME, AUDITOR)
    if spec is None or spec.loader is None:
        raise ImportError(f"{AUDITOR} is not there")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = module
    spec.loader.exec_module(module)
    return module
