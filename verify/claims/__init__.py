"""GLUE. Published claims as data: files read, evidence found, outcomes told. No mathematics of its own.

Every verdict behind an outcome is the kernel's. Wrong here = a claim is reported wrongly.
"""

from verify.claims.claim import Claim, ClaimsFile, Method, Reported, Source, Universe
from verify.claims.file import read_claims
from verify.claims.judge import Judge, Result, exit_code

__all__ = [
    "Claim",
    "ClaimsFile",
    "Judge",
    "Method",
    "Reported",
    "Result",
    "Source",
    "Universe",
    "exit_code",
    "read_claims",
]
