"""GLUE. Evidence that cancels, as a VIPR 1.0 file. What it means: docs/certificates.md, section 7.

Wrong here = a file that says something else than the certificate; `viprchk` checks only what it says.
The format: "MILP certificate file format version 1.0", cert_spec_v1_0.md of https://github.com/scipopt/vipr
(formerly https://github.com/ambros-gleixner/VIPR), by Cheung, Gleixner and Steffy, "Verifying Integer
Programming Results", IPCO 2017. Beyond that text, its checker (code/viprchk.cpp) wants a space after the `%`
of a comment, and comments before VER alone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import flint

from verify.errors import UsageError
from verify.kernel import Speakable, System
from verify.kernel.check import combine
from verify.kernel.solve import in_full
from verify.kernel.statement import decimal_text, require_same_readout, require_same_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from verify.kernel import Multipliers, Proved, Readout, Statement
    from verify.kernel.check import Combination


def to_bytes(proved: Proved, readout: Readout) -> bytes:
    """The VIPR file that derives 0 >= sum(lambda) from the rows of the support.

    readout: the one `proved` was proved of. Raises UsageError for a witness, and for multipliers that
    do not cancel; RefutedError where the readout is another one.
    """
    certificate = proved.certificate
    statement, claim = certificate.statement, certificate.claim
    if isinstance(claim, Speakable):
        raise UsageError(
            "a witness makes no program infeasible: only certificates of UNSPEAKABLE are exported to VIPR"
        )
    if not proved.from_rows:
        require_same_tensors(statement, readout)
    require_same_readout(statement, readout)
    system = System(readout, statement.domain, statement.token, statement.competitors)
    multipliers = in_full(system, claim.multipliers)
    c = combine(system, multipliers)
    if any(system.project(c.u)):
        shape = "a box" if statement.domain.kind == "box" else "a ball"
        raise UsageError(
            f"these multipliers do not cancel: they use that the states of {statement.domain.name} lie in "
            f"{shape}, which the program in a VIPR file does not say; those of free and direction cancel"
        )
    lines = [*_comments(statement, system), *_program(system, multipliers, c)]
    return ("\n".join(lines) + "\n").encode("ascii")


def _program(system: System, multipliers: Multipliers, c: Combination) -> list[str]:
    """The sections of the file. Constraints are numbered from 0 in the order in which they stand."""
    d = system.readout.d
    differences = system.differences(list(multipliers.rows))
    scaled = any(x.e for x in differences)
    names = [f"z{i + 1}" for i in range(d)] + (["tau"] if scaled else [])
    constraints: list[str] = []
    terms: list[tuple[int, int]] = []

    def add(constraint: str, multiplier: int) -> None:
        if multiplier:
            terms.append((len(constraints), multiplier))
        constraints.append(constraint)

    if scaled:  # a bound on a variable, and those must come first
        add(_constraint("tau_nonnegative", "G", 0, [(d, 1)]), -c.v)
    for x, value in zip(differences, multipliers.values or (), strict=True):
        add(_constraint(f"row_{x.row}", "G", 1, enumerate((*x.D, x.e))), value)
    if system.projects:  # Pu = 0: all entries of u are u_1, and u_1 times the equation is u.z
        add(_constraint("sum_zero", "E", 0, [(i, 1) for i in range(d)]), -c.u[0])
    return [
        "VER 1.0",
        f"VAR {len(names)}",
        " ".join(names),
        "INT 0",
        "OBJ min",
        "0",
        f"CON {len(constraints)} {int(scaled)}",
        *constraints,
        "RTP infeas",
        "SOL 0",
        "DER 1",
        f"{_constraint('contradiction', 'G', c.total, [])} {{ lin {_sparse(terms)} }} -1",
    ]


def _constraint(name: str, sense: str, bound: int, entries: Iterable[tuple[int, int]]) -> str:
    return f"{name} {sense} {_decimal(bound)} {_sparse((i, x) for i, x in entries if x)}"


def _sparse(entries: Iterable[tuple[int, int]]) -> str:
    """The number of entries, then index and value of each."""
    pairs = [f"{i} {_decimal(x)}" for i, x in entries]
    return "  ".join([str(len(pairs)), *pairs])


def _decimal(x: int) -> str:
    # Python's own conversion refuses more than 4,300 digits.
    return str(flint.fmpz(x))


def _comments(s: Statement, system: System) -> list[str]:
    """What the numbers belong to. Whatever stands in the strings of a statement, a comment stays one line."""
    lines = [
        "UNSPEAKABLE: no state of the domain makes the token the unique argmax of the logits.",
        "Exported by `verify export`. VIPR sees that the program below is infeasible, and no more than that:",
        "comments prove nothing. That its rows are this token's is for `verify audit` of the certificate.",
        "The gap and the kind of the certificate are not in this file.",
        "",
        f"model: {_quoted(s.model)}",
        f"revision: {_quoted(s.revision)}",
        f"token: {s.token}",
        f"text: {_quoted(s.text)}",
        f"domain: {s.domain.name}",
        f"competitors: ids below {s.competitors} but the token (rule: {s.competitor_rule})",
        f"norm: {s.norm}, gain offset {s.gain_offset}, epsilon {decimal_text(s.epsilon)}",
    ]
    for role, t in sorted(s.tensors.items()):
        lines.append(f"{role}: {_quoted(t.name)} {t.dtype} {list(t.shape)}")
        lines += [f"  SHA-256 {t.sha256}", f"  Merkle root {t.merkle}"]
    return [
        f"% {line}".rstrip()
        for line in (
            *lines,
            f"unit: coefficients of the rows are integers times 2^{system.unit}",
            "",
            "row_j: (a_t - a_j).z + (b_t - b_j).tau >= 1, where t is the token, j a row of the support, and",
            "  a_j.z + b_j the logit of j at the state z (without b in the domain direction)",
            "sum_zero, after a LayerNorm: the coordinates of a state sum to 0",
            "tau, where some b_t - b_j is not 0: the scale of the state, at least 0",
        )
    ]


def _quoted(text: str | None) -> str:
    """One line of printable ASCII: a JSON string, or null."""
    return json.dumps(text, ensure_ascii=True).replace("\x7f", "\\u007f")
