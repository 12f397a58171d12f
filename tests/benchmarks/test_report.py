"""A report says what was measured, what was not and why, and which aims were missed."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from benchmarks import __main__ as runner
from benchmarks.figures import Figure, NotMeasured, Plan, not_measured, ratio, shown, table, times
from benchmarks.plot import bars
from benchmarks.report import Section, write

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


def lacks_a_gpu(plan):
    raise NotMeasured("there is no GPU.")


def breaks(plan):
    raise RuntimeError("mistaken")


def test_a_part_that_cannot_run_is_no_failure_and_one_that_breaks_is(monkeypatch):
    from benchmarks import host_import

    monkeypatch.setattr(host_import, "measure", lacks_a_gpu)
    assert runner.measure("host_import", Plan()) == (
        Section("host_import", "Importing the host", (), "there is no GPU."),
        True,
    )
    monkeypatch.setattr(host_import, "measure", breaks)
    section, well = runner.measure("host_import", Plan())
    assert not well
    assert section.reason == "it failed with RuntimeError: mistaken"
