"""The strict reader: real files, one tiny bad file per rule, and garbage."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verify.errors import ModelUnavailableError
from verify.kernel.safetensors import MAX_HEADER_BYTES, list_tensors, read_tensors
from verify.models.bundled import bundled_folder

if TYPE_CHECKING:
    from pathlib import Path

ENTRY: dict[str, Any] = {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12]}


def pack(header: object, data: bytes, *, text: bytes | None = None) -> bytes:
    encoded = json.dumps(header).encode() if text is None else text
    return len(encoded).to_bytes(8, "little") + encoded + data


def write(folder: Path, content: bytes) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    return path


def entry(**changes: object) -> dict[str, object]:
    return ENTRY | changes


def test_bundled_model() -> None:
    folder = bundled_folder("whisper-tiny.en")
    assert folder is not None
    path = folder / "model.safetensors"
    listing = list_tensors(path)
    assert listing["model.decoder.embed_tokens.weight"] == ("F16", (51864, 384))
    tensors = read_tensors(path)
    assert tensors.keys() == listing.keys()
    with path.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        file.seek(start + 39831552)
        stored = np.frombuffer(file.read(768), "<u2")
    assert np.array_equal(tensors["model.decoder.layer_norm.bias"].raw, stored)
    assert not tensors["model.decoder.layer_norm.bias"].raw.flags.writeable


@pytest.mark.parametrize("padding", [0, 1, 3])
def test_values_survive_at_any_alignment(tmp_path: Path, padding: int) -> None:
    text = json.dumps({"a": ENTRY, "__metadata__": {"format": "pt"}}).encode() + b" " * padding
    values = np.arange(6, dtype="<u2").reshape(2, 3)
    path = write(tmp_path, pack(None, values.tobytes(), text=text))
    tensor = read_tensors(path, {"a"})["a"]
    assert np.array_equal(tensor.raw, values)
    assert (tensor.name, tensor.dtype, tensor.shape) == ("a", "F16", (2, 3))


def test_other_dtypes_are_listed_and_not_handed_out(tmp_path: Path) -> None:
    header = {
        "i": {"dtype": "I8", "shape": [4], "data_offsets": [0, 4]},
        "empty": {"dtype": "F32", "shape": [0, 7], "data_offsets": [4, 4]},
        "f": {"dtype": "BF16", "shape": [], "data_offsets": [4, 6]},
    }
    path = write(tmp_path, pack(header, bytes(6)))
    assert list_tensors(path) == {"i": ("I8", (4,)), "empty": ("F32", (0, 7)), "f": ("BF16", ())}
    assert set(read_tensors(path)) == {"f"}
    assert read_tensors(path, set()) == {}
    with pytest.raises(ModelUnavailableError, match="I8"):
        read_tensors(path, {"i"})
    with pytest.raises(ModelUnavailableError, match="no values"):
        read_tensors(path, {"empty"})
    with pytest.raises(ModelUnavailableError, match="no tensor named 'absent'"):
        read_tensors(path, {"absent"})


def test_names_are_never_paths(tmp_path: Path) -> None:
    path = write(tmp_path, pack({"../../etc/passwd": ENTRY}, bytes(12)))
    assert list(read_tensors(path)) == ["../../etc/passwd"]


TWO = {"a": ENTRY, "b": entry(data_offsets=[12, 24])}
BAD: dict[str, tuple[bytes, str]] = {
    "empty_file": (b"", "truncated"),
    "seven_bytes": (bytes(7), "truncated"),
    "header_longer_than_file": (pack(TWO, b"")[:-40], "truncated"),
    "huge_header_claim": ((MAX_HEADER_BYTES + 1).to_bytes(8, "little") + b"{}", "at most"),
    "header_claims_all_bits": (b"\xff" * 16, "at most"),
    "truncated_data": (pack(TWO, bytes(23)), "truncated"),
    "trailing_byte": (pack(TWO, bytes(25)), "belong to nothing"),
    "overlap": (pack({"a": ENTRY, "b": entry(data_offsets=[10, 22])}, bytes(22)), "overlaps"),
    "same_bytes_twice": (pack({"a": ENTRY, "b": ENTRY}, bytes(12)), "overlaps"),
    "hole": (pack({"a": ENTRY, "b": entry(data_offsets=[14, 26])}, bytes(26)), "hole"),
    "hole_at_start": (pack({"a": entry(data_offsets=[2, 14])}, bytes(14)), "hole"),
    "size_differs_from_shape": (pack({"a": entry(shape=[2, 4])}, bytes(12)), "does not fill"),
    "offsets_reversed": (pack({"a": entry(data_offsets=[12, 0])}, bytes(12)), "malformed"),
    "three_offsets": (pack({"a": entry(data_offsets=[0, 6, 12])}, bytes(12)), "malformed"),
    "negative_length": (pack({"a": entry(shape=[-2, -3])}, bytes(12)), "out of range"),
    "length_of_many_digits": (pack({"a": entry(shape=[10**30, 0])}, bytes(12)), "out of range"),
    "many_dimensions": (pack({"a": entry(shape=[1] * 33)}, bytes(2)), "malformed"),
    "float_offset": (pack({"a": entry(data_offsets=[0, 12.0])}, bytes(12)), "plain integer"),
    "boolean_length": (pack({"a": entry(shape=[True, 6])}, bytes(12)), "list of integers"),
    "nan_in_header": (pack({"a": entry(shape=[float("nan")])}, bytes(12)), "plain integer"),
    "unknown_dtype": (pack({"a": entry(dtype="F12")}, bytes(12)), "unknown dtype"),
    "dtype_not_text": (pack({"a": entry(dtype=["F16"])}, bytes(12)), "unknown dtype"),
    "unknown_field": (pack({"a": entry(stride=[3, 1])}, bytes(12)), "exactly the fields"),
    "missing_field": (pack({"a": {"dtype": "F16", "shape": [6]}}, bytes(12)), "exactly the fields"),
    "entry_not_a_table": (pack({"a": []}, b""), "exactly the fields"),
    "metadata_not_text": (pack({"__metadata__": {"n": 1}, "a": ENTRY}, bytes(12)), "metadata"),
    "metadata_null": (pack({"__metadata__": None, "a": ENTRY}, bytes(12)), "metadata"),
    "header_is_a_list": (pack([], b""), "begin with"),
    "leading_space": (pack(None, b"", text=b" {}"), "begin with"),
    "header_not_utf8": (pack(None, b"", text=b'{"\xff": 1}'), "not JSON"),
    "header_not_json": (pack(None, b"", text=b"{]"), "not JSON"),
    "deep_nesting": (pack(None, b"", text=b'{"a":' + b"[" * 100_000), "not JSON"),
    "duplicate_tensor": (
        pack(None, bytes(12), text=b'{"a": %s, "a": %s}' % ((json.dumps(ENTRY).encode(),) * 2)),
        "duplicate",
    ),
    "duplicate_field": (
        pack(None, bytes(2), text=b'{"a":{"dtype":"F16","dtype":"BF16","shape":[1],"data_offsets":[0,2]}}'),
        "duplicate",
    ),
}


@pytest.mark.parametrize("attack", BAD)
def test_malformed_files_are_refused(tmp_path: Path, attack: str) -> None:
    content, message = BAD[attack]
    path = write(tmp_path, content)
    with pytest.raises(ModelUnavailableError, match=message):
        list_tensors(path)
    with pytest.raises(ModelUnavailableError, match=message):
        read_tensors(path, {"a"})


def test_every_truncation_of_a_good_file_is_refused(tmp_path: Path) -> None:
    good = pack(TWO, bytes(24))
    for length in range(len(good)):
        with pytest.raises(ModelUnavailableError):
            list_tensors(write(tmp_path, good[:length]))


def test_what_is_not_a_regular_file(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailableError, match="regular"):
        list_tensors(tmp_path)
    with pytest.raises(ModelUnavailableError, match="No such file"):
        list_tensors(tmp_path / "absent.safetensors")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelUnavailableError, match="regular"):
        list_tensors(tmp_path / "pipe")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_garbage_raises_one_kind_of_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Flip, cut or insert anywhere in a good file: it reads, or ModelUnavailableError, nothing else."""
    good = pack(TWO | {"__metadata__": {"format": "pt"}}, bytes(24))
    position = data.draw(st.integers(0, len(good)))
    cut = data.draw(st.integers(0, 8))
    content = good[:position] + data.draw(st.binary(max_size=8)) + good[position + cut :]
    path = write(tmp_path_factory.getbasetemp(), content)
    try:
        tensors = read_tensors(path)
    except ModelUnavailableError:
        return
    assert all(tensor.raw.size > 0 for tensor in tensors.values())


def test_the_header_alone_is_read(tmp_path: Path) -> None:
    """A sparse file of 4 GB opens at once."""
    rows = 1 << 20
    header = {"a": {"dtype": "F32", "shape": [rows, 1024], "data_offsets": [0, 4 * 1024 * rows]}}
    path = write(tmp_path, pack(header, b""))
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + 4 * 1024 * rows)
    begin = time.perf_counter()
    tensor = read_tensors(path, {"a"})["a"]
    assert tensor.integers([rows - 1])[0][0] == 0
    assert time.perf_counter() - begin < 1
