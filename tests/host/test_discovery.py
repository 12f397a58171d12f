"""Which files a folder, a pattern or a name means: each once, hidden ones never, what is passed over by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sa2va_host import discovery
from sa2va_host.endings import FRAMES, PICTURES
from sa2va_host.errors import InvalidInput
from sa2va_host.machine.commands import extra_command, pip_command


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Makes files: `tree("a/b.png", ...)`, in the current folder."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    return make


def found(name, suffixes=PICTURES, **options):
    return [str(path) for path in discovery.find(Path(name), suffixes, **options).files]


def notes(name, suffixes=PICTURES):
    return discovery.find(Path(name), suffixes).notes


def test_hidden_names_and_those_of_windows_are_no_images(tree):
    tree(
        "shots/b.png", "shots/a.JPG", "shots/._a.JPG", "shots/.b.png", "shots/Thumbs.db", "shots/desktop.ini"
    )
    tree("shots/.thumbs/c.png", "shots/inner/._d.png", "shots/inner/d.png")
    assert found("shots") == ["shots/a.JPG", "shots/b.png"]
    assert found("shots/*") == ["shots/a.JPG", "shots/b.png"]
    assert (
        found("shots/**/*")
        == found("shots", recursive=True)
        == ["shots/a.JPG", "shots/b.png", "shots/inner/d.png"]
    )
    assert found("shots/.thumbs/*.png") == ["shots/.thumbs/c.png"]
    assert found("shots/.*.png") == ["shots/.b.png"]
    assert notes("shots") == []


@pytest.mark.parametrize("suffixes", [PICTURES, FRAMES])
def test_suffixes_of_images(tree, suffixes):
    names = [f"shots/{name}" for name in ("a.jfif", "b.jpe", "c.mpo", "d.TIFF", "e.webp")]
    tree(*names)
    assert found("shots", suffixes) == names


def test_an_apng_is_an_image_and_no_frame(tree):
    tree("shots/a.apng")
    assert found("shots") == ["shots/a.apng"]
    assert found("shots", FRAMES) == []
    assert notes("shots", FRAMES) == ["shots: 1 file that looks like an image is passed over: a.apng."]


@pytest.mark.parametrize(
    "folder", ["shots [v2]", "what?", "all *", "[ab]", "a[", "**", pytest.param("deep [1]/[2]", id="deep")]
)
def test_a_folder_is_taken_by_its_name(tree, folder):
    tree(f"{folder}/b1.png", f"{folder}/b2.png", f"{folder}/c.png", "a/b1.png", "shots v/b1.png")
    assert found(folder) == [f"{folder}/{name}" for name in ("b1.png", "b2.png", "c.png")]
    assert found(f"{folder}/b?.png") == [f"{folder}/b1.png", f"{folder}/b2.png"]
    assert found(f"{folder}/[c]*") == [f"{folder}/c.png"]
    absolute = Path(folder).absolute()
    assert found(absolute / "c*") == [str(absolute / "c.png")]


def test_patterns_in_the_middle(tree):
    tree("a1/x/f.png", "a2/x/f.png", "a2/y/f.png", "a2/x.png", "b/x/f.png")
    assert found("a*/x/*.png") == ["a1/x/f.png", "a2/x/f.png"]
    assert found("a*/*/f.png") == ["a1/x/f.png", "a2/x/f.png", "a2/y/f.png"]
    assert found("a?/x.png") == ["a2/x.png"]
    assert found("**/x/**/*.png") == ["a1/x/f.png", "a2/x/f.png", "b/x/f.png"]
    assert found("../*/a1/**") == ["../" + str(Path.cwd().name) + "/a1/x/f.png"]
    assert found("none/*.png") == found("a1/none/**") == []


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_loops_of_links_are_walked_once(tree):
    tree("loop/a/x.jpg", "loop/b/y.jpg", "loop/z.jpg")
    for place, target in {
        "a/up": "..",
        "b/up": "../..",
        "b/me": ".",
        "a/to-b": "../b",
        "self": "self",
    }.items():
        Path("loop", place).symlink_to(target)
    for number in range(12):  # each doubles the walk of whoever follows them all
        Path("loop", f"again{number}").symlink_to(".")
    wanted = ["loop/a/x.jpg", "loop/b/y.jpg", "loop/z.jpg"]
    for name in ("loop/**/*.jpg", "loop/**/**/*.jpg", "loop/**"):
        assert sorted(found(name)) == wanted
    assert sorted(found("loop", recursive=True)) == wanted
    assert found("loop/**/*.jpg") == found("loop/**/*.jpg")


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_linked_folder_counts_and_a_dangling_link_is_named(tree):
    tree("far/away.png", "shots/a.png")
    Path("shots/linked").symlink_to("../far")
    Path("shots/gone.png").symlink_to("nowhere.png")
    assert found("shots", recursive=True) == ["shots/a.png", "shots/linked/away.png"]
    assert notes("shots") == ["shots: 1 file that looks like an image is passed over: gone.png."]


def test_what_looks_like_an_image_is_named(tree):
    tree(*(f"shots/{name}" for name in ("a.png", "b.psd", "c.CR2", "d.nef", "e.svg", "notes.txt", "f.mp4")))
    assert found("shots") == ["shots/a.png"]
    assert notes("shots/*") == [
        "shots/*: 4 files that look like images are passed over: b.psd, c.CR2, d.nef and 1 more."
    ]
    assert notes("shots/*.png") == []


def test_a_pattern_that_names_a_suffix_means_it(tree):
    tree("shots/a.dat", "shots/b.psd", "shots/c.png")
    assert found("shots/*.dat") == ["shots/a.dat"]
    assert found("shots/*.p*") == ["shots/c.png"]


def test_formats_that_need_a_library_are_named_with_it(tree, monkeypatch):
    tree("shots/a.heic", "shots/b.png", "shots/c.jxl")
    monkeypatch.setattr(discovery, "_exists", lambda module: module == "pillow_heif")
    discovery.is_readable.cache_clear()
    try:
        assert found("shots") == ["shots/a.heic", "shots/b.png"]
        monkeypatch.setattr(discovery, "_exists", lambda module: False)
        discovery.is_readable.cache_clear()
        assert found("shots") == ["shots/b.png"]
        (note,) = notes("shots")
        assert note == (
            "shots: 2 files that look like images are passed over: a.heic, c.jxl. To read some of them:"
            f" {extra_command('heif')}, {pip_command(['pillow-jxl-plugin'])}."
        )
    finally:
        discovery.is_readable.cache_clear()


def test_the_home_folder_and_urls(tree, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert discovery.expanded("~/a.png") == tmp_path / "a.png"
    assert discovery.expanded("~") == tmp_path
    assert discovery.expanded("~nobody-has-this-name/a.png") == Path("~nobody-has-this-name/a.png")
    tree("~/a.png")
    assert discovery.expanded("~/a.png") == Path("~/a.png")
    for url in ("https://host/a.png", "S3://bucket/a.png", "ftp://host/*"):
        with pytest.raises(InvalidInput, match=r"is a URL; only files are read\. Download it first"):
            discovery.expanded(url)
    with pytest.raises(InvalidInput, match="Name the file itself"):
        discovery.expanded("file:///a.png")
    assert discovery.expanded("C:\\a.png") == Path("C:\\a.png")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_may_not_be_listed(tree):
    tree("shots/a.png", "shots/closed/b.png")
    Path("shots/closed").chmod(0)
    try:
        assert found("shots/**/*.png") == ["shots/a.png"]
        assert notes("shots/**/*.png") == ["The folder shots/closed is passed over: Permission denied."]
        with pytest.raises(InvalidInput, match="cannot be listed"):
            found("shots/closed")
    finally:
        Path("shots/closed").chmod(0o700)
