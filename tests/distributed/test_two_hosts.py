"""Two hosts, each a network namespace of its own with one process, met through torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conftest import write_pair_tree
from distributed.test_processes import FLAGS, pretrain_here
from pixcloud.cli import main
from pixcloud.data.modelnet import write_modelnet
from pixcloud.types import LabelledClouds

HOSTS = ("10.213.7.1", "10.213.7.2")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def namespaces() -> Iterator[tuple[str, str]]:
    """Two namespaces with a cable between them."""
    names = (f"pc{os.getpid()}a", f"pc{os.getpid()}b")
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", names[0], "type", "veth", "peer", "name", names[1])
        for name, address in zip(names, HOSTS, strict=True):
            ip("link", "set", name, "netns", name)
            ip("-n", name, "addr", "add", f"{address}/24", "dev", name)
            ip("-n", name, "link", "set", name, "up")
            ip("-n", name, "link", "set", "lo", "up")
    except (OSError, subprocess.CalledProcessError) as error:
        _remove(names)
        pytest.skip(f"network namespaces need root and iproute2 ({error})")
    yield names
    _remove(names)


def _remove(names: tuple[str, str]) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def on_both(names: tuple[str, str], folder: Path, *words: str) -> list[str]:
    """`pixcloud WORDS` on both hosts, each in a folder of its own; what each one said."""
    started = []
    for place, name in enumerate(names):
        home = folder / f"host{place}"
        home.mkdir(exist_ok=True)
        launcher = [
            *("--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d"),
            *("--rdzv-id", "test", "--rdzv-endpoint", f"{HOSTS[0]}:29511"),
            # torchrun finds by names which machine is the meeting place; here all have one name.
            *("--rdzv-conf", f"is_host={int(place == 0)}"),
            *("--local-addr", HOSTS[place], "-m", "--", "pixcloud.cli"),
        ]
        command = ["ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run"]
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": name, "OMP_NUM_THREADS": "1"}
        environment["PIXCLOUD_CACHE"] = str(home / "cache")
        started.append(
            subprocess.Popen(
                [*command, *launcher, *words],
                cwd=home,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    outputs = [process.communicate(timeout=250)[0] for process in started]
    for process, output in zip(started, outputs, strict=True):
        assert process.returncode == 0, output
    return outputs


@pytest.mark.timeout(600)
def test_two_hosts_are_one(namespaces: tuple[str, str], tmp_path: Path) -> None:
    tree = write_pair_tree(tmp_path / "tree", models=12)
    flags = [*FLAGS, "--data.source", str(tree), "--trainer.epochs", "2", "--trainer.threads", "1"]
    said = on_both(namespaces, tmp_path, "pretrain", "--run", "run", *flags)
    assert "2 processes of 1 threads" in said[0]
    assert "pre-training" not in said[1], "one of them speaks"
    assert not (tmp_path / "host1/run").exists(), "and writes"
    assert pretrain_here(tmp_path / "one", tree, *flags[len(FLAGS) :]) == 0
    two, one = (
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (tmp_path / "host0/run", tmp_path / "one")
    )
    assert [line["step"] for line in two] == [line["step"] for line in one]
    assert two[0]["loss"] == pytest.approx(one[0]["loss"], rel=1e-5)
    labels = np.repeat(np.arange(3), 8)
    rng = np.random.default_rng(0)
    points = rng.normal(size=(24, 48, 3)) * (1 + labels[:, None, None] * [1, 0, 0])
    for split in ("train", "test"):
        clouds = LabelledClouds(
            name="toy",
            split=split,
            points=points.astype(np.float32),
            labels=labels,
            classes=["a", "b", "c"],
        )
        write_modelnet(tmp_path / "labelled", clouds)
    probe = ["--data.source", f"modelnet40:{tmp_path / 'labelled'}", "--probe.num_points", "48"]
    probe += ["--probe.batch_size", "8", "--out", "results.jsonl"]
    said = on_both(namespaces, tmp_path, "probe", "run", *probe)
    assert "accuracy" in said[0]
    assert "accuracy" not in said[1]
    assert not (tmp_path / "host1/results.jsonl").exists()
    probe[-1] = str(tmp_path / "results.jsonl")
    assert main(["probe", str(tmp_path / "host0/run"), *probe]) == 0
    assert values(tmp_path / "host0/results.jsonl") == values(tmp_path / "results.jsonl")
    assert len(values(tmp_path / "results.jsonl")) == 10


def values(file: Path) -> list[tuple[str, str, float]]:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    return [(row["protocol"], row["metric"], row["value"]) for row in rows]
