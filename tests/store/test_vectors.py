"""Stores of vectors: exact and approximate search, replacing and removing, crashes, damage."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pixcloud.errors import StoreError
from pixcloud.store import About, VectorStore, approximate, vectors
from pixcloud.store.exact import nearest

RNG = np.random.default_rng(0)


def names_of(count: int, prefix: str = "v") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def by_hand(query: np.ndarray, stored: np.ndarray, k: int) -> list[int]:
    """Places by cosine, one at a time; of equal ones the first."""
    cosines = [np.float32(float(np.dot(row.astype(float), query.astype(float)))) for row in stored]
    return sorted(range(len(stored)), key=lambda place: (-cosines[place], place))[:k]


@pytest.mark.parametrize("kind", ["random", "copies", "opposite", "one"])
def test_exact_search_is_the_slow_one(kind: str) -> None:
    stored = RNG.normal(size=(300, 8))
    if kind == "copies":  # ties, more of them than the spare candidates
        stored = np.repeat(stored[:3], 100, axis=0)
    if kind == "opposite":
        stored[1::2] = -stored[::2]
    if kind == "one":
        stored = stored[:1]
    stored = vectors.unit_vectors(stored, 8, names_of(len(stored)))
    for query in vectors.unit_vectors(RNG.normal(size=(5, 8)), 8, names_of(5)):
        for k in (1, 7, 1000):
            numbers, scores = nearest(query, stored, np.arange(len(stored)) + 5, k)
            assert (numbers - 5).tolist() == by_hand(query, stored, k)
            assert (np.diff(scores) <= 0).all()


def test_adding_replacing_removing(tmp_path: Path) -> None:
    about = About(dim=4, encoder="e", encoder_sha256="s")
    stored = RNG.normal(size=(6, 4))
    with VectorStore(tmp_path / "index", about) as store:
        assert store.search(stored[:1]).names == [[]]
        store.add(names_of(4), stored[:4], stamps=list("abcd"))
        store.add(["v1", "new"], stored[4:], stamps=["x", "y"], replace=True)
        assert store.stamps() == {"v0": "a", "v2": "c", "v3": "d", "v1": "x", "new": "y"}
        assert store.search(stored[4:5], k=1).names == [["v1"]]
        assert store.search(stored[1:2], k=9).names[0][0] != "v1"
        assert store.remove(["v0", "nothing"]) == 1
        assert len(store) == 4
    with VectorStore(tmp_path / "index") as store:
        assert store.about == about
        names, kept = store.vectors()
        assert names == ["v2", "v3", "v1", "new"]
        assert np.allclose(kept[2], stored[4] / np.linalg.norm(stored[4]))
        with VectorStore(tmp_path / "index", about) as other:  # seen by those who have it open
            other.add(["more"], stored[:1])
        assert store.search(stored[:1], k=1).names == [["more"]]


def test_all_vectors_are_of_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another connection removes meanwhile is there, or is not, with its name."""
    with VectorStore(tmp_path / "i", About(dim=4)) as store:
        store.add(names_of(4), RNG.normal(size=(4, 4)))
        read = store._names

        def remove() -> None:
            with VectorStore(tmp_path / "i") as other:
                other.remove(["v1"])

        meanwhile = threading.Thread(target=remove)

        def later(numbers: Any) -> list[str]:
            meanwhile.start()
            meanwhile.join(0.5)  # it waits until all has been read
            return read(numbers)

        monkeypatch.setattr(store, "_names", later)
        names, vectors = store.vectors()
        meanwhile.join()
        assert names == names_of(4)
        assert len(vectors) == 4
        monkeypatch.undo()
        assert len(store.vectors()[0]) == 3


def test_mistakes_change_nothing(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "index", About(dim=2, encoder="e"))
    store.add(["a"], np.eye(2)[:1])
    mistakes: list[tuple[list[str], Any, str]] = [
        (["b", "a"], np.eye(2), "names that are there already: a"),
        (["b", "b"], np.eye(2), "names that come twice: b"),
        (["b"], np.eye(2), "1 names, 2 vectors"),
        (["b"], np.zeros((1, 2)), "the vector of b is 0 or not finite"),
        (["b", "c"], np.array([[1, 0], [np.nan, 1]]), "the vector of c is 0 or not finite"),
        (["b"], np.ones((1, 3)), r"vectors \(1, 3\): expected \(S, 2\)"),
    ]
    for names, values, words in mistakes:
        with pytest.raises(StoreError, match=words):
            store.add(names, values)
    assert list(store.stamps()) == ["a"]
    with pytest.raises(StoreError, match="k is 0"):
        store.search(np.eye(2), k=0)
    with pytest.raises(StoreError, match="query 1 is 0"):
        store.search(np.array([[1, 0], [0, 0]]))
    for other, words in (
        (About(dim=3), "dim = 2"),
        (About(dim=2, kind="shared"), "kind = pooled"),
        (About(dim=2, encoder_sha256="x"), "encoder_sha256"),
    ):
        with pytest.raises(StoreError, match=words):
            VectorStore(tmp_path / "index", other)


def test_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no index there; pixcloud embed"):
        VectorStore(tmp_path / "nothing")
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "notes.txt").write_text("")
    with pytest.raises(StoreError, match="holds something else"):
        VectorStore(tmp_path / "else", About(dim=2))
    damaged = tmp_path / "damaged"
    VectorStore(damaged, About(dim=2)).close()
    (damaged / vectors.FILE).write_bytes(b"SQLite format 3\0" + bytes(4000))
    with pytest.raises(StoreError, match=r"vectors\.sqlite"):
        VectorStore(damaged)
    base = sqlite3.connect(tmp_path / "other.sqlite")
    base.execute("CREATE TABLE about (key, value)")
    base.commit()
    base.close()
    (tmp_path / "strange").mkdir()
    (tmp_path / "other.sqlite").rename(tmp_path / "strange" / vectors.FILE)
    with pytest.raises(StoreError, match="no index of the form"):
        VectorStore(tmp_path / "strange")


def test_a_kill_while_it_is_made_leaves_no_useless_folder(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "vectors.sqlite").touch()  # as SQLite leaves it before the first commit
    with pytest.raises(StoreError, match="no index of the form"):
        VectorStore(tmp_path / "index")
    with VectorStore(tmp_path / "index", About(dim=2)) as store:
        store.add(["a"], np.ones((1, 2)))
    with VectorStore(tmp_path / "index") as store:
        assert len(store) == 1
    with sqlite3.connect(tmp_path / "other.sqlite") as base:
        base.execute("CREATE TABLE mine (a)")
    (tmp_path / "other").mkdir()
    (tmp_path / "other.sqlite").rename(tmp_path / "other" / "vectors.sqlite")
    with pytest.raises(StoreError, match="a database of something else"):
        VectorStore(tmp_path / "other", About(dim=2))


@pytest.mark.parametrize("names", ["ab", ["a", ""], ["a", 3]])
def test_names_are_texts(tmp_path: Path, names: Any) -> None:
    with VectorStore(tmp_path / "index", About(dim=2)) as store:
        with pytest.raises(StoreError, match="a list of texts that are not empty"):
            store.add(names, np.eye(2))
        assert len(store) == 0


def test_another_writer_is_waited_for_and_told(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "index", About(dim=2))
    store._base.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(tmp_path / "index" / vectors.FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="another process is writing to it"):
        store.add(["a"], np.eye(2)[:1])
    other.execute("ROLLBACK")
    store.add(["a"], np.eye(2)[:1])


def _keep_adding(folder: str, said: Any) -> None:
    store = VectorStore(folder, About(dim=16))
    start = len(store)
    for batch in range(start // 50, 10_000):
        rng = np.random.default_rng(batch)
        store.add(names_of(50, f"b{batch}-"), rng.normal(size=(50, 16)))
        os.write(said, b"%d\n" % batch)


def test_kills_lose_nothing_that_was_confirmed(tmp_path: Path) -> None:
    """SIGKILL at random moments of adding: whole batches, each that was confirmed."""
    folder, confirmed = str(tmp_path / "index"), -1
    context = multiprocessing.get_context("fork")
    for kill in range(4):
        reading, writing = os.pipe()
        process = context.Process(target=_keep_adding, args=(folder, writing))
        process.start()
        os.close(writing)
        with os.fdopen(reading) as lines:
            for _ in range(3):
                confirmed = int(lines.readline())
            time.sleep(0.002 * kill)
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            confirmed = max([confirmed, *map(int, lines.read().split())])
        with VectorStore(folder) as store:
            names, kept = store.vectors()
        assert len(names) % 50 == 0
        assert len(names) // 50 in (confirmed + 1, confirmed + 2)
        for batch in range(len(names) // 50):
            expected = np.random.default_rng(batch).normal(size=(50, 16))
            expected /= np.linalg.norm(expected, axis=1, keepdims=True)
            assert np.allclose(kept[50 * batch : 50 * batch + 50], expected, atol=1e-6)


def test_the_index_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(vectors, "EXACT_UP_TO", 1000)
    centres = RNG.normal(size=(20, 32))
    stored = centres[RNG.integers(0, 20, 3000)] + 0.3 * RNG.normal(size=(3000, 32))
    said: list[str] = []
    with VectorStore(tmp_path / "index", About(dim=32)) as store:
        store.add(names_of(900), stored[:900])
        assert not store.needs_index()
        store.add(names_of(2000, "w"), stored[900:2900])
        assert store.needs_index()
        store.build_index(said.append)
        assert "index of 2,900 vectors" in said[0]
        assert not store.needs_index()
        queries = stored[::100] + 0.05 * RNG.normal(size=(30, 32))
        exact = store.search(queries, k=10, exact=True)
        found = store.search(queries, k=10)
        hits = [len(set(a) & set(b)) for a, b in zip(found.names, exact.names, strict=True)]
        assert np.mean(hits) >= 9.5
        # What came later, went or changed since counts at once.
        store.add(["late"], stored[2999:])
        assert store.search(stored[2999:], k=1).names == [["late"]]
        store.remove(["v0"])
        store.add(["v1"], -stored[1:2], replace=True)
        found = store.search(stored[:2], k=3)
        assert "v0" not in found.names[0]
        assert "v1" not in found.names[1]
        store.add(names_of(99, "x"), stored[2900:2999])
        assert not store.needs_index()
        store.add(names_of(900, "y"), RNG.normal(size=(900, 32)))
        assert store.needs_index()
        # Where nearly all candidates are gone, all that is left is compared; and so for very many.
        store.build_index(said.append)
        near = store.search(stored[5:6], k=500).names[0]
        store.remove(near)
        assert store.search(stored[5:6], k=20) == store.search(stored[5:6], k=20, exact=True)
        assert len(store.search(stored[5:6], k=2000).names[0]) == 2000
        assert not store.needs_index()
        store.remove(names_of(1000, "w"))
        assert store.needs_index()
    # A damaged index counts as none.
    folder = tmp_path / "index" / "nearest"
    for damage in ("note", "file"):
        if damage == "note":  # of another index
            note = json.loads((folder / "index.json").read_text())
            (folder / "index.json").write_text(json.dumps(note | {"vectors": 7}))
        else:
            (folder / "index.faiss").write_bytes(b"broken")
        with VectorStore(tmp_path / "index") as store:
            assert store.search(stored[2999:3000], k=1).names == [["late"]]
            assert store.needs_index()


def clusters(count: int, seed: int) -> np.ndarray:
    """Vectors (S, 32) with the structure that features have."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(20, 32))
    return centres[rng.integers(0, 20, count)] + 0.3 * rng.normal(size=(count, 32))


def small_index(monkeypatch: pytest.MonkeyPatch, late: int = 100) -> None:
    """Indices pay from 100 vectors on, and take in late rows beyond so many."""
    pytest.importorskip("faiss")
    monkeypatch.setattr(vectors, "EXACT_UP_TO", 100)
    monkeypatch.setattr(vectors, "LATE", late)


def silent(line: str) -> None:
    pass


def test_late_rows_count_at_once_and_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever adds or removes, and in whatever process: the answer is that of the exact search."""
    small_index(monkeypatch, late=10_000)
    stored, queries = clusters(3000, 1), clusters(10, 2)
    with VectorStore(tmp_path / "i", About(dim=32)) as store, VectorStore(tmp_path / "i") as other:
        store.add(names_of(2000), stored[:2000])
        store.build_index(silent)
        store.add(names_of(300, "late"), stored[2000:2300])
        assert store.search(queries, k=7) == store.search(queries, k=7, exact=True)
        read: list[int] = []
        blocks = store._blocks
        monkeypatch.setattr(store, "_blocks", lambda after: read.append(after) or blocks(after))
        assert store.search(queries, k=7) == other.search(queries, k=7, exact=True)
        assert not read
        other.add(["near"], queries[:1])  # as another process would
        assert store.search(queries[:1], k=1).names == [["near"]]
        assert read == [2300]
        near = other.search(queries[1:2], k=30, exact=True).names[0]
        other.remove([*near, "near"])
        assert store.search(queries, k=7) == other.search(queries, k=7, exact=True)
        other.add(names_of(300, "late"), -stored[2000:2300], replace=True)
        assert store.search(-queries, k=7) == other.search(-queries, k=7, exact=True)
        assert len(read) == 2
        other.remove([name for name in store.stamps() if name.startswith("late")])
        assert store.search(queries, k=7) == other.search(queries, k=7, exact=True)
        other.build_index(silent)  # made anew by another process: nothing is late any more
        assert store.search(queries, k=7) == other.search(queries, k=7, exact=True)
        assert len(store._late.numbers) == 0


@pytest.mark.parametrize("how", ["removed", "replaced", "removed by another"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.75, 1.0])
def test_late_rows_do_not_stand_in_for_nearer_ones(tmp_path: Path, how: str, share: float) -> None:
    """The nearest go, others come: further down in the index there are nearer ones than these."""
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 32))
    stored = (centres[:, None] + 0.15 * rng.normal(size=(40, 200, 32))).reshape(-1, 32)
    query = centres[:1]
    with VectorStore(tmp_path / "i", About(dim=32)) as store, VectorStore(tmp_path / "i") as other:
        store.add(names_of(len(stored)), stored)
        store.build_index(silent)
        assert store.search(query, 10) == store.search(query, 10, exact=True)
        near = store.search(query, round(200 * share), exact=True).names[0]
        elsewhere = centres[7] + 0.15 * rng.normal(size=(len(near), 32))
        if how == "replaced":
            store.add(near, elsewhere, replace=True)
        else:
            (store if how == "removed" else other).remove(near)
            store.add(names_of(20, "late"), elsewhere[:20])
        for k in (1, 10, 60):
            assert store.search(query, k) == store.search(query, k, exact=True)
        very_many = store.search(query, 1000).names[0]
        assert len(set(very_many) & set(store.search(query, 1000, exact=True).names[0])) >= 950


def test_many_late_rows_go_into_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_index(monkeypatch)
    stored, queries = clusters(3000, 1), clusters(20, 2)
    note, builds = tmp_path / "i" / "nearest" / "index.json", []
    with VectorStore(tmp_path / "i", About(dim=32)) as store, VectorStore(tmp_path / "i") as other:
        store.add(names_of(2000), stored[:2000])
        store.build_index(builds.append)
        for batch in range(5):
            own = slice(2000 + 60 * batch, 2060 + 60 * batch)
            (store if batch % 2 else other).add(names_of(60, f"b{batch}-"), stored[own])
            found = json.loads(note.read_text())
            assert 0 <= len(store) - found["vectors"] <= 100
            assert found["last"] == found["vectors"]
            for each in (store, other):
                assert each.search(queries, k=7) == each.search(queries, k=7, exact=True)
                assert not each.needs_index()
        assert found["vectors"] == 2240
        for age in (30, 7200):  # one that is being written, and one that a kill has left
            (tmp_path / "i" / f".tmp-{age}-nearest").mkdir()
            os.utime(tmp_path / "i" / f".tmp-{age}-nearest", (time.time() - age,) * 2)
        store.add(names_of(400, "c"), stored[2300:2700])  # more than a fifth since it was made
        assert json.loads(note.read_text())["vectors"] == len(store)
        assert store.needs_index()
        assert other.needs_index()
        assert other.search(queries, k=7) == other.search(queries, k=7, exact=True)
        assert len(builds) == 1
        assert [path.name for path in (tmp_path / "i").glob(".tmp-*")] == [".tmp-30-nearest"]


def test_late_rows_that_it_would_not_find_stay_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_index(monkeypatch)
    with VectorStore(tmp_path / "i", About(dim=32)) as store:
        store.add(names_of(2000), clusters(2000, 1))
        store.build_index(silent)
        monkeypatch.setattr(approximate, "LEAST", 1.1)
        monkeypatch.setattr(approximate.ApproximateIndex, "useful", True)
        before = (tmp_path / "i" / "nearest" / "index.json").read_text()
        noise = np.random.default_rng(3).normal(size=(300, 32))
        for batch in range(3):
            own = slice(100 * batch, 100 * batch + 100)
            store.add(names_of(100, f"n{batch}-"), noise[own])
            found = store.search(noise[own], k=5).names
            for names, exact in zip(
                found, store.search(noise[own], 5, exact=True).names, strict=True
            ):
                assert {name for name in exact if name[0] == "n"} <= set(names)
        assert (tmp_path / "i" / "nearest" / "index.json").read_text() == before


def test_an_index_that_cannot_be_written_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    small_index(monkeypatch)
    stored = clusters(2200, 1)
    with VectorStore(tmp_path / "i", About(dim=32)) as store:
        store.add(names_of(2000), stored[:2000])
        store.build_index(silent)
        monkeypatch.setattr(approximate.ApproximateIndex, "_write", full)
        with pytest.warns(RuntimeWarning, match="No space left on device"):
            store.add(names_of(200, "late"), stored[2000:])
        assert len(store) == 2200
        assert store.search(stored[2000:2010], k=5) == store.search(
            stored[2000:2010], k=5, exact=True
        )


def _keep_extending(folder: str, said: Any) -> None:
    vectors.LATE = 50
    with VectorStore(folder) as store:
        for batch in range(len(store) // 30, 10_000):
            store.add(names_of(30, f"b{batch}-"), clusters(30, batch))
            said.send(batch)


def test_kills_while_late_rows_go_into_the_index(tmp_path: Path) -> None:
    """Every second batch writes the index anew; whatever is left of it, answers are right."""
    pytest.importorskip("faiss")
    folder = str(tmp_path / "i")
    with VectorStore(folder, About(dim=32)) as store:
        store.add(names_of(3000), clusters(3000, 1))
        store.build_index(silent)
    context, confirmed = multiprocessing.get_context("spawn"), -1
    for kill in range(3):
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=_keep_extending, args=(folder, sending))
        process.start()
        sending.close()
        for _ in range(5 + kill):
            confirmed = receiving.recv()
        time.sleep(0.003 * kill)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        with suppress(EOFError):
            while True:
                confirmed = receiving.recv()
        with VectorStore(folder) as store:
            assert len(store) % 30 == 0
            assert len(store) // 30 in (confirmed + 1, confirmed + 2)
            queries = clusters(20, 7 + kill)
            assert store.search(queries, k=5) == store.search(queries, k=5, exact=True)


def test_where_vectors_came_from(tmp_path: Path) -> None:
    with VectorStore(tmp_path / "i", About(dim=2)) as store:
        store.add(["a", "b"], np.eye(2), source="/one")
        store.add(["c"], np.eye(2)[:1])
        assert store.sources() == {"a": "/one", "b": "/one", "c": ""}
        store.add(["a"], np.eye(2)[1:], source="/one", replace=True)
        with pytest.raises(StoreError, match=r"another source: a, c; a is from /one, and not from"):
            store.add(["a", "c", "d"], np.ones((3, 2)), source="/two", replace=True)
        with pytest.raises(StoreError, match="c is from an unknown place, and not from /one"):
            store.add(["c"], np.ones((1, 2)), source="/one", replace=True)
        assert len(store) == 3
        store.add(["a", "c"], np.ones((2, 2)), source="/two", replace="any")
        assert store.sources() == {"b": "/one", "a": "/two", "c": "/two"}


def test_a_store_of_before_there_were_sources(tmp_path: Path) -> None:
    with VectorStore(tmp_path / "i", About(dim=2)) as store:
        store.add(["a"], np.eye(2)[:1])
    with sqlite3.connect(tmp_path / "i" / vectors.FILE) as base:
        base.execute("ALTER TABLE items DROP COLUMN source")
    with VectorStore(tmp_path / "i") as store:
        assert store.sources() == {"a": ""}
        assert store.search(np.eye(2), k=1).names == [["a"], ["a"]]
        store.add(["b"], np.eye(2)[1:], source="/one")
        assert store.sources() == {"a": "", "b": "/one"}


def test_an_index_that_finds_too_few_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss")
    monkeypatch.setattr(vectors, "EXACT_UP_TO", 100)
    monkeypatch.setattr(approximate, "LEAST", 1.1)
    said: list[str] = []
    with VectorStore(tmp_path / "index", About(dim=8)) as store:
        store.add(names_of(400), RNG.normal(size=(400, 8)))
        store.build_index(said.append)
        assert "every search compares with all of them" in said[-1]
        monkeypatch.setattr(store, "_search_index", None)
        query = RNG.normal(size=(1, 8))
        assert store.search(query, k=5) == store.search(query, k=5, exact=True)
        assert not store.needs_index()


def test_without_faiss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "EXACT_UP_TO", 1)
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with VectorStore(tmp_path / "index", About(dim=2)) as store:
        store.add(["a", "b"], np.eye(2))
        with pytest.raises(StoreError, match=r'pip install "pixcloud\[search\]"'):
            store.build_index()
        assert store.search(np.eye(2), k=1).names == [["a"], ["b"]]
