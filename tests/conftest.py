"""Fixtures of several tests: where real models lie."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from command import square_checkpoint
from desk import Desk

from verify.errors import NotAtHandError
from verify.models import Model, load_model


@pytest.fixture(scope="session")
def models_folder() -> Path:
    """The folder of real models named by VERIFY_TEST_MODELS; skips where it is not set."""
    root = os.environ.get("VERIFY_TEST_MODELS")
    if not root or not Path(root).is_dir():
        pytest.skip("set VERIFY_TEST_MODELS to a folder of real models to run this test")
    return Path(root)


@pytest.fixture(scope="session")
def real_model(models_folder: Path) -> Callable[[str], Model]:
    """Loads a model of `models_folder` by its name, once a session; skips where it is not there."""
    loaded: dict[str, Model] = {}

    def load(name: str) -> Model:
        if not (models_folder / name).is_dir():
            pytest.skip(f"VERIFY_TEST_MODELS holds no {name}")
        if name not in loaded:
            loaded[name] = load_model(str(models_folder / name))
        return loaded[name]

    return load


@pytest.fixture(scope="session")
def whisper() -> Model:
    """The bundled model."""
    return load_model("whisper-tiny.en")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a small checkpoint in the usual layout; see command.py."""
    return square_checkpoint(tmp_path / "square")


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """No model of the hub is cached, and nothing can be reached. How names are resolved is not touched."""

    def absent(repository: str, _: str | None) -> None:
        raise NotAtHandError(f"{repository!r} is not in the local cache")

    monkeypatch.setattr("verify.models.model.find_snapshot", absent)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Makes files for the standalone auditor and asks it; see desk.py."""
    return Desk(tmp_path)
