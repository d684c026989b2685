"""What the documents show is what the program does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from built_models import model

from verify.errors import RefutedError
from verify.extras import EXTRAS
from verify.kernel import from_bytes, prove

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLES = re.findall(r"```json\n(\{\n.*?\n\}\n)```", (DOCS / "certificates.md").read_text(), re.DOTALL)
WORKED = model([[2, 0], [0, 2], [-2, -2], [0.25, 0.25]], "rmsnorm", dtype="F16").readout


def test_the_page_shows_both_verdicts() -> None:
    assert {prove(from_bytes(x.encode()), WORKED).verdict for x in EXAMPLES} == {"speakable", "unspeakable"}


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_worked_examples_are_not_proved_of_other_weights(text: str) -> None:
    other = model([[2, 0], [0, 2], [-2, -2], [0.25, 0.5]], "rmsnorm", dtype="F16").readout
    with pytest.raises(RefutedError, match="other weights"):
        prove(from_bytes(text.encode()), other)


def test_every_theorem_that_the_kernel_cites_is_stated() -> None:
    stated = set(re.findall(r"### Theorem (\d+)", (DOCS / "soundness.md").read_text()))
    kernel = Path(__file__).parent.parent / "verify" / "kernel"
    cited = {n for p in kernel.glob("*.py") for n in re.findall(r"Theorems? (\d+)", p.read_text())}
    assert cited
    assert cited <= stated


def test_the_readme_s_output_is_of_this_program() -> None:
    """The labels shown in the README are printed by the renderer, in that order."""
    readme = (DOCS.parent / "README.md").read_text()
    block = readme.split("$ verify token 30208\n")[1].split("```")[0]
    render = (DOCS.parent / "verify" / "render.py").read_text()
    for label in {line[:20].strip() for line in block.splitlines()}:
        assert f'"{label}"' in render


def test_what_messages_tell_to_install_is_what_the_extras_ask_for() -> None:
    asked = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name: list(wanted) for name, wanted in EXTRAS.items()} == {
        name: wanted for name, wanted in asked.items() if name != "test"
    }


def test_nobody_is_sent_to_a_package_index_for_this_package() -> None:
    """It is installed from a checkout: `pip install unspeakable[torch]` finds nothing, or somebody else's."""
    texts = [*DOCS.rglob("*.md"), *(DOCS.parent / "verify").rglob("*.py")]
    assert [str(p) for p in texts if re.search(r"pip install.*unspeakable", p.read_text())] == []
