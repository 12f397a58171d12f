"""A report says what was measured, what was not and why, and which aims were missed."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from benchmarks.__main__ import part
from benchmarks.figures import Figure, NotMeasured, Plan, not_measured, ratio, shown, table, times
from benchmarks.plot import bars
from benchmarks.report import Section, write
from benchmarks.runner import Part, run

OURS = Figure("ours", (0.010, 0.030, 0.020), aim=0.015)
THEIRS = Figure("theirs", (0.040,))
ABSENT = not_measured("a peer <that> is missing", "it is not\ninstalled")


def test_a_ratio_is_of_medians_and_knows_what_was_not_measured():
    assert ratio("both", OURS, THEIRS).values == (0.5,)
    assert ratio("none", OURS, ABSENT) == Figure("none", (), reason="it is not installed")


def test_things_take_turns_and_the_first_turn_does_not_count():
    done = []
    first, second = times(3, lambda: done.append("a"), lambda: done.append("b"))
    assert done == ["a", "b"] * 4
    assert (len(first), len(second)) == (3, 3)


def test_a_row_says_whether_the_aim_was_kept():
    ours, theirs, absent = table([OURS, THEIRS, ABSENT]).splitlines()[2:]
    assert ours == "| ours | 20 ms | 10 ms | 30 ms | 3 | missed: 15 ms |"
    assert theirs == "| theirs | 40 ms |  |  | 1 |  |"
    assert "not measured: it is not installed" in absent


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.0123, "s", "12.3 ms"),
        (4.2, "s", "4.20 s"),
        (1.25, "times", "1.25 times"),
        (34e7, "bytes/s", "340 MB/s"),
    ],
)
def test_values_are_shown_with_their_unit(value, unit, words):
    assert shown(value, unit) == words


def test_the_picture_has_a_bar_for_each_thing_that_was_measured():
    root = ET.fromstring(bars([OURS, THEIRS, ABSENT]))  # noqa: S314 - our own text
    names = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert names == ["ours", "20 ms", "theirs", "40 ms"]
    assert bars([ABSENT]) == ""


def test_a_report_is_text_numbers_and_pictures(tmp_path):
    sections = [
        Section("one", "The one", [OURS, ABSENT]),
        Section("other", "The other", (), "there is no GPU."),
    ]
    write(tmp_path / "new", {"commit": "abc"}, sections)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"report.md", "figures.json", "one.svg"}
    text = (tmp_path / "new" / "report.md").read_text()
    assert "| commit | abc |" in text
    assert "Not measured: there is no GPU." in text
    kept = json.loads((tmp_path / "new" / "figures.json").read_text())
    assert kept["sections"][0]["figures"][0]["values"] == [0.010, 0.030, 0.020]


def lacks_a_gpu():
    yield OURS
    raise NotMeasured("there is no GPU.")


def breaks():
    yield OURS
    raise RuntimeError("mistaken")


@pytest.mark.parametrize(
    ("measure", "reason", "code"),
    [(lacks_a_gpu, "there is no GPU.", 1), (breaks, "it failed with RuntimeError: mistaken", 2)],
)
def test_what_was_measured_before_a_part_ended_is_kept(tmp_path, measure, reason, code):
    """A part that cannot go on is no failure, and one that breaks is; here an aim is missed besides."""
    assert (
        run({"one": Part("The one", measure), "other": Part("The other", lambda: [THEIRS])}, tmp_path) == code
    )
    text = (tmp_path / "report.md").read_text()
    assert f"Not measured: {reason}" in text
    assert "| ours | 20 ms |" in text
    assert "| theirs | 40 ms |" in text
    kept = json.loads((tmp_path / "figures.json").read_text())
    assert {"date", "commit", "machine", "GPU", "Python", "torch", "transformers"} <= set(kept["about"])


def test_a_report_is_there_while_its_part_still_runs(tmp_path):
    seen = []

    def measure():
        yield OURS
        seen.append((tmp_path / "report.md").read_text())

    run({"one": Part("The one", measure)}, tmp_path)
    assert "| ours | 20 ms |" in seen[0]


def test_a_part_is_a_module_that_is_imported_when_it_is_measured(monkeypatch):
    from benchmarks import host_import

    monkeypatch.setattr(host_import, "measure", lambda plan: [THEIRS])
    assert list(part("host_import", Plan()).measure()) == [THEIRS]
