"""GLUE around the kernel: audit a saved certificate against a model's weights. No solver is imported.

The verdict is the kernel's; this file finds the weights, derives anew what stands in no tensor, and
lists as hypotheses what cannot be derived. Wrong here = a hypothesis passed over in silence.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from verify.errors import (
    ModelUnavailableError,
    RefutedError,
    UsageError,
    VerifyError,
    WrongFormatError,
)
from verify.files import is_claims_report, read_regular
from verify.kernel import Bundle, Certificate, Proved, prove, prove_bundle, read
from verify.kernel.bundle import readout_of
from verify.kernel.statement import decimal_text, require_same_readout, require_same_tensors
from verify.models.by_hand import described_by_hand
from verify.models.transformer_lens import require_pack

if TYPE_CHECKING:
    from pathlib import Path

    from verify.kernel import Readout, Statement
    from verify.kernel.proved_ledger import ProvedLedger
    from verify.models import Model, ReadoutOverrides
    from verify.scan.check import Tell
    from verify.scan.folder import LedgerFolder

# A folder of hostile files may name any number of models; no more than these are kept.
_MOST_MODELS = 4
_REPORT = (
    "this is a report that `verify claims` wrote, and no certificate: it proves nothing. The claims that it "
    "tells of, with their evidence, are checked by `verify claims FILE.toml... --audit`; where it lies in a "
    "folder of --out, the files are those in claims/ beside it"
)


@dataclass
class Audit:
    """The outcome for one file: accepted iff `proved` or `ledger` is there.

    hypotheses: what was not derived.
    model: the weights that it was compared with, None for a bundle alone; bundle: that bundle.
    claims_report: whether the file is a report of `verify claims` and no certificate, which is an error too.
    """

    path: str
    proved: Proved | None = None
    ledger: ProvedLedger | None = None
    model: Model | None = None
    bundle: Bundle | None = None
    claims_report: bool = False
    error: VerifyError | None = None
    hypotheses: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def readout(self) -> Readout | None:
        """What it was proved of, built anew from the rows of a bundle; None where it was not accepted."""
        if self.proved is None:
            return None
        if self.bundle is not None:
            return readout_of(self.bundle)
        return None if self.model is None else self.model.readout

    @property
    def accepted(self) -> bool:
        """Whether everything in the file, or the ledger, was proved."""
        return self.proved is not None or self.ledger is not None

    @property
    def outcome(self) -> str:
        """accepted, refuted, malformed or unavailable."""
        if self.accepted:
            return "accepted"
        names = {1: "refuted", 4: "malformed"}
        return names.get(self.exit_code, "unavailable")

    @property
    def exit_code(self) -> int:
        """0 when accepted, else the error's code."""
        return 0 if self.accepted else self.error.exit_code if self.error else 70


class Auditor:
    """Audits files; models are loaded once. `model`: a name or folder that overrides the statements'."""

    def __init__(self, model: str | None = None) -> None:
        self.model = model
        self._loaded: dict[str, Model | ModelUnavailableError] = {}

    def audit(self, path: Path) -> Audit:
        """Check one file, a certificate or a bundle. Declared errors are in the result; nothing else is
        caught.
        """
        try:
            data = read_regular(path)
        except VerifyError as error:
            return Audit(str(path), error=error)
        return self.audit_bytes(data, str(path))

    def audit_bytes(self, data: bytes, name: str) -> Audit:
        """As `audit`, of the bytes of a file that goes by `name`."""
        result = Audit(name, claims_report=is_claims_report(data))
        try:
            if result.claims_report:
                raise WrongFormatError(_REPORT)
            found = read(data)
            if isinstance(found, Certificate):
                result.model = self._model_for(found.statement, result)
                proved = prove(found, result.model.readout)
                derive_statement(found.statement, result.model, result)
            else:
                proved = prove_bundle(data)
                result.bundle = found
                if self.model is None:
                    assume_statement(found.certificate, result)
                else:
                    self._bind_bundle(found.certificate, result)
            result.proved = proved
        except VerifyError as error:
            result.error = error
        return result

    def _bind_bundle(self, certificate: Certificate, result: Audit) -> None:
        """With weights at hand a bundle's roots, and what stands in no tensor, are compared with theirs."""
        model = result.model = self._model_for(certificate.statement, result)
        require_same_tensors(certificate.statement, model.readout)
        require_same_readout(certificate.statement, model.readout)
        derive_statement(certificate.statement, model, result)

    def audit_ledger(
        self, folder: LedgerFolder, tell: Tell | None = None, device: str = "cpu", workers: int | None = None
    ) -> Audit:
        """Check every row of a ledger against the weights of its model. Errors as `audit`."""
        from verify.scan.check import check_ledger

        result = Audit(str(folder.path))
        try:
            model = result.model = self._model_for(folder.header().statement, result)
            result.ledger = check_ledger(folder, model, device, tell, workers)
            statement = result.ledger.header.statement
            derive_statement(replace(statement, text=model.tokens.text(0)), model, result)
        except VerifyError as error:
            result.ledger, result.error = None, error
        return result

    def ledger_model(self, folder: LedgerFolder) -> Model:
        """The model that a ledger names, or the one given instead."""
        return self._model_for(folder.header().statement, Audit(str(folder.path)))

    def _model_for(self, statement: Statement, result: Audit) -> Model:
        """The model at hand. A description by hand counts only where no configuration says what is right."""
        if self.model is None:
            require_pack(statement, None)
        name = self.model if self.model is not None else self._named(statement)
        found = self._loaded_once(name, name, None)
        by_hand = statement.epsilon_source.startswith("by hand") or (
            statement.norm == "none" and not statement.epsilon_source
        )
        whence = "as the maker of the pack described them"
        if by_hand and isinstance(found, ModelUnavailableError):
            whence = "taken from the certificate"
            found = self._loaded_once(f"{name}\n{hand_key(statement)}", name, overrides_of(statement))
        if isinstance(found, ModelUnavailableError):
            raise found
        if described_by_hand(found.readout):
            result.hypotheses.append(
                "the readout was described by hand: which tensors make the logits, the norm kind "
                f"({statement.norm}), epsilon ({decimal_text(statement.epsilon)}) and the gain offset "
                f"({statement.gain_offset}) are {whence}"
            )
        require_pack(statement, found.readout)
        return found

    def _loaded_once(
        self, key: str, name: str, overrides: ReadoutOverrides | None
    ) -> Model | ModelUnavailableError:
        if key not in self._loaded:
            if len(self._loaded) >= _MOST_MODELS:
                self._loaded.pop(next(iter(self._loaded)))
            self._loaded[key] = self._load(name, overrides)
        return self._loaded[key]

    def _named(self, statement: Statement) -> str:
        """The model by the name in the certificate: bundled or of a hub, never a path."""
        from verify.models.bundled import BUNDLED
        from verify.models.hub import split_hub_name

        name = statement.model
        if name not in BUNDLED and split_hub_name(name) is None:
            raise ModelUnavailableError(
                f"{name[:100]!a} is neither a bundled model nor a hub name; "
                "pass its folder or pack with --model"
            )
        return f"{name}@{statement.revision}" if statement.revision and "@" not in name else name

    def _load(self, name: str, overrides: ReadoutOverrides | None) -> Model | ModelUnavailableError:
        """The model, or why there is none: that is remembered too, and asked once."""
        from verify.models import load_model, load_named

        load = load_named if self.model is None else load_model
        try:
            # A certificate's name is not the reader's: no folder that goes by it is meant.
            return load(name, overrides=overrides)
        except (UsageError, ModelUnavailableError) as error:
            hint = "" if self.model is not None else "; if it is a folder, pass it with --model FOLDER"
            return ModelUnavailableError(f"{error}{hint}")


def overrides_of(s: Statement) -> ReadoutOverrides:
    """The readout that a statement describes, for a model that was described by hand."""
    from verify.models import ReadoutOverrides

    names = {role: t.name for role, t in s.tensors.items()}
    return ReadoutOverrides(
        unembedding=names["unembedding"],
        norm=s.norm,
        norm_gain=names.get("gain"),
        norm_shift=names.get("shift"),
        logit_bias=names.get("bias"),
        epsilon=None if s.norm == "none" else decimal_text(s.epsilon),
        gain_offset=s.gain_offset,
    )


def hand_key(s: Statement) -> str:
    """What distinguishes two hand-made descriptions of the same files."""
    return repr((sorted((r, t.name) for r, t in s.tensors.items()), s.norm, s.epsilon, s.gain_offset))


def derive_statement(statement: Statement, model: Model, result: Audit) -> None:
    """Derive token text and competitor rule anew; RefutedError where they contradict the statement.

    A statement without a text says nothing of it: it was made where no tokenizer was at hand, or the
    tokenizer has no such id.
    """
    tokens = model.tokens
    size = tokens.size
    if size is None:
        if statement.text is not None:
            result.hypotheses.append(f"the token's text, {statement.text!r}: no tokenizer file is at hand")
        if statement.competitor_rule == "tokenizer":
            result.hypotheses.append(f"the tokenizer's size, {statement.competitors}")
    else:
        found = tokens.text(statement.token)
        if statement.text is None:
            if found is not None:
                result.notes.append(
                    "the statement gives no text; the tokenizer at hand reads token "
                    f"{statement.token} as {found!r}"
                )
        elif found != statement.text:
            raise RefutedError(
                f"token {statement.token} is {found!r} in this tokenizer, not {statement.text!r} as stated"
            )
        if statement.competitor_rule == "tokenizer" and statement.competitors != min(
            size, model.readout.vocabulary
        ):
            raise RefutedError(f"the tokenizer has {size} ids, the statement says {statement.competitors}")
    for what, said, ours in (
        ("name", statement.model, model.name),
        ("revision", statement.revision, model.revision),
    ):
        if said != ours:
            result.hypotheses.append(
                f"the model's {what}, {said!r}: the weights at hand, which are the same, go by {ours!r}"
            )
    if statement.epsilon_source != model.readout.epsilon_source:
        result.notes.append(f"epsilon is said to come from {statement.epsilon_source!r}; its value agrees")
    result.notes.extend(model.readout.notes)
    for name, digest in statement.files.items():
        if name not in model.files:
            result.notes.append(f"{name!r}, which the statement names, is not at hand")
        elif model.files[name] != digest:
            result.notes.append(f"{name!r} is not the file the statement names; what was read from it agrees")


def assume_statement(certificate: Certificate, result: Audit) -> None:
    """All that a bundle's statement says beyond its rows is taken from the file: list it."""
    s = certificate.statement
    roots = ", ".join(f"{role} {t.merkle}" for role, t in s.tensors.items())
    name = f"{s.model}@{s.revision}" if s.revision else s.model
    result.hypotheses += [
        f"these Merkle roots, of tensors with the stated dtypes and shapes, are of {name!r}: {roots}",
        f"the norm kind ({s.norm}), epsilon ({decimal_text(s.epsilon)}), the gain offset ({s.gain_offset})",
    ]
    if s.text is not None:
        result.hypotheses.append(f"the token's text, {s.text!r}")
    if s.competitor_rule == "tokenizer":
        result.hypotheses.append(f"the tokenizer's size, {s.competitors}")
    result.notes.append(
        "a bundle: checked by the rows in it, which have these roots; the SHA-256 of whole tensors are not"
    )
