"""Generated instances with known answers, shaped like real readouts; the same seed gives the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from verify.kernel import Readout, Tensor
from verify.models import Model, Tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Planted:
    """Ids by what is known of them in `direction`: central, inside: unspeakable; equal: tie-only; easy."""

    central: list[int]
    inside: list[int]
    outside: list[int]
    equal: list[int]
    easy: list[int]


def gpt2_shaped(seed: int = 0, V: int = 50_257, d: int = 768, clusters: int = 3) -> tuple[Model, Planted]:
    """A float32 LayerNorm readout of V rows and width d with planted rows.

    Ordinary rows are Gaussian (deviation 0.14). Three dozen rows lie near the centroid. A cluster is a
    long base row plus 1e-3 times +-q_i for an orthonormal q: a cross-polytope, whose hull is known. Some
    members lie 1e-6 inside or outside its nearest facet, some are equal rows. Gains run from 0.004 to 17.
    """
    rng = np.random.default_rng(seed)
    W = rng.normal(0.0, 0.14, (V, d))
    ids = rng.permutation(V)
    used = 0

    def take(n: int) -> NDArray[np.intp]:
        nonlocal used
        used += n
        return ids[used - n : used]

    gain = np.exp(rng.uniform(np.log(0.004), np.log(17.0), d))
    # Folded and projected, differences along 1/gain vanish and the rest stays d - 1 dimensional: clusters
    # live in the complement of the gain vector, on which gain and projection are one-to-one.
    inside: list[int] = []
    outside: list[int] = []
    equal: list[int] = []
    for _ in range(clusters):
        base = rng.normal(0.0, 0.14, d)
        base *= 1.5
        q, _ = np.linalg.qr(np.column_stack([gain, rng.normal(size=(d, d - 1))]))
        q = q[:, 1:]
        corners = take(2 * (d - 1))
        W[corners[: d - 1]], W[corners[d - 1 :]] = base + 1e-3 * q.T, base - 1e-3 * q.T
        for members, sign in ((inside, -1.0), (outside, 1.0)):
            for j in take(4):
                y = rng.dirichlet(np.full(d - 1, 5.0)) * rng.choice([-1.0, 1.0], d - 1)
                y *= 1.0 + sign * 1e-6 * np.sqrt(d) / 1e-3
                W[j] = base + 1e-3 * (q @ y)
                members.append(int(j))
        for j in take(2):
            W[j] = W[corners[0]]
            equal.append(int(j))
    central = take(36)
    W[central] = W.mean(axis=0) + rng.normal(0.0, 1e-3, (len(central), d))
    easy = take(8)
    shift = rng.normal(0.0, 0.3, d)
    readout = Readout(
        norm="layernorm",
        unembedding=_float32("wte.weight", W),
        gain=_float32("ln_f.weight", gain),
        shift=_float32("ln_f.bias", shift),
        epsilon=Fraction(1, 100_000),
        epsilon_source="generated",
    )
    model = Model(f"generated-{V}x{d}-seed{seed}", None, readout, Tokens(None, V), {}, ())
    return model, Planted([int(j) for j in central], inside, outside, equal, [int(j) for j in easy])


def _float32(name: str, x: NDArray[np.float64]) -> Tensor:
    return Tensor(name, "F32", np.ascontiguousarray(x, dtype="<f4").view("<u4"))
