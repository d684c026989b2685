"""Models built in memory for the tests: from exact small models of the oracle, or from float arrays."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING, Any

import numpy as np

from verify.kernel import Claim, Multipliers, Readout, Residual, Speakable, State, Tensor, Unspeakable
from verify.models import Model, Tokens

if TYPE_CHECKING:
    from oracle import SmallModel

EPSILON = Fraction(1, 100000)


def tensor(name: str, values: Any, dtype: str = "F32") -> Tensor:
    """A tensor holding `values` rounded to `dtype`."""
    x = np.array(values, dtype=np.float64)
    if dtype == "BF16":
        return Tensor(name, dtype, (x.astype("<f4").view("<u4") >> 16).astype("<u2"))
    width = {"F16": 2, "F32": 4, "F64": 8}[dtype]
    return Tensor(name, dtype, x.astype(f"<f{width}").view(f"<u{width}"))


def model(
    W: Any,
    norm: str = "layernorm",
    gain: Any = None,
    shift: Any = None,
    bias: Any = None,
    dtype: str = "F32",
    epsilon: Fraction = EPSILON,
) -> Model:
    """A model without tokenizer around the given arrays."""

    def optional(role: str, x: Any) -> Tensor | None:
        return None if x is None else tensor(role, x, dtype)

    readout = Readout(
        norm=norm,
        unembedding=tensor("unembedding", W, dtype),
        epsilon=epsilon if norm != "none" else Fraction(0),
        epsilon_source="given by the test",
        gain=optional("gain", gain),
        shift=optional("shift", shift),
        bias=optional("bias", bias),
    )
    return Model("test", None, readout, Tokens(None, readout.vocabulary), {}, ())


def from_small(small: SmallModel, dtype: str = "F32") -> Model:
    """The oracle's model in `dtype`, denominators cleared: W and bias scaled by one integer, which

    changes no sign of w_j.h + c_j; gain, shift and bias must then be exact in `dtype`.
    """
    scale = lcm(*(x.denominator for row in small.W for x in row))

    def plain(x: Any, factor: int = 1) -> Any:
        return None if x is None else [float(y * factor) for y in x]

    W = [[float(x * scale) for x in row] for row in small.W]
    return model(W, small.norm, plain(small.gain), plain(small.shift), plain(small.bias, scale), dtype)


def every_form_of_claim() -> list[Claim]:
    """Claims of all forms, near the limits of the format; true of no model in particular."""
    big, entry = (1 << 20000) + 1, (1 << 16000) + 1
    return [
        Speakable(Fraction(1, big), None, Residual((0, -1), 7, "BF16")),
        Speakable(
            Fraction(big), State((-entry, 0), 1 << 14), None, Multipliers((5, 2), (1, big)), Fraction(-3, 4)
        ),
        Unspeakable(Fraction(0), "unsettled", Multipliers((0,), None)),
        Unspeakable(Fraction(2, 3), "tie-only", Multipliers((9, 1), (-1, 0)), State((1,), 0)),
    ]


def equal_rows(model: Model) -> set[int]:
    """Rows of a float16 unembedding that equal another by value (-0 = 0), from the bit patterns."""
    raw = model.readout.unembedding.raw.copy()
    raw[raw == 0x8000] = 0
    groups = defaultdict(list)
    for j in range(raw.shape[0]):
        groups[raw[j].tobytes()].append(j)
    return {j for group in groups.values() if len(group) > 1 for j in group}
