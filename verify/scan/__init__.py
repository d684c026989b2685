"""GLUE. Scans of whole vocabularies: workers settle tokens, a ledger keeps the answers. No mathematics.

Every row is checked by the kernel; wrong here costs time or an UNDECIDED, never a verdict.
"""

from verify.scan.folder import LedgerFolder, find_ledgers
from verify.scan.run import Scan, scan

__all__ = ["LedgerFolder", "Scan", "find_ledgers", "scan"]
