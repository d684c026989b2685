"""The GitHub action, the pre-commit hook, and docs/claims.md followed to the letter."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped] # comes with huggingface_hub
from command import run, square_checkpoint

from verify.claims import read_claims
from verify.cli.claims import command as claims_command

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "claims.md").read_text()
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())


def block(name: str) -> str:
    """The code block of the page that follows a mark."""
    found = re.search(rf"<!-- {name} -->\n```[a-z]+\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def script(cwd: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    """The action's script as a step runs it, with `verify` of this checkout."""
    tool = cwd / "verify-here"
    tool.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m verify "$@"\n')
    tool.chmod(0o755)
    env = {k: v for k, v in os.environ.items() if not k.startswith(("VERIFY_", "GITHUB_"))}
    env |= {"VERIFY_COMMAND": str(tool), "PYTHONPATH": str(ROOT)}
    env |= {"GITHUB_OUTPUT": str(cwd / "output"), "GITHUB_STEP_SUMMARY": str(cwd / "summary.md")}
    env |= {f"VERIFY_{name.upper()}": value for name, value in inputs.items()}
    line = ["bash", str(ROOT / "action" / "claims.sh")]
    return subprocess.run(line, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """A user's repository with the page's example in it."""
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "my-paper.toml").write_text(block("example"))
    return tmp_path


def test_the_example_is_confirmed_and_its_folder_audited(paper: Path) -> None:
    done = run("claims", "claims/my-paper.toml", "--recompute", "--out", "evidence", cwd=paper)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 CONFIRMED" in done.stdout
    done = run("claims", "evidence/claims/my-paper.toml", "--audit", cwd=paper)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("README.md", "SHA256SUMS", "outcomes.json", "whisper-tiny.en/readout/14531.json"):
        assert (paper / "evidence" / name).is_file()


def test_a_false_claim_about_a_local_folder_is_refuted_as_expected(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    square_checkpoint(tmp_path / "checkpoints" / "final")
    (tmp_path / "claims").mkdir()
    file = tmp_path / "claims" / "mine.toml"
    file.write_text(block("local"))
    line = ["claims", "claims/mine.toml", "--model-dir", "my-model=checkpoints/final"]
    done = run(*line, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "REFUTED (as expected) token-4-cannot-be-said" in done.stdout
    assert "margin" in done.stdout
    file.write_text(file.read_text().replace('expect = "refuted"\n', ""))
    assert run(*line, cwd=tmp_path).returncode == 1


def test_the_script_of_the_action_passes_and_writes_output_and_summary(paper: Path) -> None:
    done = script(paper, files="claims/*.toml", allow_unchecked="false")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (paper / "output").read_text() == "exit-code=0\n"
    assert "4 CONFIRMED" in (paper / "summary.md").read_text()


def test_the_script_fails_on_a_wrong_claim(paper: Path) -> None:
    file = paper / "claims" / "my-paper.toml"
    file.write_text(file.read_text().replace('verdict = "speakable"', 'verdict = "unspeakable"'))
    done = script(paper, files="claims/*.toml")
    assert done.returncode == 1
    assert "::error file=claims/my-paper.toml,line=38," in done.stdout
    assert (paper / "output").read_text() == "exit-code=1\n"


def test_the_script_refuses_what_it_does_not_know(paper: Path) -> None:
    for inputs in (
        {"files": ""},
        {"files": "claims/*.toml nothing/*.toml"},
        {"files": "claims/*.toml", "mode": "quick"},
        {"files": "claims/*.toml", "fetch": "maybe"},
    ):
        (paper / "output").unlink(missing_ok=True)
        done = script(paper, **inputs)
        assert done.returncode == 2, inputs
        assert done.stdout.startswith("::error ")
        assert (paper / "output").read_text() == "exit-code=2\n"
    assert "the pattern 'nothing/*.toml'" in script(paper, files="claims/*.toml nothing/*.toml").stdout


def test_two_stars_are_any_number_of_folders(paper: Path) -> None:
    for folder in ("sub", "sub/deeper"):
        (paper / "claims" / folder).mkdir()
    (paper / "claims" / "sub" / "one.toml").write_bytes((paper / "claims" / "my-paper.toml").read_bytes())
    done = script(paper, files="claims/**/*.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 claims: 8 CONFIRMED" in done.stdout
    (paper / "claims" / "sub" / "deeper" / "two.toml").write_text("nonsense")
    assert script(paper, files="claims/**/*.toml").returncode == 4


def test_files_of_the_repository_stand_in_for_no_module(paper: Path) -> None:
    (install,) = (s for s in ACTION["runs"]["steps"] if s["name"] == "Install verify")
    (line,) = (x for x in install["run"].splitlines() if x.startswith('"$VERIFY_PYTHON"'))
    (paper / "venv.py").write_text("open('hit', 'w')")
    made = paper / "made"
    environment = {**os.environ, "VERIFY_PYTHON": sys.executable, "VERIFY_VENV": str(made)}
    subprocess.run(["bash", "-c", line], cwd=paper, env=environment, check=True)
    assert (made / "bin" / "pip").exists()
    assert not (paper / "hit").exists()


def test_a_file_that_two_patterns_match_is_judged_once(paper: Path) -> None:
    done = script(paper, files="claims/*.toml claims/my-*.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 claims: 4 CONFIRMED" in done.stdout


def test_inputs_are_never_run_as_commands(paper: Path) -> None:
    done = script(paper, files="$(touch${IFS}hit) ; touch hit", model_dirs="$(touch hit)")
    assert done.returncode == 2
    assert not (paper / "hit").exists()
    # No step has an expression in its text: values go by the environment.
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step["run"]


def test_the_action_is_what_the_page_says() -> None:
    documented = dict(re.findall(r"^\| `([a-z-]+)` \| (?:`([^`]*)`|required|none) \|", PAGE, re.MULTILINE))
    assert set(ACTION["inputs"]) <= set(documented)
    for name, about in ACTION["inputs"].items():
        assert about.get("default", "") == documented[name], name
    last = ACTION["runs"]["steps"][-1]
    text = (ROOT / "action" / "claims.sh").read_text()
    for name in ACTION["inputs"]:
        wired = [
            key
            for step in ACTION["runs"]["steps"]
            for key, v in step["env"].items()
            if f"inputs.{name} " in v
        ]
        assert len(wired) == 1, name
        assert wired[0] in text or wired[0] == "VERIFY_PYTHON"
    assert last["run"].strip() == 'bash "$VERIFY_ACTION/action/claims.sh"'


def test_the_workflow_of_the_page_is_short_and_names_inputs_that_exist() -> None:
    workflow = block("workflow")
    assert len(workflow.splitlines()) == 10
    steps = yaml.safe_load(workflow)["jobs"]["claims"]["steps"]
    assert set(steps[1]["with"]) <= set(ACTION["inputs"])


def test_the_pre_commit_hook_runs_the_command(paper: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    used = yaml.safe_load(block("pre-commit"))["repos"][0]["hooks"][0]
    assert hook["id"] == used["id"] == "verify-claims"
    # pre-commit hides what a hook that passes has printed; an UNCHECKED claim passes.
    assert hook["verbose"] is True
    # In `args`, so that a user's own take their place.
    options: list[str] = hook["args"]
    verify, name = hook["entry"].split()
    assert (verify, name) == ("verify", "claims")
    known = {o for p in claims_command.params for o in p.opts}
    assert set(options) <= known
    path = ROOT / "certificates" / "claims" / "post-2023-margin.toml"
    assert run(name, *options, path).returncode == 0
    # Of the page's example it takes the copy that has evidence; the first file would stop every commit.
    run("claims", "claims/my-paper.toml", "--recompute", "--out", "evidence", cwd=paper)
    files = [p.relative_to(paper).as_posix() for p in sorted(paper.rglob("*")) if p.is_file()]
    taken = [p for p in files if re.search(hook["files"], p)]
    assert taken == ["evidence/claims/my-paper.toml"]
    assert run(name, *options, *taken, cwd=paper).returncode == 0
    assert run(name, *options, "claims/my-paper.toml", cwd=paper).returncode == 3


def test_every_option_is_on_the_page() -> None:
    for parameter in claims_command.params:
        assert all(option in PAGE for option in parameter.opts if option.startswith("--"))


def random_gpt2(folder: Path, seed: int) -> None:
    """A checkpoint in GPT-2's layout, with its vocabulary, in four dimensions."""
    import json

    import numpy as np
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    tensors = {
        "wte.weight": rng.normal(size=(50257, 4)).astype(np.float32),
        "ln_f.weight": (1 + rng.normal(size=4) / 8).astype(np.float32),
        "ln_f.bias": (rng.normal(size=4) / 8).astype(np.float32),
    }
    save_file(tensors, str(folder / "model.safetensors"))
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 4, "vocab_size": 50257}
    (folder / "config.json").write_text(json.dumps(config))


def test_the_command_for_all_four_sizes_end_to_end(tmp_path: Path) -> None:
    """On random weights in place of the real ones: every row decided, a folder that audits itself."""
    words = shlex.split(block("all four sizes").replace("\\\n", " "))[2:]
    names = [words[i + 1] for i, word in enumerate(words) if word == "--also"]
    assert [name.split("/")[1] for name in names] == ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"]
    for seed, name in enumerate(names):
        random_gpt2(tmp_path / name, seed)
    folders = [x for name in names for x in ("--model-dir", f"{name}={tmp_path / name}")]
    files = sorted(str(p) for p in ROOT.glob(words[0]))
    done = run("claims", *files, *words[1:], *folders, cwd=tmp_path)
    # The solver answers otherwise on these weights than on the real ones, which that claim leaves open.
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 SAME ANSWER, 1 OTHER ANSWER; 0 not as expected" in done.stdout
    out = tmp_path / "gpt2-claims"
    page = (out / "README.md").read_text()
    for name in names:
        assert f"{name}: box:1" in page
        assert len(list((out / name.replace("/", "-") / "box-1").glob("*.json"))) == 33
        assert len(list((out / name.replace("/", "-") / "direction").glob("*.json"))) == 34
    decided = sorted((out / "claims").glob("*.toml"))
    claims = [c for path in decided for c in read_claims(path).claims]
    assert sum(c.expect == "open" for c in claims) == 1
    assert sum(c.reported is not None and len(c.evidence) == 1 for c in claims) == 14 + 33 + 33
    used = [x for name in (names[0], names[3]) for x in ("--model-dir", f"{name}={tmp_path / name}")]
    done = run("claims", *decided, "--audit", "--allow-unchecked", *used)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 UNCHECKED" in done.stdout
    sums = subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=out, check=False)
    assert sums.returncode == 0
