"""GLUE. The command line: one module a command. No mathematics.

Exit codes: decided or accepted 0, refuted 1, usage 2, undecided 3, malformed 4, model or resource
unavailable 5, internal error 70, interrupted 130, the reader of a pipe went away 141.
"""

from __future__ import annotations

import sys
from importlib import import_module
from io import TextIOWrapper

import click

from verify import __version__
from verify.errors import EXIT_INTERNAL, EXIT_UNAVAILABLE, VerifyError
from verify.terminal import colour

EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
_SAVED = "what is finished is saved, nothing is half-written"
_GOES_ON = "what was found is kept: the same command goes on from there"
_COMMANDS = (
    "token",
    "scan",
    "audit",
    "say",
    "claims",
    "replay",
    "summary",
    "extract",
    "show",
    "convert",
    "bundle",
    "export",
    "index",
    "pack",
    "models",
)


class _Lazy(click.Group):
    """Commands are imported when they are run, so that --help is instant."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"verify.cli.{cmd_name}").command
        return command


@click.command(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 decided or accepted, 1 refuted, 2 usage, 3 undecided, 4 malformed, "
    "5 model or resource unavailable, 70 internal error, 130 interrupted, 141 a pipe was closed.",
)
@click.version_option(__version__, package_name="unspeakable", prog_name="verify")
def command() -> None:
    """Rigorous answers about which tokens a language model can and cannot say.

    \b
    verify token 30208 --model whisper-tiny.en      decide one token, save a certificate
    verify token " externalTo" --domain all         the same token by its text, in every domain
    verify scan --model whisper-tiny.en             decide every token, keep a ledger
    verify summary verify-ledgers/                  counts, the unspeakable, the thinnest
    verify extract DIR/readout.ledger 14531         rows of a ledger as certificates
    verify audit verify-certificates/               re-check saved certificates, without a solver
    verify say CERT.json                            put its witness into the real model: what does it say?
    verify claims CLAIMS.toml                       published claims: confirmed, refuted, undecided, unchecked
    verify show CERT.json                           read one
    verify convert CERT.json --multipliers support -o SMALL.json
                                                    store the multipliers in full, or the support alone
    verify bundle CERT.json -o BUNDLE.json          a file that is checked without the weights
    verify export CERT.json -o CERT.vipr            for a foreign checker of exact linear programs
    verify index DIR                                write an index page and SHA256SUMS
    verify pack MODEL -o FILE.safetensors           the readout alone, in one file
    verify models                                   what is bundled, cached and packed
    verify replay post --tokens 30208               the field's float programs beside the exact verdicts
    """


def main() -> None:
    """Entry point: declared errors become one line on stderr and their exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A token's text may be one that the terminal's encoding has not.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = command.main(standalone_mode=False, color=colour())
    except (click.exceptions.Abort, KeyboardInterrupt):
        resumes = sys.argv[1:2] in (["scan"], ["replay"])
        _fail(f"interrupted; {_GOES_ON if resumes else _SAVED}", EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except VerifyError as error:
        _fail(str(error), error.exit_code)
    except SystemExit as error:
        # click ends with 1 when the reader of a pipe goes away, but 1 means refuted here.
        sys.exit(EXIT_BROKEN_PIPE if error.code == 1 else error.code)
    except MemoryError:
        _fail("out of memory", EXIT_UNAVAILABLE)
    except OSError as error:
        sys.stdout = sys.stderr  # or Python would try at exit to write the rest
        # A failed write to a stream names no file.
        what = "write" if error.filename is None else f"read or write {error.filename!a}"
        _fail(f"cannot {what}: {error.strerror or error}", EXIT_UNAVAILABLE)
    except BaseException as error:  # noqa: BLE001 - the last line of defence: an internal error is no verdict
        _fail(f"internal error, please report: {type(error).__name__}: {error}", EXIT_INTERNAL)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> None:
    # Names from files and command lines must not move the cursor, or begin a line of their own.
    lines = (line if line.isprintable() else ascii(line)[1:-1] for line in message.split("\n"))
    click.echo("verify: " + "\n".join(lines), err=True)
    sys.exit(code)
