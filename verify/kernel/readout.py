"""TRUSTED. The readout that a statement is about: tensors, norm, epsilon, and nothing else.

Wrong tensors here make a true claim about the wrong thing; wrong arithmetic is not possible here,
because there is none.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from fractions import Fraction

from verify.errors import ModelUnavailableError
from verify.kernel.tensor import Tensor

NORMS = ("layernorm", "rmsnorm", "none")
ROLES = ("unembedding", "gain", "shift", "bias")


@dataclass(frozen=True, eq=False)
class Readout:
    """`logit_j = w_j . (gain * N(r) + shift) + bias_j` for a residual-stream vector r of length d.

    unembedding: (V, d). gain, shift: (d,) or absent (gain 1, shift 0). bias: (V,) or absent.
    gain_offset: added to every stored gain (Gemma stores gain - 1); no effect without one.
    epsilon: exact; `epsilon_source` says where it was read. Absent when norm is "none".
    notes: what a reader must know (for example that the norm is fed a restricted set).
    """

    norm: str
    unembedding: Tensor
    gain: Tensor | None = None
    shift: Tensor | None = None
    bias: Tensor | None = None
    gain_offset: int = 0
    epsilon: Fraction = Fraction(0)
    epsilon_source: str = ""
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ModelUnavailableError(f"norm kind {self.norm!r} is not one of {', '.join(NORMS)}")
        if len(self.unembedding.shape) != 2 or min(self.unembedding.shape) < 1:
            raise ModelUnavailableError(
                f"unembedding {self.unembedding.name!r} has shape {list(self.unembedding.shape)}; "
                "a matrix with one row a token is needed"
            )
        for role, length in (("gain", self.d), ("shift", self.d), ("bias", self.vocabulary)):
            tensor = getattr(self, role)
            if tensor is not None and tensor.shape != (length,):
                raise ModelUnavailableError(
                    f"{role} {tensor.name!r} has shape {list(tensor.shape)}, expected [{length}]"
                )
        if self.norm == "layernorm" and self.d < 2:
            raise ModelUnavailableError("LayerNorm of one coordinate is always zero")
        if self.epsilon < 0 or self.gain_offset not in (0, 1):
            raise ModelUnavailableError("epsilon must not be negative; gain_offset must be 0 or 1")

    @property
    def d(self) -> int:
        """Width of the unembedding."""
        return self.unembedding.shape[1]

    @property
    def vocabulary(self) -> int:
        """Number of rows V of the unembedding, padded rows included."""
        return self.unembedding.shape[0]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Role -> tensor, in the order unembedding, gain, shift, bias; absent ones left out."""
        pairs = ((role, getattr(self, role)) for role in ROLES)
        return {role: tensor for role, tensor in pairs if tensor is not None}

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the roles and hashes of the tensors: "the hash of the model's tensors"."""
        text = "\n".join(f"{role} {t.dtype} {list(t.shape)} {t.sha256}" for role, t in self.tensors.items())
        return hashlib.sha256(text.encode()).hexdigest()
