"""The published ledgers of whisper-tiny.en: rows proved anew, the page, what it says of the model.

Every row of all three is proved by `verify claims certificates/claims/*.toml`, in CI after these tests.
"""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

import pytest
from built_models import equal_rows
from standalone import AUDITOR, load_standalone

from verify.claims import read_claims
from verify.claims.claim import Claim
from verify.decide import Decider
from verify.kernel import parse_domain, to_bytes
from verify.kernel.ledger import CLASSES
from verify.kernel.ledger import Row as LedgerRow
from verify.models import Model
from verify.scan.check import check_ledger
from verify.scan.extract import extract
from verify.scan.folder import LedgerFolder, find_ledgers
from verify.scan.summary import markdown, summarise

PUBLISHED = AUDITOR.parent / "whisper-tiny.en"
DOMAINS = ("readout", "free", "direction")
SAID = {"own": "speakable", "hard": "speakable", "tied": "unspeakable", "unspeakable": "unspeakable"}
SAMPLE = 300


def ledger(domain: str) -> LedgerFolder:
    return LedgerFolder(PUBLISHED / f"{domain}.ledger")


@pytest.fixture(scope="module")
def rows() -> dict[str, list[LedgerRow]]:
    return {domain: list(ledger(domain).rows()) for domain in DOMAINS}


def test_every_row_is_proved_anew(whisper: Model) -> None:
    found = check_ledger(ledger("free"), whisper)
    assert (found.header.first, found.header.last) == (0, 51_863)
    assert sum(found.counts.values()) == whisper.readout.vocabulary == 51_864
    assert found.header.statement.domain == parse_domain("free")
    assert found.counts.get("undecided", 0) == 0


def is_so(claim: Claim, row: LedgerRow) -> bool:
    if claim.sense is None:
        return SAID[row.cls] == claim.verdict
    return row.hard_post if claim.sense == "post" else row.hard_model


def test_claims_with_the_ledgers_as_evidence_are_about_all_of_their_rows(
    rows: dict[str, list[LedgerRow]], whisper: Model
) -> None:
    """What the claims count, unproved; `verify claims` proves it."""
    file = read_claims(AUDITOR.parent / "claims" / "whisper-tiny.en-vocabulary.toml")
    asserted = set()
    for claim in file.claims:
        domain = claim.domain.name
        # The kernel's own states need not be those of a ledger (docs/claims.md), only hard here all the same.
        expected = () if claim.sense == "model" else (f"../whisper-tiny.en/{domain}.ledger",)
        assert tuple(claim.evidence) == expected
        assert claim.fingerprint == whisper.readout.fingerprint
        assert claim.members == range(whisper.readout.vocabulary)
        assert [row.token for row in rows[domain]] == list(claim.members)
        assert sum(is_so(claim, row) for row in rows[domain]) == claim.count
        asserted.add((domain, claim.verdict, claim.sense))
    verdicts = {(domain, verdict, None) for domain in DOMAINS for verdict in ("speakable", "unspeakable")}
    hard = {("direction", "hard to speak", "post"), ("readout", "hard to speak", "model")}
    assert asserted == verdicts | hard


def test_the_page_is_the_tool_s(whisper: Model) -> None:
    page = markdown([summarise(each, whisper) for each in find_ledgers(PUBLISHED)], 10)
    assert (PUBLISHED / "LEDGERS.md").read_text() == page


def test_the_ledgers_are_compact() -> None:
    files = [p for domain in DOMAINS for p in ledger(domain).path.iterdir()]
    assert sum(p.stat().st_size for p in files) < 30_000_000
    for domain in DOMAINS:
        named = {"ledger.json", *(name for name, _ in ledger(domain).header().files)}
        assert {p.name for p in ledger(domain).path.iterdir()} == named


def test_the_tied_tokens_are_the_rows_that_equal_another(
    rows: dict[str, list[LedgerRow]], whisper: Model
) -> None:
    """By value: -0 = 0."""
    for found in rows.values():
        assert {row.token for row in found if row.cls == "tied"} == equal_rows(whisper)


def test_verdicts_keep_to_the_inclusions(rows: dict[str, list[LedgerRow]]) -> None:
    """Speakable in `readout` or in `direction` is speakable in `free`, as `free` holds both."""
    speakable = {d: {r.token for r in rows[d] if SAID.get(r.cls) == "speakable"} for d in DOMAINS}
    assert speakable["readout"] <= speakable["free"]
    assert speakable["direction"] <= speakable["free"]
    for domain in DOMAINS:
        assert set(CLASSES) >= {row.cls for row in rows[domain]}


def test_hard_to_speak_is_one_answer_in_all_domains(rows: dict[str, list[LedgerRow]]) -> None:
    """Both columns are about the model, not about the ledger's domain."""
    flags = [[(r.hard_post, r.hard_model) for r in rows[domain]] for domain in DOMAINS]
    assert flags[0] == flags[1] == flags[2]


@pytest.mark.parametrize("domain", DOMAINS)
def test_single_decisions_agree(domain: str, rows: dict[str, list[LedgerRow]], whisper: Model) -> None:
    """The search of `verify token`, on random tokens."""
    decider = Decider(whisper)
    for token in random.Random(20261124).sample(range(51_864), SAMPLE):
        decision = decider.decide(token, parse_domain(domain))
        assert decision.verdict.lower() == SAID[rows[domain][token].cls], token


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_standalone_auditor_accepts_rows(
    domain: str, rows: dict[str, list[LedgerRow]], whisper: Model, tmp_path: Path
) -> None:
    """One row of each class and domain, and all that are unspeakable without an equal row."""
    (weights,) = whisper.weights
    chance = random.Random(7)
    by_class = defaultdict(list)
    for row in rows[domain]:
        by_class[row.cls].append(row.token)
    chosen = [chance.choice(tokens) for tokens in by_class.values()] + by_class["unspeakable"]
    for proved in extract(ledger(domain), whisper, chosen):
        path = tmp_path / f"{proved.certificate.statement.token}.json"
        path.write_bytes(to_bytes(proved.certificate))
        result = load_standalone().audit_file(str(path), [str(weights)], str(weights.parent / "config.json"))
        assert result.outcome == "accepted", result.reason
