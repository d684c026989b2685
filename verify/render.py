"""GLUE. Text for people. Decides nothing; a wrong word here misinforms."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

from verify.errors import MalformedError
from verify.figures import approximate, decision_json, plain, statement_text
from verify.kernel import Speakable
from verify.kernel.ledger import CLASSES
from verify.kernel.statement import decimal_text

if TYPE_CHECKING:
    from verify.decide import Decision
    from verify.kernel import Certificate
    from verify.kernel.proved_ledger import ProvedLedger
    from verify.models import Model
    from verify.recheck import Audit

KIND_TEXT = {
    "never": "never: at every state but zero some competitor is above it",
    "tie-only": "tie-only: it can share the maximum, never hold it alone",
    "unsettled": "whether it can tie for the maximum is not settled",
}


def decision_lines(decision: Decision) -> list[tuple[str, str]]:
    """(label, text) pairs of one decision, in the order a reader wants them."""
    data = decision_json(decision)
    tokens = decision.model.tokens
    lines = [
        ("token", f"{decision.token} {tokens.display(decision.token)}"),
        ("model", f"{model_text(decision.model)}"),
        ("domain", f"{decision.domain.name}, against {_competitors(decision)}"),
        ("verdict", decision.verdict + (f" ({KIND_TEXT[data['kind']]})" if data["kind"] else "")),
    ]
    if decision.reason:
        lines.append(("reason", decision.reason))
    if data["checkpoint"]:
        lines.append(("checkpoint's own", _checkpoint_text(data["checkpoint"])))
    if data["margin"]:
        lines.extend(_margin_lines(decision, data))
    if data["gap"]:
        gap = data["gap"]["approx"]
        words = f"at least {gap:.6g} logits below the top everywhere" if gap > 0 else "0 (a tie is the limit)"
        lines.append(("gap", words))
        named = [
            f"{r['token']} {tokens.display(r['token'])}" + (f" ({r['share']:.1%})" if r["share"] else "")
            for r in data["support"]
        ]
        lines.append(("held by rows", ", ".join(named) + _more(decision, len(named))))
    if decision.equal_rows:
        named = [f"{j} {tokens.display(j)}" for j in decision.equal_rows[:6]]
        more = len(decision.equal_rows) - len(named)
        lines.append(("equal rows", ", ".join(named) + (f" and {more} more" if more > 0 else "")))
    lines.extend(("float against exact", attempt_text(a)) for a in data["attempts"])
    if decision.derived_from:
        lines.append(("derived from", f"the evidence in domain {decision.derived_from} (checked anew here)"))
    lines.extend(("note", plain(note)) for note in data["notes"])
    if data["certificate"]:
        lines.append(("certificate", data["certificate"]))
    lines.append(("seconds", f"{decision.seconds:.2f}"))
    return lines


def _checkpoint_text(data: dict[str, Any]) -> str:
    """The verdict on the checkpoint's own matrices, and whether it is another one."""
    words: str = data["verdict"] + (f" ({data['kind']})" if data["kind"] else "")
    if data["margin"]:
        words += f", margin {data['margin']['approx']:.6g} logits"
    if data["note"]:
        return f"{words}; {data['note']}"
    return words + ("; THE VERDICTS DIFFER" if data["differs"] else "; the same verdict")


def _margin_lines(decision: Decision, data: dict[str, Any]) -> list[tuple[str, str]]:
    tokens = decision.model.tokens
    words = f"{data['margin']['approx']:.6g} logits, exactly {short_exact(data['margin']['exact'])}"
    if data["maximised"] is not None:
        if data["margin_at_most"] is not None:
            words += f"; no state has more than {data['margin_at_most']['approx']:.6g}"
        words += "" if data["maximised"] else " (not maximised)"
    lines = [("margin", words)]
    if data["scaled_margin"]:
        s = data["scaled_margin"]
        words = f"margins scale with the state; |state| = {s['state_norm']:.4g}"
        words += f", at sqrt(d) about {s['margin_at_sqrt_d']:.4g}"
        if data["angle"] is not None:
            words += f"; about {data['angle']:.3g} rad from the nearest rival's face"
        lines.append(("scale", words))
    if data["realism"]:
        r = data["realism"]
        words = f"|z|^2/d = {r['norm_squared_over_d']:.6f}, residual variance {r['residual_variance']:.3g}"
        if data["near_constant_residuals_only"]:
            words += " - ONLY AT NEAR-CONSTANT RESIDUALS as far as found (variance under 100 epsilon)"
        elif r["near_constant_residuals"]:
            words += " - this witness needs near-constant residuals (variance under 100 epsilon)"
        lines.append(("realism", words))
    if data["residual_dtype"]:
        words = f"stored, exact in {data['residual_dtype']}, variance {data['residual_variance']:.3g}"
        words += f", margin there at least {data['residual_margin']['approx']:.6g}"
        lines.append(("residual vector", words))
    rivals = ", ".join(f"{r['token']} {tokens.display(r['token'])}" for r in data["rivals"])
    if rivals:
        lines.append(("nearest rivals", rivals))
    return lines


def model_text(model: Model) -> str:
    """Name, revision and the hash of the tensors."""
    revision = f"@{plain(model.revision)}" if model.revision else ""
    return f"{plain(model.name)}{revision} (tensors sha256 {model.readout.fingerprint[:16]}...)"


def short_exact(text: str) -> str:
    """A hexadecimal fraction, called so, and shortened when long."""
    if len(text) <= 50:
        return f"{text} (hexadecimal)"
    return f"{text[:20]}...{text[-12:]} (hexadecimal, {len(text) - 1} digits)"


def attempt_text(a: dict[str, Any]) -> str:
    """What a float proposal claimed against what the exact check found."""
    fake = f" [{a['fake']}]" if a["fake"] else ""
    return f"{a['proposer']} ({a['effort']}) claimed {a['claimed']}; exact: {a['found']}{fake}"


def _competitors(decision: Decision) -> str:
    if decision.rule == "all":
        return f"all {decision.competitors} rows"
    return f"the tokenizer's ids 0..{decision.competitors - 1}"


def _more(decision: Decision, shown: int) -> str:
    claim = decision.claim
    rows = len(claim.multipliers.rows) if claim is not None and not isinstance(claim, Speakable) else 0
    return f" and {rows - shown} more" if rows > shown else ""


def audit_line(result: Audit) -> str:
    """One line a file."""
    if result.ledger is not None:
        return f"ACCEPTED {plain(result.path)}: {ledger_text(result.ledger)}"
    if result.proved is None:
        rule = f"[{result.error.rule}] " if isinstance(result.error, MalformedError) else ""
        return f"{result.outcome.upper()} {plain(result.path)}: {rule}{result.error}"
    c = result.proved.certificate
    return f"ACCEPTED {plain(result.path)}: {claim_text(c)} - {statement_text(c.statement)}"


def ledger_text(ledger: ProvedLedger) -> str:
    """What a proved ledger says, in one line."""
    h = ledger.header
    counts = ", ".join(f"{n} {name}" for name in CLASSES if (n := ledger.counts.get(name, 0)))
    return (
        f"{counts} - {plain(h.statement.model)}, tokens {h.first} to {h.last}, "
        f"domain {h.statement.domain.name}, against ids 0..{h.statement.competitors - 1}; hard to speak: "
        f"{ledger.hard_post} in the post's sense, {ledger.hard_model} as the model sees it"
    )


def claim_text(certificate: Certificate) -> str:
    """The claim in a few words."""
    claim = certificate.claim
    if isinstance(claim, Speakable):
        return f"SPEAKABLE, margin at least {approximate(claim.margin):.6g}"
    return f"UNSPEAKABLE ({claim.kind}), gap at least {approximate(claim.gap):.6g}"


def certificate_text(certificate: Certificate) -> str:
    """A whole certificate for a person: what it says, of what, and by which evidence. Not a check."""
    s, claim = certificate.statement, certificate.claim
    lines = [
        f"Claim      {claim_text(certificate)}",
        f"About      {statement_text(s)}",
        f"Norm       {s.norm}, epsilon {decimal_text(s.epsilon)} ({plain(s.epsilon_source)}), "
        f"gain offset {s.gain_offset}",
    ]
    lines.extend(
        f"Tensor     {role}: {plain(t.name)} {t.dtype} {list(t.shape)} sha256 {t.sha256}"
        for role, t in s.tensors.items()
    )
    lines.extend(f"File       {plain(name)} sha256 {digest}" for name, digest in s.files.items())
    if isinstance(claim, Speakable):
        lines.extend(_speakable_text(claim))
    else:
        m = claim.multipliers
        bits = max((x.bit_length() for x in m.values), default=0) if m.values else 0
        words = (
            f"{len(m.rows)} rows, integers of up to {bits} bits"
            if m.values
            else f"support of {len(m.rows)} rows"
        )
        lines.append(f"Evidence   Farkas multipliers: {words}")
        if m.values:
            total = sum(m.values)
            top = sorted(zip(m.values, m.rows, strict=True), reverse=True)[:8]
            lines.extend(f"           row {j}: {float(Fraction(v, total)):.2%}" for v, j in top)
        if claim.tie is not None:
            lines.append("           and a state at which the token shares the maximum")
    lines.extend(
        f"Made by    {plain(name)}: {plain(text)} (not believed)"
        for name, text in certificate.provenance.items()
    )
    lines.append("This only renders the file. To check it: verify audit FILE")
    return "\n".join(lines)


def _speakable_text(claim: Speakable) -> list[str]:
    lines = []
    if claim.state is not None:
        lines.append(f"Evidence   a state (z-form): {len(claim.state.p)} integers over 2^{claim.state.k}")
    if claim.residual is not None:
        r = claim.residual
        lines.append(f"           a residual-stream vector in {r.dtype}: {len(r.p)} integers over 2^{r.k}")
    if claim.ceiling is not None and claim.at_most is not None:
        rows, most = len(claim.ceiling.rows), approximate(claim.at_most)
        lines.append(f"           a ceiling by {rows} multipliers: no state has a margin over {most:.6g}")
    return lines
