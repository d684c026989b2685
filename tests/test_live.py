"""Models in memory: the readout of the saved folder; edits that tensors do not tell are found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from math import sqrt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from built_models import model as in_memory  # noqa: E402
from command import run  # noqa: E402
from conformance import CASES, build, save, wrong_readouts  # noqa: E402

import verify  # noqa: E402
from verify.errors import ModelUnavailableError, OutputError, UsageError  # noqa: E402
from verify.kernel import Readout  # noqa: E402
from verify.kernel.filter import as_float64  # noqa: E402
from verify.models import load_model  # noqa: E402
from verify.models.in_place import Seen, logits_at, probes, require_agreement  # noqa: E402

BY_NAME = {case.name: case for case in CASES}


@pytest.fixture(autouse=True)
def quiet() -> None:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def gpt2() -> Any:
    return build(BY_NAME["gpt2-tied"])


def llama() -> Any:
    return build(BY_NAME["llama-untied"])


# The readout of the folder


@pytest.mark.parametrize("name", [name for name, case in BY_NAME.items() if not case.part])
def test_the_readout_is_that_of_the_saved_model(tmp_path: Path, name: str) -> None:
    model = save(BY_NAME[name], tmp_path)
    live, folder = verify.from_transformers(model), load_model(str(tmp_path))
    assert live.readout.fingerprint == folder.readout.fingerprint
    a, b = live.readout, folder.readout
    assert (a.norm, a.epsilon, a.gain_offset) == (b.norm, b.epsilon, b.gain_offset)
    own = {"the model holds an unembedding of its own, whatever tie_word_embeddings says: that one counts"}
    assert set(a.notes[:-1]) - own == set(b.notes)
    assert "snapshot" in a.notes[-1]
    assert set(live.files) == {"model.config"}
    assert live.name == f"{type(model).__name__} in memory"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize(
    "name",
    [
        *("gpt2-tied", "llama-untied", "phi-untied", "mamba-tied", "bert-tied"),
        *("t5-tied-scaled", "bart-biased", "marian-shared", "whisper-tied", "cohere-tied", "gemma2-tied"),
    ],
)
def test_dtypes(name: str, dtype: str) -> None:
    model = build(BY_NAME[name]).to(getattr(torch, dtype))
    found = verify.from_transformers(model).readout
    assert found.unembedding.dtype == {"float16": "F16", "bfloat16": "BF16", "float64": "F64"}[dtype]


def test_a_snapshot_is_not_changed_by_later_edits() -> None:
    model = gpt2()
    live = verify.from_transformers(model)
    before = live.readout.fingerprint
    raw = live.readout.unembedding.raw.copy()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(1)
    assert np.array_equal(live.readout.unembedding.raw, raw)
    assert live.readout.fingerprint == before
    assert verify.from_transformers(model).readout.fingerprint != before


def test_an_untied_head_of_a_tied_configuration_counts() -> None:
    model = gpt2()
    model.lm_head.weight = torch.nn.Parameter(torch.rand(61, 16) - 0.5)
    live = verify.from_transformers(model)
    assert live.readout.unembedding.name == "lm_head.weight"
    assert any("of its own" in note for note in live.readout.notes)


def test_an_epsilon_set_in_both_places_counts() -> None:
    model = llama()
    model.config.rms_norm_eps = model.model.norm.variance_epsilon = 0.25
    assert float(verify.from_transformers(model).readout.epsilon) == 0.25


def test_the_model_is_left_as_it_was() -> None:
    model = gpt2().train()
    model.transformer.h[0].eval()
    modes = [module.training for module in model.modules()]
    verify.from_transformers(model)
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(value.grad is None for value in model.parameters())


def test_a_wrapper_of_torch_compile_is_taken_off() -> None:
    model = gpt2()
    live = verify.from_transformers(torch.compile(model), name="edited")
    assert live.readout.fingerprint == verify.from_transformers(model).readout.fingerprint
    assert live.name == "edited"


# What tensors and configuration do not tell


def norm_hook(model: Any) -> None:
    model.transformer.ln_f.register_forward_hook(lambda *args: args[2] * 1.001)


def norm_pre_hook(model: Any) -> None:
    model.transformer.ln_f.register_forward_pre_hook(lambda _, args: (args[0] + 1e-3 * args[0].roll(1, -1),))


def head_hook(model: Any) -> None:
    model.lm_head.register_forward_hook(lambda *args: args[2].index_fill(-1, torch.tensor([7]), -1e3))


def head_forward(model: Any) -> None:
    model.lm_head.forward = lambda h: torch.nn.functional.linear(h, model.lm_head.weight.roll(1, 0))


def scaled_logits(model: Any) -> None:
    model.lm_head.register_forward_hook(lambda *args: 2 * args[2])


def epsilon_in_the_code(model: Any) -> None:
    norm = model.transformer.ln_f
    norm.forward = lambda x: torch.nn.functional.layer_norm(x, (16,), norm.weight, norm.bias, 4e-3)


def nan_logits(model: Any) -> None:
    model.lm_head.register_forward_hook(lambda *args: args[2] * float("nan"))


@pytest.mark.parametrize(
    "edit",
    [norm_hook, norm_pre_hook, head_hook, head_forward, scaled_logits, epsilon_in_the_code, nan_logits],
)
def test_an_edit_of_the_code_is_found(edit: Callable[[Any], None]) -> None:
    model = gpt2()
    edit(model)
    with pytest.raises(ModelUnavailableError, match="own logits are not those of its readout"):
        verify.from_transformers(model)


@pytest.mark.parametrize("side", ["min", "max"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    "name", ["gpt2-tied", "llama-untied", "phi-untied", "gemma2-untied", "opt-norm-removed"]
)
def test_a_clamp_of_logits_that_some_output_of_the_norm_reaches_is_found(
    name: str, dtype: str, side: str
) -> None:
    model = build(BY_NAME[name]).to(getattr(torch, dtype))
    readout = verify.from_transformers(model).readout
    logits = logits_at(readout, probes(readout))
    model.get_output_embeddings().register_forward_hook(
        lambda *args: args[2].clamp(**{side: 0.8 * getattr(logits, side)()})
    )
    with pytest.raises(ModelUnavailableError, match="own logits are not those of its readout"):
        verify.from_transformers(model)


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm", "none"])
def test_no_output_of_the_norm_has_larger_or_smaller_logits_than_the_probes(norm: str) -> None:
    generator = np.random.default_rng(2)
    W, c = generator.normal(size=(9, 4)), generator.normal(size=9)
    gain, shift = (None, None) if norm == "none" else generator.normal(size=(2, 4))
    readout = in_memory(W, norm, gain, shift, c).readout
    logits = logits_at(readout, probes(readout))
    # Vectors of length sqrt(d), nearly what a norm puts out.
    r = generator.normal(size=(100000, 4))
    if norm == "layernorm":
        r -= r.mean(axis=1, keepdims=True)
    others = logits_at(readout, 2 * r / np.linalg.norm(r, axis=1, keepdims=True))
    assert 0.99 * logits.max() < others.max() < 1.001 * logits.max()
    assert 0.99 * logits.min() > others.min() > 1.001 * logits.min()


@pytest.mark.parametrize("name", ["llama-untied", "phi-untied"])
def test_float16_is_not_made_to_overflow(name: str) -> None:
    """The logits of the model's own states are within its range here, the largest that could be are not."""
    model = build(BY_NAME[name])
    readout = verify.from_transformers(model).readout
    with torch.no_grad():
        model.lm_head.weight.mul_(1e5 / np.abs(logits_at(readout, probes(readout))).max())
    verify.from_transformers(model.half())


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm", "none"])
def test_probes_stay_within_float16(norm: str) -> None:
    W = 6e4 * np.random.default_rng(4).uniform(-1, 1, (9, 4))
    readout = in_memory(W, norm, dtype="F16").readout
    logits = np.abs(logits_at(readout, probes(readout)[:2])).max(axis=1)
    assert np.allclose(logits, 2.0**15, rtol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_layernorm_that_divides_by_the_mean_square_is_found(dtype: str) -> None:
    model = gpt2().to(getattr(torch, dtype))
    norm = model.transformer.ln_f

    def forward(x: Any) -> Any:
        r = x.float()
        y = (r - r.mean(-1, keepdim=True)) / torch.sqrt(r.square().mean(-1, keepdim=True) + norm.eps)
        return y.to(x.dtype) * norm.weight + norm.bias

    norm.forward = forward
    with pytest.raises(ModelUnavailableError, match="own logits are not those of its readout"):
        verify.from_transformers(model)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_large_mean_before_a_layernorm_is_no_edit(dtype: str) -> None:
    model = gpt2()
    with torch.no_grad():
        model.transformer.wpe.weight.add_(3000)
    verify.from_transformers(model.to(getattr(torch, dtype)))


@pytest.mark.parametrize("make", [gpt2, llama])
def test_a_residual_stream_of_zeros_is_looked_at_elsewhere(make: Callable[[], Any]) -> None:
    model = make()
    head = model.get_output_embeddings()
    with torch.no_grad():
        head.weight = torch.nn.Parameter(head.weight.clone())
        for name, value in model.named_parameters():
            if value is not head.weight and "ln_f" not in name and name != "model.norm.weight":
                value.zero_()
    verify.from_transformers(model)
    head.register_forward_hook(lambda *args: 2 * args[2])
    with pytest.raises(ModelUnavailableError, match="own logits are not those of its readout"):
        verify.from_transformers(model)


def test_a_clamp_just_below_the_largest_logit_is_found() -> None:
    model = build(BY_NAME["llama-untied"])
    readout = verify.from_transformers(model).readout
    assert float(readout.epsilon) > 1e-3
    largest = sqrt(readout.d) * float(np.linalg.norm(norm_rows(readout), axis=1).max())
    model.get_output_embeddings().register_forward_hook(lambda *args: args[2].clamp(max=0.9999 * largest))
    with pytest.raises(ModelUnavailableError, match="own logits are not those of its readout"):
        verify.from_transformers(model)


def norm_rows(readout: Readout) -> Any:
    """Rows of the unembedding times the gain: at |z|^2 = d no logit is above sqrt(d) times their length."""
    assert readout.gain is not None
    assert readout.shift is None
    assert readout.bias is None
    return as_float64(readout.unembedding, 0, readout.vocabulary) * (
        as_float64(readout.gain, 0, readout.d) + readout.gain_offset
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    model = build(BY_NAME["llama-untied"])
    with torch.no_grad():
        model.lm_head.weight[3, 1] = value
    with pytest.raises(ModelUnavailableError, match=r"lm_head.weight.*(NaN|nan|infinite|finite)"):
        verify.from_transformers(model)


def test_large_weights_of_float64_are_looked_at_as_closely() -> None:
    W = np.random.default_rng(5).normal(size=(9, 4))
    small, large = (probes(in_memory(x, "rmsnorm", dtype="F64").readout) for x in (W, 1e200 * W))
    assert np.allclose(small, large)


@pytest.mark.parametrize(("value", "message"), [(0.0, "zeros enter the final norm"), (np.nan, "not finite")])
def test_what_no_norm_can_scale_is_named(value: float, message: str) -> None:
    config = BY_NAME["llama-untied"].config | {"rms_norm_eps": 0.0}
    model = build(replace(BY_NAME["llama-untied"], config=config))
    verify.from_transformers(model)
    model.model.layers[-1].register_forward_hook(lambda *args: args[2] * value)
    with pytest.raises(ModelUnavailableError, match=message):
        verify.from_transformers(model)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_an_edit_is_found_in_short_dtypes(dtype: str) -> None:
    model = gpt2().to(getattr(torch, dtype))
    model.transformer.ln_f.register_forward_hook(lambda *args: args[2] * 1.1)
    with pytest.raises(ModelUnavailableError, match="own logits are not those of its readout"):
        verify.from_transformers(model)


@pytest.mark.parametrize(
    "epsilon", [np.float32(0.00306), torch.tensor(0.00306), 1, np.float32(0.003), "", print]
)
def test_an_epsilon_of_any_kind_is_found(epsilon: Any) -> None:
    """In bfloat16 the check in place would not see a difference of two per cent."""
    model = build(BY_NAME["llama-untied"]).to(torch.bfloat16)
    model.model.norm.variance_epsilon = epsilon
    with pytest.raises(ModelUnavailableError, match="variance_epsilon = "):
        verify.from_transformers(model)


def test_an_epsilon_of_the_module_alone_is_found() -> None:
    model = gpt2()
    model.transformer.ln_f.eps = 1e-5
    with pytest.raises(ModelUnavailableError, match=r"eps = 1e-05, but epsilon is 0\.003"):
        verify.from_transformers(model)


def test_a_bias_of_the_head_is_found() -> None:
    model = llama()
    model.lm_head.bias = torch.nn.Parameter(torch.ones(61))
    with pytest.raises(ModelUnavailableError, match=r"lm_head\.bias"):
        verify.from_transformers(model)


def test_a_norm_that_is_not_run_is_found() -> None:
    model = gpt2()
    output = transformers.modeling_outputs.CausalLMOutput(logits=torch.ones(1, 5, 61))
    model.forward = lambda **_: output
    with pytest.raises(ModelUnavailableError, match="called 0 times"):
        verify.from_transformers(model)


@pytest.mark.parametrize("name", ["gpt2-tied", "gemma-tied", "phi-untied", "bert-untied"])
def test_a_wrong_readout_does_not_agree(name: str) -> None:
    """The check itself: of the right readout it says nothing, of each wrong one it says what differs."""
    generator = np.random.default_rng(3)
    readout = verify.from_transformers(build(BY_NAME[name])).readout
    r = generator.normal(size=(5, readout.d)) * np.sqrt(float(readout.epsilon))
    seen = Seen(r, logits_at(readout, r), 1e-5)
    require_agreement(readout, seen)
    for wrong in wrong_readouts(readout).values():
        with pytest.raises(ModelUnavailableError, match="tokens differ"):
            require_agreement(wrong, seen)
    for scale, cap in ((1.01, None), (1.0, 30.0)):
        with pytest.raises(ModelUnavailableError, match="scaled"):
            require_agreement(readout, seen, scale, cap)
    short = replace(seen, logits=seen.logits[:, :-1])
    with pytest.raises(ModelUnavailableError, match="shape"):
        require_agreement(readout, short)


# What is refused


def adapted() -> Any:
    model = gpt2()
    model.transformer.h[0].adapter = type("Lora", (torch.nn.Module,), {"__module__": "peft.tuners"})()
    return model


def quantised() -> Any:
    model = gpt2()
    model.transformer.h[0].scale = torch.nn.Parameter(torch.zeros(3, dtype=torch.int8), requires_grad=False)
    return model


def distributed() -> Any:
    model = gpt2()
    model.transformer.h[0].extra = type("DTensor", (torch.nn.Parameter,), {})(torch.ones(3))
    return model


def compiled_in_place() -> Any:
    model = gpt2()
    model.compile()
    return model


def compiled_in_part() -> Any:
    model = llama()
    model.model = torch.compile(model.model)
    return model


def in_parallel() -> Any:
    return torch.nn.DataParallel(gpt2())


def unknown_class() -> Any:
    model = gpt2()
    type_of = type("Edited", (type(model),), {})
    model.__class__ = type_of
    return model


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "peft": (adapted, "merge_and_unload"),
    "int8": (quantised, "quantised or distributed"),
    "subclass": (distributed, "quantised or distributed"),
    "meta": (lambda: gpt2().to("meta"), "meta device"),
    "compiled": (compiled_in_place, r"before \.compile"),
    "compiled_in_part": (compiled_in_part, r"put its model\._orig_mod back"),
    "parallel": (in_parallel, r"a DataParallel wraps a model.*its \.module"),
    "parallel_and_compiled": (lambda: torch.compile(in_parallel()), r"its \.module"),
    "another_class": (unknown_class, "another head"),
    "no_module": (lambda: "gpt2", "load_model"),
    "no_config": (lambda: torch.nn.Linear(2, 2), "from_hooked"),
    "no_head": (lambda: gpt2().transformer, "another head"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_refused(reason: str) -> None:
    make, message = REFUSED[reason]
    with pytest.raises(ModelUnavailableError, match=message):
        verify.from_transformers(make())


def test_a_distributed_wrapper_is_refused() -> None:
    dist = torch.distributed
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        wrapped = torch.nn.parallel.DistributedDataParallel(gpt2())
        for take in (verify.from_transformers, verify.from_hooked):
            with pytest.raises(ModelUnavailableError, match=r"its \.module"):
                take(wrapped)
    finally:
        dist.destroy_process_group()


def test_a_model_that_cannot_be_run_is_refused() -> None:
    model = build(BY_NAME["llama4-untied"])
    with pytest.raises(ModelUnavailableError, match="could not be run on a few tokens"):
        verify.from_transformers(model)


@pytest.mark.parametrize("kind", ["forward_pre_hook", "forward_hook"])
def test_hooks_of_every_module_are_refused(kind: str) -> None:
    model = llama()
    handle = getattr(torch.nn.modules.module, f"register_module_{kind}")(lambda *_: None)
    try:
        with pytest.raises(ModelUnavailableError, match="every module"):
            verify.from_transformers(model)
    finally:
        handle.remove()
    verify.from_transformers(model)


def test_a_model_without_logits_is_refused() -> None:
    model = llama()
    before = model.forward

    def forward(*arguments: Any, **options: Any) -> Any:
        out = before(*arguments, **options)
        out.logits = None
        return out

    model.forward = forward
    with pytest.raises(ModelUnavailableError, match="logits are a NoneType"):
        verify.from_transformers(model)


def test_other_than_a_hooked_transformer_is_refused() -> None:
    with pytest.raises(ModelUnavailableError, match="from_transformers"):
        verify.from_hooked(gpt2())


def test_names() -> None:
    wrong: tuple[Any, ...] = ("", "two\nlines", 5)
    for name in wrong:
        with pytest.raises(UsageError, match="printable"):
            verify.from_transformers(gpt2(), name=name)


# Tokens


def fast_tokenizer() -> Any:
    from tokenizers import Tokenizer, models

    words = {f"w{i}": i for i in range(59)}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, "w0")))


def test_a_fast_tokenizer_names_tokens() -> None:
    live = verify.from_transformers(gpt2(), fast_tokenizer())
    assert (live.tokens.find("w7"), live.tokens.size) == (7, 59)
    assert set(live.files) == {"model.config", "tokenizer.json"}


def test_a_slow_tokenizer_is_refused() -> None:
    with pytest.raises(UsageError, match="no fast tokenizer"):
        verify.from_transformers(gpt2(), SimpleNamespace(is_fast=False))


# Works as any other


def test_from_memory_to_an_audited_certificate(tmp_path: Path) -> None:
    live = verify.from_transformers(gpt2(), fast_tokenizer(), name="my edit")
    decisions = verify.token("w3", live, "all", out=tmp_path / "certificates")
    assert [d.verdict for d in decisions] == ["SPEAKABLE"] * 4
    assert [d.token for d in verify.decide_all([3, 4], live)] == [3, 4]
    path = tmp_path / "edit.safetensors"
    verify.pack(live, path)
    alone = run("audit", tmp_path / "certificates")
    assert (alone.returncode, "folder or pack" in alone.stderr) == (5, True)
    told = run("audit", tmp_path / "certificates", "--model", path, "--json")
    assert told.returncode == 0, told.stderr
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert [line["hypotheses"] for line in lines] == [[]] * 4
    assert all("snapshot" in " ".join(line["notes"]) for line in lines)
    scanned = run("scan", "--model", path, "--tokens", "0-9", "--out", tmp_path / "l", "--workers", "1")
    assert scanned.returncode == 0, scanned.stderr
    assert run("audit", tmp_path / "l", "--model", path).returncode == 0
    again = run("token", "w3", "--model", path, "--out", tmp_path / "again", "--domain", "all")
    assert again.returncode == 0, again.stderr
    for certificate in (tmp_path / "again").rglob("*.json"):
        same = tmp_path / "certificates" / certificate.relative_to(tmp_path / "again")
        assert certificate.read_bytes() == same.read_bytes()


def test_a_certificate_is_refuted_by_the_model_before_the_edit(tmp_path: Path) -> None:
    model = gpt2()
    before = verify.from_transformers(model)
    with torch.no_grad():
        model.transformer.ln_f.weight[0] += 1
    after = verify.from_transformers(model)
    verify.pack(before, tmp_path / "before.safetensors")
    (decision,) = verify.token(3, after, out=tmp_path)
    told = run("audit", str(decision.path), "--model", tmp_path / "before.safetensors")
    assert (told.returncode, "other weights" in told.stderr) == (1, True)


def test_pack_of_the_library(tmp_path: Path) -> None:
    live, path = verify.from_transformers(llama()), tmp_path / "p.safetensors"
    assert verify.pack(live, path) is live
    data = path.read_bytes()
    with pytest.raises(UsageError, match="there already"):
        verify.pack(live, str(path))
    verify.pack(live, path, force=True)
    assert path.read_bytes() == data
    loaded = load_model(str(path))
    assert np.array_equal(
        as_float64(loaded.readout.unembedding, 0, 61), as_float64(live.readout.unembedding, 0, 61)
    )
    with pytest.raises(UsageError, match="a pack already"):
        verify.pack(loaded, tmp_path / "q.safetensors")
    with pytest.raises(UsageError, match=r"end in \.safetensors"):
        verify.pack(live, tmp_path / "p.bin")
    with pytest.raises(UsageError, match="a Model has its readout"):
        verify.pack(live, tmp_path / "q.safetensors", readout="transformer-lens")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        verify.pack(live, tmp_path / "file" / "q.safetensors")


def test_importing_verify_imports_no_torch() -> None:
    code = "import sys, verify; verify.from_transformers; verify.from_hooked; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"
