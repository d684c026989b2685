"""GLUE. Claims files: TOML bytes in, typed claims out, or a MalformedError that names file, claim and rule.

If this is wrong, a claim is read as saying something other than what a person reads in the file.
The format is docs/claims.md; verify/schemas/claims-1.schema.json is the same for editors.
"""

from __future__ import annotations

import datetime
import math
import re
import tomllib
from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Any

from verify.claims.claim import (
    ANSWERS,
    ANY_MODEL,
    EXPECTATIONS,
    FORMAT,
    HARD,
    METHODS,
    OWN_VECTOR,
    POSITIVE,
    SENSES,
    VERDICTS,
    VERSION,
    Claim,
    ClaimsFile,
    Method,
    Reported,
    Source,
    Universe,
)
from verify.errors import (
    DuplicateKeyError,
    FieldValueError,
    MalformedError,
    MissingKeyError,
    ModelUnavailableError,
    NotationError,
    OversizedError,
    UnknownKeyError,
    UsageError,
    WrongFormatError,
    WrongVersionError,
)
from verify.figures import approximate
from verify.files import read_regular
from verify.kernel.domain import DIRECTION, READOUT, parse_domain
from verify.kernel.statement import COMPETITOR_RULES

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_MAX_BYTES = 1 << 24
# No vocabulary has more rows.
_MOST_ROWS = 1 << 24
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ID_LINE = re.compile(rf"[ \t]*id[ \t]*=[ \t]*([\"'])({_ID.pattern})\1")
_DATE = re.compile(r"[0-9]{4}(-[0-9]{2}(-[0-9]{2})?)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{64}")
_MARGIN = re.compile(r"[0-9]{1,30}(\.[0-9]{1,30})?(e-?[0-9]{1,3})?")
_TEXT = "text in quotes"
# The types of TOML; true and false are no numbers. What is left are dates and times.
_KINDS = (
    (str, _TEXT),
    (bool, "true or false"),
    ((int, float), "a number"),
    (list, "a list"),
    (dict, "a table"),
)
_DEFAULTS = ("model", "revision", "fingerprint", "domain", "competitors", "universe", "evidence", "expect")
# What binds a claim to the weights of one model.
_OF_WEIGHTS = ("revision", "fingerprint", "competitors")
_OWN = ("id", "token", "tokens", "text", "verdict", "sense", "count", "method", "reported", "note")


def read_claims(path: Path) -> ClaimsFile:
    """The claims in a file. Raises a MalformedError naming the file, ModelUnavailableError if unreadable."""
    try:
        data = read_regular(path)
    except ModelUnavailableError as error:
        raise ModelUnavailableError(
            f"{path}: {error}; give the path of a claims file, as docs/claims.md describes it"
        ) from None
    except MalformedError as error:
        raise type(error)(f"{path}: {error}") from None
    try:
        return from_bytes(data, path)
    except MalformedError as error:
        raise type(error)(f"{path}: {error}") from None


def from_bytes(data: bytes, path: Path) -> ClaimsFile:
    """The claims in the bytes of a file that lies at `path`. Raises a MalformedError, and nothing else."""
    if len(data) > _MAX_BYTES:
        raise OversizedError(f"over the limit of {_MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8")
        if text.startswith("\ufeff"):
            raise NotationError("it begins with a byte order mark, which TOML has not: save it without one")
        root = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise NotationError(f"not TOML: {error}") from None
    except ValueError:
        raise NotationError("not TOML that is read here: an integer has thousands of digits") from None
    if root.get("format") != FORMAT:
        raise WrongFormatError(_head(root, "format", f'"{FORMAT}"', _TEXT))
    if type(root.get("version")) is not int or root["version"] != VERSION:
        raise WrongVersionError(_head(root, "version", str(VERSION), "a number"))
    _keys(root, "the file", ("format", "version", "source", "universe", "claim"), ("defaults",))
    source = _source(root["source"])
    universes = {name: _universe(name, value) for name, value in _table(root["universe"], "universe").items()}
    defaults = _table(root.get("defaults", {}), "defaults")
    _keys(defaults, "defaults", (), _DEFAULTS)
    if not isinstance(root["claim"], list) or not root["claim"]:
        raise FieldValueError("claim: there are none; write them as [[claim]]")
    claims: dict[str, Claim] = {}
    lines = _lines(text)
    for number, value in enumerate(root["claim"], 1):
        table = _table(value, f"claim number {number}")
        name = ascii(table["id"][:100]) if isinstance(table.get("id"), str) else f"number {number}"
        try:
            claim = _claim(_with_defaults(table, defaults), universes, lines)
        except MalformedError as error:
            raise type(error)(f"claim {name}: {error}") from None
        if claim.id in claims:
            raise DuplicateKeyError(f"claim {name}: another claim has this id")
        claims[claim.id] = claim
    _require_covered(universes, claims.values())
    return ClaimsFile(path, source, universes, tuple(claims.values()), _header(text))


def _source(value: object) -> Source:
    f = _table(value, "source")
    _keys(f, "source", ("title", "author", "date", "address"))
    texts = {name: _text(f[name], f"source: {name}") for name in f}
    date = texts["date"]
    try:
        datetime.date.fromisoformat(date + "0001-01-01"[len(date) :])
    except ValueError:
        real = False
    else:
        real = _DATE.fullmatch(date) is not None
    if not real:
        raise NotationError('source: date is not "YYYY", "YYYY-MM" or "YYYY-MM-DD"')
    return Source(**texts)


def _universe(name: str, value: object) -> Universe:
    what = f"universe {name[:60]!a}"
    if not _ID.fullmatch(name):
        raise NotationError(f"{what}: a name is of letters, digits, dots, dashes and underscores")
    f = _table(value, what)
    _keys(f, what, ("what",), ("size", "tokens", "rows"))
    words = _text(f["what"], what)
    if ("rows" in f) == ("tokens" in f):
        raise MissingKeyError(f'{what}: give either its tokens, or rows = "all" or "every"')
    rows = _one_of(f.get("rows", ""), ("", "all", "every"), f"{what}: rows")
    if rows == "every":
        if "size" in f:
            raise UnknownKeyError(f"{what}: every token of every model has no size")
        return Universe(name, words, 0, (), rows)
    if "size" not in f:
        raise MissingKeyError(f"{what}: its size is missing; count it, so that no token drops out unseen")
    size = _count(f["size"], f"{what}: size")
    if size == 0:
        raise FieldValueError(f"{what}: it is empty")
    if rows == "all":
        return Universe(name, words, size, (), rows)
    tokens = _tokens(f["tokens"], what)
    if len(tokens) != size:
        raise FieldValueError(f"{what}: {len(tokens)} tokens are listed, its size is said to be {size}")
    return Universe(name, words, size, tokens)


def _with_defaults(table: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The fields of a claim. A claim about every model has none that is about weights, inherited or not."""
    f = {**defaults, **table}
    if f.get("model") == ANY_MODEL:
        for name in _OF_WEIGHTS:
            if name in table:
                raise FieldValueError(
                    f'{name} is about the weights of one model, and model = "any" about none'
                )
            f.pop(name, None)
    return f


def _claim(f: dict[str, Any], universes: dict[str, Universe], lines: dict[str, int]) -> Claim:
    _keys(f, "its table", ("id", "model", "domain", "universe"), (*_DEFAULTS, *_OWN))
    universe = universes.get(_text(f["universe"], "universe"))
    if universe is None:
        raise FieldValueError(f"universe {f['universe'][:60]!a} is not described in this file")
    if ("verdict" in f) == ("method" in f):
        raise MissingKeyError("give what is asserted: either a verdict or a method")
    try:
        domain = parse_domain(_text(f["domain"], "domain"))
    except UsageError as error:
        raise FieldValueError(str(error)) from None
    tokens = _members(f, universe)
    name = _match(f["id"], _ID, "id", "letters, digits, dots, dashes and underscores")
    method = _method(f["method"]) if "method" in f else None
    replayed = method is not None and method.is_float
    claim = Claim(
        id=name,
        model=_printable(f["model"], "model"),
        revision=_match(f["revision"], _COMMIT, "revision", "the 40 digits of a commit hash")
        if "revision" in f
        else None,
        fingerprint=_match(f["fingerprint"], _HASH, "fingerprint", "64 hexadecimal digits")
        if "fingerprint" in f
        else None,
        domain=domain,
        competitors=_one_of(f.get("competitors", "all"), COMPETITOR_RULES, "competitors"),
        universe=universe,
        tokens=tokens,
        text=_string(f["text"], "text") if "text" in f else None,
        verdict=_one_of(f["verdict"], VERDICTS, "verdict") if "verdict" in f else None,
        sense=_one_of(f["sense"], SENSES, "sense") if "sense" in f else None,
        count=_count(f["count"], "count") if "count" in f else None,
        method=method,
        reported=_reported(f["reported"]) if "reported" in f else None,
        evidence=_evidence(f.get("evidence", [])),
        expect=_one_of(f.get("expect", ANSWERS[0]), ANSWERS, "expect, of an answer in floats,")
        if replayed
        else _one_of(f.get("expect", EXPECTATIONS[0]), EXPECTATIONS, "expect"),
        note=_text(f["note"], "note") if "note" in f else "",
        line=lines.get(name, 1),
    )
    _require_sense(claim)
    return claim


def _members(f: dict[str, Any], universe: Universe) -> tuple[int, ...] | None:
    """The tokens of a claim, inside its universe; None for all of it."""
    if ("token" in f) == ("tokens" in f):
        raise MissingKeyError('give either token, or tokens: a list, or "all" for the whole universe')
    if f.get("tokens") == "all":
        return None
    tokens = _tokens([f["token"]] if "token" in f else f["tokens"], "tokens")
    if universe.rows == "every":
        raise FieldValueError('a claim about every token of every model has tokens = "all"')
    for token in tokens:
        if token not in universe:
            raise FieldValueError(f"token {token} is not in its universe {universe.name!r}")
    return tokens


def _method(value: object) -> Method:
    f = _table(value, "method")
    _keys(f, "method", ("name",), ("arithmetic", "margin", "says", "argmax"))
    name = _one_of(f["name"], METHODS, "method: name")
    if name == OWN_VECTOR:
        _keys(f, "method own-vector", ("name", "argmax"))
        return Method(name, argmax=_count(f["argmax"], "method: argmax"))
    _keys(f, "method post-lp", ("name", "arithmetic", "margin", "says"), ("argmax",))
    arithmetic = _one_of(f["arithmetic"], ("exact", "float"), "method: arithmetic")
    if "argmax" in f and (arithmetic == "exact" or f["says"] != "feasible"):
        raise FieldValueError(
            "method: only a solver that found the program feasible has a direction, and an argmax"
        )
    margin = _text(f["margin"], "method: margin")
    if margin != POSITIVE or arithmetic == "float":
        _require_margin(margin)
    if arithmetic == "float" and not 0 < approximate(Fraction(margin)) < math.inf:
        raise FieldValueError(
            f"method: margin {margin} is none that a solver can be given: as a float it is 0 or infinite"
        )
    return Method(
        name,
        arithmetic,
        margin,
        _one_of(f["says"], ("feasible", "infeasible"), "method: says"),
        _count(f["argmax"], "method: argmax") if "argmax" in f else None,
    )


def _reported(value: object) -> Reported:
    f = _table(value, "reported")
    _keys(f, "reported", ("method", "argmax"), ("margin",))
    margin = _text(f["margin"], "reported: margin") if "margin" in f else None
    if margin is not None:
        _require_margin(margin)
    return Reported(_text(f["method"], "reported: method"), _count(f["argmax"], "reported: argmax"), margin)


def _require_margin(text: str) -> None:
    if not _MARGIN.fullmatch(text) or Fraction(text) <= 0:
        raise NotationError(f'margin {text[:40]!a} is not a positive decimal in a string, such as "1.01e-7"')


def _evidence(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise FieldValueError(f"evidence: give a list of paths, not {_kind(value)}")
    paths = tuple(_text(x, "evidence") for x in value)
    if len(set(paths)) != len(paths):
        raise DuplicateKeyError("evidence names a path twice")
    for path in paths:
        if path.startswith(("/", "~")) or "\\" in path or "\0" in path:
            raise FieldValueError(f"evidence {path[:80]!a}: give a path relative to the claims file")
    return paths


def _require_sense(c: Claim) -> None:
    """Raise FieldValueError where parts of a claim do not go together."""
    if (c.verdict == HARD) != (c.sense is not None):
        raise FieldValueError('"hard to speak" needs sense = "post" or "model", and no other verdict has one')
    where = (
        DIRECTION if c.sense == "post" or c.method is not None else READOUT if c.sense == "model" else None
    )
    if where is not None and c.domain != where:
        raise FieldValueError(f"what is asserted is about the domain {where.name}, not {c.domain.name}")
    if c.count is not None and (c.verdict is None or c.tokens is not None):
        raise FieldValueError('a count is of one verdict over the whole universe: tokens = "all"')
    if c.count is not None and c.count > c.universe.size:
        raise FieldValueError(f"a count of {c.count} in a universe of {c.universe.size}")
    for_all = c.method is not None and c.method.margin is not None and not c.method.is_float
    if len({for_all, c.model == ANY_MODEL, c.universe.rows == "every"}) > 1:
        raise FieldValueError(
            'post-lp in exact arithmetic, model = "any" and a universe of rows = "every" go together: '
            "its proof is about every token of every model, and looks at no weights"
        )
    single = c.tokens is not None and len(c.tokens) == 1
    if c.method is not None and c.method.is_float and not single:
        raise FieldValueError("a solver is asked about one token: post-lp in floats takes a single one")
    if c.evidence and ((c.method is not None and not for_all) or c.sense == "model"):
        raise FieldValueError(
            "it takes no evidence, which could not settle it: the question is answered anew each time "
            "(evidence = [] leaves that of [defaults] out)"
        )
    if c.text is not None and not single:
        raise FieldValueError("a text belongs to a single token")
    if c.method is not None and c.method.argmax is not None and not single:
        raise FieldValueError("an argmax belongs to a single token")
    if c.reported is not None:
        if not single or c.verdict not in ("speakable", "unspeakable"):
            raise FieldValueError(
                "reported belongs to the verdict, speakable or unspeakable, of a single token"
            )
        if (c.reported.argmax == c.members[0]) != (c.verdict == "speakable"):
            raise FieldValueError(
                f"the argmax reported, {c.reported.argmax}, is not what {c.verdict} means of this token"
            )


def _require_covered(universes: dict[str, Universe], claims: Collection[Claim]) -> None:
    """Raise unless every universe is used, and every table of claims on single tokens names all of one."""
    named: dict[tuple[object, ...], set[int]] = {}
    for c in claims:
        if c.tokens is not None:
            key = (c.universe.name, c.model, c.revision, c.domain, c.competitors, *c.form)
            if not named.setdefault(key, set()).isdisjoint(c.tokens):
                raise DuplicateKeyError(
                    f"claim {c.id!a}: another claim asserts the same of a token of its own"
                )
            named[key].update(c.tokens)
    for (name, model, _, domain, *_), tokens in named.items():
        universe = universes[str(name)]
        lost = universe.size - len(tokens)
        if lost:
            some = islice((t for t in universe.members if t not in tokens), 8)
            raise MissingKeyError(
                f"universe {name!r}: {lost} of its {universe.size} tokens are in no claim of this kind "
                f"about {model}, {getattr(domain, 'name', domain)}: {', '.join(map(str, some))}; add claims "
                "about them, or give the tokens that are meant a universe of their own"
            )
    unused = set(universes) - {c.universe.name for c in claims}
    if unused:
        raise FieldValueError(f"universe {min(unused)!r}: no claim is about it")


def _lines(text: str) -> dict[str, int]:
    """The line of each id, as it is usually written: after a line [[claim]]."""
    found: dict[str, int] = {}
    inside = False
    for number, line in enumerate(text.split("\n"), 1):
        match = _ID_LINE.match(line)
        if match is not None and inside:
            found.setdefault(match[2], number)
            inside = False
        inside = inside or line.strip() == "[[claim]]"
    return found


def _header(text: str) -> str:
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line)
    return "\n".join(lines)


def _head(root: dict[str, Any], name: str, wanted: str, kind: str) -> str:
    """Why the file's format or version is not the one that is read here."""
    if name not in root:
        return f"{name} is missing: write {name} = {wanted}"
    if _kind(root[name]) != kind:
        return f"{name}: give {kind}, not {_kind(root[name])}: {name} = {wanted}"
    found = root[name]
    shown = ascii(found[:100]) if isinstance(found, str) else found if -(10**9) < found < 10**9 else "huge"
    return f"{name} is {shown}, this program reads {name} = {wanted}"


def _kind(value: object) -> str:
    """What a value of a file is, in the words of a person who writes one."""
    return next((words for kind, words in _KINDS if isinstance(value, kind)), "a date or time")


def _table(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FieldValueError(f"{what}: give a table, not {_kind(value)}")
    return value


def _keys(f: dict[str, Any], what: str, needed: tuple[str, ...], allowed: tuple[str, ...] = ()) -> None:
    unknown = sorted(set(f) - set(needed) - set(allowed))
    if unknown:
        known = ", ".join(sorted({*needed, *allowed}))
        raise UnknownKeyError(f"{what}: unknown field {unknown[0][:60]!a}; known are {known}")
    missing = [name for name in needed if name not in f]
    if missing:
        raise MissingKeyError(f"{what}: {missing[0]} is missing")


def _string(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise FieldValueError(f"{what}: give {_TEXT}, not {_kind(value)}")
    return value


def _text(value: object, what: str) -> str:
    if not _string(value, what):
        raise FieldValueError(f"{what} is empty")
    return str(value)


def _printable(value: object, what: str) -> str:
    text = _text(value, what)
    if not text.isprintable():
        raise FieldValueError(f"{what} {text[:100]!a} has characters that cannot be printed")
    return text


def _one_of(value: object, allowed: tuple[str, ...], what: str) -> str:
    text = _string(value, what)
    if text not in allowed:
        raise FieldValueError(f"{what} is {text[:100]!a}: use {', '.join(x for x in allowed if x)}")
    return text


def _match(value: object, pattern: re.Pattern[str], what: str, words: str) -> str:
    text = _string(value, what)
    if not pattern.fullmatch(text):
        raise NotationError(f"{what} is not of {words}")
    return text


def _count(value: object, what: str) -> int:
    if not isinstance(value, (int, float)):
        raise FieldValueError(f"{what}: give a number, not {_kind(value)}")
    if type(value) is not int or not 0 <= value <= _MOST_ROWS:
        raise FieldValueError(f"{what} is not a natural number of at most {_MOST_ROWS}")
    return value


def _tokens(value: object, what: str) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise FieldValueError(f"{what}: give the tokens as a list of ids, not {_kind(value)}")
    if not value:
        raise FieldValueError(f"{what}: it is empty")
    tokens = tuple(_count(x, f"{what}: a token") for x in value)
    seen: set[int] = set()
    for token in tokens:
        if token in seen:
            raise DuplicateKeyError(f"{what}: token {token} stands there twice")
        seen.add(token)
    return tokens
