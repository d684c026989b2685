"""GLUE. Scans of whole vocabularies: workers settle tokens, a ledger keeps the answers. No mathematics.

Every row is checked by the kernel; wrong here costs time or an UNDECIDED, never a verdict. An audit imports
folder.py, check.py and product.py alone, a scan the rest.
"""
