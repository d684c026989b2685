"""GLUE. What the field's float methods would have said of many tokens, each answer beside the exact verdict.

Wrong here = a method is misjudged; no verdict depends on it. A run asks one program through one solver
over a grid of tokens, tolerances and margins, and keeps every answer in a table with the solver's own x;
a check makes everything in such a table again that needs no solver.
"""

from verify.replay.check import check
from verify.replay.grid import decided_claims, question_for, rule_of, run, stored_claims
from verify.replay.summary import Counts, markdown, summarise
from verify.replay.table import Question, Row, Table, find_tables

__all__ = [
    "Counts",
    "Question",
    "Row",
    "Table",
    "check",
    "decided_claims",
    "find_tables",
    "markdown",
    "question_for",
    "rule_of",
    "run",
    "stored_claims",
    "summarise",
]
