"""TRUSTED. Weights' bytes to integers, statements, evidence, and the checks. No floats but in filter.py.

`prove` is the only maker of verdicts; everything it rests on is in this folder.
"""

from verify.kernel.bundle import Bundle, read
from verify.kernel.certificate import from_bytes, to_bytes
from verify.kernel.domain import DIRECTION, FREE, READOUT, Domain, parse_domain
from verify.kernel.evidence import Claim, Multipliers, Residual, Speakable, State, Unspeakable
from verify.kernel.proved import Proved, prove, prove_bundle
from verify.kernel.readout import Readout
from verify.kernel.statement import Certificate, Statement, TensorId, tensor_ids
from verify.kernel.system import System
from verify.kernel.tensor import Tensor

__all__ = [
    "DIRECTION",
    "FREE",
    "READOUT",
    "Bundle",
    "Certificate",
    "Claim",
    "Domain",
    "Multipliers",
    "Proved",
    "Readout",
    "Residual",
    "Speakable",
    "State",
    "Statement",
    "System",
    "Tensor",
    "TensorId",
    "Unspeakable",
    "from_bytes",
    "parse_domain",
    "prove",
    "prove_bundle",
    "read",
    "tensor_ids",
    "to_bytes",
]
