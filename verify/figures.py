"""GLUE. What people and scripts are told about a decision. Numbers marked approx are floats for reading.

Exact numbers come from the proved certificate; a wrong figure here misinforms, but proves nothing.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from verify.kernel import Speakable, System, Unspeakable
from verify.kernel.check import REALISTIC_VARIANCE, realism_share, residual_margin

if TYPE_CHECKING:
    from verify.decide import Decision
    from verify.kernel import Residual, State, Statement


def realism(system: System, state: State) -> dict[str, Any]:
    """|z|^2 / d and the residual variance epsilon |z|^2 / (d - |z|^2) that such a z needs; exact inside."""
    share = realism_share(system, state)
    in_epsilon = share / (1 - share)
    return {
        "norm_squared_over_d": float(share),
        "residual_variance": float(in_epsilon * system.readout.epsilon),
        "near_constant_residuals": in_epsilon < REALISTIC_VARIANCE,
    }


def residual_variance(system: System, residual: Residual) -> Fraction:
    """var(r) after a LayerNorm, mean(r^2) after an RMSNorm, of a stored residual vector; exact."""
    y = system.project(list(residual.p))
    scale = system.readout.d if system.projects else 1
    return Fraction(sum(x * x for x in y), system.readout.d * (scale * scale << (2 * residual.k)))


def scaled_margin(system: System, state: State, margin: Fraction) -> dict[str, float] | None:
    """On a cone: the margin of the same direction at |state| = sqrt(d), and |state| itself.

    None where a bias acts, which does not scale with the state.
    """
    if system.readout.bias is not None and system.biased:
        return None
    if system.readout.shift is not None and system.biased and system.folds:
        return None
    z = system.project(list(state.p))
    length = math.sqrt(float(Fraction(sum(x * x for x in z), 1 << (2 * state.k))))
    return {"state_norm": length, "margin_at_sqrt_d": float(margin) * math.sqrt(system.readout.d) / length}


def fraction_json(x: Fraction) -> dict[str, Any]:
    """An exact fraction for scripts: hexadecimal numerator/denominator, and a float to read."""
    return {"exact": f"{x.numerator:x}/{x.denominator:x}", "approx": approximate(x)}


def approximate(x: Fraction) -> float:
    """The nearest float; infinity beyond the largest."""
    try:
        return float(x)
    except OverflowError:
        return math.inf if x > 0 else -math.inf


def decision_json(decision: Decision) -> dict[str, Any]:
    """One object for `--json`: every field is present in every verdict, null where it does not apply."""
    model, claim = decision.model, decision.claim
    system = System(model.readout, decision.domain, decision.token, decision.competitors)
    out: dict[str, Any] = {
        "token": decision.token,
        "text": model.tokens.text(decision.token),
        "model": model.name,
        "revision": model.revision,
        "fingerprint": model.readout.fingerprint,
        "domain": decision.domain.name,
        "competitors": decision.competitors,
        "verdict": decision.verdict,
        "kind": None,
        "margin": None,
        "margin_at_most": None,
        "maximised": None,
        "gap": None,
        "realism": None,
        "residual_dtype": None,
        "residual_margin": None,
        "residual_variance": None,
        "near_constant_residuals_only": None,
        "scaled_margin": None,
        "angle": decision.angle,
        "rivals": [],
        "support": [],
        "equal_rows": list(decision.equal_rows),
        "derived_from": decision.derived_from or None,
        "certificate": str(decision.path) if decision.path else None,
        "seconds": round(decision.seconds, 3),
        "attempts": [vars(a) for a in decision.attempts],
        "notes": [*model.readout.notes, *decision.notes],
        "reason": decision.reason or None,
        "checkpoint": _beside(decision),
    }
    if isinstance(claim, Speakable):
        out["margin"] = fraction_json(claim.margin)
        out["rivals"] = _rows(decision, list(decision.rivals))
        if claim.at_most is not None:
            out["margin_at_most"] = fraction_json(claim.at_most)
        if system.region in ("ball", "box"):
            out["maximised"] = decision.maximised
        if claim.state is not None and system.region == "ball":
            out["realism"] = realism(system, claim.state)
        if claim.state is not None and system.region in ("cone", "space"):
            out["scaled_margin"] = scaled_margin(system, claim.state, claim.margin)
        if claim.residual is not None:
            out["residual_dtype"] = claim.residual.dtype
            variance = residual_variance(system, claim.residual)
            out["residual_variance"] = approximate(variance)
            # "Only" is not proved: it says that neither vector found leaves the neighbourhood of zero.
            only = out["realism"] is not None and out["realism"]["near_constant_residuals"]
            realistic = variance >= REALISTIC_VARIANCE * system.readout.epsilon
            out["near_constant_residuals_only"] = only and not realistic
            out["residual_margin"] = fraction_json(residual_margin(system, claim.residual))
    elif isinstance(claim, Unspeakable):
        out["kind"] = claim.kind
        out["gap"] = fraction_json(claim.gap)
        out["support"] = support(decision)
    return out


def _beside(decision: Decision) -> dict[str, Any] | None:
    """What was decided about the checkpoint's own matrices, beside processed ones; null without any."""
    other = decision.checkpoint
    if other is None:
        return None
    claim = other.claim
    return {
        "fingerprint": other.model.readout.fingerprint,
        "verdict": other.verdict,
        "differs": decision.differs,
        "note": decision.not_compared or None,
        "kind": claim.kind if isinstance(claim, Unspeakable) else None,
        "margin": fraction_json(claim.margin) if isinstance(claim, Speakable) else None,
        "gap": fraction_json(claim.gap) if isinstance(claim, Unspeakable) else None,
    }


def support(decision: Decision, most: int = 5) -> list[dict[str, Any]]:
    """The rows with the largest multipliers, whose hull holds the token: id, text, share of the sum.

    Of a support stored alone, its first rows, share null.
    """
    claim = decision.claim
    if not isinstance(claim, Unspeakable):
        return []
    if claim.multipliers.values is None:
        return [{**row, "share": None} for row in _rows(decision, list(claim.multipliers.rows[:most]))]
    pairs = sorted(zip(claim.multipliers.values, claim.multipliers.rows, strict=True), reverse=True)
    total = sum(claim.multipliers.values)
    rows = _rows(decision, [j for _, j in pairs[:most]])
    for row, (value, _) in zip(rows, pairs, strict=False):
        row["share"] = float(Fraction(value, total))
    return rows


def _rows(decision: Decision, ids: list[int]) -> list[dict[str, Any]]:
    return [{"token": j, "text": decision.model.tokens.text(j)} for j in ids]


def plain(text: str) -> str:
    """A string from a file, fit for one line of a terminal: control characters escaped."""
    return text if text.isprintable() else ascii(text)


def escape(text: str) -> str:
    """Text of a file, fit for a cell of a Markdown table."""
    safe = text if text.isprintable() else ascii(text)
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#&~" else c for c in safe)


def statement_text(s: Statement) -> str:
    """One sentence that says what a certificate is about."""
    others = "every other row" if s.competitor_rule == "all" else "every other id of the tokenizer"
    revision = f"@{plain(s.revision)}" if s.revision else ""
    text = f" {s.text!r}" if s.text is not None else ""
    return (
        f"{plain(s.model)}{revision}, token {s.token}{text}, domain {s.domain.name}, "
        f"against {others} (ids 0..{s.competitors - 1})"
    )
