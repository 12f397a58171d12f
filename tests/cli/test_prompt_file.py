"""`--prompt-file`: one prompt a line, and names for what is found."""

from __future__ import annotations

import json
import subprocess

import pytest

from .conftest import PROGRAM, files


def test_lines_are_prompts_and_may_have_names(sa2va, picture, tmp_path):
    text = "\ufeff# what to find\r\n\r\nthe square = objects=2\r\n  a bright thing  \r\n"
    (tmp_path / "windows.txt").write_bytes(text.encode())
    run = ("segment", picture, "-o", "out", "--save", "masks")
    done = sa2va(*run, "--prompt-file", "windows.txt", "--json")
    assert done.returncode == 0, done.stderr
    asked = [(result["name"], result["prompt"]) for result in json.loads(done.stdout)["results"]]
    assert asked == [("the-square", "objects=2"), ("a-bright-thing", "a bright thing")]
    assert files(tmp_path / "out") == {
        "picture.the-square.0.png", "picture.the-square.1.png", "picture.a-bright-thing.0.png",
    }  # fmt: skip
    (tmp_path / "one.txt").write_text("# nothing = x\nBox = objects=1\n")
    assert sa2va(*run, "--prompt-file", "one.txt", "-o", "one").returncode == 0
    assert files(tmp_path / "one") == {"picture.box.0.png"}, "a name that is given is used"


def test_a_video_names_its_objects_after_them(sa2va, clip, tmp_path):
    (tmp_path / "prompts.txt").write_text("box = objects=1\ncrowd = objects=2\nghost = objects=0\n")
    run = ("video", clip, "--prompt-file", "prompts.txt", "-o", "out", "--save", "masks", "--end", "1")
    done = sa2va(*run, "--json")
    assert done.returncode == 0, done.stderr
    names = [found["name"] for found in json.loads(done.stdout)["objects"]]
    assert names == ["box", "crowd-1", "crowd-2"]
    assert {path.name for path in (tmp_path / "out/masks").iterdir()} == {*names, "ghost"}
    (tmp_path / "prompts.txt").write_text("box = objects=1\nmany = objects=2\nghost = objects=0\n")
    refused = sa2va(*run, "--resume")
    assert refused.returncode == 2
    assert "other settings: prompts" in refused.stderr


def test_prompts_of_both_ways_stand_together_and_a_given_name_is_kept(sa2va, picture, tmp_path):
    (tmp_path / "prompts.txt").write_text("objects 1 = objects=1 steps=2")
    done = sa2va(
        "segment", picture, "-p", "objects=1", "--prompt-file", "prompts.txt", "--json", "--save", "none"
    )
    results = json.loads(done.stdout)["results"]
    assert [result["name"] for result in results] == ["objects-1-2", "objects-1"]


def test_standard_input(environment, picture, tmp_path):
    done = subprocess.run(
        [*PROGRAM, "segment", picture, "--prompt-file", "-", "--save", "masks", "-o", "out"],
        input="box = objects=1\n", env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "out") == {"picture.box.0.png"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "prompts.txt has no prompt in it."),
        (b"# only words\n\n", "prompts.txt has no prompt in it."),
        (b"a = x\n = y\n", "Line 2 of prompts.txt lacks a name: '= y'."),
        (b"a =\n", "Line 1 of prompts.txt lacks a prompt: 'a ='."),
        (b"a dog = x\n\nA-Dog = y\n", "Lines 1 and 3 of prompts.txt have the same name, 'A-Dog'."),
        ("a = x".encode("utf-16"), "prompts.txt is not UTF-8 text."),
        (b"\n".join(b"x%d" % number for number in range(500)), "500 were given"),
        (None, "There is no file prompts.txt."),
    ],
)
@pytest.mark.parametrize("command", ["segment", "video"])
def test_what_is_wrong_with_it_is_said(sa2va, picture, clip, tmp_path, command, content, message):
    if content is not None:
        (tmp_path / "prompts.txt").write_bytes(content)
    done = sa2va(
        command, picture if command == "segment" else clip, "--prompt-file", "prompts.txt", "-o", "out"
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
