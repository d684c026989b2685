"""GLUE. `verify token`: decide one token and save the certificates."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from verify.cli.options import (
    TokensCommand,
    by_hand,
    by_hand_options,
    competitors_option,
    decided_model_option,
    domain_option,
    readout_option,
    time_limit_option,
)
from verify.errors import EXIT_DECIDED, EXIT_UNDECIDED
from verify.propose import NAMES
from verify.terminal import console, spinner, table

if TYPE_CHECKING:
    from verify.decide import Decision
    from verify.models import Model

# Of tables, where nobody looks at a terminal.
_WIDTH = 200


@click.command(
    "token",
    cls=TokensCommand,
    epilog="\b\nExamples:\n"
    "  verify token 30208\n"
    '  verify token " externalTo" --model whisper-tiny.en --domain all\n'
    "  verify token 173 177 30208 --out certificates\n"
    "  verify token 0 --model ./my-checkpoint --domain box:0.5 --json\n"
    "  verify token 30208 --compare        also runs the field's float programs (minutes)",
)
@click.argument("tokens", nargs=-1, required=True, metavar="TOKEN...")
@decided_model_option
@domain_option
@competitors_option
@readout_option
@click.option(
    "--out",
    default="verify-certificates",
    show_default=True,
    help="Folder for the certificates.",
    metavar="DIR",
)
@click.option(
    "--proposer",
    type=click.Choice(["default", *NAMES]),
    default="default",
    show_default=True,
    help="Use this float method alone.",
)
@click.option(
    "--multipliers",
    type=click.Choice(["full", "support"]),
    default="full",
    show_default=True,
    help="Store them in full, or the support alone where it determines them: small, but slower to audit.",
)
@click.option("--solver", default=None, help="PuLP solver for the pulp proposer and --compare. [HiGHS]")
@click.option("--compare", is_flag=True, help="Also run the field's float programs as posed, over all rows.")
@time_limit_option("Of the solver on each program of --compare.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line and domain.")
@by_hand_options
def command(
    tokens: tuple[str, ...], model: str, out: str, as_json: bool, compare: bool, **options: Any
) -> int:
    """Decide whether TOKEN (an id, or its text) can be the unique argmax of the logits.

    A float method proposes; exact arithmetic decides. The evidence is saved as a certificate that
    `verify audit` re-checks. SPEAKABLE comes with a witness, UNSPEAKABLE with Farkas multipliers;
    anything else is UNDECIDED (exit code 3).
    """
    from verify.api import ALL_DOMAINS, decide_all, load_model
    from verify.errors import UsageError

    if compare and len(tokens) > 1:
        raise UsageError("--compare runs for minutes a token: give it one token")
    if options["time_limit"] is not None and not compare:
        raise UsageError("--time-limit goes with --compare: the exact search has none")
    loaded = load_model(model, overrides=by_hand(options), readout=options["readout"])
    chosen = {k: options[k] for k in ("domain", "competitors", "proposer", "solver", "multipliers")}
    domains = len(ALL_DOMAINS) if options["domain"] == "all" else 1
    made = decide_all(tokens, loaded, out=out, **chosen)
    decided, saved = True, False
    for number, token in enumerate(tokens, 1):
        decisions: list[Decision] = []
        for place in range(1, domains + 1):
            what = f"token {token}, {number} of {len(tokens)}"
            what += f", domain {place} of {domains}" if domains > 1 else ""
            with spinner(what, "proposing and checking", as_json):
                decisions.append(next(made))
            _print(decisions[-1], as_json)
        decided = decided and all(d.proved for d in decisions)
        if domains > 1 and not as_json:
            _print_summary(decisions)
        saved = saved or any(d.path for d in decisions)
    if saved and not as_json:
        _tell_how_to_audit(loaded, model, out)
    if compare:
        _compare(loaded, decisions, options, as_json)
    return EXIT_DECIDED if decided else EXIT_UNDECIDED


def _tell_how_to_audit(model: Model, named: str, out: str) -> None:
    """Where no certificate can name the model: the folder of this one alone, as others need other weights."""
    from verify.files import model_path
    from verify.models.bundled import BUNDLED

    folder, place = shlex.quote(str(model_path(Path(out), model.name))), shlex.quote(named)
    if model.checkpoint is not None:
        click.echo(
            f"To check them again: verify pack {place} --readout transformer-lens -o tl.safetensors, "
            f"then verify audit {folder} --model tl.safetensors"
        )
    elif named not in BUNDLED and Path(named).expanduser().exists():
        click.echo(f"To check them again: verify audit {folder} --model {place}")


def _print(decision: Decision, as_json: bool) -> None:
    """One decision, as it is made: `echo` leaves nothing in a buffer."""
    from verify.figures import decision_json
    from verify.render import decision_lines

    if as_json:
        click.echo(json.dumps(decision_json(decision)))
        return
    colours = {"SPEAKABLE": "green", "UNSPEAKABLE": "red", "UNDECIDED": "yellow"}
    for label, value in decision_lines(decision):
        shown = click.style(value, fg=colours[decision.verdict]) if label == "verdict" else value
        click.echo(f"{label:<20} {shown}")
    click.echo()


def _print_summary(decisions: list[Decision]) -> None:
    """One row a domain."""
    from verify.figures import decision_json

    on = console(_WIDTH)
    shown = table(on, "domain", "verdict", "kind", "margin or gap", "evidence from", "seconds")
    for decision in decisions:
        data = decision_json(decision)
        number = data["margin"] or data["gap"]
        shown.add_row(
            decision.domain.name,
            decision.verdict,
            data["kind"] or "",
            f"{number['approx']:.6g}" if number else "",
            data["derived_from"] or "its own search",
            f"{decision.seconds:.2f}",
        )
    on.print(shown)


def _compare(model: Model, decisions: list[Decision], options: dict[str, Any], as_json: bool) -> None:
    """Run the field's programs, each against the exact verdict in the domain it asks about."""
    from verify.compare import compare
    from verify.decide import Decider

    token, count = decisions[0].token, decisions[0].competitors
    known = {d.domain.name: d for d in decisions}
    decider = Decider(model, options["competitors"])

    def exact(domain: Any) -> Any:
        return (known.get(domain.name) or decider.decide(token, domain)).claim

    names = ("program", "domain", "rows", "solver", "seconds", "claims")
    on = console(_WIDTH)
    shown = table(on, *names, "exact", "as posed", "judgement", "note")
    what, doing = "the field's programs over all rows (minutes)", f"asking {options['solver'] or 'HiGHS'}"
    with spinner(what, doing, as_json, lines=True) as say:
        for row in compare(model.readout, token, count, exact, options["solver"], options["time_limit"]):
            say(f"{row.program}: {row.judgement}")
            if as_json:
                click.echo(json.dumps({"compare": row.to_json()}))
            seconds = f"{row.build_seconds + row.seconds:.1f}"
            why = row.status if row.claim == "no answer" else ""
            note = "; ".join(x for x in (why, row.note) if x)
            cells = (row.program, row.domain, str(row.rows), row.solver, seconds, row.claim)
            shown.add_row(*cells, row.exact_verdict, row.posed, row.judgement, note)
    if not as_json:
        on.print(shown)
