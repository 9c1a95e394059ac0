"""Evaluation on several processes: every cloud once, and the bits of one process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from distributed.several import run_several
from pixcloud.cli import main
from pixcloud.data.modelnet import write_modelnet
from pixcloud.data.sources import open_pairs
from pixcloud.encoders import build_encoder
from pixcloud.export import save_encoder
from pixcloud.types import LabelledClouds

WORKER = str(Path(__file__).with_name("evaluated.py"))


@pytest.fixture(scope="module")
def alone(pair_tree: Path) -> dict[str, np.ndarray]:
    import torch

    from distributed.evaluated import small_model
    from pixcloud.evaluate.features import embed_clouds
    from pixcloud.evaluate.pairs_in_space import embed_pairs

    torch.manual_seed(0)
    encoder = build_encoder("pointnet", embed_dim=8, widths=[8])
    clouds = np.random.default_rng(0).normal(size=(2468, 16, 3)).astype(np.float32)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {
        f"{size}-{batch}": embed_clouds(encoder, clouds[:size], num_points=16, batch_size=batch)
        for size in (1, 2, 3, 4, 5, 2468)
        for batch in ((1, 128) if size < 10 else (128,))
    }
    space = embed_pairs(small_model(), open_pairs(f"pairs:{pair_tree}"), batch_size=5)
    found |= {"pairs-clouds": space.clouds, "pairs-pictures": space.pictures}
    torch.set_num_threads(threads)
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_counts_are_exact(
    alone: dict[str, np.ndarray], pair_tree: Path, tmp_path: Path, count: int
) -> None:
    """For 1, W - 1, W, W + 1 and 2,468 clouds, each is embedded by one process (asserted there)."""
    run_several(count, [WORKER, str(tmp_path / "features"), f"pairs:{pair_tree}"])
    for rank in range(count):
        with np.load(tmp_path / f"features-{rank}.npz") as found:
            assert {f"{count}-1", f"{count + 1}-128", "2468-128", "pairs-pictures"} <= set(found)
            for name in found:
                assert np.array_equal(found[name], alone[name]), (rank, name)


def test_probe_starts_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    labels = np.repeat(np.arange(3), 8)
    points = np.random.default_rng(0).normal(size=(24, 32, 3)) + labels[:, None, None]
    for split, away in (("train", 0.0), ("test", 0.1)):
        clouds = LabelledClouds(
            name="toy",
            split=split,
            points=(points + away).astype(np.float32),
            labels=labels,
            classes=["a", "b", "c"],
        )
        write_modelnet(tmp_path / "labelled", clouds)
    save_encoder(tmp_path / "encoder", build_encoder("pointnet", embed_dim=8, widths=[8]))
    rows = []
    for count in ("1", "2"):
        command = ["probe", str(tmp_path / "encoder"), "--devices", count]
        command += ["--data.source", f"modelnet40:{tmp_path / 'labelled'}"]
        command += ["--probe.num_points", "32", "--out", str(tmp_path / f"{count}.jsonl")]
        monkeypatch.setenv("PIXCLOUD_CACHE", str(tmp_path / f"cache{count}"))
        assert main(command) == 0
        assert ("read from the cache" in capfd.readouterr().err) == (count == "2")
        lines = (tmp_path / f"{count}.jsonl").read_text().splitlines()
        rows.append([(row["metric"], row["value"]) for row in map(json.loads, lines)])
    assert rows[0] == rows[1]
    assert len(rows[0]) == 10
