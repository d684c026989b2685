"""STATEMENT. The witness of a certificate as a vector that can be put into the model.

Wrong here = the model is asked about another state than the one that was proved to speak the token; whether
the token leads at a vector is then found anew by the kernel, so that no claim rests on this file.

    evidence, domain                      the vector                                enters
    residual vector (readout)             r                                         the norm
    state z (readout, box), |z|^2 < d     r = z * sqrt(epsilon / (1 - |z|^2/d))     the norm: N(r) = z
    state z (direction)                   z, at a length where N(r) is nearly z     the norm
    state h (free)                        h                                         the unembedding
    state z otherwise                     h = gain * z + shift                      the unembedding
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verify.errors import RefutedError
from verify.figures import approximate
from verify.kernel import FREE, READOUT, Residual, State, System
from verify.kernel.check import residual_margin, state_margin
from verify.kernel.tensor import unit_exponent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verify.kernel import Readout, Speakable

NORM, HEAD = "final norm", "unembedding"
# A direction is put in with a variance of at least so many epsilon, and of at least 1: N(r) is then within
# 0.05 % of length sqrt(d).
_VARIANCE = 1024


@dataclass(frozen=True)
class Vector:
    """A witness to put in where the final norm or the unembedding reads.

    source: which evidence it is, for people. place: NORM or HEAD. values: (d,), nearest 64-bit floats.
    """

    source: str
    place: str
    values: list[float]


@dataclass(frozen=True)
class Lead:
    """How the token stands at a vector of floats, in exact arithmetic.

    there: whether it leads every competitor. margin: in logits, of a lead at the norm a lower bound within
    2**-191; None where it was not computed. words: the same for people.
    """

    there: bool
    margin: Fraction | None
    words: str


def vectors(system: System, claim: Speakable) -> list[Vector]:
    """Every witness of a proved claim: the residual vector first, then the state.

    Raises OverflowError or ZeroDivisionError for numbers beyond the range of floats.
    """
    readout, found = system.readout, []
    if claim.residual is not None:
        r = [Fraction(x, 1 << claim.residual.k) for x in claim.residual.p]
        source = f"the stored residual vector, exact in {claim.residual.dtype}"
        if readout.norm == "none":
            found.append(Vector(source, HEAD, _floats(_after_norm(readout, r))))
        else:
            found.append(Vector(source, NORM, _floats(r)))
    if claim.state is not None:
        found.append(_of_state(system, claim.state))
    return found


def _of_state(system: System, state: State) -> Vector:
    readout, kind = system.readout, system.domain.kind
    scale = readout.d if kind == "box" and system.projects else 1
    z = [Fraction(x, scale << state.k) for x in system.project(list(state.p))]
    if kind == "free":
        return Vector("the state h", HEAD, _floats(z))
    share = sum((x * x for x in z), Fraction(0)) / readout.d
    if readout.norm == "none":
        return Vector("the state z", HEAD, _floats(_after_norm(readout, z)))
    if kind == "direction":
        length = math.sqrt(max(1.0, _VARIANCE * float(readout.epsilon)) / float(share))
        source = "the state z, a direction, scaled to a root mean square of"
        return Vector(
            f"{source} {length * math.sqrt(float(share)):.4g}", NORM, [length * float(x) for x in z]
        )
    if readout.epsilon > 0 and share < 1:
        length = math.sqrt(float(readout.epsilon / (1 - share)))
        return Vector(
            "the state z, as a residual vector r with N(r) = z", NORM, [length * float(x) for x in z]
        )
    source = "the state z, which no residual vector gives: gain * z + shift"
    return Vector(source, HEAD, _floats(_after_norm(readout, z)))


def lead(system: System, values: Sequence[float], place: str) -> Lead:
    """How the system's token stands against its competitors at finite floats, (d,), that enter the norm or
    the unembedding of the model, whatever the system's domain; found by the kernel (Theorems 4 and 8).
    """
    readout, token, count = system.readout, system.token, system.count
    p, k = _dyadic(values)
    if place == NORM:
        try:
            margin = residual_margin(System(readout, READOUT, token, count), Residual(p, k, "F64"))
        except RefutedError as error:
            return Lead(False, None, str(error))
        return Lead(True, margin, f"it leads by {approximate(margin):.4g} logits")
    margin, nearest = state_margin(System(readout, FREE, token, count), State(p, k))
    if margin > 0:
        return Lead(True, margin, f"it leads row {nearest[0]} by {approximate(margin):.4g} logits")
    if margin == 0:
        return Lead(False, margin, f"it ties with row {nearest[0]}")
    return Lead(False, margin, f"row {nearest[0]} is {approximate(-margin):.4g} logits above it")


def misread(readout: Readout, r: Sequence[float], read: Sequence[float], epsilon: float) -> float | None:
    """How far `read`, (d,), which the unembedding was multiplied with, is from gain * N(r) + shift.

    As a share of its length, up to a positive factor. None where rounding to numbers that lie `epsilon` apart
    at 1 explains it. In floats, a heuristic: 16 roundings an entry, each as large as the terms added.
    """
    y = np.array(r) - (np.mean(r) if readout.norm == "layernorm" else 0.0)
    z = y / math.sqrt(float(np.mean(y * y)) + float(readout.epsilon))
    shift = np.array(_floats(_after_norm(readout, [Fraction(0)] * readout.d)))
    h = np.array(_floats(_after_norm(readout, [Fraction(x) for x in z.tolist()])))
    found = np.array(read)
    lengths = [float(np.linalg.norm(x)) for x in (h, found, y, h - shift, shift)]
    if lengths[1] == 0 and lengths[0] > 0:
        return 1.0
    if min(lengths[:3]) == 0:
        return None
    away = float(np.linalg.norm(h / lengths[0] - found / lengths[1]))
    terms = (lengths[3] + lengths[4]) / lengths[0] * max(1.0, float(np.linalg.norm(r)) / lengths[2])
    return away if away > 16 * epsilon * terms else None


def _after_norm(readout: Readout, z: Sequence[Fraction]) -> list[Fraction]:
    """gain * z + shift, exact."""
    out = list(z)
    if readout.gain is not None:
        unit = Fraction(2) ** unit_exponent(readout.gain.dtype)
        out = [x * (g * unit + readout.gain_offset) for x, g in zip(out, readout.gain.vector(), strict=True)]
    if readout.shift is not None:
        unit = Fraction(2) ** unit_exponent(readout.shift.dtype)
        out = [x + b * unit for x, b in zip(out, readout.shift.vector(), strict=True)]
    return out


def _floats(values: Sequence[Fraction]) -> list[float]:
    """The nearest floats; OverflowError for numbers beyond them, or where nothing but zeros is left."""
    found = [float(x) for x in values]
    if any(values) and not any(found):
        raise OverflowError("all numbers are below the smallest float")
    return found


def _dyadic(values: Sequence[float]) -> tuple[tuple[int, ...], int]:
    """(p, k) with values = p / 2**k, exact."""
    ratios = [x.as_integer_ratio() for x in values]
    k = max(denominator.bit_length() - 1 for _, denominator in ratios)
    return tuple(n << (k - denominator.bit_length() + 1) for n, denominator in ratios), k
