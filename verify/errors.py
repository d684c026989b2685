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


class NotAtHandError(ModelUnavailableError):
    """Nothing is known to be wrong with the model: it, or a part of it, is not here and could not be had."""


class OutputError(VerifyError):
    """A file could not be written: no such folder, no permission, disk full."""

    exit_code = EXIT_UNAVAILABLE


class MalformedError(VerifyError):
    """A certificate breaks a rule of its format. Base of one error a rule; `rule` is its name in the
    documents, in `--json` and in the standalone auditor.
    """

    exit_code = EXIT_MALFORMED
    rule = "malformed"


class OversizedError(MalformedError):
    """A limit of the format is exceeded: bytes, items, digits, or containers."""

    rule = "oversized"


class NotJsonError(MalformedError):
    """The bytes are not ASCII, not JSON, or nested too deeply."""

    rule = "not-json"


class TrailingBytesError(MalformedError):
    """Something follows the JSON value, other than the one line feed."""

    rule = "trailing-bytes"


class DuplicateKeyError(MalformedError):
    """An object has the same key twice."""

    rule = "duplicate-key"


class NotFiniteError(MalformedError):
    """NaN or an infinity where a number is expected."""

    rule = "not-finite"


class FloatNumberError(MalformedError):
    """A number with a fraction or an exponent."""

    rule = "float"


class WrongFormatError(MalformedError):
    """The file is of another format."""

    rule = "wrong-format"


class WrongVersionError(MalformedError):
    """The file is of another version of the format."""

    rule = "wrong-version"


class MissingKeyError(MalformedError):
    """An object lacks a key."""

    rule = "missing-key"


class UnknownKeyError(MalformedError):
    """An object has a key that the format does not list for it."""

    rule = "unknown-key"


class NotationError(MalformedError):
    """A number, list or hash is not spelled in its one canonical way."""

    rule = "notation"


class FieldValueError(MalformedError):
    """A value of the wrong JSON type, or one that its field does not allow."""

    rule = "value"


class NotCanonicalError(MalformedError):
    """Right in every part, and yet a writer would have produced other bytes."""

    rule = "not-canonical"


class RefutedError(VerifyError):
    """A well-formed certificate does not prove what it says about these weights."""

    exit_code = EXIT_REFUTED
