"""--revision and --token-env on every command that names a model; --readout-file beside the flags."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
from command import square_checkpoint

import verify
from verify.cli import command as verify_command
from verify.errors import ModelUnavailableError, UsageError
from verify.figures import decision_json
from verify.models import ReadoutOverrides

HAND = {
    "unembedding": "model.embed_tokens.weight",
    "norm": "rmsnorm",
    "norm_gain": "model.norm.weight",
    "epsilon": "1e-6",
}


def call(*arguments: Any) -> int:
    """The exit code of a command line, run in this process; its errors as they are."""
    code: int = verify_command.main([*map(str, arguments)], standalone_mode=False)
    return code


def commands() -> dict[str, click.Command]:
    """Every command and subcommand by its name."""
    found: dict[str, click.Command] = {}
    context = click.Context(verify_command)
    for name in verify_command.list_commands(context):
        command = import_module(f"verify.cli.{name}").command
        inner = command.commands if isinstance(command, click.Group) else {"": command}
        found |= {f"{name} {more}".strip(): each for more, each in inner.items()}
    return found


def test_whoever_names_a_model_takes_a_revision_and_a_token() -> None:
    for name, command in commands().items():
        parameters = {parameter.name for parameter in command.params}
        hub = {"revision", "token_env"} & parameters
        assert ("model" in parameters) == ("revision" in hub), name
        assert ("model" in parameters or "fetch" in parameters) == ("token_env" in hub), name


@pytest.mark.parametrize(
    "name", ["audit", "say", "bundle", "index", "convert", "export", "extract", "summary"]
)
def test_a_revision_goes_with_a_named_hub_model(name: str, tmp_path: Path, model: Path) -> None:
    more = {"convert": ["--multipliers", "full"], "extract": ["1"]}.get(name, [])
    with pytest.raises(UsageError, match="--revision goes with --model NAME"):
        call(name, tmp_path, *more, "--revision", "v1")
    with pytest.raises(UsageError, match="goes with a hub name"):
        call(name, tmp_path, *more, "--model", model, "--revision", "v1")
    with pytest.raises(UsageError, match="--token-env 'NO_SUCH_THING'"):
        call(name, tmp_path, *more, "--token-env", "NO_SUCH_THING")


def test_pack_at_a_revision(tmp_path: Path, model: Path) -> None:
    with pytest.raises(UsageError, match="goes with a hub name"):
        call("pack", model, "-o", tmp_path / "x.safetensors", "--revision", "v1")
    assert call("pack", model, "-o", tmp_path / "x.safetensors") == 0


def unheard_of(folder: Path) -> Path:
    """The square of command.py, as a model of a type that nobody knows."""
    path = square_checkpoint(folder) / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "unheard-of"}))
    return folder


@pytest.mark.parametrize("verb", ["token", "scan"])
def test_a_readout_in_a_file_is_that_of_the_flags(verb: str, tmp_path: Path) -> None:
    model, file = unheard_of(tmp_path / "square"), tmp_path / "readout.toml"
    file.write_text("".join(f'{key} = "{value}"\n' for key, value in HAND.items()))
    what = ["1"] if verb == "token" else ["--workers", "1"]
    rest = [*what, "--model", model, "--json"]
    assert call(verb, *rest, "--out", tmp_path / "file", "--readout-file", file) == 0
    assert call(verb, *rest, "--out", tmp_path / "flags", *flags()) == 0
    if verb == "token":
        one, other = (next((tmp_path / x).rglob("*.json")).read_bytes() for x in ("file", "flags"))
        assert one == other
    for flag in (["--unembedding", "x"], ["--gain-offset", "1"], ["--epsilon", "1e-5"]):
        with pytest.raises(UsageError, match="--readout-file describes the whole readout"):
            call(verb, *rest, "--out", tmp_path / "o", "--readout-file", file, *flag)
    with pytest.raises(UsageError, match="not a file"):
        call(verb, *rest, "--out", tmp_path / "o", "--readout-file", tmp_path / "absent.toml")


@pytest.mark.parametrize("verb", ["token", "scan"])
@pytest.mark.parametrize(
    ("epsilon", "words"),
    [
        *((x, "out of range: it is 0, or from 1e-200 to below 1e200") for x in ("1e300", "1e200", "1e-201")),
        ("-1e-5", "negative"),
        ("1e5000", "not a decimal number"),
        ("nan", "not a decimal number"),
    ],
)
def test_an_epsilon_out_of_range_is_refused_before_the_model_is_looked_for(
    tmp_path: Path, verb: str, epsilon: str, words: str
) -> None:
    flags = {**HAND, "epsilon": epsilon}
    (tmp_path / "r.toml").write_text("".join(f'{key} = "{value}"\n' for key, value in flags.items()))
    for described in (
        [x for key, value in flags.items() for x in (f"--{key.replace('_', '-')}", value)],
        ["--readout-file", tmp_path / "r.toml"],
    ):
        with pytest.raises(UsageError, match=words):
            call(verb, *(["1"] if verb == "token" else []), "--model", "nowhere/at-all", *described)


def test_a_pack_says_what_to_do_instead(tmp_path: Path, model: Path) -> None:
    file, packed = tmp_path / "readout.toml", tmp_path / "square.safetensors"
    file.write_text('unembedding = "w"\nnorm = "none"\n')
    assert call("pack", model, "-o", packed) == 0
    with pytest.raises(UsageError, match=r"leave --unembedding, --readout-file.*or pass the folder"):
        call("token", "1", "--model", packed, "--readout-file", file, "--out", tmp_path / "o")


def flags() -> list[str]:
    return [x for key, value in HAND.items() for x in (f"--{key.replace('_', '-')}", value)]


def test_a_pack_described_by_hand_stays_so(tmp_path: Path) -> None:
    """Certificates are those of the described model; the audit's hypothesis does not depend on the way."""
    model, packs = unheard_of(tmp_path / "square"), [tmp_path / f"{n}.safetensors" for n in "ab"]
    file = tmp_path / "readout.toml"
    file.write_text("".join(f'{key} = "{value}"\n' for key, value in HAND.items()))
    with pytest.raises(ModelUnavailableError, match="unknown architecture"):
        call("pack", model, "-o", packs[0])
    assert call("pack", model, "-o", packs[0], *flags()) == 0
    assert call("pack", model, "-o", packs[1], "--readout-file", file) == 0
    assert packs[0].read_bytes() == packs[1].read_bytes()
    (of_pack,) = verify.token(1, str(packs[0]), out=tmp_path / "pack")
    assert call("token", "1", "--model", model, *flags(), "--out", tmp_path / "direct") == 0
    assert of_pack.path is not None
    direct = next((tmp_path / "direct").rglob("*.json"))
    assert of_pack.path.read_bytes() == direct.read_bytes()
    assert b'"epsilon_source": "by hand: 1e-6"' in direct.read_bytes()
    assert any("described by hand" in note for note in decision_json(of_pack)["notes"])
    start = "the readout was described by hand: which tensors make the logits, the norm kind (rmsnorm)"
    for place, end in ((packs[0], "are as the maker of the pack described them"), (model, "the certificate")):
        result = verify.audit(direct, str(place))
        assert result.outcome == "accepted"
        (hypothesis,) = result.hypotheses
        assert hypothesis.startswith(start)
        assert hypothesis.endswith(end)


def test_a_pack_of_a_known_model_is_not_said_to_be_described(tmp_path: Path, model: Path) -> None:
    verify.pack(str(model), tmp_path / "p.safetensors")
    (one,) = verify.token(1, str(model), out=tmp_path / "o")
    assert verify.audit(str(one.path), str(tmp_path / "p.safetensors")).hypotheses == []


def test_a_description_goes_with_a_name(tmp_path: Path, model: Path) -> None:
    hand = ReadoutOverrides("model.embed_tokens.weight", "none")
    with pytest.raises(UsageError, match="overrides go with a model's name"):
        verify.pack(verify.load_model(str(model)), tmp_path / "p.safetensors", overrides=hand)
    with pytest.raises(UsageError, match="not a readout described by hand"):
        call("pack", model, *flags(), "--readout", "transformer-lens", "-o", tmp_path / "p.safetensors")


def test_the_hint_names_commands_that_take_what_it_names(tmp_path: Path) -> None:
    """Whichever command meets an unknown architecture."""
    model = unheard_of(tmp_path / "square")
    with pytest.raises(ModelUnavailableError) as caught:
        call("replay", "grivas", "--tokens", "1", "--model", model, "--out", tmp_path / "r")
    hint = str(caught.value).split("model.norm.weight")[-1]
    assert "--readout-file FILE.toml" in hint
    assert "`verify pack MODEL --unembedding NAME ... -o FILE.safetensors` makes a pack of it" in hint
    named = {word for word in ("token", "scan", "pack") if f"`verify {word}`" in hint}
    takes = {
        name
        for name, each in commands().items()
        if "readout_file" in {parameter.name for parameter in each.params}
    }
    assert named == takes
