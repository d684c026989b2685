"""The standalone auditor's table of model types against the package's, on tiny models of `transformers`.

The two tables were written independently of each other. A certificate that `verify` makes must be accepted;
one about a readout with a mistake in it, which is a true claim about other tensors, must not.
"""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from standalone import load_standalone

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from conformance import CASES, save, wrong_readouts  # noqa: E402

from verify.decide import Decider  # noqa: E402
from verify.kernel import DIRECTION, READOUT  # noqa: E402
from verify.kernel.domain import Domain  # noqa: E402
from verify.models import Model, load_model  # noqa: E402
from verify.models.architectures import ARCHITECTURES  # noqa: E402

AUDIT: Any = load_standalone()
BY_NAME = {case.name: case for case in CASES}
# Described inside a table of config.json, or by options that the auditor does not model.
UNKNOWN_TYPES = {"gemma3", "llama4", "mistral3"}
UNKNOWN = {name for name, case in BY_NAME.items() if case.model_type in UNKNOWN_TYPES}
UNKNOWN |= {
    f"opt-{x}" for x in ("post-norm", "norm-removed", "norm-removed-projected", "post-norm-projected")
}


@pytest.fixture(autouse=True)
def quiet() -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def certify(model: Model, path: Path, domain: Domain = READOUT) -> Path:
    """A certificate of the first token that is decided."""
    decider = Decider(model)
    decisions = (decider.decide(token, domain) for token in range(model.readout.vocabulary))
    path.write_bytes(next(x.certificate for x in decisions if x.proved is not None))
    return path


def audited(certificate: Path, folder: Path, config: Path | None) -> Any:
    weights = [str(x) for x in folder.glob("*.safetensors")]
    return AUDIT.audit_file(str(certificate), weights, None if config is None else str(config))


def configurations(folder: Path) -> list[dict[str, Any]]:
    """The configuration with one thing changed that the last step depends on."""
    config = json.loads((folder / "config.json").read_text())
    norm, key, _, tie, _, _ = AUDIT.FAMILIES[config["model_type"]]
    other = "gpt2" if norm == "rmsnorm" else "llama"
    tied = config.get("tie_word_embeddings", tie == "tied")
    changed = [config | {"model_type": other, "architectures": None}]
    changed += [config | {"tie_word_embeddings": not tied}]
    return changed + ([config | {key: 2 * config[key]}] if key in config else [])


@pytest.mark.parametrize("name", BY_NAME)
def test_certificates_of_every_type(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    save(BY_NAME[name], folder)
    config, model = folder / "config.json", load_model(str(folder))
    certificate = certify(model, tmp_path / "right.json")
    result = audited(certificate, folder, config)
    assert result.outcome == "accepted", result.reason
    assert bool(result.notes) == (name in UNKNOWN)
    assert ("the final norm is" in " ".join(result.hypotheses)) == (name in UNKNOWN)
    if name in UNKNOWN:
        return
    for number, changed in enumerate(configurations(folder)):
        other = tmp_path / f"{number}.json"
        other.write_text(json.dumps(changed))
        assert audited(certificate, folder, other).outcome in ("refuted", "unavailable")
    for mistake, readout in wrong_readouts(model.readout).items():
        wrong = certify(replace(model, readout=readout), tmp_path / f"{mistake}.json", DIRECTION)
        assert audited(wrong, folder, config).outcome == "refuted", mistake
        if mistake != "other_matrix":
            assert audited(wrong, folder, None).outcome == "accepted", mistake


@pytest.mark.parametrize("kind", AUDIT.FAMILIES)
def test_the_two_tables_agree(kind: str) -> None:
    norm, key, default, tie, offset, names = AUDIT.FAMILIES[kind]
    entry = ARCHITECTURES[kind][0]
    assert (norm, int(offset), tie == "tied") == (entry.norm, entry.gain_offset, entry.tied_default)
    assert Fraction(default) == Fraction(entry.epsilon_default)
    assert [key] == (list(entry.epsilon_keys) or ["-"])
    roles = (entry.embedding, entry.head, entry.gain, entry.shift, entry.bias)
    assert sum(map(bool, roles)) == len(names)
    for theirs, text in zip(roles, names, strict=False):
        stem = text.replace("[", "").replace("]", "").rstrip("?").split("|")
        short = text.rstrip("?").replace("[", "]").split("]")
        found = {*stem, *("".join(short[::2]).split("|"))}
        assert set(theirs) <= found
    assert (names[-1][-1] == "?") == entry.bias_may_lack


def test_what_the_auditor_does_not_know() -> None:
    assert set(ARCHITECTURES) - AUDIT.FAMILIES.keys() == UNKNOWN_TYPES
    assert set(BY_NAME) >= UNKNOWN
