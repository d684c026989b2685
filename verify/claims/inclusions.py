"""GLUE. What evidence in one domain says about another: the inclusions of Theorem 10, and nothing else.

If this is wrong, a claim is confirmed by evidence for another question. The kernel uses none of it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verify.kernel.domain import DIRECTION, FREE, READOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verify.kernel import Domain, Statement


@dataclass(frozen=True)
class Shape:
    """What the inclusions depend on: the width d, the norm, whether epsilon > 0, whether there are biases."""

    d: int
    norm: str
    smooth: bool
    biased: bool


def shape_of(statement: Statement) -> Shape:
    """The shape that a (proved) statement gives its readout."""
    tensors = statement.tensors
    return Shape(
        tensors["unembedding"].shape[1],
        statement.norm,
        statement.epsilon > 0 or statement.norm == "none",
        "shift" in tensors or "bias" in tensors,
    )


def speakable_passes(source: Domain, target: Domain, shape: Shape) -> tuple[str, ...] | None:
    """The inclusions by which SPEAKABLE in `source` implies it in `target`; () for the same; None: none."""
    nodes = {source, target, READOUT, FREE, DIRECTION}
    ways: dict[Domain, tuple[str, ...]] = {source: ()}
    queue = deque([source])
    while queue:
        here = queue.popleft()
        for there in sorted(nodes - set(ways), key=lambda x: x.name):
            why = _arrow(here, there, shape)
            if why is not None:
                ways[there] = (*ways[here], why)
                queue.append(there)
    return ways.get(target)


def passes(
    verdict: str, source: tuple[Domain, int], target: tuple[Domain, int], shape: Shape
) -> tuple[str, ...] | None:
    """The inclusions by which a verdict in `source` (domain, competitors) holds in `target`; None: none.

    SPEAKABLE passes to larger domains and fewer competitors, UNSPEAKABLE to smaller domains and more.
    """
    (there, many), (here, few) = (source, target) if verdict == "speakable" else (target, source)
    if many < few:
        return None
    way = speakable_passes(there, here, shape)
    if way is None or many == few:
        return way
    others = "to fewer competitors" if verdict == "speakable" else "to more competitors"
    return (*way, f"{verdict} passes {others} (Theorem 10.1)")


def related(a: Domain, b: Domain, shape: Shape) -> bool:
    """Whether evidence of any verdict could pass from `a` to `b`."""
    return speakable_passes(a, b, shape) is not None or speakable_passes(b, a, shape) is not None


def _arrow(a: Domain, b: Domain, shape: Shape) -> str | None:
    """One step of Theorem 10: SPEAKABLE in a implies SPEAKABLE in b."""
    return next(_arrows(a, b, shape), None)


def _arrows(a: Domain, b: Domain, shape: Shape) -> Iterator[str]:
    if (a, b) == (READOUT, FREE):
        yield "readout lies in free (Theorem 10.2)"
    if (a, b) == (DIRECTION, FREE):
        yield "speakable in direction implies speakable in free (Theorem 10.3)"
    if a.kind == b.kind == "box" and a.bound <= b.bound:
        yield f"{a.name} lies in {b.name} (Theorem 10.4)"
    if a.kind == "box" and a.bound <= 1 and b == READOUT and shape.smooth:
        yield f"speakable in {a.name} implies speakable in readout, as B <= 1 (Theorem 10.5)"
    if a == READOUT and b.kind == "box" and b.bound**2 >= shape.d and shape.norm != "none":
        yield f"readout lies in {b.name}, as B^2 >= d (Theorem 10.6)"
    if not shape.biased and FREE not in (a, b):
        yield f"without biases {a.name} and {b.name} agree (Theorem 10.7)"
