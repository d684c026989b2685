"""TRUSTED. The sets of states a verdict is about. If this is wrong, verdicts name the wrong domain.

docs/soundness.md, "Domains". A verdict without a named domain means nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from verify.errors import UsageError

_BOX = re.compile(r"box:(0|[1-9][0-9]{0,17})(\.[0-9]{0,17}[1-9])?")


@dataclass(frozen=True)
class Domain:
    """A named set of states: `readout`, `free`, `direction`, or `box:B` with B an exact decimal."""

    name: str
    bound: Fraction = Fraction(0)

    @property
    def kind(self) -> str:
        """The name without its parameter."""
        return self.name.partition(":")[0]


READOUT, FREE, DIRECTION = Domain("readout"), Domain("free"), Domain("direction")


def parse_domain(text: str) -> Domain:
    """The domain written as `text`. Raises UsageError on anything but the canonical spelling."""
    for domain in (READOUT, FREE, DIRECTION):
        if text == domain.name:
            return domain
    if len(text) <= 40 and _BOX.fullmatch(text):
        bound = Fraction(text[4:])
        if bound > 0:
            return Domain(text, bound)
    raise UsageError(
        f"unknown domain {text[:60]!r}: use readout, free, direction, or box:B with B a positive "
        "decimal written without trailing zeros, such as box:1 or box:0.5"
    )
