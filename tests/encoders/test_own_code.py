"""Encoders of a user's own: by file, module and installed package; what runs, and what does not."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import pixcloud
from pixcloud import cli
from pixcloud.encoders import ENCODERS, build_encoder, import_encoder
from pixcloud.errors import ConfigError, WeightsError
from pixcloud.evaluate.features import cached_features
from pixcloud.machine import CODE_VARIABLE

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_encoder.py"
NAME = "own_encoder.py:DeepSets"
TINY = [
    *("--data.num_points", "32", "--data.picture_size", "24", "--data.workers", "0"),
    *("--image.name", "resnet-tiny", "--encoder.settings.width", "8"),
    *("--trainer.batch_size", "4", "--trainer.progress", "false", "--trainer.threads", "1"),
]


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test names is forgotten when it ends, and by other processes of the machine."""
    monkeypatch.setenv(CODE_VARIABLE, "")
    before = dict(ENCODERS)
    yield
    forget(before)


def forget(before: dict[str, type]) -> None:
    for name in set(ENCODERS) - set(before):
        del ENCODERS[name]


def line(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert cli.main(list(words)) == 2
    (told,) = capsys.readouterr().err.splitlines()
    return str(told)


def test_the_journey_on_the_command_line(
    pair_tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, builtin = tmp_path / "run", dict(ENCODERS)
    words = ["pretrain", "--run", str(run), "--data.source", str(pair_tree), *TINY]
    code = cli.main([*words, "--trainer.epochs", "1", "--encoder.name", f"{EXAMPLE}:DeepSets"])
    assert code == 0
    spec = json.loads((run / "encoder/config.json").read_text())["encoder"]
    assert spec == {"name": NAME, "settings": {"width": 8}}
    forget(builtin)
    told = line("probe", str(run), capsys=capsys)
    assert f"encoder '{NAME}' is code that does not come with this package" in told
    assert f"--code PATH/{NAME}" in told
    assert NAME not in ENCODERS
    # From elsewhere, and moved: what counts is that the user names it.
    moved = shutil.copy(EXAMPLE, tmp_path / "own_encoder.py")
    # The encoder is found now; what is wrong is the data.
    told = line(
        "probe", str(run), "--data.source", "/none", f"--code={moved}:DeepSets", capsys=capsys
    )
    assert "/none" in told
    assert pixcloud.load_encoder(run).embed(torch.rand(9, 3)).shape == (16,)
    forget(builtin)
    # A run that is taken up says in its settings whose code it wants: that is not the user.
    again = ["pretrain", "--run", str(run), "--resume", "true"]
    assert f"only if you name it: --encoder.name {EXAMPLE}" in line(*again, capsys=capsys)
    assert cli.main([*again, "--encoder.name", f"{EXAMPLE}:DeepSets"]) == 0


def test_from_python(tmp_path: Path) -> None:
    encoder = build_encoder(f"{EXAMPLE}:DeepSets", width=4)
    pixcloud.save_encoder(tmp_path / "saved", encoder)
    again = pixcloud.load_encoder(tmp_path / "saved")  # named in this process
    assert type(again) is type(encoder)
    del ENCODERS[NAME]
    with pytest.raises(WeightsError, match=r"pixcloud\.import_encoder\(\"PATH/own_encoder"):
        pixcloud.load_encoder(tmp_path / "saved")
    assert pixcloud.import_encoder(f"{EXAMPLE}:DeepSets") == NAME
    assert type(pixcloud.load_encoder(tmp_path / "saved")) is type(encoder)


def test_features_are_kept_for_the_code_that_made_them(tmp_path: Path) -> None:
    """The same weights, at the same place, after an edit."""
    source = tmp_path / "own_encoder.py"
    clouds, found = np.random.default_rng(0).random((2, 8, 3), np.float32), []
    for code in (EXAMPLE.read_text(), EXAMPLE.read_text().replace(".mean(", ".sum(")):
        source.write_text(code)
        torch.manual_seed(0)
        encoder = build_encoder(f"{source}:DeepSets", width=4)
        found.append(cached_features(encoder, clouds, num_points=8, folder=tmp_path / "kept"))
        del ENCODERS[NAME], sys.modules[type(encoder).__module__]
    assert not found[1].hit
    assert not np.allclose(found[0].values, found[1].values)


def test_a_saved_name_is_never_a_path_to_run(tmp_path: Path) -> None:
    """Whoever hands weights on may write anything into their description."""
    trap = tmp_path / "saved" / "trap.py"
    pixcloud.save_encoder(trap.parent, build_encoder("pointnet", embed_dim=4, widths=[4]))
    trap.write_text("raise SystemExit('ran')\n")
    config = trap.parent / "config.json"
    meta = json.loads(config.read_text())
    for name in (f"{trap}:Trap", f"{trap}", "trap:Trap", "os:system", "trap.py:Trap"):
        config.write_text(json.dumps({**meta, "encoder": {"name": name, "settings": {}}}))
        with pytest.raises(WeightsError, match="runs only if you name it"):
            pixcloud.load_encoder(trap.parent)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package on the path, which offers an encoder under a short name as installed ones do."""
    root = tmp_path / "site"
    (root / "ownpack-1.dist-info").mkdir(parents=True)
    (root / "ownpack").mkdir()
    shutil.copy(EXAMPLE, root / "ownpack" / "models.py")
    (root / "ownpack" / "broken.py").write_text("import no_such_thing\n")
    (root / "ownpack" / "empty.py").write_text(
        "import pixcloud.encoders\nclass Bare(pixcloud.encoders.PointEncoder): pass\nNOTHING = 3\n"
    )
    info = root / "ownpack-1.dist-info"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ownpack\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[pixcloud.encoders]\nsets = ownpack.models:DeepSets\n")
    monkeypatch.syspath_prepend(str(root))
    yield root
    for module in [m for m in sys.modules if m.split(".")[0] == "ownpack"]:
        del sys.modules[module]


def test_installed_packages(package: Path, tmp_path: Path) -> None:
    offered = build_encoder("sets", width=4)
    assert offered.spec["name"] == "sets"
    pixcloud.save_encoder(tmp_path / "saved", offered)
    del ENCODERS["sets"]
    assert pixcloud.load_encoder(tmp_path / "saved").pooled_dim == 8
    assert build_encoder("ownpack.models:DeepSets", width=4).spec["name"].startswith("ownpack.")


def test_errors(package: Path, tmp_path: Path) -> None:
    for name, words in (
        ("no/such.py:Mine", "no file no/such.py"),
        (str(EXAMPLE), r"name the class too, as in .*own_encoder\.py:MyEncoder"),
        ("ownpack.models:", "name the class too, as in ownpack.models:MyEncoder"),
        (f"{EXAMPLE}:DeepSet", "no DeepSet in .*the nearest known one is 'DeepSets'"),
        (f"{EXAMPLE}:nn", "nn is no encoder; derive it from"),
        ("ownpack.nothing:Mine", "no module ownpack.nothing; install its package"),
        ("ownpack.broken:Mine", "failed .ModuleNotFoundError: No module named 'no_such_thing'"),
        (f"{package}/ownpack/broken.py:Mine", "importing .*broken.py failed"),
        ("ownpack.empty:NOTHING", "NOTHING is no encoder"),
        ("ownpack.empty:Bare", "sets no point_dim"),
    ):
        with pytest.raises(ConfigError, match=words):
            build_encoder(name)
    import_encoder(f"{EXAMPLE}:DeepSets")
    other = shutil.copy(EXAMPLE, tmp_path / "own_encoder.py")
    with pytest.raises(ConfigError, match=r"encoder name 'own_encoder\.py:DeepSets' is taken by"):
        import_encoder(f"{other}:DeepSets")
