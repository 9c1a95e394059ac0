"""Features kept on disk: computed once, damaged files noticed, space bounded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pixcloud.encoders import DGCNN, build_encoder
from pixcloud.evaluate import features as features_module
from pixcloud.evaluate.descriptor import ShapeDescriptor
from pixcloud.evaluate.feature_cache import _remove_oldest, array_sha256, feature_folder
from pixcloud.evaluate.features import cached_descriptors, cached_features

CLOUDS = np.random.default_rng(0).standard_normal((7, 40, 3)).astype(np.float32) * 5 + 2


def small(name: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    settings = {"k": 5, "embed_dim": 8} if name == "dgcnn" else {"embed_dim": 16}
    return build_encoder(name, **settings)


def test_features_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = small("pointnet")
    first = cached_features(encoder, CLOUDS, num_points=32, folder=tmp_path)
    monkeypatch.setattr(features_module, "embed_clouds", None)  # calling it would fail
    again = cached_features(encoder, CLOUDS, num_points=32, folder=tmp_path)
    assert (first.hit, again.hit) == (False, True)
    assert first.path == again.path
    np.testing.assert_array_equal(first.values, again.values)
    assert [path.name for path in tmp_path.iterdir()] == [first.path.name]


def test_a_terminal_sees_how_far_features_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bar on a terminal, nothing elsewhere, and nothing beside a caller's own progress."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    encoder, seen = small("pointnet"), []
    cached_features(encoder, CLOUDS[:3], num_points=32, folder=tmp_path)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes this for a terminal
    cached_features(
        encoder,
        CLOUDS[:5],
        num_points=32,
        batch_size=2,
        folder=tmp_path,
        progress=lambda done, count: seen.append((done, count)),
    )
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert capsys.readouterr() == ("", "")
    cached_features(encoder, CLOUDS, num_points=32, folder=tmp_path)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "features" in shown.err
    assert "100%" in shown.err


def test_descriptors_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = ShapeDescriptor(pairs=64, triples=64)
    first = cached_descriptors(few, CLOUDS, num_points=32, folder=tmp_path)
    np.testing.assert_array_equal(first.values, few(CLOUDS[:, :32]))
    other = cached_descriptors(
        ShapeDescriptor(pairs=64, triples=64, seed=1), CLOUDS, num_points=32, folder=tmp_path
    )
    monkeypatch.setattr(ShapeDescriptor, "__call__", None)
    again = cached_descriptors(few, CLOUDS, num_points=32, folder=tmp_path)
    assert (first.hit, other.hit, again.hit) == (False, False, True)
    np.testing.assert_array_equal(first.values, again.values)


def test_whatever_changes_features_changes_the_file(tmp_path: Path) -> None:
    encoder = small("dgcnn")

    def path(enc: nn.Module = encoder, clouds: np.ndarray = CLOUDS, **options: object) -> Path:
        arguments = {"num_points": 32, "folder": tmp_path, **options}
        return cached_features(enc, clouds, **arguments).path

    reference = path()
    other_k = DGCNN(k=4, embed_dim=8)  # the same weights, other neighbourhoods
    other_k.load_state_dict(encoder.state_dict())
    nudged = CLOUDS.copy()
    nudged[6, 31, 2] += 1e-3
    others = [
        path(small("dgcnn", seed=1)),
        path(other_k),
        path(clouds=nudged),
        path(clouds=CLOUDS[::-1]),
        path(num_points=31),
        path(normalize=False),
        path(batch_size=4),
    ]
    assert len({reference, *others}) == 8
    unseen = CLOUDS.copy()
    unseen[:, 32:] = 0
    assert path(clouds=unseen) == reference


@pytest.mark.parametrize("damage", ["cut", "flip", "foreign", "empty"])
def test_a_damaged_file_is_computed_anew_with_a_warning(tmp_path: Path, damage: str) -> None:
    encoder = small("pointnet")
    first = cached_features(encoder, CLOUDS, num_points=32, folder=tmp_path)
    content = bytearray(first.path.read_bytes())
    content[-3] ^= 0xFF
    damaged = {
        "cut": bytes(content[: len(content) // 2]),
        "flip": bytes(content),
        "foreign": b"something else, longer than eight bytes",
        "empty": b"",
    }
    first.path.write_bytes(damaged[damage])
    said: list[str] = []
    again = cached_features(encoder, CLOUDS, num_points=32, folder=tmp_path, say=said.append)
    assert not again.hit
    assert len(said) == 1
    assert str(first.path) in said[0]
    assert "damaged" in said[0]
    assert "\n" not in said[0]
    np.testing.assert_array_equal(first.values, again.values)
    assert cached_features(encoder, CLOUDS, num_points=32, folder=tmp_path).hit


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    said: list[str] = []
    found = cached_features(
        small("pointnet"), CLOUDS, num_points=32, folder=tmp_path / "file", say=said.append
    )
    assert found.values.shape == (7, 16)
    assert "not kept" in said[0]


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIXCLOUD_CACHE", "/somewhere")
    assert feature_folder() == Path("/somewhere/features")
    monkeypatch.delenv("PIXCLOUD_CACHE")
    assert feature_folder() == Path.home() / ".cache" / "pixcloud" / "features"


def test_the_files_not_used_for_longest_go_first(tmp_path: Path) -> None:
    import os

    for age, name in enumerate(["new", "middle", "old", "oldest"]):
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))
    _remove_oldest(tmp_path, keep=tmp_path / "oldest.safetensors", limit=250)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["new", "oldest"]


def test_array_hash_sees_dtype_shape_and_content() -> None:
    array = np.arange(6, dtype=np.int32)
    hashes = {
        array_sha256(array),
        array_sha256(array.reshape(2, 3)),
        array_sha256(array.view(np.float32)),
        array_sha256(array[::-1]),
    }
    assert len(hashes) == 4
    assert array_sha256(np.asfortranarray(array.reshape(2, 3))) in hashes
