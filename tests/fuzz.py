"""Any bytes at all, given to every reader of foreign files: each ends in one of its declared errors.

    pip install atheris && python tests/fuzz.py TARGET --seconds 600

runs the coverage-guided fuzzer over the seeds of the corpus, within 2 GB and 10 s an input; whatever leaves a
target but the declared errors, a disagreement of the two checkers among them, stops it. tests/test_fuzz.py
runs the same targets on inputs of Hypothesis. docs/attacks.md says how many inputs were tried.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from standalone import CORPUS, load_standalone

from verify.errors import MalformedError, ModelUnavailableError, RefutedError
from verify.kernel import Bundle, bundle, certificate, prove_bundle, read
from verify.kernel.safetensors import read_tensors
from verify.models.config import read_config
from verify.models.vocabularies import find_vocabulary
from verify.recheck import Auditor

STANDALONE = load_standalone()
OUTCOMES = {"accepted", "refuted", "malformed", "unavailable"}
SQUARE = CORPUS / "models" / "square"
GOOD = CORPUS / "accept" / "never_rank_readout.json"
_FOLDER = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
_AUDITOR = Auditor(str(SQUARE))


class DisagreementError(Exception):
    """The two checkers do not say the same of one input."""


def _file(name: str, data: bytes) -> Path:
    path = Path(_FOLDER.name) / f"{os.getpid()}" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def _standalone(path: Path, weights: Path | None = None, config: Path | None = None) -> str:
    said = STANDALONE.audit_file(
        str(path), [] if weights is None else [str(weights)], None if config is None else str(config)
    )
    if said.outcome not in OUTCOMES:
        raise DisagreementError(f"the standalone auditor's outcome is {said.outcome}: {said.reason}")
    return str(said.outcome)


def reader(data: bytes) -> None:
    """The kernel's reader of certificates and bundles: what it accepts, it writes back as the same bytes."""
    with contextlib.suppress(MalformedError):
        found = read(data)
        written = bundle.to_bytes(found) if isinstance(found, Bundle) else certificate.to_bytes(found)
        if written != data:
            raise DisagreementError("what was read is written back as other bytes")


def audit(data: bytes) -> None:
    """Both checkers on a certificate of a model that is at hand."""
    first = _AUDITOR.audit_bytes(data, "fuzzed")
    if first.outcome not in OUTCOMES:
        raise DisagreementError(first.outcome)
    second = _standalone(_file("c.json", data), SQUARE / "model.safetensors", SQUARE / "config.json")
    _same(first.outcome, second)


def bundles(data: bytes) -> None:
    """Both checkers on a bundle."""
    try:
        prove_bundle(data)
        first = "accepted"
    except MalformedError as error:
        if error.rule == "wrong-format":  # a certificate, then: the other checker asks for weights
            return
        first = "malformed"
    except RefutedError:
        first = "refuted"
    _same(first, _standalone(_file("b.json", data)))


def weights(data: bytes) -> None:
    """Both readers of safetensors files: they read it, or both do not."""
    path = _file("model.safetensors", data)
    try:
        for tensor in read_tensors(path).values():
            _ = tensor.sha256, tensor.merkle
        first = True
    except ModelUnavailableError:
        first = False
    second = _standalone(GOOD, path) != "unavailable"
    if second and not first:
        raise DisagreementError("the standalone auditor reads weights that the kernel does not")


def config(data: bytes) -> None:
    """Both readers of config.json."""
    path = _file("config.json", data)
    with contextlib.suppress(ModelUnavailableError):
        found = read_config(path.parent)
        if found is not None:
            for key in ("model_type", "layer_norm_eps", "tie_word_embeddings"):
                with contextlib.suppress(ModelUnavailableError):
                    found.text(key)
                with contextlib.suppress(ModelUnavailableError):
                    found.number(key)
    _standalone(GOOD, SQUARE / "model.safetensors", path)


def tokenizer(data: bytes) -> None:
    """The reader of tokenizer.json."""
    path = _file("tokenizer.json", data)
    with contextlib.suppress(ModelUnavailableError):
        found = find_vocabulary(path.parent)
        if found is not None:
            pieces = found.parse()
            for token in list(pieces.spelling)[:5]:
                pieces.text(token)
    path.unlink()


def _same(first: str, second: str) -> None:
    """Accepted by both or by none; malformed for both or for none."""
    for outcome in ("accepted", "malformed"):
        if (first == outcome) != (second == outcome):
            raise DisagreementError(f"verify says {first}, the standalone auditor {second}")


TARGETS: dict[str, Callable[[bytes], None]] = {
    f.__name__: f for f in (reader, audit, bundles, weights, config, tokenizer)
}


def seeds(target: str) -> Iterator[bytes]:
    """Real inputs of a target, small ones."""
    if target in ("weights", "config"):
        name = {"weights": "model.safetensors", "config": "config.json"}[target]
        paths = sorted((CORPUS / "models").glob(f"*/{name}"))
    elif target == "tokenizer":
        paths = [Path(__file__)]
    else:
        kinds = ("accept", "reject") if target != "reader" else ("accept", "malformed")
        paths = sorted(p for kind in kinds for p in (CORPUS / kind).glob("*.json"))
    for path in paths:
        with contextlib.suppress(OSError):
            if path.stat().st_size < 20_000:
                yield path.read_bytes()
    if target == "tokenizer":
        model = b'{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]}'
        yield b'{"model":' + model + b',"added_tokens":[{"id":2,"content":"c"}]}'
        yield b'["a","b"]'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("target", choices=list(TARGETS))
    parser.add_argument("--seconds", type=int, default=600)
    options = parser.parse_args()
    import atheris

    folder = Path(_FOLDER.name) / "seeds"
    folder.mkdir()
    for i, data in enumerate(seeds(options.target)):
        (folder / str(i)).write_bytes(data)
    atheris.instrument_all()
    limits = ["-rss_limit_mb=2048", "-timeout=10", "-max_len=20000", "-print_final_stats=1"]
    atheris.Setup(
        [sys.argv[0], f"-max_total_time={options.seconds}", *limits, str(folder)], TARGETS[options.target]
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
