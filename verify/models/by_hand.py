"""STATEMENT. A readout described by hand, for architectures this package does not know.

Wrong here = a true claim about other tensors than the reader named.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verify.errors import ModelUnavailableError, UsageError
from verify.kernel.readout import NORMS, Readout
from verify.models.config import EPSILON_RANGE, Decimal, exact_decimal, in_epsilon_range, read_bytes
from verify.models.transformer_lens import PREFIX

if TYPE_CHECKING:
    from verify.kernel.tensor import Tensor
    from verify.models.checkpoints import Checkpoint
    from verify.models.config import Config

FLAGS = (
    "--unembedding NAME --norm layernorm|rmsnorm|none --norm-gain NAME --norm-shift NAME "
    "--logit-bias NAME --gain-offset 0|1 --epsilon 1e-5"
)
# Whatever command it is that stopped here, one of these helps.
_HINT = (
    f"Describe the readout by hand in `verify token`, `verify scan` or `verify pack`, in flags or in a file: "
    f"{FLAGS}, or --readout-file FILE.toml (docs/models.md).\n"
    "For other commands: `verify pack MODEL --unembedding NAME ... -o FILE.safetensors` makes a pack of it "
    "that they take."
)
# The note that a description leaves on the readout, also in packs.
_DESCRIBED = "the readout was described by hand; nothing checks it against the model's own code"
_SOURCE = "by hand"
_MATRICES, _VECTORS = 12, 16
_TOML_LIMIT = 1 << 16


@dataclass(frozen=True)
class ReadoutOverrides:
    """The readout in the reader's own words; once anything is set, the architecture table is not consulted.

    unembedding, norm_gain, norm_shift, logit_bias: tensor names; None means the readout has no such part.
    norm: layernorm, rmsnorm or none. epsilon: decimal string, read exactly.
    gain_offset: 1 where the checkpoint stores gain - 1.
    """

    unembedding: str | None = None
    norm: str | None = None
    norm_gain: str | None = None
    norm_shift: str | None = None
    logit_bias: str | None = None
    epsilon: str | None = None
    gain_offset: int = 0

    @classmethod
    def from_toml(cls, path: str | Path) -> ReadoutOverrides:
        """The description in a TOML file: the fields of this class as keys, epsilon a number or a string.

        Raises UsageError if the file cannot be read, is not TOML, has an unknown key or a value of another
        type, or describes nothing.
        """
        name = Path(path).name
        table = _read_toml(Path(path))
        known = {field.name: field.default for field in fields(cls)}
        for key, value in table.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise UsageError(f"{name}: unknown key {key!a}{hint}; known are {', '.join(known)}")
            kinds = {"gain_offset": (int,), "epsilon": (int, str, Decimal)}.get(key, (str,))
            if type(value) not in kinds or value == "":
                wanted = {"gain_offset": "0 or 1", "epsilon": "a number"}.get(key, "a name in quotes")
                raise UsageError(f"{name}: {key} must be {wanted}")
        if "epsilon" in table:
            table["epsilon"] = getattr(table["epsilon"], "text", str(table["epsilon"]))
        overrides = cls(**table)
        if overrides.empty:
            raise UsageError(f"{name} describes nothing; known keys are {', '.join(known)}")
        return overrides

    @property
    def empty(self) -> bool:
        """Whether nothing is set."""
        return all(getattr(self, field.name) == field.default for field in fields(self))

    def exact_epsilon(self) -> Fraction:
        """Epsilon as it is read; 0 where there is none. UsageError if it is no epsilon of a certificate."""
        if self.epsilon is None:
            return Fraction(0)
        try:
            value = exact_decimal(self.epsilon)
        except ValueError as error:
            raise UsageError(f"--epsilon: {error}; write it as 1e-5 or 0.00001") from error
        if value < 0:
            raise UsageError(f"--epsilon {self.epsilon[:40]} is negative")
        if not in_epsilon_range(value):
            raise UsageError(f"--epsilon {self.epsilon[:40]} is out of range: it is {EPSILON_RANGE}")
        return value


def _read_toml(path: Path) -> dict[str, Any]:
    """A small TOML file; its decimals keep their text."""
    try:
        data = read_bytes(path, _TOML_LIMIT)
    except ModelUnavailableError as error:
        raise UsageError(str(error)) from error
    try:
        return tomllib.loads(data.decode("utf-8"), parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path.name} is not valid TOML: {str(error)[:200]}") from error


def readout_by_hand(checkpoint: Checkpoint, overrides: ReadoutOverrides) -> Readout:
    """The readout that `overrides` describes.

    Raises UsageError if the description is incomplete or names a tensor that is not there,
    ModelUnavailableError if shapes or dtypes do not fit.
    """
    if overrides.unembedding is None or overrides.norm is None:
        raise UsageError(f"a readout described by hand needs at least --unembedding and --norm: {FLAGS}")
    if overrides.norm not in NORMS:
        raise UsageError(f"--norm {overrides.norm!a} is not one of {', '.join(NORMS)}")
    if (overrides.epsilon is None) != (overrides.norm == "none"):
        raise UsageError(
            "--epsilon goes with --norm layernorm or rmsnorm, and is needed there (for example 1e-5)"
        )
    if overrides.gain_offset not in (0, 1) or (overrides.gain_offset and overrides.norm_gain is None):
        raise UsageError("the gain offset is 0 or 1, and 1 needs --norm-gain")
    return Readout(
        norm=overrides.norm,
        unembedding=_named(checkpoint, overrides.unembedding, "--unembedding"),
        gain=_optional(checkpoint, overrides.norm_gain, "--norm-gain"),
        shift=_optional(checkpoint, overrides.norm_shift, "--norm-shift"),
        bias=_optional(checkpoint, overrides.logit_bias, "--logit-bias"),
        gain_offset=overrides.gain_offset,
        epsilon=overrides.exact_epsilon(),
        epsilon_source=f"{_SOURCE}: {overrides.epsilon}" if overrides.epsilon is not None else "",
        notes=(_DESCRIBED,),
    )


def described_by_hand(readout: Readout) -> bool:
    """Whether a person said which tensors, norm and epsilon these are; of a pack, as it says itself."""
    return _DESCRIBED in readout.notes or readout.epsilon_source.startswith(_SOURCE)


def candidates(checkpoint: Checkpoint, config: Config | None) -> str:
    """Tensors a readout may consist of, with shapes, and how to name them: several lines, for an error."""
    rows = config.get("vocab_size") if config is not None else None
    matrices = [name for name, (_, shape) in checkpoint.listing.items() if len(shape) == 2]
    matrices.sort(key=lambda name: (checkpoint.listing[name][1][0] != rows, -checkpoint.listing[name][1][0]))
    matrices = matrices[:_MATRICES]
    widths = {checkpoint.listing[name][1][1] for name in matrices[:3]} | {
        checkpoint.listing[name][1][0] for name in matrices[:1]
    }
    vectors = [
        name
        for name, (_, shape) in checkpoint.listing.items()
        if len(shape) == 1 and shape[0] in widths and not any(part.isdigit() for part in name.split("."))
    ]
    lines = ["matrices (the unembedding has one row a token):"]
    lines += [f"  {checkpoint.describe(name)}" for name in matrices] or ["  none"]
    lines += ["vectors outside the layers (gain, shift, logit bias):"]
    lines += [f"  {checkpoint.describe(name)}" for name in vectors[:_VECTORS]] or ["  none"]
    return "\n".join([*lines, _HINT])


def _named(checkpoint: Checkpoint, name: str, flag: str) -> Tensor:
    if name.startswith(PREFIX):
        raise UsageError(
            f"{flag}: names that start with {PREFIX} mean matrices that --readout transformer-lens made, so "
            f"{name!a} cannot be named by hand; pass the pack of those as --model, or rename the tensor"
        )
    if name not in checkpoint:
        near = difflib.get_close_matches(name, checkpoint.listing, n=3, cutoff=0.5)
        hint = f"; near it: {', '.join(map(ascii, near))}" if near else ""
        raise UsageError(f"{flag}: the checkpoint holds no tensor named {name!a}{hint}")
    return checkpoint.tensor(name)


def _optional(checkpoint: Checkpoint, name: str | None, flag: str) -> Tensor | None:
    return None if name is None else _named(checkpoint, name, flag)
