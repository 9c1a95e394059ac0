"""A user's own labelled shapes in class folders, with labels of points and faces and without."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh

from pixcloud import cli, open_labelled, open_parts, save_encoder
from pixcloud.data.files import read_cloud, write_cloud_ply
from pixcloud.data.folder import list_folder, read_folder, read_part_folder
from pixcloud.data.part_files import part_colors, write_labelled_cloud, write_labelled_mesh
from pixcloud.data.part_labels import labelled_points
from pixcloud.data.shapes import some_points
from pixcloud.data.sources import holds, split_there
from pixcloud.encoders import build_encoder
from pixcloud.errors import DataError, FileFormatError
from pixcloud.types import Mesh

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(40, 3)).astype(np.float32)
LABELS = np.where(POINTS[:, 1] > 0, 7, 3)
BOX = trimesh.creation.box(extents=(1, 2, 1)).subdivide()
BOX_LABELS = (BOX.triangles_center[:, 1] > 0).astype(int)


def write(path: Path, points: np.ndarray = POINTS, labels: np.ndarray = LABELS) -> Path:
    """A labelled cloud in the way that its suffix has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = np.column_stack([points, labels])
    if path.suffix == ".npz":
        np.savez(path, points=points, labels=labels)
    elif path.suffix == ".npy":
        np.save(path, table)
    elif path.suffix == ".ply":
        write_labelled_cloud(path, points, labels)
    elif path.suffix == ".txt":
        normals = points / np.linalg.norm(points, axis=1, keepdims=True)
        np.savetxt(path, np.column_stack([points, normals, labels]), fmt="%.6f")
    elif path.suffix == ".csv":
        np.savetxt(path, table, delimiter=",", header="x,y,z,label", comments="", fmt="%.6f")
    else:
        path.write_text("\n".join(" ".join(map(str, row)) for row in points.tolist()))
        path.with_suffix(".seg").write_text("\n".join(map(str, labels.tolist())) + "\n")
    return path


@pytest.mark.parametrize("suffix", ["npz", "npy", "ply", "txt", "csv", "pts"])
def test_labels_of_points(suffix: str, tmp_path: Path) -> None:
    points, labels = labelled_points(write(tmp_path / f"a.{suffix}"), "a", 300)
    assert points.shape == (300, 3)
    assert np.array_equal(labels, np.where(points[:, 1] > 0, 7, 3))


@pytest.mark.parametrize("suffix", ["ply", "off", "stl"])
def test_labels_of_faces(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"box.{suffix}"
    if suffix == "ply":
        mesh = Mesh(vertices=np.asarray(BOX.vertices), faces=np.asarray(BOX.faces))
        write_labelled_mesh(path, mesh, BOX_LABELS)
    else:
        BOX.export(path)
        path.with_suffix(".seg").write_text("\n".join(map(str, BOX_LABELS)))
    points, labels = labelled_points(path, "box", 200)
    assert np.array_equal(labels, (points[:, 1] > 0).astype(int))


def test_written_labels_are_seen_and_read_again(tmp_path: Path) -> None:
    write_labelled_cloud(tmp_path / "a.ply", POINTS, LABELS)
    assert np.array_equal(read_cloud(tmp_path / "a.ply").points, POINTS)
    seen = trimesh.load(tmp_path / "a.ply").colors[:, :3]
    assert np.array_equal(seen, part_colors(8)[LABELS])
    assert len(np.unique(part_colors(50), axis=0)) == 50


MISTAKES = [
    (lambda path: np.save(path, POINTS), "a.npy", "no labels of points; expected NAME.seg"),
    (lambda path: np.savez(path, points=POINTS, labels=LABELS[1:]), "a.npz", "39 labels for 40"),
    (lambda path: np.savez(path, points=POINTS, labels=LABELS + 0.5), "a.npz", "whole numbers"),
    (lambda path: np.savez(path, points=POINTS, labels=LABELS * np.nan), "a.npz", "whole numbers"),
    (
        lambda path: np.savez(path, points=POINTS, labels=-LABELS),
        "a.npz",
        "from -7 to -3; expected 0",
    ),
    (
        lambda path: np.savez(path, points=POINTS, labels=LABELS + 2**40),
        "a.npz",
        "expected 0 to 2147",
    ),
    (
        lambda path: np.savez(path, points=POINTS, labels=np.eye(40)[:, :2]),
        "a.npz",
        r"array 'labels': labels of the shape \(40, 2\); expected \(40,\)",
    ),
    (
        lambda path: np.savez(path, points=POINTS, labels=LABELS.astype(str)),
        "a.npz",
        "labels of the type <U21; expected whole numbers, whose names may stand in parts.json",
    ),
    (
        lambda path: np.savez(path, points=POINTS, labels=LABELS.astype(object)),
        "a.npz",
        "broken array 'labels'",
    ),
    (lambda path: np.savez(path, points=POINTS, labels=[]), "a.npz", "0 labels for 40"),
    (
        lambda path: np.save(path, np.column_stack([POINTS, LABELS - 5])),
        "a.npy",
        "its last column: labels from -2 to 2; expected 0",
    ),
    (lambda path: np.save(path, np.column_stack([POINTS, LABELS]).astype(str)), "a.npy", "numbers"),
    (lambda path: path.write_text("1 2 3 4\n1 2 3\n"), "a.txt", "broken table"),
    (lambda path: BOX.export(path), "a.ply", "no labels of faces"),
]


@pytest.mark.parametrize(("spoil", "name", "words"), MISTAKES)
def test_missing_and_wrong_labels(spoil: object, name: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    spoil(path)  # type: ignore[operator]
    with pytest.raises(DataError, match=words) as caught:
        labelled_points(path, "a", 10)
    assert str(path) in str(caught.value)


COMPANIONS = [
    (
        "0\n1\n",
        r"box\.seg: 2 labels for 48 faces; faces must be triangles, with one label for each",
    ),
    ("handle\n", r"box\.seg: expected a whole number on each line, the label of each face of box"),
    ("0\n0 1\n", r"box\.seg: expected a whole number on each line"),
    ("0 1\n" * 48, r"box\.seg: 2 numbers on each line; expected .* leave the others out"),
    ("0 " * 48, r"box\.seg: 48 numbers on each line"),
    ("", r"box\.seg: is empty; expected a whole number on each line"),
    ("\n# no labels\n", r"box\.seg: is empty"),
    ("0.5\n" * 48, r"box\.seg: labels must be whole numbers, and number 0 is 0\.5"),
    ("0\n" * 47 + "nan\n", r"box\.seg: labels must be whole numbers, and number 47 is nan"),
    ("0\n" * 47 + "-1\n", r"box\.seg: labels from -1 to 0; expected 0 to 2147483647: give"),
    ("0\n" * 48 + "\xe9\n", r"box\.seg: expected a whole number on each line"),
]


@pytest.mark.parametrize(("content", "words"), COMPANIONS)
def test_wrong_companions(
    content: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine" / "box").mkdir(parents=True)
    for name in ("box", "other"):
        BOX.export(tmp_path / "mine" / "box" / f"{name}.obj")
        beside = tmp_path / "mine" / "box" / f"{name}.seg"
        beside.write_text("\n".join(map(str, BOX_LABELS)))
    (tmp_path / "mine" / "box" / "box.seg").write_text(content, encoding="latin-1")
    save_encoder(tmp_path / "enc", build_encoder("pointnet", embed_dim=8, widths=[8]))
    words_of = ["segment", f"{tmp_path}/enc", "--data.source", f"folder:{tmp_path}/mine"]
    assert cli.main(words_of) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(words, line), line


def test_labels_beside_a_mesh_may_be_written_in_other_ways(tmp_path: Path) -> None:
    BOX.export(tmp_path / "box.obj")
    expected = labelled_points(write_seg(tmp_path, [str(each) for each in BOX_LABELS]), "a", 50)[1]
    for lines in (
        ["# labels", "", *map(str, BOX_LABELS)],
        [f"{each:.6e} " for each in BOX_LABELS],
        ["\ufeff" + str(BOX_LABELS[0]), *map(str, BOX_LABELS[1:])],
    ):
        found = labelled_points(write_seg(tmp_path, lines), "a", 50)[1]
        assert np.array_equal(found, expected)


def write_seg(folder: Path, lines: list[str]) -> Path:
    (folder / "box.seg").write_text("\r\n".join(lines), encoding="utf-8")
    return folder / "box.obj"


def test_faces_that_are_not_in_the_order_of_the_file(tmp_path: Path) -> None:
    """A loader sorts faces by their materials; labels by lines would go to other faces."""
    lines = ["v 0 0 0", "v 1 0 0", "v 0 1 0", "v 0 0 1"]
    for material, corners in (("a", "1 2 3"), ("b", "1 2 4"), ("a", "1 3 4")):
        lines += [f"usemtl {material}", f"f {corners}"]
    (tmp_path / "box.obj").write_text("\n".join(lines) + "\n")
    path = write_seg(tmp_path, ["0", "1", "2"])
    with pytest.raises(DataError, match=r"box\.obj: its faces lie in 2 objects or materials"):
        labelled_points(path, "a", 10)


@pytest.fixture
def mugs(tmp_path: Path) -> Path:
    """Eight mugs without a split, four caps with one, in mixed formats."""
    root = tmp_path / "mine"
    for place in range(8):
        write(root / "mug" / f"m{place}.{('npz', 'ply')[place % 2]}", POINTS + place)
    for split in ("train", "test"):
        for place in range(2):
            write(root / "cap" / split / f"c{place}.txt", POINTS, np.zeros(40, int))
    (root / "mug" / ".hidden.npz").write_text("")
    (root / "mug" / "notes.md").write_text("")
    return root


def test_splits_are_given_or_drawn(mugs: Path) -> None:
    assert len(list_folder(mugs)) == 12
    train, test = (read_folder(mugs, split) for split in ("train", "test"))
    assert np.bincount(train.labels).tolist() == [2, 6]
    assert np.bincount(test.labels).tolist() == [2, 2]
    assert train.classes == ["cap", "mug"]
    assert train.points.shape == (8, 2048, 3)
    again = read_folder(mugs, "train")
    assert np.array_equal(again.points, train.points)
    assert open_labelled(f"folder:{mugs}", "test").name == "mine"
    with pytest.raises(DataError, match="its val split holds no shapes; there are test, train"):
        read_folder(mugs, "val")
    other = mugs.parent / "other"
    for split in ("train", "val"):
        write(other / split / "mug" / f"{split}.npz")
    assert read_folder(other, "val").points.shape == (1, 2048, 3)
    assert [split_there(f"folder:{other}", each) for each in ("val", "test")] == [True, False]
    (mugs.parent / "empty" / "mug").mkdir(parents=True)
    with pytest.raises(DataError, match="no shapes in class folders; expected <class>/"):
        list_folder(mugs.parent / "empty")


def splits_of(root: Path, names: list[str], category: str = "mug") -> dict[str, str]:
    """The split of each name, where a class folder has files of these names alone: m3.npy, ..."""
    shutil.rmtree(root, ignore_errors=True)
    for name in names:
        number = int(name.split(".")[0].removeprefix("m"))
        write(root / category / name, np.full((3, 3), number), np.zeros(3, int))
    found = {}
    for split in ("train", "test"):
        with contextlib.suppress(DataError):  # a single shape is no split of test shapes
            there = open_labelled(f"folder:{root}", split).points[:, 0, 0]
            found |= {name: split for name in names if int(name[1:].split(".")[0]) in there}
    return found


NAMES = [f"m{number}.npy" for number in range(40)]


def test_shapes_in_deeper_folders_are_no_silent_loss(mugs: Path) -> None:
    deep = write(mugs / "mug" / "scans" / "old" / "m99.npz")
    with pytest.raises(DataError, match=r"m99\.npz: lies in a folder below those that are read"):
        list_folder(mugs)
    deep.unlink()
    assert list_folder(mugs)


@pytest.mark.parametrize(
    "deep",
    [
        "cap/a/m.npz",  # a class without a shape of its own
        "mug/train/b/m.npz",
        "train/cap/m.npz",  # beside classes, train is one of them
    ],
)
def test_a_class_with_deeper_folders_alone_is_no_silent_loss(mugs: Path, deep: str) -> None:
    write(mugs / deep)
    with pytest.raises(DataError, match=f"{deep}: lies in a folder below those that are read"):
        list_folder(mugs)


def test_the_only_class_has_deeper_folders_alone(tmp_path: Path) -> None:
    write(tmp_path / "mug" / "a" / "m.npz")
    with pytest.raises(DataError, match="mug itself, or the folder a elsewhere"):
        list_folder(tmp_path)


def test_splits_of_splits_are_no_silent_loss(tmp_path: Path) -> None:
    write(tmp_path / "train" / "mug" / "m.npz")
    write(tmp_path / "train" / "mug" / "test" / "m.npz")
    with pytest.raises(DataError, match="or the folder test elsewhere"):
        list_folder(tmp_path)


def test_hidden_files_in_deeper_folders_are_passed_over(mugs: Path) -> None:
    before = list_folder(mugs)
    write(mugs / "mug" / "scans" / ".m.npz")
    write(mugs / "mug" / "scans" / ".old" / "m.npz")
    assert list_folder(mugs) == before


@pytest.mark.parametrize(
    ("stored", "count"), [(1, 4), (3, 4), (4, 4), (9, 4), (1023, 1024), (2048, 1024)]
)
def test_each_point_once_before_any_is_repeated(stored: int, count: int) -> None:
    found = some_points(stored, count, np.random.default_rng(0))
    assert found.shape == (count,)
    assert len(set(found.tolist())) == min(stored, count)
    assert found.max() < stored
    assert np.array_equal(found, some_points(stored, count, np.random.default_rng(0)))
    if stored >= count:  # what features of larger clouds have been computed from
        assert np.array_equal(found, np.random.default_rng(0).choice(stored, count, replace=False))


def test_no_shape_changes_sides(tmp_path: Path) -> None:
    """Whatever is added or taken away: all that counts is the name."""
    every = splits_of(tmp_path / "a", NAMES)
    assert 5 <= list(every.values()).count("test") <= 15
    for count in range(4, 40, 6):  # m1 and m3 are test by their names
        assert splits_of(tmp_path / "a", NAMES[:count]).items() <= every.items()
        some = [name for place, name in enumerate(NAMES) if place < 4 or place % count]
        assert splits_of(tmp_path / "a", some).items() <= every.items()
    assert splits_of(tmp_path / "a", NAMES, "cap") != every  # each class has its own draw


def test_tiny_classes_have_both_sides_where_they_can(tmp_path: Path) -> None:
    every = splits_of(tmp_path / "a", NAMES)
    test, train = ([n for n in NAMES if every[n] == split] for split in ("test", "train"))
    assert splits_of(tmp_path / "a", test[:1]) == {test[0]: "train"}
    assert splits_of(tmp_path / "a", train[:1]) == {train[0]: "train"}
    for own, other, lacked in ((test, train, "train"), (train, test, "test")):
        for count in range(2, 6):
            found = splits_of(tmp_path / "a", own[:count])
            assert list(found.values()).count(lacked) == 1
            # The one that was lent goes back when the class gets what it lacked.
            found = splits_of(tmp_path / "a", [*own[:count], other[0]])
            assert found.items() <= every.items()


def test_other_forms_of_a_shape_stay_on_its_side(tmp_path: Path) -> None:
    """m3.npy, m3.npz, and m3.npy.ply, which `pixcloud parts` makes of it."""
    every = splits_of(tmp_path / "a", NAMES[:12])
    for suffix in (".npz", ".npy.ply"):
        found = splits_of(tmp_path / "a", [f"m{number}{suffix}" for number in range(12)])
        stems = {name.removesuffix(suffix): split for name, split in found.items()}
        assert stems == {name.removesuffix(".npy"): split for name, split in every.items()}


def test_parts_and_their_names(mugs: Path) -> None:
    train = read_part_folder(mugs, "train")
    assert train.part_names == {"cap": ["part 0"], "mug": ["part 3", "part 7"]}
    assert train.parts is not None
    mug = np.flatnonzero(train.labels == 1)[0]
    middle = train.points[mug].mean(axis=0)
    high = train.points[mug, :, 1] > round(float(middle[1]) - float(POINTS[:, 1].mean()))
    assert np.array_equal(train.parts[mug], np.where(high, 2, 1))
    names = {"mug": {"3": "foot", "7": "bowl", "9": "handle"}, "cap": ["cap"]}
    (mugs / "parts.json").write_text(json.dumps(names))
    train = read_part_folder(mugs, "train")
    assert train.part_names == {"cap": ["cap"], "mug": ["foot", "bowl", "handle"]}
    (mugs / "parts.json").write_text('{"mug": ["foot"]}')
    with pytest.raises(DataError, match=r"labels that .*parts\.json does not name for mug: 3, 7"):
        read_part_folder(mugs, "train")
    for content in (
        *("[1]", '{"mug": "foot"}', '{"mug": {"a": "foot"}}', '{"mug": {"-1": "foot"}}'),
        '{"mug": {"1": "foot", "01": "bowl"}}',
    ):
        (mugs / "parts.json").write_text(content)
        with pytest.raises(FileFormatError, match=r"parts\.json: expected"):
            read_part_folder(mugs, "train")
    (mugs / "parts.json").unlink()
    write_cloud_ply(mugs / "mug" / "bare.ply", POINTS)
    with pytest.raises(DataError, match=r"bare\.ply: no labels of points"):
        read_part_folder(mugs, "train")


def test_protocols_read_folders(mugs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_encoder(mugs.parent / "enc", build_encoder("pointnet", embed_dim=8, widths=[8]))
    small = ["--fit.epochs", "1"]
    for words in (
        ["finetune", "--finetune.num_points", "32", *small],
        ["segment", "--segment.num_points", "32", *small],
    ):
        source = ["--data.source", f"folder:{mugs}"]
        assert cli.main([words[0], f"{mugs.parent}/enc", *source, *words[1:]]) == 0
    assert open_parts(str(mugs), "test").part_names
    assert "Part segmentation" in capsys.readouterr().out


def test_class_folders_are_recognised(
    mugs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bare path of them is data for the protocols; of anything else ModelNet40 is expected."""
    assert (
        open_labelled(str(mugs), "train").classes
        == open_labelled(f"folder:{mugs}", "train").classes
    )
    assert holds(str(mugs)) == (False, True)
    assert cli.main(["data", "check", str(mugs)]) == 0
    assert "test: 4 clouds of 2048 points in 2 classes" in capsys.readouterr().out
    other = tmp_path / "other"
    (other / "a").mkdir(parents=True)
    (other / "a" / "notes.md").touch()
    assert holds(str(other)) == (False, False)
    with pytest.raises(DataError, match="no ModelNet40 there"):
        open_labelled(str(other), "train")
