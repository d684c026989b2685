"""The errors that leave `verify`, one family, each with the exit code of the command line.

Nothing here decides anything; a wrong exit code misleads a script, never a proof.
"""

from __future__ import annotations

EXIT_DECIDED = 0
EXIT_REFUTED = 1
EXIT_USAGE = 2
EXIT_UNDECIDED = 3
EXIT_MALFORMED = 4
EXIT_UNAVAILABLE = 5
EXIT_INTERNAL = 70


class VerifyError(Exception):
    """Base of every declared error. `exit_code` is what the command line ends with."""

    exit_code = EXIT_INTERNAL


class UsageError(VerifyError):
    """The request itself makes no sense: unknown token, bad domain, unwritable folder."""

    exit_code = EXIT_USAGE


class ModelUnavailableError(VerifyError):
    """The model or a resource it needs is missing, truncated, or not understood."""

    exit_code = EXIT_UNAVAILABLE


class OutputError(VerifyError):
    """A file could not be written: no such folder, no permission, disk full."""

    exit_code = EXIT_UNAVAILABLE


class MalformedError(VerifyError):
    """A certificate (or weight file given to an auditor) breaks a rule of its format."""

    exit_code = EXIT_MALFORMED


class RefutedError(VerifyError):
    """A well-formed certificate does not prove what it says about these weights."""

    exit_code = EXIT_REFUTED
