"""Loggers never cost training anything, and what they miss is brought over later."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import killable
from fake_wandb import FakeWandb, Silent, refusing
from pixcloud import cli
from pixcloud.config import PretrainConfig, pretrain_config
from pixcloud.config_files import load_config
from pixcloud.errors import ConfigError, LoggerError
from pixcloud.evaluate.results import ResultRow, append_rows
from pixcloud.loggers import follow, followers, lines, target
from pixcloud.loggers.kept import read_kept, write_kept
from pixcloud.loggers.pictures import draw_cloud
from pixcloud.loggers.upload import log
from pixcloud.trainer import pretrain

# Enough for a busy machine; nothing waits that long unless it has to.
LONG = 100.0
TESTS = Path(__file__).parent


@pytest.fixture(autouse=True)
def _a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A key for servers of the tests, and nothing of the user's."""
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "wandb-cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), *sys.path]))
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)


def small(tree: Path, run: Path, **changes: Any) -> PretrainConfig:
    """Four epochs of three steps."""
    settings: dict[str, Any] = {
        "data": {"source": str(tree), "num_points": 32, "picture_size": 24, "workers": 0},
        "encoder": {"name": "pointnet", "settings": {"embed_dim": 32, "widths": [8, 16]}},
        "image": {"name": "resnet-tiny"},
        "objective": {"point_hidden": 16, "image_hidden": 16, "projection_dim": 8},
        "trainer": {"epochs": 4, "batch_size": 4, "log_every": 1, "precision": "32", "threads": 1},
    }
    return pretrain_config(run=str(run), **settings, **changes)


@pytest.fixture(scope="module")
def plain(pair_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without loggers."""
    run = tmp_path_factory.mktemp("plain") / "run"
    pretrain(small(pair_tree, run))
    return run


@pytest.fixture
def copied(plain: Path, tmp_path: Path) -> Path:
    """The lines and settings of that run in a folder of their own."""
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.yaml", "metrics.jsonl"):
        (run / name).write_bytes((plain / name).read_bytes())
    return run


def metrics(run: Path, kind: str = "step") -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == kind]


def places(run: Path) -> list[int]:
    return [record.place for record in lines.records((run / "metrics.jsonl").read_bytes())]


def events(run: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    everything = {"scalars": 0, "images": 0, "tensors": 0}
    return EventAccumulator(str(run / "logs" / "tensorboard"), everything).Reload()


def assert_scalars(run: Path) -> None:
    """Each number of each line once, at its step."""
    found = events(run)
    for kind, tags in (("step", lines.TAGS["step"]), ("epoch", {"intra": "epoch/intra"})):
        for key, tag in tags.items():
            expected = [(line["step"], pytest.approx(line[key])) for line in metrics(run, kind)]
            assert [(x.step, x.value) for x in found.Scalars(tag)] == expected, tag


# TensorBoard


def test_tensorboard(
    pair_tree: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorboard.plugins.custom_scalar import layout_pb2

    run = tmp_path / "run"
    pretrain(small(pair_tree, run, log="tensorboard", wandb={"drain": LONG}))
    assert f"tensorboard: all 16 lines are in {run}/logs/tensorboard" in capsys.readouterr().err
    assert killable.fingerprint(run) == killable.fingerprint(plain)
    assert_scalars(run)
    found = events(run)
    layout = layout_pb2.Layout.FromString(
        found.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    )
    together = [list(chart.multiline.tag) for chart in layout.category[0].chart]
    assert ["loss/intra", "loss/cross"] in together
    assert len(found.Tags()["images"]) == 4
    image = found.Images(found.Tags()["images"][0])[0]
    assert (image.width, image.height) == (512, 256)
    assert b"batch_size: 4" in found.Tensors("config")[0].tensor_proto.string_val[0]

    append_rows(run / "results.jsonl", [row()])
    assert cli.main(["log", str(run), "--to", "tensorboard"]) == 0
    assert cli.main(["log", str(run), "--to", "tensorboard"]) == 0
    assert "all 16 lines" in capsys.readouterr().out
    assert_scalars(run)
    scored = events(run).Scalars("evaluation/svm/synthetic test/accuracy/mine")
    assert [x.value for x in scored] == [0.5]


def row() -> ResultRow:
    return ResultRow(
        protocol="svm",
        dataset="synthetic",
        split="test",
        metric="accuracy",
        value=0.5,
        ci95=(0.4, 0.6),
        n=10,
        seed=0,
        encoder="mine",
        encoder_sha256="0" * 64,
        settings={},
        seconds=1.0,
    )


def test_tensorboard_when_a_kill_left_lines_that_nobody_noted(copied: Path) -> None:
    from pixcloud.loggers.tensorboard_files import TensorBoardFiles

    config = load_config(copied / "config.yaml")
    to = target.target_of(config, "tensorboard", copied)
    found = lines.records((copied / "metrics.jsonl").read_bytes())
    kept = read_kept(to)
    for noted, written in ((-1, 5), (3, 9), (9, 10)):  # 3 and 9 are in the midst of a step's lines
        kept.place = found[noted].place if noted >= 0 else -1
        files = TensorBoardFiles(to, config)
        place = files.open(kept)
        assert place <= kept.place
        files.write([record for record in found[:written] if record.place > place])
        files.writer.flush()  # type: ignore[union-attr]
        time.sleep(1.01)  # files are read in the order of their names, which have seconds
    kept.place = found[9].place
    write_kept(to, kept)
    assert "all 16 lines" in log(str(copied), "tensorboard", seconds=LONG)
    assert_scalars(copied)


def test_a_resumed_run_goes_on(pair_tree: Path, plain: Path, tmp_path: Path) -> None:
    """It runs the last steps again, of which lines were sent already."""
    run = tmp_path / "run"
    config = small(pair_tree, run, log="tensorboard", wandb={"drain": LONG})
    assert killable.run(config, {"step": 8, "delay": 0}) == -9
    wait_until(lambda: not family(run))  # training is gone, so that its follower ends
    to = target.target_of(config, "tensorboard", run)
    log(str(run), "tensorboard", seconds=LONG)
    assert read_kept(to).place == places(run)[-1]
    pretrain(dataclasses.replace(config, resume=True))
    assert killable.fingerprint(run) == killable.fingerprint(plain)
    assert_scalars(run)


def family(run: Path) -> list[psutil.Process]:
    """Processes that work on a run."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if "pixcloud.loggers" in words and str(run) in words:
            found.append(process)
    return found


def wait_until(true: Any) -> None:
    end = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)


# Weights & Biases


def test_wandb_offline(
    pair_tree: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    settings = {"mode": "offline", "drain": LONG}
    pretrain(small(pair_tree, run, log="wandb", wandb=settings))
    assert f"send it to a server with: pixcloud log {run}" in capsys.readouterr().err
    assert killable.fingerprint(run) == killable.fingerprint(plain)
    folders = list((run / "logs" / "wandb").glob("offline-run-*"))
    assert len(folders) == 1
    with FakeWandb() as server:  # the files hold what the service's own command needs
        sync = [sys.executable, "-m", "wandb", "sync", "--project", "p", str(folders[0])]
        environment = {**os.environ, "WANDB_BASE_URL": server.url}
        subprocess.run(sync, env=environment, cwd=tmp_path, check=True)
        assert_history(server, run)


def assert_history(server: FakeWandb, run: Path) -> None:
    """Each line once, pictures and the chart of both losses, the settings."""
    by_place = {line["_step"]: line for line in server.history}
    assert len(by_place) == len(server.history)
    for line in metrics(run):
        sent = by_place.pop(4 * line["step"])
        for key, tag in lines.TAGS["step"].items():
            assert sent[tag] == pytest.approx(line[key]), tag
        assert (sent["step"], sent["pairs_seen"]) == (line["step"], 4 * line["step"])
    for line in metrics(run, "epoch"):
        assert by_place.pop(4 * line["step"] + 1)["epoch/cross"] == pytest.approx(line["cross"])
    assert by_place.pop(1)["pairs"]["count"] == 4
    assert by_place
    assert all("losses" in line for line in by_place.values())
    assert server.config["trainer"]["value"]["batch_size"] == 4


def test_wandb_on_a_server_of_ones_own(
    pair_tree: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with FakeWandb() as server:
        settings = {"url": server.url, "drain": LONG}
        pretrain(small(pair_tree, run, log="wandb", wandb=settings))
        assert f"wandb: all 16 lines are in {server.url}" in capsys.readouterr().err
        assert killable.fingerprint(run) == killable.fingerprint(plain)
        assert_history(server, run)
        append_rows(run / "results.jsonl", [row()])
        assert cli.main(["log", str(run)]) == 0
        assert_history(server, run)
        assert server.summary["evaluation/svm/synthetic test/accuracy/mine"] == 0.5
    assert not family(run)


@pytest.mark.parametrize("kind", ["silent", "nobody", "401", "403"])
def test_a_bad_server_costs_nothing(
    kind: str, pair_tree: Path, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    bad = FakeWandb(refuse=int(kind)) if kind.isdigit() else Silent()
    with bad:
        url = refusing() if kind == "nobody" else bad.url
        settings = {"url": url, "drain": 20.0 if kind.isdigit() else 2.0, "timeout": 2.0}
        if kind.isdigit():
            settings["timeout"] = 60.0
        pretrain(small(pair_tree, run, log="wandb", wandb=settings))
    said = capsys.readouterr().err.splitlines()[-1]
    assert "wandb: 16 of 16 lines are not there yet" in said
    assert said.endswith(f"send them with: pixcloud log {run} --to wandb")
    assert killable.fingerprint(run) == killable.fingerprint(plain)
    assert not family(run)


def test_a_server_that_dies_midway(
    pair_tree: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "FIRST_PAUSE", 0.1)
    run = tmp_path / "run"
    with FakeWandb(die_after=7) as server:
        settings = {"url": server.url, "drain": 5.0, "timeout": 20.0}
        pretrain(small(pair_tree, run, log="wandb", wandb=settings))
        assert killable.fingerprint(run) == killable.fingerprint(plain)
        assert read_kept(target.target_of(load_config(run / "config.yaml"), "wandb", run)).error
        with pytest.raises(LoggerError, match=r"metrics\.jsonl keeps them"):
            log(str(run), "wandb", seconds=0.0)
        server.die_after = -1
        assert "all 16 lines" in log(str(run), "wandb", seconds=LONG)
        assert_history(server, run)
    assert not family(run)


# Any service


def follower(run: Path, backend: str, **changes: Any) -> follow.Follower:
    config = load_config(run / "config.yaml")
    to = target.target_of(config, "tensorboard", run)
    to = dataclasses.replace(to, backend=f"fake_backend:{backend}", **changes)
    return follow.Follower(to, parent=None, patience=LONG, persistent=True)


def service(run: Path) -> list[int]:
    path = run / "service.jsonl"
    return [json.loads(line)["place"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("backend", "timeout"), [("HangsOnce", 5.0), ("DiesOften", 30.0)])
def test_attempts_that_hang_or_die(
    backend: str, timeout: float, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "FIRST_PAUSE", 0.01)
    content = (copied / "metrics.jsonl").read_text().splitlines(keepends=True)[:6]
    (copied / "metrics.jsonl").write_text("".join(content))
    assert follower(copied, backend, timeout=timeout).go()
    assert service(copied) == places(copied)
    if backend == "HangsOnce":
        assert not psutil.pid_exists(int((copied / "hung").read_text()))


def test_a_service_that_takes_nothing(copied: Path) -> None:
    tried = follower(copied, "TakesNothing", timeout=20.0)
    tried.persistent = False
    assert not tried.go()
    assert read_kept(tried.target).error == "the server does not have everything yet"


def test_a_follower_that_is_killed(copied: Path) -> None:
    """Also its session ends; the next one goes on where the service is."""
    content = (copied / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    path = copied / "metrics.jsonl"
    path.write_bytes(b"".join(content[:3]) + content[3][:9])  # also a line that is being written
    to = follower(copied, "Honest", drain=LONG).target
    process = followers.start_follower(to)
    wait_until((copied / "service.jsonl").exists)
    wait_until(lambda: len(service(copied)) == 3)
    process.kill()
    process.wait()
    wait_until(lambda: not family(copied))
    path.write_bytes(b"".join(content[:9]))
    process = followers.start_follower(to)
    wait_until(lambda: len(service(copied)) == 9)
    path.write_bytes(b"".join(content))
    process.terminate()
    assert process.wait(timeout=LONG) == 0
    assert service(copied) == places(copied)


def test_one_at_a_time(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = target.target_of(load_config(copied / "config.yaml"), "tensorboard", copied)
    with follow.only_one(to, lambda: False) as held:
        assert held
        assert cli.main(["log", str(copied), "--to", "tensorboard"]) == 2
    assert "another process is bringing it to tensorboard" in capsys.readouterr().err


def test_a_follower_that_cannot_start(
    pair_tree: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_process(*_: Any, **__: Any) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(followers.subprocess, "Popen", no_process)
    pretrain(small(pair_tree, tmp_path / "run", log="tensorboard,wandb"))
    said = (tmp_path / "run" / "train.log").read_text()
    assert "wandb: not started (no more processes)" in said
    assert killable.fingerprint(tmp_path / "run") == killable.fingerprint(plain)


def test_training_imports_no_logger(pair_tree: Path, tmp_path: Path) -> None:
    config = small(pair_tree, tmp_path / "run", log="wandb,tensorboard", wandb={"drain": 0.0})
    config.wandb.url = refusing()
    process = killable._CONTEXT.Process(target=_train_and_look, args=(config,))
    process.start()
    process.join(LONG)
    assert process.exitcode == 0
    assert "16 of 16 lines are not there yet" in (tmp_path / "run" / "train.log").read_text()


def _train_and_look(config: PretrainConfig) -> None:
    pretrain(config)
    sys.exit(len({"wandb", "tensorboard"} & set(sys.modules)))


# Mistakes


def test_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def line(*words: str) -> str:
        assert cli.main(list(words)) == 2
        return capsys.readouterr().err

    run = str(tmp_path / "run")
    assert "nearest known one is 'tensorboard'" in line("pretrain", "--log", "tensorbord")
    assert "it must begin with http" in line("pretrain", "--wandb.url", "wandb.example.org")
    assert "metrics.jsonl: missing" in line("log", run)
    assert "no logger" in line("log", run, "--to", "csv")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    said = line("pretrain", "--run", run, "--log", "wandb")
    assert 'pip install "pixcloud[wandb]"' in said
    assert not Path(run).exists()
    with pytest.raises(ConfigError, match=r"pixcloud\[tensorboard\]"):
        target.require_packages("tensorboard")


def test_a_cloud_drawn() -> None:
    """What is nearer covers what is behind it; nothing and broken points give an empty picture."""
    assert (draw_cloud([[float("nan")] * 3]) == 255).all()  # type: ignore[arg-type]
    grid = [[x / 20, y / 20, 0.0] for x in range(-20, 21) for y in range(-20, 21)]
    image = draw_cloud(grid, 64)  # type: ignore[arg-type]
    assert image.shape == (64, 64, 3)
    top, bottom = image[10:28].reshape(-1, 3), image[36:54].reshape(-1, 3)
    top, bottom = top[(top < 255).any(axis=1)], bottom[(bottom < 255).any(axis=1)]
    assert top[:, 0].mean() > bottom[:, 0].mean()  # red above, blue below
    assert top[:, 2].mean() < bottom[:, 2].mean()
