"""Points that survive a stop, charts, projections: the pure parts of `bench scale`, `plot`, `project`."""

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench import measure, plot
from bench.projection import GIB, Machine, fit, growth_figures, project, ring_figures
from bench.scale.points import Points
from bench.svg import Axis, chart, ticks


def test_points_go_on_where_they_were_and_begin_anew_with_other_settings(tmp_path: Path) -> None:
    """A part that was stopped keeps what it measured, unless it would measure something else now."""
    first = Points(tmp_path, "grid", {"sizes": (1, 2)}, 1)
    first.add({"rows": 1, "cost": 2.5})

    again = Points(tmp_path, "grid", {"sizes": (1, 2)}, 1)
    other = Points(tmp_path, "grid", {"sizes": (1, 3)}, 1)
    fresh = Points(tmp_path, "grid", {"sizes": (1, 2)}, 1, fresh=True)

    assert again.resumed
    assert again.has(rows=1)
    assert not again.has(rows=2)
    assert again.all[0]["of"]["machine"]["cores"]
    assert not other.resumed
    assert not fresh.has(rows=1)


def test_what_time_does_not_allow_is_named(tmp_path: Path) -> None:
    """Once, and in the file."""
    points = Points(tmp_path, "grid", {}, 0)

    assert points.late("9 nodes")
    assert points.late("9 nodes")
    assert '"9 nodes"' in points.file.read_text()
    assert not Points(tmp_path, "grid", {}, 1).late("9 nodes")


def test_ticks_cover_the_values() -> None:
    """Round ones, few of them."""
    assert ticks(0, 9.3, log=False) == [0, 2, 4, 6, 8, 10]
    assert ticks(1e6, 1e8, log=True)[:4] == [1e6, 2e6, 5e6, 1e7]
    for low, high in ((0.02, 0.9), (3, 3e7), (0, 1)):
        found = ticks(low, high, log=low > 0)
        assert found[0] <= low
        assert found[-1] >= high
        assert len(found) < 30


def test_a_chart_is_xml_with_a_path_and_a_name_for_each_curve() -> None:
    """Names are escaped; what a logarithm can't show is left out."""
    text = chart(
        "a < b", Axis("x", log=True), Axis("y"), {"p<50": [(0, 1), (1, 2), (10, 3)], "n": [(2, 2)]}
    )

    root = ElementTree.fromstring(text)
    texts = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert {"p<50", "n", "a < b"} <= set(texts)
    assert len(circles) == 3
    heights = [float(one.attrib["cy"]) for one in circles[:2]]
    assert heights[0] > heights[1]  # a larger value is drawn higher
    marked = chart("m", Axis("x"), Axis("y"), {"n": [(0, 1), (9, 2)]}, [(3, "a phase"), (4, "<")])
    assert "a phase" in marked
    assert len(list(ElementTree.fromstring(marked).iter("{http://www.w3.org/2000/svg}path"))) > len(
        list(ElementTree.fromstring(chart("m", Axis("x"), Axis("y"), {"n": [(0, 1), (9, 2)]})).iter(
            "{http://www.w3.org/2000/svg}path"
        ))
    )  # fmt: skip
    with pytest.raises(ValueError, match="nothing to draw"):
        chart("none", Axis("x", log=True), Axis("y"), {"a": [(0, 1)]})


def _point(rows: int) -> dict[str, Any]:
    """A store with 1 kB of memory a row, 2 us of start a row, 3 us of one question a row."""
    return {
        "rows": rows,
        "stored_bytes": rows * 20 * 3,
        "rss_most_bytes": [1],
        "rss_after_questions_bytes": [GIB, GIB + 1000 * rows],
        "restart": {
            "rss_bytes": [GIB + 500 * rows], "cpu_seconds": [1 + rows * 2e-6], "ready_seconds": 1,
            "warm_rss_bytes": [GIB], "warm_seconds": 2.0,
        },
        "questions": {
            "phrase": {"p50": 7.0, "first": 5 + rows * 3e-3}, "flat": {"p50": 5.0, "first": 5.0},
            "late": {"error": "no"},
        },
        "ingest": None,
    }  # fmt: skip


def test_a_line_through_points() -> None:
    """Least squares; one point is flat."""
    line = fit([(1, 3), (2, 5), (3, 7)])

    assert math.isclose(line.slope, 2)
    assert math.isclose(line.at(10), 21)
    assert fit([(5, 4)]).at(1e9) == 4


def test_the_figure_that_breaks_first_is_told_first() -> None:
    """By hand: 1 PB / 100 nodes / 20 B = 5e11 rows a node; memory of 64 GiB is full at 67.6 M rows."""
    points = [_point(1_000_000), _point(3_000_000)]

    found = project(points, [], 100, 1.0, [32])

    assert found["rows_on_a_node"] == pytest.approx(5e11)
    by_name = {one["name"]: one for one in found["figures"]}
    memory = by_name["memory after questions"]
    assert memory["value"] == pytest.approx(GIB + 5e14)
    assert memory["breaks_at"] == pytest.approx(63 * GIB / 1000 / 5e11)
    assert by_name["CPU of a start, one thread"]["breaks_at"] == pytest.approx(599 / 2e-6 / 5e11)
    assert by_name["flat, all time"]["value"] is None
    assert "late, all time" not in by_name
    assert found["figures"][0] is memory
    shares = [one["breaks_at"] for one in found["figures"] if one["breaks_at"] is not None]
    assert shares == sorted(shares)


def test_a_question_is_shared_by_owners_and_cores() -> None:
    """A node scans a third of what it holds, on 16 cores where 2 were measured."""
    figures = growth_figures([_point(1_000_000), _point(3_000_000)], 9e9, Machine())

    phrase = next(one for one in figures if one.name.startswith("phrase"))
    assert phrase.value == pytest.approx(0.005 + 9e9 * 3e-6 / 3 / 8)


def test_a_ring_of_more_nodes_than_replicas_leaves_some_empty() -> None:
    """4 shards of 3 owners are 12 places: 3 of 15 nodes have none; 8 shards reach all."""
    few = {one.name: one for one in ring_figures(15, 4, 1e15, Machine())}
    many = {one.name: one for one in ring_figures(15, 8, 1e15, Machine())}

    assert few["nodes without any data, 4 shards"].value == 3
    assert few["nodes without any data, 4 shards"].breaks_at == pytest.approx(0.8)
    assert many["nodes without any data, 8 shards"].value == 0
    assert few["moving one replica of a shard, 4 shards"].value == pytest.approx(1e15 / 12 / 1.25e9)


def test_curves_come_from_the_points() -> None:
    """A question that was refused at a size has no point there."""
    drawings = plot.growth([_point(1_000), _point(2_000)])
    _, _, _, curves = drawings["growth-questions"]

    assert set(curves) == {"phrase", "flat"}
    assert curves["phrase"] == [(1_000, 7.0), (2_000, 7.0)]
    assert drawings["growth-first"][3]["phrase"] == [(1_000, 8.0), (2_000, 11.0)]
    assert drawings["growth-memory"][3]["after a restart"][0] == (
        1_000,
        (GIB + 500_000) / (1 << 20),
    )


def test_memory_is_sampled_while_something_runs() -> None:
    """And the list of samples stays bounded."""
    import os
    import time

    with measure.Sampler([os.getpid()], pause_seconds=0.001) as sampler:
        until = time.monotonic() + 5
        while len(sampler.samples) < 20 and time.monotonic() < until:
            time.sleep(0.005)

    assert len(sampler.samples) <= sampler.SAMPLES_MAX
    assert sampler.most()[0] > 1 << 20
