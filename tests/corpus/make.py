"""Write the corpus of certificate files: `python tests/corpus/make.py [FOLDER]`, the same bytes every time.

Folders: models (tiny ones, and weight files that must not be read), accept, reject, malformed; index.tsv says
what each file is and why. Every outcome is decided here first, by judge.py; if one is not as listed, this
fails.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from corpus.accepted import ACCEPTED
from corpus.broken import MALFORMED
from corpus.judge import judge, sample
from corpus.reader import canonical
from corpus.rejected import REJECTED
from corpus.weights import HOSTILE, MODELS, files_of

_PARTS = ("models", "accept", "reject", "malformed")
# path -> (where it leads, folder of the model, outcome, why)
_LINKS = {
    "accept/symlink_to_a_certificate.json": (
        "never_rank_readout.json",
        "square",
        "accepted",
        "a link to a good certificate beside it",
    ),
    "reject/symlink_dangling.json": (
        "no_such_file.json",
        "square",
        "unavailable",
        "a link that leads nowhere",
    ),
    "reject/symlink_loop.json": ("symlink_loop.json", "square", "unavailable", "a link to itself"),
}
_WEIGHT_LINKS = {"symlink_to_itself": "model.safetensors", "symlink_to_nothing": "no_such_file.safetensors"}


def expect(name: str, found: tuple[str, str], wanted: tuple[str, str]) -> None:
    if found != wanted:
        raise SystemExit(f"{name}: {' '.join(found)}, but listed as {' '.join(wanted)}")


def decided() -> dict[str, tuple[bytes, str, str, str, str]]:
    """Path -> bytes, model, outcome, error, why; each outcome found anew."""
    files = {}
    for name, case in ACCEPTED.items():
        data, model = canonical(case.data), MODELS.get(case.model)
        expect(name, judge(data, model), ("accepted", "-"))
        if model is not None:
            sample(data, model)
        files[f"accept/{name}.json"] = (data, case.model, "accepted", "-", case.why)
    for name, forgery in REJECTED.items():
        case, step = forgery.case, forgery.step
        outcome = "unavailable" if step in ("4 weights", "6") else "refuted"
        data = canonical(case.data)
        found = judge(data, MODELS.get(case.model), weights=not case.model.startswith("hostile_"))
        expect(name, found, (outcome, step))
        files[f"reject/{name}.json"] = (data, case.model, outcome, "-", case.why)
    for name, (data, error, why) in MALFORMED.items():
        expect(name, judge(data, None), ("malformed", error))
        files[f"malformed/{name}.json"] = (data, "-", "malformed", error, why)
    return files


def write(folder: Path) -> None:
    """Everything, in place of what an earlier run left."""
    files = decided()
    for part in _PARTS:
        shutil.rmtree(folder / part, ignore_errors=True)
    for path, (data, *_) in files.items():
        put(folder / path, data)
    for model in MODELS.values():
        for name, data in files_of(model).items():
            put(folder / "models" / model.name / name, data)
    config = files_of(MODELS["square"])["config.json"]
    for name, data in HOSTILE.items():
        put(folder / f"models/hostile_{name}/config.json", config)
        put(folder / f"models/hostile_{name}/model.safetensors", data)
    for name, target in _WEIGHT_LINKS.items():
        put(folder / f"models/hostile_{name}/config.json", config)
        (folder / f"models/hostile_{name}/model.safetensors").symlink_to(target)
    for path, (target, *_) in _LINKS.items():
        (folder / path).symlink_to(target)
    lines = [(path, *about) for path, (_, *about) in files.items()]
    lines += [(path, model, outcome, "-", why) for path, (_, model, outcome, why) in _LINKS.items()]
    table = ["\t".join(line) for line in [("file", "model", "outcome", "error", "why"), *sorted(lines)]]
    put(folder / "index.tsv", ("\n".join(table) + "\n").encode("ascii"))


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent)
