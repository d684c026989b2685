"""A strict reader and checker of VIPR 1.0 files of infeasible linear programs, in plain fractions.

Written from "MILP certificate file format version 1.0", cert_spec_v1_0.md of
https://github.com/scipopt/vipr, not from the exporter. It shares no line with `verify`. Where that text
and its checker, viprchk, leave a choice this takes the narrower: ASCII, a space after `%`, no second name or
index, integers and fractions without decimals, no reason but `lin`, an index of -1 after it, and a derived
constraint equal to its combination (in the specification an absurdity may stand for any other constraint).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

import flint

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")
_VALUE = re.compile(r"(-?[0-9]+)(?:/([1-9][0-9]*))?")
# Multiples of s(C) in a suitable linear combination.
_SIGN = {"G": 1, "E": 0, "L": -1}
_SENSE = {1: "G", 0: "E", -1: "L"}


class ViprError(Exception):
    """Not a VIPR 1.0 file that shows a linear program to be infeasible."""


def _require(holds: object, message: str) -> None:
    if not holds:
        raise ViprError(message)


@dataclass(frozen=True)
class Constraint:
    """sum of coefficients[i] * x_i, in the sense G (>=), L (<=) or E (=), `bound`. Zeros are left out."""

    name: str
    sense: str
    bound: Fraction
    coefficients: dict[int, Fraction]

    @property
    def absurd(self) -> bool:
        """0 >= a positive number, 0 <= a negative one, or 0 = another than 0."""
        b = self.bound
        return not self.coefficients and {"G": b > 0, "L": b < 0, "E": b != 0}[self.sense]


@dataclass(frozen=True)
class Infeasible:
    """A file that was checked. bounds: the first so many constraints are bounds on one variable.

    multipliers: of the last derivation, by constraint index.
    """

    comments: list[str]
    variables: list[str]
    bounds: int
    constraints: list[Constraint]
    derived: list[Constraint]
    multipliers: dict[int, Fraction]


class _Words:
    """The words of a file after its comments, one after the other."""

    def __init__(self, text: str) -> None:
        self.words = text.split()
        self.next = 0

    def word(self) -> str:
        _require(self.next < len(self.words), "the file ends too early")
        self.next += 1
        return self.words[self.next - 1]

    def expect(self, *words: str) -> None:
        for word in words:
            found = self.word()
            _require(found == word, f"{found[:40]!r} where {word!r} is expected")

    def index(self, below: int) -> int:
        word = self.word()
        _require(_INDEX.fullmatch(word), f"{word[:40]!r} is no index")
        _require(int(word) < below, f"the index {word} is out of range")
        return int(word)

    def value(self) -> Fraction:
        found = _VALUE.fullmatch(self.word())
        if found is None:
            raise ViprError("not an integer or a fraction of integers")
        # Python's int() refuses more than 4,300 digits; flint's reader does not.
        return Fraction(int(flint.fmpz(found[1])), int(flint.fmpz(found[2] or "1")))

    def sparse(self, below: int) -> dict[int, Fraction]:
        found: dict[int, Fraction] = {}
        for _ in range(self.index(below + 1)):
            i = self.index(below)
            _require(i not in found, f"the index {i} stands twice")
            found[i] = self.value()
        return {i: x for i, x in found.items() if x}

    def constraint(self, variables: int, names: set[str]) -> Constraint:
        name, sense = self.word(), self.word()
        _require(name not in names, f"two constraints are called {name[:40]!r}")
        names.add(name)
        _require(sense in _SIGN, f"{sense[:40]!r} is no sense")
        return Constraint(name, sense, self.value(), self.sparse(variables))


def check(data: bytes) -> Infeasible:
    """The program in a file that shows it to be infeasible. Raises ViprError on anything else."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        raise ViprError("not ASCII") from None
    _require(all(c == "\n" or " " <= c <= "~" for c in text), "a control character")
    _require(text.endswith("\n"), "the last line does not end")
    lines = text.split("\n")
    comments = []
    while lines[0].startswith("%"):
        line = lines.pop(0)
        _require(line == "%" or line.startswith("% "), "a comment without a space after %")
        comments.append(line[2:])
    _require(lines[0] == "VER 1.0", "VER 1.0 must follow the comments")
    words = _Words("\n".join(lines[1:]))

    words.expect("VAR")
    variables = [words.word() for _ in range(words.index(10**9))]
    _require(len(set(variables)) == len(variables), "two variables have one name")
    n = len(variables)
    words.expect("INT", "0", "OBJ", "min")
    words.sparse(n)
    words.expect("CON")
    m = words.index(10**9)
    bounds = words.index(m + 1)
    names: set[str] = set()
    constraints = [words.constraint(n, names) for _ in range(m)]
    _require(all(len(c.coefficients) == 1 for c in constraints[:bounds]), "a bound is on one variable")
    words.expect("RTP", "infeas", "SOL", "0", "DER")
    derivations = words.index(10**9)
    _require(derivations, "nothing is derived")
    known, multipliers = list(constraints), {}
    for _ in range(derivations):
        claimed = words.constraint(n, names)
        words.expect("{", "lin")
        multipliers = words.sparse(len(known))
        words.expect("}", "-1")
        _require(claimed == _combined(claimed.name, known, multipliers), "the sum is not what is claimed")
        known.append(claimed)
    _require(words.next == len(words.words), "something follows the last derivation")
    _require(known[-1].absurd, "the last derived constraint is not absurd")
    return Infeasible(comments, variables, bounds, constraints, known[m:], multipliers)


def _combined(name: str, known: list[Constraint], multipliers: dict[int, Fraction]) -> Constraint:
    """The suitable linear combination, with its sense."""
    signs = {(1 if x > 0 else -1) * _SIGN[known[i].sense] for i, x in multipliers.items()} - {0}
    _require(len(signs) <= 1, "a multiplier has the wrong sign for the sense of its constraint")
    bound, total = Fraction(0), dict[int, Fraction]()
    for i, x in multipliers.items():
        bound += x * known[i].bound
        for k, a in known[i].coefficients.items():
            total[k] = total.get(k, Fraction(0)) + x * a
    sense = _SENSE[signs.pop() if signs else 0]
    return Constraint(name, sense, bound, {k: a for k, a in total.items() if a})
