"""Folders of meshes become pairs and a labelled split, whatever happens on the way."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_meshes import box, tree_hashes, write_obj, write_off

from pixcloud.data.files import read_cloud
from pixcloud.data.make import make_pairs, split_shapes
from pixcloud.data.mesh_folders import SourceShape
from pixcloud.data.modelnet import read_modelnet
from pixcloud.data.shapenet import complete_pairs, read_crosspoint_tree
from pixcloud.errors import DataError, FileFormatError
from pixcloud.types import Mesh

SMALL: dict[str, Any] = {"views": 2, "size": 16, "points": 24, "workers": 1}


def write_source(root: Path, classes: int = 2, models: int = 3) -> Path:
    for c in range(classes):
        for m in range(models):
            write_off(root / f"class{c}" / f"m{m}.off", box(1, 1 + c, 2 + m))
    return root


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("source") / "meshes")


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    make_pairs(source, out, test_share=0.34, **SMALL)
    return tree_hashes(out)


def test_both_readers_read_what_is_made(source: Path, tmp_path: Path) -> None:
    (source / "class0" / "notes.txt").write_text("stray")
    out = tmp_path / "out"
    report = make_pairs(source, out, test_share=0.34, **SMALL)
    assert (report.train, report.test, report.pairs, report.pictures) == (4, 2, 4, 8)
    assert report.classes == ["class0", "class1"]
    assert (report.ignored, report.kept, report.skipped) == (1, 0, [])
    assert "4 pairs with 8 pictures" in str(report)
    pairs = complete_pairs(read_crosspoint_tree(out))
    train, test = read_modelnet(out, "train"), read_modelnet(out, "test")
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert test.labels.tolist() == [0, 1]
    rows = [json.loads(line) for line in (out / "shapes.jsonl").read_text().splitlines()]
    assert [row["split"] for row in rows] == ["train"] * 4 + ["test"] * 2
    assert {f"{row['class']}/{row['model']}" for row in rows if row["pair"]} == {
        pair.name for pair in pairs
    }
    for row in rows:
        clouds = {"train": train, "test": test}[row["split"]]
        cloud = clouds.points[row["cloud"]]
        assert np.linalg.norm(cloud, axis=1).max() == pytest.approx(1, abs=1e-6)
        assert np.allclose(cloud.mean(axis=0), 0, atol=1e-6)
        if row["pair"]:
            ply = read_cloud(out / "ShapeNet" / row["class"] / f"{row['model']}.ply").points
            assert np.array_equal(ply, cloud)
    assert not (out / "skipped.txt").exists()
    (source / "class0" / "notes.txt").unlink()


def test_workers_and_repetition_do_not_matter(
    source: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    make_pairs(source, out, test_share=0.34, **{**SMALL, "workers": 2})
    assert tree_hashes(out) == undisturbed
    times = {path: path.stat().st_mtime_ns for path in out.rglob("*.*") if path.is_file()}
    report = make_pairs(source, out, test_share=0.34, **SMALL)
    assert report.kept == report.pairs == 4
    assert tree_hashes(out) == undisturbed
    kept = {path for path in times if path.suffix in (".ply", ".png", ".h5", ".cloud")}
    assert all(path.stat().st_mtime_ns == times[path] for path in kept)
    other = tmp_path / "other"
    make_pairs(source, other, test_share=0.34, seed=1, **SMALL)
    assert tree_hashes(other) != undisturbed


STOPPED = """
import os, signal, sys
from pathlib import Path
from pixcloud.data.make import make_pairs
count, replace = 0, os.replace
def dying(*names):
    global count
    count += 1
    if count == int(sys.argv[3]) and sys.argv[4] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*names)
    if count == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = dying
make_pairs(Path(sys.argv[1]), Path(sys.argv[2]), views=2, size=16, points=24, test_share=0.34,
           workers=1)
"""


# The steps: 1 settings, 2 to 7 clouds, then pictures and cloud of each of 4 pairs, 8 to 15, then
# the labelled splits, 16 to 28, and the lists.
@pytest.mark.parametrize("step", [1, 2, 8, 9, 13, 16, 17, 24])
def test_sigkill_at_any_step(
    source: Path, undisturbed: dict[str, str], tmp_path: Path, step: int
) -> None:
    out = tmp_path / "out"
    when = "before" if step % 2 else "after"
    stopped = subprocess.run(
        [sys.executable, "-c", STOPPED, source, out, str(step), when], capture_output=True
    )
    assert stopped.returncode == -9, stopped.stderr.decode()
    assert tree_hashes(out) != undisturbed
    for ply in out.glob("ShapeNet/*/[!.]*.ply"):  # a cloud that is there has all its pictures
        folder = out / "ShapeNetRendering" / ply.parent.name / ply.stem / "rendering"
        assert len(list(folder.iterdir())) == 2
    make_pairs(source, out, test_share=0.34, **SMALL)
    assert tree_hashes(out) == undisturbed


PARALLEL = """
import sys
from pathlib import Path
from pixcloud.data.make import make_pairs
if __name__ == "__main__":
    make_pairs(Path(sys.argv[1]), Path(sys.argv[2]), views=2, size=16, points=24, test_share=0.34,
               workers=2)
"""


@pytest.mark.parametrize("moment", ["make.json", ".make/clouds/*/*", "ShapeNet/*/*.ply"])
def test_sigkill_of_several_workers(
    source: Path, undisturbed: dict[str, str], tmp_path: Path, moment: str
) -> None:
    script, out = tmp_path / "script.py", tmp_path / "out"
    script.write_text(PARALLEL)
    process = subprocess.Popen([sys.executable, script, source, out], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not any(out.glob(moment)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    make_pairs(source, out, test_share=0.34, **SMALL)  # its workers may still be dying
    assert tree_hashes(out) == undisturbed


def test_a_changed_source_is_followed(source: Path, tmp_path: Path) -> None:
    mine, out = tmp_path / "mine", tmp_path / "out"
    shutil.copytree(source, mine)
    (mine / "class1" / "m9.off").write_text("OFF\nbroken\n")
    report = make_pairs(mine, out, test_share=0.34, **SMALL)
    assert report.skipped[0][0] == "class1/m9.off"
    assert (out / "skipped.txt").read_text().startswith("class1/m9.off\t")
    write_off(mine / "class1" / "m9.off", box(3, 1, 1))  # repaired
    write_off(mine / "class1" / "m1.off", box(1, 5, 1))  # changed
    (mine / "class0" / "m0.off").unlink()  # removed
    write_off(mine / "new" / "m0.off", box())  # added
    report = make_pairs(mine, out, test_share=0.34, **SMALL)
    assert report.removed == 1
    assert "earlier shapes removed, as they are no longer in SOURCE: 1" in str(report)
    fresh = tmp_path / "fresh"
    report = make_pairs(mine, fresh, test_share=0.34, **SMALL)
    assert report.removed == 0
    assert "removed" not in str(report)
    assert tree_hashes(out) == tree_hashes(fresh)


def test_another_source_is_refused(source: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    make_pairs(source, out, **SMALL)
    before = tree_hashes(out)
    for name in ("m0", "m1"):
        write_off(other / "table" / f"{name}.off", box())
    with pytest.raises(DataError) as caught:
        make_pairs(other, out, **SMALL)
    for words in (
        f"{out}: made from another SOURCE before",
        "of its 6 shapes (class0/m0, class0/m1, class0/m2 and 3 more) none is among the 2 of",
        "give another OUT, or remove this one first",
    ):
        assert words in str(caught.value)
    assert tree_hashes(out) == before
    write_off(other / "class1" / "m2.off", box())  # one shape in common
    report = make_pairs(other, out, **SMALL)
    assert (report.train + report.test, report.removed) == (3, 5)


def test_given_splits_and_pairs_of_all(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    for name in ("train/a", "train/b", "test/c"):
        write_off(mine / "box" / f"{name}.off", box())
    report = make_pairs(mine, tmp_path / "out", test_share=0.9, **SMALL)
    assert (report.train, report.test, report.pairs) == (2, 1, 2)
    report = make_pairs(mine, tmp_path / "all", pairs="all", **SMALL)
    assert (report.train, report.test, report.pairs) == (2, 1, 3)
    write_obj(mine / "only" / "test" / "a.obj", box())
    report = make_pairs(mine, tmp_path / "more", test_share=0, **SMALL)
    assert report.classes == ["box", "only"]


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(12, 0.34, 4), (12, 1 / 3, 4), (5, 0.5, 3), (1, 0.9, 0), (2, 0.9, 1), (10, 0, 0), (2, 0.2, 0)],
)
def test_shares_are_rounded_class_by_class(count: int, share: float, expected: int) -> None:
    shapes = [
        SourceShape(Path(f"{c}{n}"), f"{c}{n}", c, f"m{n}", "") for c in "ab" for n in range(count)
    ]
    splits = split_shapes(shapes, share, seed=3)
    for category in "ab":
        tests = [s for s in shapes if s.category == category and splits[s] == "test"]
        assert len(tests) == expected
    fewer = split_shapes(shapes[:-1], share, seed=3)
    assert sum(splits[shape] != fewer[shape] for shape in fewer) <= 1


def test_z_up_is_turned(tmp_path: Path) -> None:
    write_off(tmp_path / "mine" / "pole" / "a.off", box(0.1, 0.1, 5))
    write_off(tmp_path / "mine" / "pole" / "b.off", box(0.1, 0.1, 5))
    make_pairs(tmp_path / "mine", tmp_path / "out", up="z", **SMALL)
    cloud = read_modelnet(tmp_path / "out", "train").points[0]
    assert np.ptp(cloud[:, 1]) > 1
    assert np.ptp(cloud[:, 2]) < 0.1


def test_unusable_meshes_are_listed_with_the_reason(source: Path, tmp_path: Path) -> None:
    mine, out = tmp_path / "mine", tmp_path / "out"
    shutil.copytree(source, mine)
    (mine / "class0" / "broken.off").write_text("OFF\n1\n")
    flat = Mesh(vertices=np.zeros((8, 3)), faces=box().faces)
    write_off(mine / "class0" / "a\nflat.off", flat)
    (mine / "class1" / "empty.stl").touch()
    report = make_pairs(mine, out, test_share=0.34, **SMALL)
    reasons = dict(report.skipped)
    assert len(reasons) == 3
    assert "no extent" in reasons["class0/a\nflat.off"]
    assert "numbers of vertices" in reasons["class0/broken.off"]
    lines = (out / "skipped.txt").read_text().splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("class0/a\\nflat.off\t")
    assert "3 meshes could not be used" in str(report)
    assert (report.train, report.test) == (4, 2)
    for workers in (1, 2):
        options = {**SMALL, "workers": workers, "strict": True}
        with pytest.raises(DataError, match="no extent"):
            make_pairs(mine, tmp_path / f"strict{workers}", **options)
    (mine / "class0" / "a\nflat.off").unlink()
    with pytest.raises(FileFormatError, match=r"broken\.off"):
        make_pairs(mine, tmp_path / "strict", strict=True, **SMALL)


def test_nothing_usable(tmp_path: Path) -> None:
    (tmp_path / "mine" / "a").mkdir(parents=True)
    (tmp_path / "mine" / "a" / "x.off").write_text("no")
    with pytest.raises(DataError, match=r"none of the 1 meshes can be used: a/x\.off: not an OFF"):
        make_pairs(tmp_path / "mine", tmp_path / "out", **SMALL)


def test_outputs_that_are_refused(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_pairs(source, out, **SMALL)
    before = tree_hashes(out)
    with pytest.raises(DataError, match="size was 16, now 20; seed was 0, now 5"):
        make_pairs(source, out, **{**SMALL, "size": 20, "seed": 5})
    assert tree_hashes(out) == before
    (out / "make.json").write_text("{")
    with pytest.raises(DataError, match=r"make\.json: broken"):
        make_pairs(source, out, **SMALL)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").touch()
    with pytest.raises(DataError, match=r"not empty \(thesis\.tex is there\)"):
        make_pairs(source, foreign, **SMALL)
    for inside in (source / "out", source, source.parent):
        with pytest.raises(DataError, match="must not lie within each other"):
            make_pairs(source, inside, **SMALL)
    blocked = tmp_path / "blocked"
    blocked.touch()
    with pytest.raises(DataError, match="blocked"):
        make_pairs(source, blocked, **SMALL)
    with pytest.raises(DataError, match="no such folder"):
        make_pairs(tmp_path / "none", tmp_path / "x", **SMALL)


def test_two_at_once_are_refused(source: Path, tmp_path: Path) -> None:
    from pixcloud.data.make_record import alone_in

    with alone_in(tmp_path / "out"), pytest.raises(DataError, match="another process"):
        make_pairs(source, tmp_path / "out", **SMALL)


@pytest.mark.parametrize(
    "bad",
    [{"views": 0}, {"size": 4}, {"points": 0}, {"seed": -1}, {"test_share": 1.0},
     {"test_share": -0.1}, {"up": "x"}, {"pairs": "some"}, {"workers": -1}],
)  # fmt: skip
def test_settings_out_of_range(source: Path, tmp_path: Path, bad: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=next(iter(bad))):
        make_pairs(source, tmp_path / "out", **{**SMALL, **bad})


def test_the_command(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pixcloud.cli import main

    out = tmp_path / "out"
    options = ["--views", "2", "--size", "16", "--points", "24", "--workers", "1"]
    assert main(["data", "make", str(source), str(out), *options]) == 0
    assert "pairs with" in capsys.readouterr().out
    assert main(["data", "make", str(source), str(out), *options, "--seed", "4"]) == 2
    assert "seed was 0, now 4" in capsys.readouterr().err


def test_a_changed_material_is_followed(tmp_path: Path) -> None:
    source = tmp_path / "meshes"
    for number in range(2):
        path = write_obj(source / "box" / f"m{number}.obj", box(1, 1, 1 + number))
        path.write_text("mtllib colors.mtl\nusemtl paint\n" + path.read_text())
    material = source / "box" / "colors.mtl"
    material.write_text("newmtl paint\nKd 1 0 0\n")
    out, anew = tmp_path / "out", tmp_path / "anew"
    make_pairs(source, out, test_share=0, **SMALL)
    red = tree_hashes(out / "ShapeNetRendering")
    material.write_text("newmtl paint\nKd 0 0 1\n")
    assert make_pairs(source, out, test_share=0, **SMALL).kept == 0
    make_pairs(source, anew, test_share=0, **SMALL)
    blue = tree_hashes(out / "ShapeNetRendering")
    assert blue == tree_hashes(anew / "ShapeNetRendering")
    assert all(blue[picture] != red[picture] for picture in red)


def test_a_link_that_leads_nowhere_is_listed(tmp_path: Path) -> None:
    source, out = write_source(tmp_path / "meshes", classes=1), tmp_path / "out"
    (source / "class0" / "gone.obj").symlink_to(tmp_path / "nowhere.obj")
    report = make_pairs(source, out, test_share=0, **SMALL)
    assert len(report.skipped) == 1
    line = (out / "skipped.txt").read_text()
    assert "gone.obj" in line
    assert "No such file" in line
