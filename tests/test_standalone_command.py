"""The standalone auditor's command: configurations, hypotheses, exit codes, and what its source may hold."""

import ast
import copy
import hashlib
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from desk import (
    BUNDLE,
    HAND,
    INSIDE,
    SOURCE,
    SPEAKABLE,
    TEXT,
    Desk,
    Model,
    audit,
    bundle,
    certificate,
    edit,
    unspeakable,
    wide_model,
)

# --- Configurations --------------------------------------------------------------------------------------

NAMES = {
    "gpt2": ("transformer.wte.weight", "transformer.ln_f.weight", "transformer.ln_f.bias", ""),
    "llama": ("lm_head.weight", "model.norm.weight", "", ""),
    "mistral": ("lm_head.weight", "norm.weight", "", ""),
    "qwen2": ("lm_head.weight", "model.norm.weight", "", ""),
    "whisper": (
        "model.decoder.embed_tokens.weight",
        "model.decoder.layer_norm.weight",
        "decoder.layer_norm.bias",
        "",
    ),
    "albert": (
        "albert.embeddings.word_embeddings.weight",
        "predictions.LayerNorm.weight",
        "predictions.LayerNorm.bias",
        "predictions.decoder.bias",
    ),
    "bert": (
        "embeddings.word_embeddings.weight",
        "cls.predictions.transform.LayerNorm.gamma",
        "cls.predictions.transform.LayerNorm.beta",
        "cls.predictions.bias",
    ),
}


EPSILONS = {"gpt2": "0.00001", "whisper": "0.00001"} | dict.fromkeys(("albert", "bert"), "0.000000000001")


KEYS = {"gpt2": "layer_norm_epsilon", "albert": "layer_norm_eps", "bert": "layer_norm_eps"}


def known(kind: str, **changes: Any) -> tuple[Model, Any, dict[str, str]]:
    """A model of a known type, a certificate about it and the names of its tensors."""
    names = dict(zip(("unembedding", "gain", "shift", "bias"), NAMES[kind], strict=True))
    names = {role: name for role, name in names.items() if name}
    numbers: dict[str, Any] = {"gain": [1, 2], "shift": [0.5, 0], "bias": [0] * 4}
    vectors: dict[str, Any] = {role: numbers[role] for role in names if role != "unembedding"}
    model = Model(HAND.rows, "F16", "F32", **vectors)
    norm = "layernorm" if "shift" in names else "rmsnorm"
    st = model.statement(
        norm=norm, epsilon=EPSILONS.get(kind, "0.000001"), token=3, domain="direction", **changes
    )
    rows, values = ([0, 1, 2], [3, 3, 2])
    return model, certificate(st, unspeakable(rows, values)), names


@pytest.mark.parametrize("kind", NAMES)
def test_what_a_configuration_confirms(desk: Desk, kind: str) -> None:
    model, data, names = known(kind)
    result = desk.accepts(data, model, config={"model_type": kind}, names=names)
    assert result.hypotheses == ["the model is 'by hand', revision None"]
    assert not result.notes
    for key, new in (("norm", "rmsnorm"), ("epsilon", "0.00002"), ("gain_offset", 1)):
        if data["statement"][key] != new:
            wrong = edit(data, f"statement/{key}", new)
            desk.refutes(wrong, model, kind, config={"model_type": kind}, names=names)
    desk.refutes(INSIDE | {"statement": edit(data, "statement/tensors/gain", ...)["statement"]}, model, kind,
                 config={"model_type": kind}, names=names)  # fmt: skip
    desk.unavailable(data, model, "no tensor", config={"model_type": kind})  # under names that play no role
    desk.accepts(data, model, names=names)
    if kind in KEYS:
        config = f'{{"model_type": "{kind}", "{KEYS[kind]}": 2.5E-5}}'
        desk.refutes(data, model, "1/40000", config=config, names=names)
        other = edit(data, "statement/epsilon", "0.000025")
        desk.accepts(other, model, config=config, names=names)


def test_tied_and_untied_heads(desk: Desk) -> None:
    model, data, names = known("gpt2")
    head, body = names | {"unembedding": "lm_head.weight"}, {"model_type": "gpt2"}
    desk.accepts(data, model, config=body, names=head)  # tied, and only the head is stored
    desk.accepts(data, model, config=body | {"tie_word_embeddings": False}, names=head)
    untied = body | {"tie_word_embeddings": False}
    desk.unavailable(data, model, "no tensor", config=untied, names=names)
    # Both are stored: untied means the head; tied that they must be the same.
    other = Model([[1, 1]] * 4).tensors["unembedding"]
    for first, second, config, check in (
        ("wte.weight", "lm_head.weight", body, desk.unavailable),
        ("lm_head.weight", "wte.weight", body, desk.unavailable),
        ("wte.weight", "lm_head.weight", untied, desk.refutes),
        ("lm_head.weight", "wte.weight", untied, desk.accepts),
    ):
        two = Model(HAND.rows, gain=[1, 2], shift=[0.5, 0])
        two.tensors["other"] = other
        both = names | {"unembedding": first, "other": second}
        check(data, two, config=config, names=both)
        two.tensors["other"] = two.tensors["unembedding"]
        desk.accepts(data, two, config=config, names=both)
    model, data, names = known("llama")
    tied = {"model_type": "llama", "tie_word_embeddings": True, "rms_norm_eps": 1e-06}
    desk.accepts(data, model, config=tied, names=names | {"unembedding": "model.embed_tokens.weight"})
    untied = {"model_type": "llama"}
    desk.unavailable(data, model, config=untied, names=names | {"unembedding": "model.embed_tokens.weight"})


def test_of_two_biases_an_untied_head_has_the_decoder_s(desk: Desk) -> None:
    """Tying brings the other one to the logits."""
    model, data, names = known("albert")
    head = names | {"unembedding": "predictions.decoder.weight"}
    for bias, check in (("predictions.decoder.bias", desk.accepts), ("predictions.bias", desk.unavailable)):
        untied = {"model_type": "albert", "tie_word_embeddings": False}
        check(data, model, config=untied, names=head | {"bias": bias})
        desk.accepts(data, model, config={"model_type": "albert"}, names=names | {"bias": bias})


def test_configurations_that_say_nothing(desk: Desk) -> None:
    llama: dict[str, Any] = {"model_type": "llama"}
    configs: list[dict[str, Any]] = [
        {},
        {"model_type": "rwkv"},
        {"model_type": ["gpt2"]},
        {"model_type": None},
        llama | {"architectures": ["LlamaForSequenceClassification"]},
        llama | {"architectures": []},
        llama | {"architectures": 5},
        {"model_type": "bart", "architectures": ["BartForCausalLM"]},  # which adds no final_logits_bias
        {"model_type": "electra", "architectures": ["ElectraForPreTraining"]},
        llama | {"quantization_config": {"bits": 4}},
        llama | {"auto_map": {"AutoModel": "own.Code"}},
        {"model_type": "opt", "do_layer_norm_before": False},
        {"model_type": "opt", "_remove_final_layer_norm": True},
        {"model_type": "opt", "hidden_size": 16, "word_embed_proj_dim": 12},
        {"model_type": "cohere", "logit_scale": -1},
        {"model_type": "cohere", "logit_scale": "1"},
        {"model_type": "granite", "logits_scaling": 0},
        {"model_type": "gemma2", "final_logit_softcapping": 0},
        {"model_type": "mpt", "norm_type": "rmsnorm"},
    ]
    for config in configs:
        result = desk.accepts(INSIDE, HAND, config=config)
        assert "the final norm is rmsnorm" in result.hypotheses
        assert "nothing is known" in result.notes[0]


@pytest.mark.parametrize(
    "config",
    [
        b"",
        "[]",
        '{"model_type": "llama"} x',
        '{"model_type": "llama", "model_type": "llama"}',
        '{"model_type": "llama", "x": NaN}',
        '{"model_type": "llama", "rms_norm_eps": "1e-6"}',
        '{"model_type": "llama", "rms_norm_eps": true}',
        '{"model_type": "llama", "rms_norm_eps": null}',
        '{"model_type": "llama", "tie_word_embeddings": 0}',
        '{"model_type": "bart"}',
        '{"model_type": "bart", "decoder_layers": 0}',
        '{"model_type": "bart", "decoder_layers": true}',
        '{"model_type": "llama", "rms_norm_eps": 1e-99999999999}',
        '{"model_type": "llama", "rms_norm_eps": 0.' + "1" * 500 + "}",
    ],
)
def test_configurations_that_cannot_be_used(desk: Desk, config: Any) -> None:
    desk.unavailable(INSIDE, HAND, config=config)


def test_options_that_change_nothing(desk: Desk) -> None:
    model, data, names = known("llama")
    config = {
        "model_type": "llama",
        "architectures": ["Other", "LlamaForCausalLM"],
        "quantization_config": None,
        "hidden_size": 2,
        "word_embed_proj_dim": 2,
        "logit_scale": 0.5,
        "-": 5,
    }
    assert not desk.accepts(data, model, config=config, names=names).notes


LAYER = "model.decoder.layers.{}.final_layer_norm.{}"
BART = {
    "unembedding": "model.shared.weight",
    "gain": LAYER.format(1, "weight"),
    "shift": LAYER.format(1, "bias"),
    "bias": "final_logits_bias",
}


def bart(bias: Any = (0, 0, 0, -1), shape: Any = (1, 4), dtype: str = "F32") -> tuple[Model, dict[str, Any]]:
    """A BART whose bias is stored with this shape, and a certificate that states it as a vector."""
    model = Model(HAND.rows, gain=[1, 2], shift=[0.5, 0], bias=bias)
    statement = model.statement(norm="layernorm", token=3)
    model.tensors["bias"] = (dtype, shape, bias)
    return model, certificate(statement, unspeakable([0, 1, 2], [3, 3, 2]))


CONFIG = {"model_type": "bart", "decoder_layers": 2}


def test_a_bias_stored_as_one_row(desk: Desk) -> None:
    """BART and Marian store [1, V]; only this, and only of the bias, counts as [V]."""
    model, data = bart()
    assert desk.accepts(data, model, config=CONFIG, names=BART).hypotheses == [
        "the model is 'by hand', revision None"
    ]
    desk.accepts(data, model, names=BART)
    desk.accepts(data, model)  # found by its hash
    desk.accepts(data, bart(shape=(4,))[0], config=CONFIG, names=BART)
    for shape in ((4, 1), (1, 1, 4), (1, 4, 1), (2, 2)):
        desk.refutes(data, bart(shape=shape)[0], "another shape", config=CONFIG, names=BART)
        assert desk.audit(data, bart(shape=shape)[0]).outcome != "accepted"
    desk.refutes(data, bart((0, 0, 0, -2))[0], "another sha256", config=CONFIG, names=BART)
    # A statement keeps to [V]: the shape of a bias, and of all else, is checked before weights are.
    stated = "statement/tensors/{}/shape"
    for role, stored in (("bias", [1, 4]), ("gain", [1, 2])):
        desk.refutes(edit(data, stated.format(role), stored), model, "wrong shape")
    for role, shape in (("gain", (1, 2)), ("shift", (1, 2)), ("unembedding", (1, 4, 2))):
        other, _ = bart()
        dtype, _, numbers = other.tensors[role]
        other.tensors[role] = (dtype, shape, numbers)
        desk.refutes(data, other, f"the {role} has another shape", config=CONFIG, names=BART)


def test_a_bias_may_be_left_out_where_it_is_zero(desk: Desk) -> None:
    model, data = bart()
    without = edit(data, "statement/tensors/bias", ...)
    desk.refutes(without, model, "a bias that is not zero", config=CONFIG, names=BART)
    desk.refutes(without, bart((0,) * 4, dtype="I32")[0], "not zero", config=CONFIG, names=BART)
    for bias in ((0,) * 4, (0.0, -0.0, 0, 0)):
        desk.accepts(without, bart(bias)[0], config=CONFIG, names=BART)
    del model.tensors["bias"]
    desk.accepts(without, model, config=CONFIG, names=BART)
    result = desk.accepts(bundle(model, without), config=CONFIG)
    assert "the bias of the model is zero" in result.hypotheses
    # No other role, and no other type, is without a tensor.
    desk.refutes(edit(without, "statement/tensors/shift", ...), model, "roles", config=CONFIG, names=BART)
    whisper = {"model_type": "whisper"}
    desk.refutes(data, bart()[0], "roles", config=whisper, names=BART)


def test_the_last_layer_is_that_of_the_configuration(desk: Desk) -> None:
    model, data = bart()
    first = BART | {"gain": LAYER.format(0, "weight"), "shift": LAYER.format(0, "bias")}
    desk.unavailable(data, model, "no tensor", config=CONFIG, names=first)
    desk.accepts(data, model, config=CONFIG | {"decoder_layers": 1}, names=first)


def test_a_configuration_that_is_too_large(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "CONFIG_LIMIT", 10)
    desk.unavailable(INSIDE, HAND, "too large", config='{"a": 1  }\n')


def test_the_hash_of_the_configuration_is_compared(desk: Desk) -> None:
    model, data, names = known("llama")
    text = '{"model_type": "llama"}'
    for digest, notes in ((hashlib.sha256(text.encode()).hexdigest(), 0), ("0" * 64, 1)):
        named = edit(data, "statement/files", {"config.json": digest})
        assert len(desk.accepts(named, model, config=text, names=names).notes) == notes


def test_a_bundle_beside_a_configuration(desk: Desk) -> None:
    model, data, _ = known("llama")
    result = desk.accepts(bundle(model, data), config={"model_type": "llama"})
    assert len(result.hypotheses) == 3  # the model and two Merkle roots
    desk.refutes(bundle(model, edit(data, "statement/norm", "layernorm")), config={"model_type": "llama"})


# --- The command -----------------------------------------------------------------------------------------


def test_hypotheses_stand_above_the_verdict(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    st = HAND.statement(token=3, text="\x1b[31mred\u202e", revision="main\n", competitor_rule="tokenizer")
    path = desk.file(certificate(st, INSIDE["claim"]))
    assert audit.main([path, "--weights", HAND.weights(desk.new(".safetensors"))]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ")[0] for line in lines] == ["HYPOTHESIS"] * 7 + ["ACCEPTED"]
    everything = "\n".join(lines)
    for part in (
        "the model is 'by hand', revision 'main\\n'",
        "(stated name 'the.unembedding')",
        "norm is rmsnorm",
        "epsilon is 0.00001 ('by hand')",
        "gain offset is 0",
        "text of token 3 is '\\x1b[31mred\\u202e'",
        "the ids of the tokenizer are 0..3",
        f"ACCEPTED {path}: UNSPEAKABLE (never), gap at least 0/1 (0) - token 3 '\\x1b[31mred\\u202e', "
        "domain readout, ids 0..3",
    ):
        assert part in everything
    assert everything.isascii()


def test_exit_codes_are_those_of_the_worst(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    weights = ["--weights", HAND.weights(desk.new(".safetensors"))]
    good, malformed, missing = desk.file(INSIDE), desk.file("{"), str(desk.new(".json"))
    refuted = desk.file(edit(INSIDE, "claim/multipliers/values", "1 1 1"))
    for files, code in (
        ([good], 0),
        ([good, missing], 5),
        ([missing, malformed, good], 4),
        ([refuted, malformed, missing], 1),
        ([good, good], 0),
    ):
        assert audit.main([*files, *weights]) == code
    out = capsys.readouterr().out
    assert f"MALFORMED {malformed}: [not-json] " in out
    assert f"REFUTED {refuted}: " in out
    assert f"UNAVAILABLE {missing}: " in out
    for arguments in ([], ["--bogus", good]):
        with pytest.raises(SystemExit) as stop:
            audit.main(arguments)
        assert stop.value.code == 2
    assert audit.main([desk.file(BUNDLE)]) == 0
    assert audit.main([good]) == 5


def test_weights_are_hashed_once_a_run_and_read_anew_in_the_next(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, read = HAND.weights(desk.folder / "weights.safetensors"), list[str]()
    safetensors_of = audit.safetensors

    def counted(path: str) -> Any:
        read.append(path)
        return safetensors_of(path)

    monkeypatch.setattr(audit, "safetensors", counted)
    files = [desk.file(INSIDE), desk.file(SPEAKABLE)]
    assert audit.main([*files, "--weights", weights]) == 0
    assert read == [weights]
    Path(weights).unlink()
    Model([[0, 0]] * 4).weights(Path(weights))
    assert audit.main([*files, "--weights", weights]) == 1


def test_json_lines(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    files = [desk.file(INSIDE), desk.file("{")]
    code = audit.main([*files, "--json", "--weights", HAND.weights(desk.new(".safetensors"))])
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert code == 4
    keys = {"path", "outcome", "verdict", "error", "reason", "hypotheses", "notes"}
    assert first.keys() == second.keys() == keys
    assert (first["outcome"], first["verdict"], first["error"]) == ("accepted", "unspeakable", None)
    assert (second["outcome"], second["verdict"], second["error"]) == ("malformed", None, "not-json")
    assert first["hypotheses"]


def test_defects_and_interrupts_are_no_verdicts(
    desk: Desk, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(error: BaseException) -> Any:
        def read(*_: Any) -> Any:
            raise error

        return read

    path = desk.file(INSIDE)
    with monkeypatch.context() as patch:
        patch.setattr(audit, "Check", fails(RuntimeError("oops")))
        bad = desk.file("{}")
        assert audit.main([desk.file(BUNDLE), bad]) == 70
        told = capsys.readouterr().out
        assert "INTERNAL" in told
        assert "MALFORMED" in told  # the next file is audited all the same
    monkeypatch.setattr(audit, "read", fails(KeyboardInterrupt()))
    assert audit.main([path]) == 130
    assert capsys.readouterr().out == ""


def test_versions_nested_deeper_than_the_parser_goes(desk: Desk) -> None:
    for depth in (900, 980, 991, 995):
        text = TEXT.replace('"version": 1', '"version": ' + "[" * depth + "]" * depth)
        assert desk.audit(text).outcome == "malformed"


def test_limits_of_plain_python(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Multipliers too long for the width are refused; ranks in many dimensions are not begun."""
    long = copy.deepcopy(INSIDE)
    factor = 1 << ((1 << 20) - 3)
    long["claim"]["multipliers"]["values"] = " ".join(f"{x * factor:x}" for x in (3, 3, 2))
    desk.accepts(long, HAND)
    monkeypatch.setattr(audit, "RANKABLE", 1)
    assert desk.audit(INSIDE, HAND).outcome == "unavailable"


def test_a_bundle_is_bound_to_weights_that_are_given(desk: Desk) -> None:
    assert any("Merkle" in x for x in desk.accepts(BUNDLE).hypotheses)
    assert not any("Merkle" in x for x in desk.accepts(BUNDLE, HAND).hypotheses)
    assert desk.audit(BUNDLE, wide_model()).outcome in ("refuted", "unavailable")


def test_output_that_cannot_be_written(desk: Desk) -> None:
    command = [sys.executable, str(SOURCE), desk.file(BUNDLE)]
    with Path("/dev/full").open("w", encoding="ascii") as full:
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, text=True)
    assert run.returncode == 5
    assert "cannot write" in run.stderr
    run = subprocess.run(command, capture_output=True, check=False, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines()[-1].startswith("ACCEPTED")


def test_a_pipe_that_is_closed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def write(self, text: str) -> None:
            raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(sys, "stdout", Closed())
    assert audit.main([desk.file(BUNDLE), desk.file(BUNDLE)]) == 5


def test_paths_are_escaped(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main([str(desk.folder / "a\x1bb\u00e9")]) == 5
    out = capsys.readouterr().out
    assert out.startswith("UNAVAILABLE '")
    assert "a\\x1bb\\xe9" in out
    assert out.isascii()


@pytest.mark.parametrize(
    ("q", "text"),
    [
        (Fraction(0), "0/1 (0)"),
        (Fraction(10229, 4096), "27f5/1000 (2.49731)"),
        (Fraction(2), "2/1 (2.00000)"),
        (Fraction(2, 3), "2/3 (0.666666)"),
        (Fraction(1, 3000), "1/bb8 (0.000333333)"),
        (Fraction(999999999, 1000), "3b9ac9ff/3e8 (999999)"),
        (Fraction(1234567), "12d687/1 (1234567)"),
        (Fraction(1, 10**50), f"1/{10**50:x} (0.{'0' * 40})"),
        (Fraction(16**10000), f"1{'0' * 10000}/1 (1{'0' * 45})"),
    ],
)
def test_numbers_are_rounded_down(q: Fraction, text: str) -> None:
    assert audit.number(q) == text


def test_long_strings_are_cut() -> None:
    assert audit.show("x" * 201) == "'" + "x" * 200 + "...'"
    assert audit.show("\u202e'") == '"\\u202e\'"'


# --- The source ------------------------------------------------------------------------------------------


def test_the_source_is_independent_and_exact() -> None:
    source = SOURCE.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(source)):
        assert not isinstance(node, ast.Assert | ast.Div)
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float | complex))
        assert not (
            isinstance(node, ast.Name) and node.id in {"float", "complex", "eval", "exec", "__import__"}
        )
        if isinstance(node, ast.Import):
            assert all(alias.name in sys.stdlib_module_names for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert node.module in sys.stdlib_module_names | {"collections.abc"}
    lines = source.splitlines()
    assert len(lines) <= 800
    assert max(map(len, lines)) <= 110
