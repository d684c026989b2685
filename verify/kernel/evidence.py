"""TRUSTED. The evidence a certificate may hold, as plain data. It proves nothing by itself.

The checks are in check.py; a malformed field is refused by certificate.py before it comes here.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

KINDS = ("never", "tie-only", "unsettled")


@dataclass(frozen=True)
class State:
    """A state of the domain in z-form: integers p and a power of two.

    After a LayerNorm (not in `free`): z = (d p - (1.p) 1) / 2**k; in `box` x = p / 2**k and z = Px.
    Otherwise z = p / 2**k; in `free` this is h.
    """

    p: tuple[int, ...]
    k: int


@dataclass(frozen=True)
class Residual:
    """A residual-stream vector r = p / 2**k, exactly representable in `dtype`."""

    p: tuple[int, ...]
    k: int
    dtype: str


@dataclass(frozen=True)
class Multipliers:
    """Farkas multipliers: competitor rows and positive integers. `values` None: the support alone."""

    rows: tuple[int, ...]
    values: tuple[int, ...] | None


@dataclass(frozen=True)
class Speakable:
    """The claim that some state has margin at least `margin` > 0 over every competitor.

    state or residual (or both): the witness. ceiling: multipliers proving that no state of the
    domain has a margin above `at_most`.
    """

    margin: Fraction
    state: State | None
    residual: Residual | None = None
    ceiling: Multipliers | None = None
    at_most: Fraction | None = None


@dataclass(frozen=True)
class Unspeakable:
    """The claim that no state makes the token the unique argmax.

    gap >= 0: everywhere in the domain some competitor is at least that much (in logits) above.
    kind: `never` (no state but z = 0 attains the maximum even jointly), `tie-only` (`tie` is a state
    other than 0 that does), or `unsettled`.
    """

    gap: Fraction
    kind: str
    multipliers: Multipliers
    tie: State | None = None


Claim = Speakable | Unspeakable
