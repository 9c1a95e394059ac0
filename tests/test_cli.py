"""The command line as a stranger meets it: commands, options, layers of settings, errors."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import pixcloud
from conftest import write_pair_tree
from pixcloud import cli
from pixcloud.config import flatten, pretrain_config

GOLDEN = Path(__file__).parent / "golden"


def run(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = cli.main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


def fails(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a mistake of the user gives."""
    code, _, err = run(*words, capsys=capsys)
    assert code == 2
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("pixcloud: error: ")
    return lines[0]


def test_surface_is_pinned() -> None:
    """A change of a command or an option is a deliberate commit."""
    options = [f"--{key}" for key in flatten(pretrain_config())]
    surface = "\n".join([*cli.COMMANDS, "", *sorted(options)]) + "\n"
    assert surface == (GOLDEN / "cli.txt").read_text()


def test_public_names() -> None:
    for name in pixcloud.__all__:
        assert getattr(pixcloud, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'pretrian'"):
        _ = pixcloud.pretrian  # type: ignore[attr-defined]


@pytest.mark.parametrize("words", [[], ["--help"], ["data"], ["import", "--help"]])
def test_overview(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(*words, capsys=capsys)
    assert code == 0
    assert "usage: pixcloud COMMAND" in out
    if words == ["data"]:
        assert "data make" in out
        assert "pretrain" not in out


def test_help_imports_no_heavy_library() -> None:
    """That is what keeps it fast; a time would depend on the machine."""
    program = (
        "import sys; from pixcloud import cli; cli.main(['--help']); "
        "cli.main(['pretrain', '--help']); cli.main(['probe', '--help']); "
        "[cli.main([name, '--help']) for name in ('finetune', 'fewshot', 'classify', 'segment', "
        "'parts', 'retrieve', 'evaluate', 'embed', 'search', 'export', 'push')]; "
        "heavy = {'torch', 'transformers', 'trimesh', 'kornia', 'sklearn', 'plotly'}; "
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"pairs whose projections are compared" in done.stdout


@pytest.mark.parametrize("command", list(cli.COMMANDS))
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(*command.split(), "--help", capsys=capsys)
    assert code == 0
    assert f"usage: pixcloud {command}" in out


def test_unknown_names_get_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    def line(*words: str) -> str:
        return fails(*words, capsys=capsys)

    assert "unknown command 'pretrian': the nearest known one is 'pretrain'" in line("pretrian")
    assert "unknown command 'data mkae'" in line("data", "mkae")
    assert "'--trainer.epoch'" in line("pretrain", "--trainer.epoch", "3")
    assert "the nearest known one is 'trainer.epochs'" in line("pretrain", "--trainer.epoch=3")
    assert "the nearest known one is 'crosspoint'" in line("pretrain", "--recipe", "crosspiont")
    assert "expected int, got three" in line("pretrain", "--trainer.epochs", "three")
    assert "expected one of 'adam', 'adamw', 'sgd'" in line("pretrain", "--optim.name", "lamb")
    assert "trainer.epochs = 0" in line("pretrain", "--trainer.epochs", "0")
    assert "unrecognized arguments: stray" in line("pretrain", "stray")
    assert "--config needs a value" in line("pretrain", "--config")
    assert "--run needs a value" in line("pretrain", "--run", "--seed", "1")


def test_layers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Recipe, then config file, then flags; whatever the order on the line."""
    file = tmp_path / "mine.yaml"
    file.write_text("trainer: {epochs: 7, batch_size: 9}\nseed: 4\n")
    words = ["pretrain", "--trainer.batch_size", "11", "--config", str(file)]
    words += ["--recipe", "crosspoint", "--print_config"]
    code, out, _ = run(*words, capsys=capsys)
    assert code == 0
    printed = yaml.safe_load(out)
    assert printed["encoder"]["settings"]["k"] == 15
    assert printed["trainer"]["epochs"] == 7
    assert printed["trainer"]["batch_size"] == 11
    assert printed["seed"] == 4
    # what is printed is a config file that gives the same again
    (tmp_path / "again.yaml").write_text(out)
    _, again, _ = run(
        "pretrain", "--config", str(tmp_path / "again.yaml"), "--print_config", capsys=capsys
    )
    assert yaml.safe_load(again) == printed


def test_settings_of_one_encoder_do_not_reach_another(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pretrain", "--recipe", "crosspoint", "--encoder.name", "pointnet", "--print_config"]
    _, out, _ = run(*words, capsys=capsys)
    assert yaml.safe_load(out)["encoder"] == {"name": "pointnet", "settings": {}}
    _, out, _ = run("pretrain", "--encoder.settings.k", "3", "--print_config", capsys=capsys)
    assert yaml.safe_load(out)["encoder"]["settings"] == {"k": 3}


def test_bad_config_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    for text, words in (
        ("trainer: {epoch: 3}", "unknown setting 'trainer.epoch': the nearest known one is 'epo"),
        ("trainer: {epochs: three}", "trainer.epochs: expected int, got three"),
        ("- 1", "expected settings such as 'seed: 1'"),
        ("a: [", "not YAML"),
    ):
        file.write_text(text)
        line = fails("pretrain", "--config", str(file), capsys=capsys)
        assert words in line
        assert str(file) in line
    assert "cannot be read" in fails("pretrain", "--config", str(tmp_path / "no"), capsys=capsys)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_pair_tree(tmp_path / "tree", models=4)


def broken(tree: Path, kind: str) -> str:
    """Spoil a tree; returns what the message must say."""
    if kind == "missing root":
        shutil.rmtree(tree)
        return f"data.source = {tree}: {tree} does not exist"
    if kind == "no pictures folder":
        shutil.rmtree(tree / "ShapeNetRendering")
        return "ShapeNetRendering: missing; expected ShapeNetRendering/<synset>/<model>/rendering"
    if kind == "no clouds":
        for path in tree.glob("ShapeNet/*/*.ply"):
            path.unlink()
        return "no clouds; expected <synset>/<model>.ply"
    if kind == "no pairs":
        for path in tree.glob("ShapeNetRendering/*/*/rendering/*.png"):
            path.unlink()
        return "no pairs; 4 clouds have no pictures (02691156/model000, "
    if kind == "clouds without pictures":
        shutil.rmtree(tree / "ShapeNetRendering/02691156/model000")
        return "1 of 4 clouds have no pictures (02691156/model000)"
    if kind == "unknown data set":
        return "unknown data set 'pair': the nearest known one is 'pairs'"
    if kind == "truncated png":
        for path in tree.glob("ShapeNetRendering/*/*/rendering/*.png"):
            path.write_bytes(path.read_bytes()[:200])
        return "rendering/0"
    if kind == "broken ply":
        for path in tree.glob("ShapeNet/*/*.ply"):
            path.write_bytes(path.read_bytes()[:300])
        return ".ply: "
    return "too few samples for a batch: 4 pairs"


@pytest.mark.parametrize(
    "kind",
    [
        *("missing root", "no pictures folder", "no clouds", "no pairs"),
        *("clouds without pictures", "unknown data set", "truncated png", "broken ply"),
        "too few samples",
    ],
)
def test_mistakes_in_data(
    kind: str, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = broken(tree, kind)
    flags = ["--data.num_points", "16", "--data.picture_size", "16", "--data.workers", "0"]
    flags += ["--encoder.name", "pointnet", "--encoder.settings.embed_dim", "8"]
    flags += ["--image.name", "resnet-tiny", "--trainer.epochs", "1"]
    flags += ["--trainer.batch_size", "20" if kind == "too few samples" else "2"]
    source = f"pair:{tree}" if kind == "unknown data set" else str(tree)
    code, _, err = run(
        "pretrain", "--run", str(tmp_path / "run"), "--data.source", source, *flags, capsys=capsys
    )
    assert code == 2
    assert words in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_probe_needs_an_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no such folder" in fails("probe", str(tmp_path / "none"), capsys=capsys)
    (tmp_path / "empty").mkdir()
    assert "no encoder there" in fails("probe", str(tmp_path / "empty"), capsys=capsys)


def test_data_check(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("data", "check", str(tree), "--read", "-1", capsys=capsys)
    assert code == 0
    assert "4 pairs with 3 pictures each" in out
    assert "read without fault" in out
    next(tree.glob("ShapeNet/*/*.ply")).write_bytes(b"ply\n")
    line = fails("data", "check", str(tree), "--read", "-1", capsys=capsys)
    assert "1 of 4 pairs read are broken" in line


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("doctor", capsys=capsys)
    assert code == 0
    assert "GFLOP/s" in out
    assert "MISSING" not in out
