"""GLUE around a matrix product on another device. Theorem 15 asks of it what it asks of numpy's.

A sum of products in some order, at the full precision of float32 or float64: reduced precision
(TF32, bfloat16 splitting) is switched off, and refused where it cannot be.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from verify.errors import ModelUnavailableError, UsageError
from verify.extras import install

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from verify.kernel.filter import Multiply

_DEVICE = re.compile(r"torch|cuda(:[0-9]+)?")
_EMULATION = (
    "CUBLAS_EMULATE_SINGLE_PRECISION",
    "CUBLAS_EMULATE_DOUBLE_PRECISION",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
)


def multiplier(device: str) -> Multiply | None:
    """The product of a device, None for numpy's own. Raises ModelUnavailableError if there is none."""
    if device == "cpu":
        return None
    if not _DEVICE.fullmatch(device):
        raise UsageError(f"unknown device {device!r}: use cpu, cuda or cuda:N")
    try:
        import torch
    except ImportError:
        raise ModelUnavailableError(f"--device {device} needs torch: {install('torch')}") from None
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ModelUnavailableError(f"--device {device}: torch sees no GPU here; leave the option out")
    reduced = [name for name in _EMULATION if os.environ.get(name, "0").upper() not in ("0", "STRICT")]
    if reduced:
        raise ModelUnavailableError(f"unset {' and '.join(reduced)}: emulated products have other errors")
    return TorchProduct(torch, device)


class TorchProduct:
    """Products by torch on one device; each matrix is sent there once."""

    def __init__(self, torch: Any, device: str) -> None:
        self.torch, self.device = torch, "cpu" if device == "torch" else device
        # By identity, beside the array itself, so that the identity stays taken.
        self._there: dict[int, tuple[Any, Any]] = {}

    def __call__(self, a: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
        """(n, m) times the transpose of (V, m), as a numpy array (n, V)."""
        torch = self.torch
        torch.set_float32_matmul_precision("highest")
        torch.backends.cuda.matmul.allow_tf32 = False
        if id(rows) not in self._there:
            self._there[id(rows)] = (rows, torch.from_numpy(rows).to(self.device))
        _, there = self._there[id(rows)]
        product: NDArray[Any] = (torch.from_numpy(a).to(self.device) @ there.T).cpu().numpy()
        return product
