"""No row of a ledger with one thing changed is proved unless the change is itself true.

Ledgers of small models come from scans; forged rows travel through the file format. Classes, kinds, flags
and margins are compared with the exact brute force of tests/oracle.py, which shares no code with the package.
"""

import copy
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from math import gcd
from pathlib import Path
from typing import Any

import pytest
from built_models import from_small
from ledgers import (
    BASES,
    DOMAINS,
    EVERY,
    LN,
    MODELS,
    Base,
    accepts,
    own_state,
    proved,
    scanned,
    subject,
)
from oracle import Vector, decide, random_small_model, small, witness_margin

from verify.errors import (
    MalformedError,
    RefutedError,
    UsageError,
)
from verify.kernel import Multipliers, State, ledger, parse_domain
from verify.kernel.ledger import CLASSES, REALISM, Row
from verify.kernel.ledger_rows import Views
from verify.kernel.proved_ledger import LedgerCheck, ProvedLedger
from verify.models import Tokens
from verify.scan.run import scan
from verify.scan.worker import scale


@pytest.mark.parametrize("name", BASES)
def test_the_bases_are_accepted(name: str) -> None:
    base = BASES[name]
    found = proved(base.header, base.rows, base.readout)
    assert found.counts == Counter(row.cls for row in base.rows)
    assert found.hard_post == sum(row.hard_post for row in base.rows)
    assert found.hard_model == sum(row.hard_model for row in base.rows)
    assert found.header == base.header
    assert all(accepts(base, row) for row in base.rows)


def test_the_bases_hold_what_the_forgeries_change() -> None:
    rows = [row for _, row in EVERY]
    assert {row.cls for row in rows} == set(CLASSES) - {"undecided"}
    assert {(row.cls, row.kind) for row in rows} >= {
        ("tied", "tie-only"), ("unspeakable", "tie-only"), ("unspeakable", "never"),
    }  # fmt: skip
    assert {row.realism for row in rows} == {None, *REALISM}
    assert {row.scale > 0 for row in rows} == {row.model_scale > 0 for row in rows} == {True, False}
    assert {row.own for row in rows if row.kind == "tie-only"} == {True, False}
    assert any(row.ceiling for row in rows)
    assert any(row.amount for row in rows if row.cls == "unspeakable")
    assert {(row.hard_post, row.hard_model) for row in rows} >= {(False, False), (False, True), (True, True)}


def state_of(base: Base, row: Row, domain: str) -> Vector:
    """The own state by the rule of docs/ledger.md, in fractions and from the oracle's model."""
    m, name = base.model, domain.partition(":")[0]
    gain = m.gain if m.gain is not None else [Fraction(1)] * len(m.W[0])
    twos = gcd(*(int(x) for x in gain))
    gain = [x / (twos & -twos) for x in gain]
    sums = [sum(column) for column in zip(*m.W, strict=True)]
    # F32 counts in units of 2**-149.
    p = [(len(m.W) * x - y) * g * (1 << 149) for x, y, g in zip(m.W[row.token], sums, gain, strict=True)]
    d = len(p)
    if m.norm == "layernorm":
        p = [d * x - sum(p) for x in p]
    if name == "free":
        p = [x * g for x, g in zip(p, gain, strict=True)]
    scale = row.model_scale if domain == "readout" else row.scale
    return [x * (1 if domain == "direction" else scale) / (1 << base.header.grid) for x in p]


@pytest.mark.parametrize("name", BASES)
def test_rows_agree_with_brute_force(name: str) -> None:
    """Class, kind, both flags, the exact margin of own states, and their lengths."""
    base, domain = BASES[name], name.split()[1]
    d = base.readout.d
    for row in base.rows:
        answer = decide(base.model, row.token, domain)
        assert (row.cls in ("own", "hard")) == answer.speakable, row
        if row.kind in ("never", "tie-only"):
            assert row.kind == answer.kind, row
        for where, flag in (("direction", row.hard_post), ("readout", row.hard_model)):
            margin = witness_margin(base.model, row.token, where, state_of(base, row, where))
            assert flag == (margin <= 0), row
        if row.cls == "own" and domain != "direction":
            z = state_of(base, row, domain)
            assert row.amount == witness_margin(base.model, row.token, domain, z), row
        z, full = state_of(base, row, domain), Fraction(1023, 1024)
        if domain != "direction" and row.scale:
            longer = [x * (row.scale + 1) / row.scale for x in z]
            if domain == "box:1":
                assert max(map(abs, z)) <= full < max(map(abs, longer))
            else:
                assert sum(x * x for x in z) <= full * d < sum(x * x for x in longer)


@pytest.mark.parametrize("seed", range(8))
def test_random_models_agree_with_brute_force(seed: int) -> None:
    rng = random.Random(1000 + seed)
    model = random_small_model(rng, V=rng.randint(2, 7))
    domain = rng.choice(DOMAINS)
    for row in scanned(model, domain).rows:
        answer = decide(model, row.token, domain)
        assert row.cls == "undecided" or (row.cls in ("own", "hard")) == answer.speakable, row
        assert row.kind in (None, "unsettled", answer.kind), row


# ---- one row with one thing changed ----

TINY = Fraction(1, 1 << 200)
Forgery = Callable[[Base, Row], Iterator[Row]]
SPEAKABLE, UNSPEAKABLE = ("own", "hard"), ("tied", "unspeakable")


def other_rows(base: Base, row: Row) -> list[int]:
    """Every other rival, the token itself, and one that does not exist."""
    return [j for j in (*range(base.readout.vocabulary), 1 << 40) if j != row.rival]


def bare(row: Row) -> Row:
    return replace(
        row, kind=None, realism=None, amount=None, rival=None, own=False, witness=None,
        multipliers=None, ceiling=None, at_most=None,
    )  # fmt: skip


def undecided(row: Row) -> Row:
    return replace(bare(row), cls="undecided")


def _flags(base: Base, row: Row) -> Iterator[Row]:
    yield replace(row, hard_post=not row.hard_post)
    yield replace(row, hard_model=not row.hard_model)


def _scales(base: Base, row: Row) -> Iterator[Row]:
    for step in (1, -1, row.scale + 1, -row.scale // 2):
        if min(row.scale, row.model_scale) + step >= 0 and step:
            yield replace(row, scale=row.scale + step, model_scale=row.model_scale + step)
            yield replace(row, scale=row.scale + step)
        if row.model_scale + step >= 0 and step:
            yield replace(row, model_scale=row.model_scale + step)


def _classes(base: Base, row: Row) -> Iterator[Row]:
    for cls in CLASSES:
        # A tied token is also unspeakable, and one of its rows may be the heaviest.
        if cls != row.cls and (row.cls, cls) != ("tied", "unspeakable"):
            yield replace(row, cls=cls)
            yield replace(row, cls=cls, own=False, witness=own_state(base, row))
            yield replace(row, cls=cls, own=True, witness=None)


def _margins(base: Base, row: Row) -> Iterator[Row]:
    if row.cls in SPEAKABLE and row.amount is not None:
        bit = Fraction(1, row.amount.denominator)
        for amount in (row.amount + bit, row.amount - bit, row.amount + TINY, row.amount - TINY):
            yield replace(row, amount=amount)
        for other in (Fraction(0), -row.amount, 2 * row.amount, None):
            yield replace(row, amount=other)


def _rivals(base: Base, row: Row) -> Iterator[Row]:
    for j in other_rows(base, row):
        equal = row.cls == "tied" and j < len(base.rows) and j != row.token and base.rows[j].cls == "tied"
        if not equal:
            yield replace(row, rival=j)
    yield replace(row, rival=None)


def _realism(base: Base, row: Row) -> Iterator[Row]:
    for realism in (None, *REALISM):
        if realism != row.realism:
            yield replace(row, realism=realism)


def _witness(base: Base, row: Row) -> Iterator[Row]:
    if row.cls == "own":
        yield replace(row, own=False)
        yield replace(row, own=False, witness=own_state(base, row))
        yield replace(row, cls="hard", own=False, witness=own_state(base, row))
        yield replace(row, cls="hard")
        yield undecided(row)
    if row.cls == "hard" and row.witness is not None:
        p, k = row.witness.p, row.witness.k
        yield replace(row, witness=State(tuple(-x for x in p), k))
        for other in (p[:-1], (*p, 0), (0,) * len(p), (1 << 999, *p[1:]), (p[0] + 1, *p[1:])):
            yield replace(row, witness=State(other, k))
        yield replace(row, witness=State(p, k + 1))
        yield replace(row, witness=State(tuple(1024 * x for x in p), k))
        yield replace(row, witness=None)
        yield replace(row, witness=None, own=True)
        yield replace(row, cls="own", witness=None, own=True)


def _evidence_out_of_place(base: Base, row: Row) -> Iterator[Row]:
    some = Multipliers(((row.token + 1) % base.readout.vocabulary,), (1,))
    if row.cls in SPEAKABLE:
        yield replace(row, kind="never")
        yield replace(row, multipliers=some)
    else:
        yield replace(row, ceiling=some, at_most=Fraction(1000))
        empty = undecided(row)
        for fields in (
            {"kind": "never"}, {"realism": "realistic"}, {"amount": Fraction(0)}, {"rival": some.rows[0]},
            {"witness": State((0,) * base.readout.d, 0)}, {"own": True}, {"multipliers": some},
            {"ceiling": some, "at_most": Fraction(1000)},
        ):  # fmt: skip
            yield replace(empty, **fields)


def spoilt(base: Base, row: Row, m: Multipliers) -> Iterator[Multipliers]:
    """Multipliers that are not admissible, whatever they would prove."""
    values = m.values or ()
    for bad in (0, -1, -values[0]):
        yield Multipliers(m.rows, (bad, *values[1:]))
    yield Multipliers((*m.rows, m.rows[0]), (*values, values[0]))
    for alien in (row.token, base.readout.vocabulary, 1 << 40):
        yield Multipliers((*m.rows, alien), (*values, 1))
    yield Multipliers((row.token,), (1,))
    yield Multipliers(m.rows, tuple(-x for x in values))
    yield Multipliers((*m.rows, m.rows[0]), None)


def _ceilings(base: Base, row: Row) -> Iterator[Row]:
    if row.cls not in SPEAKABLE or row.amount is None:
        return
    ceiling = row.ceiling or Multipliers(((row.token + 1) % base.readout.vocabulary,), (1,))
    top = row.at_most or row.amount
    for below in (row.amount - TINY, Fraction(0), -top):
        yield replace(row, ceiling=ceiling, at_most=below)
    for bad in spoilt(base, row, ceiling):
        yield replace(row, ceiling=bad, at_most=top)


def _multipliers(base: Base, row: Row) -> Iterator[Row]:
    if row.cls in UNSPEAKABLE and row.multipliers is not None:
        yield replace(row, multipliers=None)
        for bad in spoilt(base, row, row.multipliers):
            yield replace(row, multipliers=bad)


def _gaps(base: Base, row: Row) -> Iterator[Row]:
    if row.cls in UNSPEAKABLE and row.amount is not None:
        yield replace(row, amount=row.amount + 1)
        yield replace(row, amount=-TINY)
        yield replace(row, amount=None)
        if base.header.statement.domain.kind in ("free", "direction"):
            yield replace(row, amount=row.amount + TINY)


def _kinds(base: Base, row: Row) -> Iterator[Row]:
    if row.cls not in UNSPEAKABLE:
        return
    yield replace(row, kind=None)
    if row.kind == "tie-only":
        yield replace(row, kind="never")
        yield replace(row, kind="never", own=False, witness=None)
        yield replace(row, kind="unsettled")
    else:
        yield replace(row, kind="tie-only")
        yield replace(row, own=True)
        yield replace(row, witness=own_state(base, row))
    if row.kind == "never":
        yield replace(row, kind="tie-only", own=True)
        yield replace(row, kind="tie-only", witness=own_state(base, row))


def _ties(base: Base, row: Row) -> Iterator[Row]:
    if row.kind == "tie-only":
        tie = own_state(base, row) if row.own else row.witness
        assert tie is not None
        changed = replace(row, own=False)
        yield replace(changed, witness=None)
        for p in (tie.p[:-1], (*tie.p, 1), (0,) * len(tie.p)):
            yield replace(changed, witness=State(p, tie.k))
        if base.header.statement.domain.kind in ("readout", "box") and base.readout.norm != "none":
            yield replace(changed, witness=State(tuple(2048 * x for x in tie.p), tie.k))


FORGERIES: dict[str, Forgery] = {
    name.lstrip("_"): found
    for name, found in list(globals().items())
    if name in {
        "_flags", "_scales", "_classes", "_margins", "_rivals", "_realism", "_witness",
        "_evidence_out_of_place", "_ceilings", "_multipliers", "_gaps", "_kinds", "_ties",
    }
}  # fmt: skip


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_row_is_refused(name: str, forgery: str) -> None:
    base = BASES[name]
    for row in base.rows:
        for forged in FORGERIES[forgery](base, row):
            assert forged != row
            assert not accepts(base, forged), (ledger.line(row), ledger.line(forged))


@pytest.mark.parametrize("name", BASES)
def test_a_state_that_loses_is_no_witness(name: str) -> None:
    """With its exact margin, which is not positive, and its nearest rival."""
    base = BASES[name]
    views = Views(base.readout, *subject(base))
    for row in base.rows:
        if row.cls != "own":
            state = own_state(base, row)
            (at,) = views.margins["here"].at([row.token], [state], [True])
            found = {"amount": at.margin, "rival": at.nearest[0], "realism": views.realism(state)}
            said = replace(undecided(row), **found)  # type: ignore[arg-type] # of these types
            assert not accepts(base, replace(said, cls="hard", witness=state))
            assert not accepts(base, replace(said, cls="own", own=True))


def test_realistic_begins_at_a_hundred_epsilon() -> None:
    """|z|^2 / d >= 100/101, that is |p|^2 >= 2076388.1 of 2097152."""
    views = Views(BASES["square readout"].readout, parse_domain("readout"), 7, 10)
    assert views.realism(State((1018, 1018), 10)) == "near-constant"
    assert views.realism(State((1019, 1019), 10)) == "realistic"


@pytest.mark.parametrize("forgery", FORGERIES)
def test_every_forgery_was_tried(forgery: str) -> None:
    assert sum(1 for base, row in EVERY for _ in FORGERIES[forgery](base, row)) >= 12


def test_what_is_weaker_but_true_is_accepted() -> None:
    """No evidence, a lower gap, a kind left open, another ceiling: a ledger may say less than it could."""
    tried: Counter[str] = Counter()
    for base, row in EVERY:
        weaker: dict[str, Row] = {}
        if row.cls != "own":
            weaker["undecided"] = undecided(row)
        if row.cls in UNSPEAKABLE and row.amount is not None and row.multipliers is not None:
            weaker["gap"] = replace(row, amount=row.amount / 2)
            weaker["unsettled"] = replace(row, kind="unsettled", own=False, witness=None)
            rows, values = row.multipliers.rows, row.multipliers.values or ()
            if len(rows) == 1:
                weaker["unspeakable"] = replace(row, cls="unspeakable", rival=rows[0])
            weaker["factor"] = replace(row, multipliers=Multipliers(rows, tuple(3 * x for x in values)))
        if row.ceiling is not None and row.at_most is not None:
            weaker["no ceiling"] = replace(row, ceiling=None, at_most=None)
            weaker["ceiling"] = replace(row, at_most=row.at_most + 1)
        for what, said in weaker.items():
            assert accepts(base, said), (what, ledger.line(row))
            tried[what] += 1
    assert len(tried) == 7
    assert min(tried.values()) >= 3


def test_a_support_alone_is_solved_for() -> None:
    base = BASES["square free"]
    row = replace(base.rows[5], multipliers=Multipliers((0, 1), None))
    assert accepts(base, row)
    assert not accepts(base, replace(row, rival=1))
    assert not accepts(base, replace(row, multipliers=Multipliers((0, 1, 2, 3), None)))
    assert not accepts(base, replace(row, multipliers=Multipliers((2, 3), None)))


def test_a_ceiling_is_not_solved_for() -> None:
    """No multipliers of a speakable token's rivals sum to nothing, so a support alone determines none."""
    tried = 0
    for base, row in EVERY:
        if row.ceiling is not None:
            assert not accepts(base, replace(row, ceiling=Multipliers(row.ceiling.rows, None)))
            tried += 1
    assert tried >= 3


def test_the_least_scale_is_one_of_the_rule() -> None:
    """m = floor(1023/1024 * 2^20 / |x|): 1024 for |x| = 1023, and 1023, too coarse, for |x| = 1024."""
    own = Views(BASES["square box:1"].readout, parse_domain("box:1"), 7, 20).own["here"]
    assert own.is_scale([1023, 0], 1024)
    assert not own.is_scale([1024, 0], 1023)


@pytest.mark.parametrize("name", ["layernorm readout", "layernorm free", "square box:1"])
def test_errors_name_the_token(name: str) -> None:
    base = BASES[name]
    row = base.rows[3]
    for said in (replace(row, scale=row.scale + 1, model_scale=row.scale + 1), replace(row, rival=None)):
        with pytest.raises(RefutedError, match="token 3"):
            proved(base.header, [*base.rows[:3], said, *base.rows[4:]], base.readout)


# ---- the whole ledger with one thing changed ----


@pytest.mark.parametrize(
    "edit",
    [
        lambda r: r[1:], lambda r: r[:-1], lambda r: (*r[:3], *r[4:]), lambda r: (),
        lambda r: (r[0], *r), lambda r: (*r, r[-1]), lambda r: (r[1], r[0], *r[2:]), lambda r: r[::-1],
        lambda r: (*r, replace(r[-1], token=len(r))), lambda r: (*r[:-1], replace(r[-1], token=len(r))),
        lambda r: (replace(r[0], token=1), *r[1:]), lambda r: (*r[:6], r[7], r[6]), lambda r: r + r,
    ],
)  # fmt: skip
@pytest.mark.parametrize("base", [LN, BASES["layernorm box:1"]])
def test_rows_missing_twice_or_out_of_order(base: Base, edit: Callable[[Any], Any]) -> None:
    with pytest.raises(RefutedError):
        proved(base.header, edit(base.rows), base.readout)


@pytest.mark.parametrize(("first", "last"), [(0, 6), (1, 7), (0, 8), (3, 2), (8, 8), (0, 1 << 40)])
def test_another_range_of_tokens(first: int, last: int) -> None:
    with pytest.raises(RefutedError):
        proved(replace(LN.header, first=first, last=last), LN.rows, LN.readout)


def test_part_of_the_tokens() -> None:
    part = replace(LN.header, first=2, last=4)
    assert proved(part, LN.rows[2:5], LN.readout).counts == {"hard": 1, "own": 1, "unspeakable": 1}
    for token, row in enumerate(LN.rows):
        one = replace(LN.header, first=token, last=token)
        assert proved(one, [row], LN.readout).counts == {row.cls: 1}
    for first, last in ((-1, 4), (2, LN.readout.vocabulary), (4, 2)):
        with pytest.raises((RefutedError, MalformedError)):
            LedgerCheck(replace(part, first=first, last=last), LN.readout)


@pytest.mark.parametrize("grid", [LN.header.grid + 1, LN.header.grid - 1, 0, ledger.MAX_GRID])
def test_another_grid(grid: int) -> None:
    with pytest.raises(RefutedError):
        proved(replace(LN.header, grid=grid), LN.rows, LN.readout)


@pytest.mark.parametrize("name", ["layernorm direction", "square readout", "layernorm free", "square box:1"])
@pytest.mark.parametrize("grid", [0, 1, 8])
def test_a_coarse_grid_makes_no_token_hard_to_speak(name: str, grid: int) -> None:
    """With the scales that this grid leaves: own states at or near zero, and all flags up."""
    base = BASES[name]
    header = replace(base.header, grid=grid)
    views = Views(base.readout, header.statement.domain, header.statement.competitors, grid)
    rows = []
    for row in base.rows:
        (matrix_row,) = base.readout.unembedding.integers([row.token])
        here, model = (scale(views.own[x], matrix_row) for x in ("here", "model"))
        assert max(here, model) < 1 << 10
        rows.append(Row(row.token, "undecided", True, True, here, model))
    with pytest.raises(RefutedError, match="scale of the rule"):
        proved(header, rows, base.readout)


def test_a_token_that_stands_twice() -> None:
    views = Views(LN.readout, *subject(LN))
    with pytest.raises(RefutedError, match="twice"):
        views.check([LN.rows[1], LN.rows[1]])


@pytest.mark.parametrize(
    "fields",
    [
        {"norm": "rmsnorm"}, {"norm": "none"}, {"gain_offset": 1}, {"epsilon": Fraction(1, 100)},
        {"epsilon": Fraction(0)}, {"competitors": 7}, {"competitors": 9},
        {"competitors": 9, "competitor_rule": "tokenizer"},
        {"competitors": 1, "competitor_rule": "tokenizer"},
        {"competitors": 0, "competitor_rule": "tokenizer"},
        {"competitors": 5, "competitor_rule": "tokenizer"},
        {"domain": parse_domain("free")}, {"domain": parse_domain("box:1")},
        {"domain": parse_domain("box:2")},
        {"domain": parse_domain("direction")},
    ],
)  # fmt: skip
def test_a_header_of_another_question(fields: dict[str, Any]) -> None:
    header = replace(LN.header, statement=replace(LN.header.statement, **fields))
    with pytest.raises(RefutedError):
        proved(header, LN.rows, LN.readout)


@pytest.mark.parametrize("role", ["unembedding", "gain", "shift", "bias"])
def test_a_header_of_other_weights(role: str) -> None:
    of = LN.header.statement
    for fields in ({"sha256": "0" * 64}, {"merkle": "0" * 64}, {"dtype": "F16"}, {"shape": (9, 4)}):
        changed = {**of.tensors, role: replace(of.tensors[role], **fields)}
        with pytest.raises(RefutedError):
            proved(replace(LN.header, statement=replace(of, tensors=changed)), LN.rows, LN.readout)
    if role != "unembedding":
        fewer = {name: x for name, x in of.tensors.items() if name != role}
        with pytest.raises(RefutedError):
            proved(replace(LN.header, statement=replace(of, tensors=fewer)), LN.rows, LN.readout)
        with pytest.raises(RefutedError):
            proved(LN.header, LN.rows, replace(LN.readout, **{role: None}))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["layernorm", "square"])
def test_the_rows_of_other_weights(name: str) -> None:
    """An honest header, and rows of the same matrix with one entry changed."""
    base, entries = BASES[f"{name} readout"], [list(row) for row in BASES[f"{name} readout"].model.W]
    entries[1][0] += 3
    other = scanned(replace(base.model, W=entries), "readout")
    proved(other.header, other.rows, other.readout)
    with pytest.raises(RefutedError):
        proved(other.header, base.rows, other.readout)
    with pytest.raises(RefutedError, match="other weights"):
        proved(other.header, other.rows, base.readout)


def test_epsilon_zero_and_a_single_competitor_are_refused() -> None:
    readout = replace(LN.readout, epsilon=Fraction(0))
    with pytest.raises(UsageError, match="epsilon = 0"):
        Views(readout, parse_domain("free"), 8, 10)
    with pytest.raises(UsageError, match="two competitors"):
        Views(LN.readout, parse_domain("free"), 1, 10)
    header = replace(LN.header, statement=replace(LN.header.statement, epsilon=Fraction(0)))
    with pytest.raises(RefutedError, match="epsilon = 0"):
        LedgerCheck(header, readout)
    alone = from_small(small("none", [(1, 0)])).readout
    with pytest.raises(UsageError, match="two competitors"):
        Views(alone, parse_domain("readout"), 1, 10)


class _Six(Tokens):
    @property
    def size(self) -> int:
        return 6


def test_a_token_beyond_the_competitors(tmp_path: Path) -> None:
    """With fewer competitors than rows, every row still has an answer, and the last is no rival."""
    small_model = MODELS["square"]
    of = replace(from_small(small_model), tokens=_Six(None, 7))
    rows = list(scan(of, "readout", tmp_path, competitors="tokenizer").folder.rows())
    assert [row.token for row in rows] == list(range(7))
    assert 6 not in {row.rival for row in rows}
    for row in rows:
        assert (row.cls in SPEAKABLE) == decide(small_model, row.token, "readout", range(6)).speakable


# ---- nothing but a finished check makes a ProvedLedger ----


def test_a_proved_ledger_cannot_be_made_or_changed_outside() -> None:
    found: Any = proved(LN.header, LN.rows, LN.readout)
    for key in (None, object(), "key", ProvedLedger):
        with pytest.raises(TypeError):
            ProvedLedger(key, LN.header, {}, 0, 0)
    for name in ("counts", "header", "hard_post", "hard_model", "more"):
        with pytest.raises(AttributeError):
            setattr(found, name, 0)
        with pytest.raises(AttributeError):
            delattr(found, name)
    with pytest.raises(TypeError):
        found.counts["own"] = 99
    with pytest.raises(AttributeError):
        copy.copy(found)


def test_a_check_is_not_done_before_the_last_row() -> None:
    check = LedgerCheck(LN.header, LN.readout)
    for row in LN.rows:
        with pytest.raises(RefutedError, match="the rows end before"):
            check.proved()
        check.add([row])
        check.add([])
    assert sum(check.proved().counts.values()) == len(LN.rows)


def test_a_refused_row_stays_missing() -> None:
    """Whoever catches the error and goes on has proved nothing of the rows that were refused."""
    check = LedgerCheck(LN.header, LN.readout)
    check.add(LN.rows[:2])
    with pytest.raises(RefutedError):
        check.add([LN.rows[2], replace(LN.rows[3], rival=None)])
    with pytest.raises(RefutedError, match="where 2 is expected"):
        check.add(LN.rows[4:])
    with pytest.raises(RefutedError, match="the rows end before"):
        check.proved()
    check.add(LN.rows[2:])
    assert check.proved().counts == Counter(row.cls for row in LN.rows)


def test_objects_that_no_file_holds_are_not_checked() -> None:
    row = LN.rows[0]
    half: Any = row.scale + 0.5
    for said in (replace(row, scale=half), replace(row, scale=-1), replace(row, cls="other")):
        with pytest.raises((MalformedError, ValueError)):
            LedgerCheck(LN.header, LN.readout).add([said])
