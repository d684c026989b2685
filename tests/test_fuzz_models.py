"""Damaged model files, the same ones every time: bits flipped, ends cut off, numbers that are far too large.

Each ends in an error of verify.errors or in a model; where a checksum or a configuration says what the
readout is (a pack, a checkpoint's header), in the identical readout. Nothing takes longer than seconds.
"""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import square_checkpoint
from safetensors.numpy import load_file, save_file

from verify.errors import ModelUnavailableError, UsageError, VerifyError
from verify.files import write_atomically
from verify.models import load_model
from verify.models.packed import pack_bytes
from verify.models.quantised import KINDS, dequantised

SECONDS = 5
# Little endian numbers that a reader may multiply, allocate or jump by.
NUMBERS = [
    x.to_bytes(8, "little") for x in (0, 1 << 16, (1 << 31) - 1, 1 << 32, 1 << 59, 1 << 63, (1 << 64) - 1)
]
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 10**18, 10**400, "", "x" * 70_000, "\ud800",
    [], [0], [10**18] * 4, [[[]]], {}, {"x": 1},
)  # fmt: skip


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError(f"a file took longer than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, late)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def fingerprint(model: Path) -> str | None:
    """What the readout is; None where the model is refused. Anything else fails the test."""
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        found = load_model(str(model))
        for token in range(min(found.readout.vocabulary, 6)):
            found.tokens.text(token)
        return found.readout.fingerprint
    except (ModelUnavailableError, UsageError):
        return None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def damaged(data: bytes, end: int, seed: int, count: int) -> Iterator[bytes]:
    """Copies with bits of the first `end` bytes flipped, some lost or repeated, or large numbers there."""
    chance = random.Random(seed)
    for _ in range(count):
        copy = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(min(end, len(copy)))
            kind = chance.randrange(4)
            if kind == 0:
                copy[at] ^= 1 << chance.randrange(8)
            elif kind == 1:
                copy[at : at + 8] = chance.choice(NUMBERS)
            elif kind == 2:
                copy[at : at + chance.randint(1, 9)] = b""
            else:
                other = chance.randrange(len(copy))
                copy[at:at] = copy[other : other + chance.randint(1, 40)]
        yield bytes(copy)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values inside a JSON value."""
    yield path
    children = (
        value.items() if isinstance(value, dict) else enumerate(value if isinstance(value, list) else ())
    )
    for key, child in children:
        yield from leaves(child, (*path, key))


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy with another value at one place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


def with_header(data: bytes, path: tuple[Any, ...], value: Any) -> bytes:
    """A safetensors file with another value at one place of its header."""
    length = int.from_bytes(data[:8], "little")
    header = changed(json.loads(data[8 : 8 + length]), path, value)
    text = json.dumps(header).encode("utf-8", errors="surrogatepass")
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


# Safetensors


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return square_checkpoint(tmp_path / "square")


def test_headers_of_checkpoints(checkpoint: Path) -> None:
    file, right = checkpoint / "model.safetensors", fingerprint(checkpoint)
    data = file.read_bytes()
    header = 8 + int.from_bytes(data[:8], "little")
    assert right is not None
    copies = [data[:size] for size in range(0, len(data), 3)]
    copies += [data[:at] + number + data[at + 8 :] for at in range(0, header, 7) for number in NUMBERS]
    for copy in (*copies, *damaged(data, header, 1, 400)):
        file.write_bytes(copy)
        assert fingerprint(checkpoint) in (None, right)


def test_values_in_headers_of_checkpoints(checkpoint: Path) -> None:
    file, right = checkpoint / "model.safetensors", fingerprint(checkpoint)
    data = file.read_bytes()
    for path in list(leaves(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]))):
        for value in VALUES:
            file.write_bytes(with_header(data, path, value))
            assert fingerprint(checkpoint) in (None, right)


def test_headers_of_shards(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    home = {}
    for number, name in enumerate(sorted(tensors)):
        home[name] = f"model-{number}.safetensors"
        save_file({name: tensors[name]}, checkpoint / home[name])
    index = checkpoint / "model.safetensors.index.json"
    true = {"metadata": {"total_size": 56}, "weight_map": home}
    index.write_text(json.dumps(true))
    right = fingerprint(checkpoint)
    assert right is not None
    for path in list(leaves(true)):
        for value in (*VALUES, "../model-0.safetensors", "/dev/zero", "config.json"):
            index.write_bytes(json.dumps(changed(true, path, value)).encode("utf-8", errors="surrogatepass"))
            assert fingerprint(checkpoint) in (None, right)
    for copy in damaged(json.dumps(true).encode(), len(json.dumps(true)), 2, 300):
        index.write_bytes(copy)
        assert fingerprint(checkpoint) in (None, right)


def test_values_in_configurations(checkpoint: Path) -> None:
    """Each option on its own; an epsilon, and what this type has not, leave the tensors as they are."""
    file, right = checkpoint / "config.json", fingerprint(checkpoint)
    true = json.loads(file.read_text()) | {
        "auto_map": {"AutoModel": "modeling.Own"},
        "final_logit_softcapping": 30.0,
        "logit_scale": 2,
        "text_config": {"tie_word_embeddings": True},
        "torch_dtype": "float32",
    }
    for path in list(leaves(true)):
        for value in VALUES:
            file.write_bytes(json.dumps(changed(true, path, value)).encode("utf-8", errors="surrogatepass"))
            assert fingerprint(checkpoint) in (None, right)


# Packs


@pytest.fixture
def pack(checkpoint: Path, tmp_path: Path) -> Path:
    path = tmp_path / "square.pack.safetensors"
    write_atomically(path, pack_bytes(load_model(str(checkpoint))))
    return path


def test_packs(pack: Path) -> None:
    data, right = pack.read_bytes(), fingerprint(pack)
    assert right is not None
    copies = [data[:at] + number + data[at + 8 :] for at in range(0, len(data), 31) for number in NUMBERS]
    for copy in (*copies, *damaged(data, len(data), 3, 300)):
        pack.write_bytes(copy)
        assert fingerprint(pack) in (None, right)


def test_values_in_packs(pack: Path) -> None:
    """What a pack says of itself, changed, in the one spelling that a pack may have."""
    data, right = pack.read_bytes(), fingerprint(pack)
    table = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    content = json.loads(table["__metadata__"]["verify.pack"])

    def spelled(value: Any) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)

    for path in list(leaves(content)):
        for value in VALUES:
            inner = {"verify.pack": spelled(changed(content, path, value))}
            text = spelled(table | {"__metadata__": inner}).encode("utf-8", errors="surrogatepass")
            text += b" " * (-len(text) % 8)
            pack.write_bytes(
                len(text).to_bytes(8, "little") + text + data[8 + int.from_bytes(data[:8], "little") :]
            )
            assert fingerprint(pack) in (None, right)


# GGUF


def test_gguf(tmp_path: Path) -> None:
    """No checksum is in such a file, so another number may make another model; never another exception."""
    pytest.importorskip("gguf")
    from test_gguf import llama, write

    path = write(tmp_path / "x.gguf", llama())
    data = path.read_bytes()
    header = data.index(b"output_norm.weight") + 60
    assert fingerprint(path) is not None
    copies = [data[:size] for size in range(0, len(data), 13)]
    copies += [data[:at] + number + data[at + 8 :] for at in range(0, header, 11) for number in NUMBERS]
    copies += [data[:at] + number[:4] + data[at + 4 :] for at in range(0, header, 13) for number in NUMBERS]
    for copy in (*copies, *damaged(data, header, 4, 300)):
        path.write_bytes(copy)
        fingerprint(path)


@pytest.mark.parametrize("kind", KINDS)
def test_any_bytes_of_blocks(kind: str) -> None:
    """Scales that are no numbers among them: an error, or finite values."""
    length, size, _ = KINDS[kind]
    rng = np.random.default_rng(len(kind))
    for _ in range(60):
        rows = rng.integers(0, 256, (3, size), dtype=np.uint8)
        try:
            found = dequantised("x", kind, rows, length)
        except VerifyError:
            continue
        found.require_finite()
        assert found.shape == (3, length)
