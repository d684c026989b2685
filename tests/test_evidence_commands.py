"""The commands around saved evidence: audit of many files, convert, bundle, index, and hostile paths."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from command import run

import verify
from verify.errors import ModelUnavailableError
from verify.files import read_regular

PEAK = (
    "import resource, sys; from verify.cli.audit import command\n"
    "code = command.main(sys.argv[1:], standalone_mode=False)\n"
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
)


def decided(model: Path, out: Path) -> list[Path]:
    verify.token("1", str(model), "all", out=out)
    verify.token("2", str(model), "all", out=out)
    return sorted(out.rglob("*.json"))


def copies(source: Path, folder: Path, count: int) -> None:
    """`count` accepted certificates, all different."""
    text = source.read_text()
    folder.mkdir()
    for n in range(count):
        (folder / f"{n:05}.json").write_text(text.replace('"tool": "', f'"tool": "{n} '))


def test_ten_thousand_certificates_a_line_a_failure_and_flat_memory(model: Path, tmp_path: Path) -> None:
    good = decided(model, tmp_path / "o")[0]
    peaks = {}
    for count in (100, 10_000):
        folder = tmp_path / str(count)
        copies(good, folder, count)
        if count == 10_000:
            (folder / "00007.json").write_text("{}")
            (folder / "00008.json").write_text(good.read_text().replace('"token": 1', '"token": 2'))
        told = subprocess.run(
            [sys.executable, "-c", PEAK, str(folder), "--model", str(model)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        *lines, peak = told.stderr.strip().splitlines()
        peaks[count] = int(peak)
    failures = [line for line in lines if not line.startswith("auditing: ")]
    assert told.returncode == 1
    assert [line.split()[0] for line in failures] == ["MALFORMED", "REFUTED"]
    assert told.stdout.splitlines()[-1] == "9998 of 10000 accepted, 1 malformed, 1 refuted"
    assert "[9998 files]" in told.stdout or len(told.stdout.splitlines()) == 1
    assert peaks[10_000] < peaks[100] + 30_000, "kilobytes"


def test_hypotheses_of_many_files_are_told_once_and_counted(model: Path, tmp_path: Path) -> None:
    good = decided_by_id(model, tmp_path / "o")
    (model / "tokens.json").unlink()
    copies(good, tmp_path / "many", 30)
    told = run("audit", tmp_path / "many", "--model", model)
    assert told.returncode == 0
    first = told.stdout.splitlines()[0]
    assert first.startswith("HYPOTHESIS the token's text, ' corner': no tokenizer file is at hand")
    assert first.endswith("[30 files]")
    every = run("audit", tmp_path / "many", "--model", model, "--verbose")
    assert every.stdout.count("ACCEPTED") == 30
    assert every.stdout.count("HYPOTHESIS") == 30
    lines = run("audit", tmp_path / "many", "--model", model, "--json").stdout.splitlines()
    assert [json.loads(x)["outcome"] for x in lines] == ["accepted"] * 30


def test_hypotheses_that_are_too_many_are_counted_too(model: Path, tmp_path: Path) -> None:
    (model / "tokens.json").unlink()
    good = decided_by_id(model, tmp_path / "o").read_text()
    folder = tmp_path / "many"
    folder.mkdir()
    for n in range(25):
        (folder / f"{n}.json").write_text(good.replace('"text": null', f'"text": "t{n}"'))
    told = run("audit", folder, "--model", model)
    assert "HYPOTHESIS and 5 more hypotheses and notes" in told.stdout


def decided_by_id(model: Path, out: Path) -> Path:
    (one,) = verify.token(1, str(model), out=out)
    assert one.path is not None
    return one.path


def test_a_malformed_file_names_the_rule_it_breaks(model: Path, tmp_path: Path) -> None:
    path = decided(model, tmp_path / "o")[0]
    path.write_text(path.read_text().replace('"token": 1', '"token": 1.0'))
    told = run("audit", path, "--model", model)
    assert told.returncode == 4
    assert "[float]" in told.stderr
    assert json.loads(run("audit", path, "--model", model, "--json").stdout)["rule"] == "float"


def test_several_tokens_in_one_command(model: Path, tmp_path: Path) -> None:
    told = run("token", "0", " corner", "2", "--model", model, "--out", tmp_path / "o")
    assert told.returncode == 0
    names = sorted(p.name for p in (tmp_path / "o").rglob("*.json"))
    assert names == ["0.json", "1.json", "2.json"]
    refused = run("token", "0", "nonsense", "--model", model, "--out", tmp_path / "p")
    assert refused.returncode == 2
    assert not (tmp_path / "p").exists()
    assert run("token", "0", "1", "--compare", "--model", model, cwd=tmp_path).returncode == 2


def test_convert_and_bundle(model: Path, tmp_path: Path) -> None:
    files = {p.parent.name + p.name: p for p in decided(model, tmp_path / "o")}
    centre, spoken = files["direction2.json"], files["readout1.json"]
    small, big, packed = (tmp_path / n for n in ("small.json", "big.json", "bundle.json"))
    assert run("convert", centre, "--multipliers", "support", "--model", model, "-o", small).returncode == 0
    assert '"values": null' in small.read_text()
    assert run("convert", small, "--multipliers", "full", "--model", model, "-o", big).returncode == 0
    for path in (small, big):
        assert verify.audit(path, str(model)).outcome == "accepted"
    assert run("bundle", centre, "--model", model, "-o", packed).returncode == 0
    alone = run("audit", packed)
    assert alone.returncode == 0
    assert alone.stdout.startswith("HYPOTHESIS these Merkle roots")
    bound = run("audit", packed, "--model", model)
    assert bound.returncode == 0
    assert "HYPOTHESIS" not in bound.stdout
    assert "UNSPEAKABLE" in run("show", packed).stdout
    out = run("bundle", centre, "--model", model)
    assert out.stdout == packed.read_text()
    for arguments, code, words in (
        (("bundle", spoken), 2, "cannot be bundled"),
        (("convert", spoken, "--multipliers", "support"), 2, "one form"),
        (("convert", centre, "--multipliers", "full"), 2, "already"),
        (("bundle", packed), 2, "is a bundle"),
        (("convert", packed, "--multipliers", "full"), 2, "is a bundle"),
        (("bundle", tmp_path / "absent.json"), 5, "cannot read"),
        (("bundle", centre, "-o", "/dev/null/x"), 5, "cannot write"),
    ):
        told = run(*arguments, "--model", model)
        assert (told.returncode, words in told.stderr) == (code, True), told.stderr
        assert told.stdout == ""


def test_a_bundle_of_another_model_is_refuted_where_the_model_is_at_hand(model: Path, tmp_path: Path) -> None:
    centre = next(
        p for p in decided(model, tmp_path / "o") if p.parent.name == "direction" and p.name == "2.json"
    )
    packed = tmp_path / "b.json"
    run("bundle", centre, "--model", model, "-o", packed)
    weights = model / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert verify.audit(packed).outcome == "accepted"
    assert verify.audit(packed, str(model)).outcome == "refuted"


def test_index_page_and_sums(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    files = decided(model, out)
    told = run("index", out, "--model", model)
    assert told.returncode == 0, told.stderr
    assert f"{len(files)} certificates" in told.stdout
    page = (out / "README.md").read_text()
    assert page.count("](square/") == len(files)
    assert r"\<pad\>" not in page
    lines = [line.split("  ") for line in (out / "SHA256SUMS").read_text().splitlines()]
    sums = {name: digest for digest, name in lines}
    assert set(sums) == {p.relative_to(out).as_posix() for p in files} | {"README.md"}
    assert all(
        hashlib.sha256((out / name).read_bytes()).hexdigest() == digest for name, digest in sums.items()
    )
    again = (page, (out / "SHA256SUMS").read_text())
    run("index", out, "--model", model)
    assert again == ((out / "README.md").read_text(), (out / "SHA256SUMS").read_text())
    files[0].write_text(files[0].read_text().replace('"token": 1', '"token": 2'))
    (out / "README.md").unlink()
    refused = run("index", out, "--model", model)
    assert refused.returncode == 1
    assert files[0].name in refused.stderr
    assert not (out / "README.md").exists()
    (tmp_path / "empty").mkdir()
    assert run("index", tmp_path / "empty").returncode == 2


def test_pipes_devices_and_links_that_lead_nowhere_do_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.json")
    (tmp_path / "loop.json").symlink_to("loop.json")
    (tmp_path / "dangling.json").symlink_to("nowhere.json")
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    for name in ("fifo", "loop", "dangling", "zero"):
        with pytest.raises(ModelUnavailableError):
            read_regular(tmp_path / f"{name}.json")
        assert run("audit", tmp_path / f"{name}.json").returncode == 5


def test_a_certificate_cannot_name_a_folder_of_this_machine(model: Path, tmp_path: Path) -> None:
    path = decided(model, tmp_path / "o")[0]
    for name in ("..", "/etc", "../square", str(model), "~", "C:\\\\x"):
        path.write_text(path.read_text().replace('"model": "square"', f'"model": "{name}"'))
        told = run("audit", path, cwd=model.parent)
        assert told.returncode == 5
        assert "pass its folder or pack with --model" in told.stderr
        path.write_text(path.read_text().replace(f'"model": "{name}"', '"model": "square"'))


def test_a_link_at_the_target_is_replaced_not_followed(model: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    target = tmp_path / "o" / "square" / "readout" / "1.json"
    target.parent.mkdir(parents=True)
    target.symlink_to(victim)
    (one,) = verify.token(1, str(model), out=tmp_path / "o")
    assert victim.read_text() == "precious"
    assert one.path is not None
    assert verify.audit(one.path, str(model)).outcome == "accepted"


def test_a_description_by_hand_does_not_outweigh_a_configuration(model: Path, tmp_path: Path) -> None:
    """A readout described by hand counts only where no configuration says what is right."""
    hand = ["--unembedding", "model.embed_tokens.weight", "--norm", "rmsnorm", "--epsilon", "1e-6"]
    assert run("token", "1", "--model", model, "--out", tmp_path / "o", *hand).returncode == 0
    told = run("audit", tmp_path / "o", "--model", model)
    assert told.returncode == 1
    assert "the statement is about tensors" in told.stderr


def test_memory_figures_are_available() -> None:
    """Guard: the peak compared above is a number of this platform's kilobytes."""
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 1000


def test_special_files_are_not_replaced(model: Path, tmp_path: Path) -> None:
    files = {p.parent.name + p.name: p for p in decided(model, tmp_path / "o")}
    os.mkfifo(tmp_path / "fifo")
    for target in ("/dev/null", tmp_path / "fifo", tmp_path):
        told = run("bundle", files["direction2.json"], "--model", model, "-o", target)
        assert (told.returncode, "no regular file" in told.stderr) == (5, True)
    assert not Path("/dev/null").is_file()


def test_names_of_files_cannot_forge_lines(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    (folder / "x\nACCEPTED y.json").write_text("{}")
    told = run("audit", folder, "--model", model)
    assert told.returncode == 4
    assert not any(line.startswith("ACCEPTED") for line in (told.stdout + told.stderr).splitlines())
    (folder / "x\nACCEPTED y.json").unlink()
    good = decided(model, tmp_path / "o")[0]
    for name in ("a\nb.json", "a\\\\b.json", os.fsdecode(b"\xff.json")):
        (folder / name).write_bytes(good.read_bytes())
        assert run("index", folder, "--model", model).returncode == 2
        (folder / name).unlink()


def test_output_that_cannot_be_written_is_no_internal_error(model: Path, tmp_path: Path) -> None:
    good = decided(model, tmp_path / "o")[0]
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "verify", "audit", str(good), "--model", str(model)]
        told = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert told.returncode == 5
    assert "cannot write" in told.stderr


def test_an_index_lists_hypotheses_and_refuses_mixtures(model: Path, tmp_path: Path) -> None:
    first = decided_by_id(model, tmp_path / "o")
    (model / "tokens.json").unlink()
    told = run("index", tmp_path / "o", "--model", model)
    assert told.returncode == 0
    assert "**Hypothesis**" in (tmp_path / "o" / "README.md").read_text()
    text = first.read_text().replace('"competitor_rule": "all"', '"competitor_rule": "tokenizer"')
    (tmp_path / "o" / "other.json").write_text(text)
    assert run("index", tmp_path / "o", "--model", model).returncode == 2
    assert "HYPOTHESIS" in run("convert", first, "--multipliers", "support", "--model", model).stderr


def with_claims(model: Path, folder: Path) -> Path:
    """A folder of `verify claims --out`: certificates, claims, a report."""
    claims = folder / "claims.toml"
    claims.write_text(
        'format = "verify-claims"\nversion = 1\n[source]\ntitle = "t"\nauthor = "a"\ndate = "2026"\n'
        'address = "-"\n[universe.u]\nwhat = "two"\nsize = 2\ntokens = [1, 2]\n[[claim]]\nid = "c"\n'
        'model = "m"\ndomain = "readout"\nuniverse = "u"\ntokens = "all"\nverdict = "speakable"\ncount = 1\n'
    )
    where = ("--model-dir", f"m={model}", "--recompute", "--out", folder / "out")
    told = run("claims", claims, *where)
    assert told.returncode == 0, told.stderr
    return folder / "out"


def test_a_report_of_claims_is_no_certificate_that_is_malformed(model: Path, tmp_path: Path) -> None:
    out = with_claims(model, tmp_path)
    told = run("audit", out, "--model", model)
    assert told.returncode == 0, told.stderr
    assert "2 of 2 accepted" in told.stdout
    assert "skipped a report of `verify claims`" in told.stdout
    machine = run("audit", out, "--model", model, "--json")
    assert [json.loads(x)["outcome"] for x in machine.stdout.splitlines()] == ["accepted"] * 2
    # Named by itself it is told what it is.
    alone = run("audit", out / "outcomes.json")
    assert alone.returncode == 4
    assert "MALFORMED" in alone.stderr
    assert "a report that `verify claims` wrote, and no certificate" in alone.stderr
    assert "`verify claims FILE.toml... --audit`" in alone.stderr


def test_a_folder_of_reports_alone_is_no_success(model: Path, tmp_path: Path) -> None:
    out, only = with_claims(model, tmp_path), tmp_path / "only"
    only.mkdir()
    (only / "r.json").write_bytes((out / "outcomes.json").read_bytes())
    told = run("audit", only)
    assert told.returncode == 2
    assert "nothing to audit" in told.stderr


def test_no_certificate_is_skipped_as_a_report(model: Path, tmp_path: Path) -> None:
    """What says so anywhere but at its beginning, where no certificate does, is malformed as before."""
    path = decided(model, tmp_path / "o")[0]
    whole = json.loads(path.read_text())
    whole["format"] = "verify-claims-report"
    path.write_text(json.dumps(whole, sort_keys=True, indent=1) + "\n")
    told = run("audit", tmp_path / "o", "--model", model)
    assert (told.returncode, "skipped a report" in told.stdout) == (4, False)


@pytest.mark.parametrize("many", [3, 30])
def test_one_reason_for_many_unavailable_files_is_told_once(many: int, model: Path, tmp_path: Path) -> None:
    good, folder = decided_by_id(model, tmp_path / "o"), tmp_path / "many"
    good.write_text(good.read_text().replace('"model": "square"', '"model": "my square"'))
    copies(good, folder, many)
    (folder / "x.json").write_text(good.read_text().replace('"model": "my', '"model": "other'))
    told = run("audit", folder)
    assert told.returncode == 5
    grouped, other = told.stderr.splitlines()
    assert grouped.startswith(f"UNAVAILABLE {folder / '00000.json'}: 'my square' is neither")
    assert grouped.endswith(f" [{many} files]")
    assert other.startswith(f"UNAVAILABLE {folder / 'x.json'}: 'other square' is neither")
    assert other.endswith("--model")
    assert told.stdout.splitlines()[-1] == f"0 of {many + 1} accepted, {many + 1} unavailable"
    every = run("audit", folder, "--verbose")
    assert every.stderr.count("UNAVAILABLE") == many + 1
    assert len(run("audit", folder, "--json").stdout.splitlines()) == many + 1


def test_reasons_that_are_too_many_are_told_as_they_come(model: Path, tmp_path: Path) -> None:
    good, folder = decided_by_id(model, tmp_path / "o").read_text(), tmp_path / "many"
    folder.mkdir()
    for n in range(25):
        (folder / f"{n:02}.json").write_text(good.replace('"model": "square"', f'"model": "m {n}"'))
    assert run("audit", folder).stderr.count("UNAVAILABLE") == 25
