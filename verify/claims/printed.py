"""GLUE. The 2023 post's linear program, as printed: a proof that it is infeasible, whatever the model.

The program asks, for a token t and a margin m > 0, for x with (w_j - w_t).x <= -m for EVERY row j, the row t
among them. One multiplier, 1 on the token's own row, proves it infeasible: (w_t - w_t).x = 0 for every x, so
that row reads 0 <= -m (Theorem 13 of docs/soundness.md). No weight enters, so the proof is for every token of
every model. Wrong here = this one statement is wrong.
"""

from __future__ import annotations

from verify.errors import FieldValueError, MissingKeyError, RefutedError, UnknownKeyError
from verify.kernel import strict_json

FORMAT = "verify-printed-program"
PROGRAM = "for every row j, the token's own row t included: (w_j - w_t).x <= -margin; margin > 0"


def proof_bytes() -> bytes:
    """The proof as a file."""
    return strict_json.write(
        {
            "format": FORMAT,
            "version": strict_json.VERSION,
            "program": PROGRAM,
            "multipliers": {"own": 1},
            "claim": "infeasible",
        }
    )


def check_proof(data: bytes) -> None:
    """Check a proof that the program is infeasible at every margin > 0, for any weights.

    A combination of rows by non-negative multipliers, not all zero, that cancels x and leaves a negative
    right-hand side. Only the own row cancels for all weights alike, so only it may be named. Raises
    MalformedError, RefutedError.
    """
    top = strict_json.file_fields(strict_json.parse(data), FORMAT, "program", "multipliers", "claim")
    if top["program"] != PROGRAM or top["claim"] != "infeasible":
        raise FieldValueError("it is about another program, or claims something else of it")
    multipliers = top["multipliers"]
    if not isinstance(multipliers, dict):
        raise FieldValueError("multipliers are not an object")
    if set(multipliers) - {"own"}:
        raise UnknownKeyError("multipliers: without weights only the own row cancels")
    if "own" not in multipliers:
        raise MissingKeyError("multipliers: there is none on the own row")
    own = strict_json.count(multipliers["own"], "multipliers")
    strict_json.require_canonical(strict_json.write(top), data)
    # own * (w_t - w_t).x = 0 <= -own * margin is false exactly if both are positive, and margin > 0.
    if own == 0:
        raise RefutedError("0 <= 0 is true: these multipliers prove nothing")
