"""The parts of the page: markup, curves, neighbours, maps, records and the command."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pixcloud.cli import main
from pixcloud.config import PretrainConfig, pretrain_config
from pixcloud.config_files import load_config
from pixcloud.evaluate.results import append_rows
from pixcloud.report import charts, embedding, feature_map, markup
from pixcloud.report.clouds import CloudStore, pack
from pixcloud.report.compare import results as compare_results
from pixcloud.report.provenance import command
from pixcloud.report.record import HANDMADE, PRETRAINED, UNTRAINED, read_record
from pixcloud.report.sections import curves, results_table

MakeRun = Callable[..., Path]


def test_tag_escapes_text_and_attributes() -> None:
    made = markup.tag("p", '<i>"&', markup.tag("i", "x"), None, title='"><script>', hidden=False)
    assert made == '<p title="&quot;&gt;&lt;script&gt;">&lt;i&gt;&quot;&amp;<i>x</i></p>'


def test_data_script_holds_any_text_and_no_nan() -> None:
    value = {"a": ["</script><!--", float("nan"), float("inf"), 1.5, "\u2028"]}
    made = markup.data_script("x", value)
    content = made.removeprefix('<script type="application/json" id="x">')
    content = content.removesuffix("</script>")
    assert "<" not in content
    assert json.loads(content) == {"a": ["</script><!--", None, None, 1.5, "\u2028"]}


@pytest.mark.parametrize("size", [1, 3, 1500, 1501, 100_003])
def test_thin_keeps_the_mean(size: int) -> None:
    values = list(np.random.default_rng(size).random(size))
    thinned = charts.thin(values)
    assert len(thinned) <= charts.MOST_POINTS
    group = -(-size // charts.MOST_POINTS)
    for place, mean in enumerate(thinned):
        assert mean == pytest.approx(np.mean(values[place * group : (place + 1) * group]))


def test_thin_passes_over_gaps() -> None:
    assert charts.thin([None, 2.0, None, None], most=2) == [2.0, None]


def test_pack_centres_scales_and_drops_what_is_not_finite() -> None:
    points = np.array([[1.0, 1, 1], [3, 1, 1], [np.nan, 0, 0]])
    whole = np.frombuffer(base64.b64decode(pack(points)), "<i2").reshape(-1, 3)
    assert whole.tolist() == [[-32767, 0, 0], [32767, 0, 0]]
    assert np.frombuffer(base64.b64decode(pack(np.ones((2, 3)))), "<i2").tolist() == [0] * 6
    assert pack(np.full((1, 3), np.inf)) == ""


def test_each_cloud_is_kept_once() -> None:
    clouds = CloudStore()
    assert clouds.script() is None
    clouds.canvas("a", np.eye(3), "one")
    clouds.canvas("a", np.eye(3), "the same again")
    assert list(clouds.packed) == ["a"]


def test_nearest_against_the_plain_way() -> None:
    features = np.random.default_rng(0).normal(size=(20, 5))
    features[3] = features[7]  # a tie
    features[:, 4] = 2.5  # a constant column
    centred = features - features.mean(axis=0)
    unit = centred[:, :4] / features[:, :4].std(axis=0)
    for row, found in enumerate(embedding.nearest(features, 4)):
        scores = []
        for other in range(20):
            if other != row:
                cosine = unit[row] @ unit[other]
                cosine /= np.linalg.norm(unit[row]) * np.linalg.norm(unit[other])
                scores.append((-round(cosine, 12), other))
        assert found.tolist() == [other for _, other in sorted(scores)[:4]]


def test_choice_of_clouds_is_a_function_of_the_seed() -> None:
    first, again = embedding.choose(5000, 3), embedding.choose(5000, 3)
    assert (first == again).all()
    assert (first != embedding.choose(5000, 4)).any()
    assert len(np.unique(first)) == embedding.MOST_CLOUDS


@pytest.mark.parametrize("shape", [(3, 1), (3, 5), (12, 2), (40, 200)])
def test_map_is_finite_and_repeatable(shape: tuple[int, int]) -> None:
    features = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    plane = feature_map.project(features, seed=2**62)
    assert plane.shape == (shape[0], 2)
    assert np.isfinite(plane).all()
    assert np.abs(plane).max() == pytest.approx(1.0)
    assert (plane == feature_map.project(features, seed=2**62)).all()


def test_map_of_features_that_are_all_alike() -> None:
    assert (feature_map.project(np.ones((6, 4)), seed=0) == 0).all()


def test_classes_differ_in_color_and_symbol_from_the_next() -> None:
    for label in range(63):
        one, next_one = feature_map.style(label), feature_map.style(label + 1)
        assert one[0] != next_one[0]
        assert one[1] != next_one[1]


def test_record_reads_what_the_run_did(make_run: MakeRun) -> None:
    record = read_record(str(make_run()))
    assert record.finished
    assert record.pairs_seen == 9 * 4
    assert record.seconds == 180.0
    assert record.rate == 15.0
    assert not record.missing
    values = {role: row.value for role, row in record.headline().items()}
    assert values == {PRETRAINED: 0.75, UNTRAINED: 0.5, HANDMADE: 0.25}


def test_time_after_the_last_epoch_comes_from_the_rates(make_run: MakeRun) -> None:
    record = read_record(str(make_run(epochs_done=1)))
    assert not record.finished
    assert record.seconds == pytest.approx(60.0 + 4 / 14)  # step 4: 4 pairs at 14 pairs/s


def test_last_result_of_a_kind_counts(make_run: MakeRun) -> None:
    run = make_run()
    results = run / "results.jsonl"
    again = results.read_text().splitlines()[0].replace("0.75", "0.875")
    results.write_text(results.read_text() + again + "\n")
    assert read_record(str(run)).headline()[PRETRAINED].value == 0.875


def test_command_gives_the_settings_back(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    import shlex

    import yaml

    from pixcloud.config import from_dict

    run = make_run("with space", seed=5)
    config = load_config(run / "config.yaml")
    words = shlex.split(command(config))
    assert main([*words[1:], "--print_config"]) == 0
    again = from_dict(PretrainConfig, yaml.safe_load(capsys.readouterr().out))
    assert again == config


def test_command_of_an_unknown_recipe_spells_all_out() -> None:
    config = pretrain_config("crosspoint", run="r")
    config.recipe = "of another version"
    made = command(config)
    assert "--recipe" not in made
    assert "--encoder.settings" in made


def test_the_ways_of_few_shot_share_no_table_and_no_chart(make_run: MakeRun) -> None:
    run = make_run()
    one = read_record(str(run)).rows[0]
    names = [f"few-shot 5-way 10-shot ({way})" for way in ("CrossPoint: a", "Point-BERT: b")]
    few = [
        dataclasses.replace(one, protocol=name, value=0.987, metric="accuracy") for name in names
    ]
    append_rows(run / "results.jsonl", few)
    record = read_record(str(run))
    for text in (results_table([record]), compare_results([record, record])):
        tables = [part for part in text.split("<table")[1:] if "98.7" in part]
        assert len(tables) in (2, 4)
        for part in tables:
            assert ("CrossPoint: a" in part) != ("Point-BERT: b" in part)
            assert one.protocol not in part
    assert record.headline().keys() == read_record(str(run)).headline().keys()
    assert all(row.value != 0.987 for row in record.headline().values())
    assert "few-shot" not in str(charts.bars([record]))


def test_retrieval_during_training_has_chance_in_its_caption(make_run: MakeRun) -> None:
    run = make_run()
    assert "(by chance" not in str(curves([read_record(run)]))
    path = run / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "epoch":
            line |= {"picture_to_cloud_recall_1": 0.2, "chance_recall_1": 0.0077}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = str(curves([read_record(run)]))
    assert "on the pairs that are held out (by chance 0.77 %)." in found


def test_retrieval_has_its_chance_level_beside_it(make_run: MakeRun) -> None:
    run = make_run()
    one = read_record(str(run)).rows[0]
    found = {"protocol": "retrieval", "metric": "picture to cloud recall@1", "value": 0.195}
    row = dataclasses.replace(one, **found, settings={"chance": 0.0077})
    append_rows(run / "results.jsonl", [row])
    tables = str(results_table([read_record(str(run))])).split("<table")[1:]
    (own,) = [part for part in tables if "recall@1" in part]
    assert ">chance<" in own
    assert ">0.8 %<" in own
    assert ">C<" not in own
    assert all(">chance<" not in part for part in tables if part is not own)
