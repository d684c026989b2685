"""A seeded share of tests/sweep.py: single changes to accepted files are refused by both checkers or true."""

from __future__ import annotations

import json

import pytest
from standalone import CORPUS
from sweep import Job, Sweep, canonical, jobs, mutants, sweep_file

JOBS = jobs(share=0.04, texts=0.05, seed=20261124)


@pytest.mark.parametrize("job", JOBS, ids=lambda j: j[0])
def test_single_changes_are_refused_or_true(job: Job) -> None:
    _, counts, wrong = sweep_file(job)
    assert wrong == []
    assert sum(counts.values()) > 0


def test_every_kind_of_change_is_made() -> None:
    data = (CORPUS / JOBS[0][0]).read_bytes()
    made = list(mutants(data))
    assert {kind for kind, _ in made} == {
        "key dropped", "key added", "field replaced", "number +-1", "number dropped", "number repeated",
        "numbers swapped", "character of a number", "character of a text", "byte of the file",
    }  # fmt: skip
    assert len({x for _, x in made}) > 2000
    assert canonical(json.loads(data)) == data


def test_the_sweep_can_fail(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checker that accepts what is false is found out: here the standalone one is told to accept all."""
    name, model = next((name, model) for name, model, *_ in JOBS if "never" in name)
    data = (CORPUS / name).read_bytes()
    root = json.loads(data)
    root["statement"]["token"] += 1
    sweep = Sweep(model, CORPUS)
    monkeypatch.setattr(sweep, "outcome", lambda _: ("refuted", "accepted"))
    assert sweep.verdict(data, canonical(root)).startswith("WRONG")
