"""From the names that a checkpoint has to the folder that it is; real folders, laid out as the hub's library does."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

import pytest

from sa2va_host.config import Settings
from sa2va_host.errors import ConfigError, ModelLoadFailed, ModelNotFound
from sa2va_host.models.checkpoint_folder import ADAPTER, INDEX, CheckpointFolder
from sa2va_host.models.checkpoints import bundled_folder, find, find_all, hub_cache, identify, pull_command
from sa2va_host.models.choice import specify

MODEL = "Org/Sa2VA-Small"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLDER = "fedcba9876543210fedcba9876543210fedcba98"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
WHOLE = "\x38" + "\0" * 7 + '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}  ' + "\0" * 8
CONFIG = '{"model_type": "sa2va_chat", "text_config": {"model_type": "qwen3_vl_text"}}'


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, empty; its other variables are unset."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf" / "hub"


def make_checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(CONFIG)
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def make_snapshot(cache: Path, commit: str = COMMIT, *revisions: str, model: str = MODEL) -> Path:
    repo = cache / f"models--{model.replace('/', '--')}"
    for revision in revisions:
        (repo / "refs" / revision).parent.mkdir(parents=True, exist_ok=True)
        (repo / "refs" / revision).write_text(commit)
    return make_checkpoint(repo / "snapshots" / commit)


def test_the_bundled_model_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    found = find("sa2va-tiny")
    assert (found.folder, found.source, found.revision) == (bundled_folder() / "sa2va-tiny", "bundled", "")
    assert (found.contents.family, found.contents.problem) == ("qwen3_vl", "")
    (tmp_path / "link").symlink_to(bundled_folder() / "sa2va-tiny")
    assert find(str(tmp_path / "link")) == found
    assert find("sa2va-tiny", revision="v1") == found, "a pin is for models that have revisions"


def test_a_folder_is_taken_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_checkpoint(tmp_path / "deep" / "folder")
    monkeypatch.chdir(tmp_path)
    for name in (str(folder), "./deep/folder", "deep/folder", "deep/../deep/folder"):
        found = find(name)
        assert (found.folder, found.source, found.name) == (folder, "folder", "folder")
    (folder / "config.json").unlink()
    assert find(str(folder)).folder == folder, "what is wrong with it is the worker's to say"
    with pytest.raises(ConfigError, match="revision is 'v1'"):
        find(str(folder), revision="v1")


def test_a_name_is_looked_for_in_the_model_folders_in_their_order(tmp_path: Path, cache: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    snapshot = make_snapshot(cache, COMMIT, "main")
    folders = [str(tmp_path / "absent"), str(first), str(second)]
    assert find(MODEL, folders=folders).folder == snapshot
    short = make_checkpoint(second / "Sa2VA-Small")
    assert find(MODEL, folders=folders).folder == find("Sa2VA-Small", folders=folders).folder == short
    whole = make_checkpoint(second / "Org" / "Sa2VA-Small")
    assert find(MODEL, folders=folders).folder == whole
    earlier = make_checkpoint(first / "Sa2VA-Small")
    assert find(MODEL, folders=folders).folder == earlier
    assert find(MODEL, revision="main", folders=folders).folder == snapshot, "folders know no revisions"


def test_in_the_cache_a_branch_a_tag_and_a_commit_lead_to_a_snapshot(cache: Path) -> None:
    newer = make_snapshot(cache, COMMIT, "main", "refs/pr/1")
    older = make_snapshot(cache, OLDER, "v1")
    for revision, folder in (
        ("", newer),
        ("main", newer),
        ("refs/pr/1", newer),
        ("v1", older),
        (OLDER, older),
    ):
        found = find(MODEL, revision=revision)
        assert (found.folder, found.revision, found.name) == (folder, folder.name, MODEL)
    for revision in ("v2", "..", "../refs", "0" * 40, "a\0b"):
        with pytest.raises(ModelNotFound) as caught:
            find(MODEL, revision=revision)
        assert f"sa2va pull {MODEL} --revision" in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_called_by_its_name(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "config.json").write_bytes(CONFIG.encode(encoding))
    assert CheckpointFolder(tmp_path).problem == (
        "config.json cannot be read: it is in UTF-16; save it as UTF-8"
    )


def test_the_only_snapshot_of_a_cache_without_main_is_found_and_it_is_said(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    snapshot = make_snapshot(cache, COMMIT)
    found = find(MODEL)
    assert (found.folder, found.revision) == (snapshot, COMMIT)
    assert f"no `main` of {MODEL}" in found.note
    assert COMMIT in found.note
    assert specify(Settings(model=MODEL)).checkpoint == str(snapshot)
    assert caplog.messages == [found.note]
    with pytest.raises(ModelNotFound, match="sa2va pull"):
        find(MODEL, revision="main")
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(COMMIT)
    assert find(MODEL).note == ""


def test_of_several_snapshots_without_main_none_is_taken(cache: Path) -> None:
    make_snapshot(cache, COMMIT)
    make_snapshot(cache, OLDER, "v1")
    with pytest.raises(ModelNotFound) as caught:
        find(MODEL)
    assert f"{COMMIT}, {OLDER}" in caught.value.message
    assert "--revision" in caught.value.advice
    assert find(MODEL, revision=OLDER).revision == find(MODEL, revision="v1").revision == OLDER


def test_a_commit_can_be_shortened_where_one_begins_so(cache: Path) -> None:
    make_snapshot(cache, COMMIT, "main")
    make_snapshot(cache, COMMIT[:12] + "f" * 28)
    make_snapshot(cache, OLDER)
    assert find(MODEL, revision=OLDER[:7]).revision == OLDER
    assert find(MODEL, revision=COMMIT[:13]).revision == COMMIT
    with pytest.raises(ModelNotFound, match=f"2 snapshots of {MODEL} that begin with {COMMIT[:12]}"):
        find(MODEL, revision=COMMIT[:12])
    for revision in (OLDER[:6], "0" * 7):
        with pytest.raises(ModelNotFound, match="is not on this machine"):
            find(MODEL, revision=revision)


def test_every_name_of_a_checkpoint_gives_one_specification(tmp_path: Path, cache: Path) -> None:
    snapshot = make_snapshot(cache, COMMIT, "main", "v1")
    (tmp_path / "models" / "Org").mkdir(parents=True)
    (tmp_path / "models" / "Org" / "Sa2VA-Small").symlink_to(snapshot)
    ways = [
        Settings(model=MODEL),
        Settings(model=MODEL, revision="v1"),
        Settings(model=MODEL, revision=COMMIT),
        Settings(model=str(snapshot)),
        Settings(model=MODEL, model_folders=(str(tmp_path / "models"),)),
    ]
    (specification,) = {specify(settings) for settings in ways}
    assert (specification.checkpoint, specification.revision) == (str(snapshot), COMMIT)
    assert specify(Settings(model="sa2va-tiny", revision="v1")) == specify(Settings(model="sa2va-tiny"))


def test_the_name_of_another_program_s_model_is_left_alone() -> None:
    specification = specify(Settings(model="scripted:load=1", revision="r"))
    assert (specification.checkpoint, specification.revision) == ("scripted:load=1", "r")


def test_what_is_not_here_comes_with_the_command_that_fetches_it() -> None:
    with pytest.raises(ModelNotFound) as caught:
        find(MODEL)
    assert str(caught.value) == f"{MODEL} is not on this machine. Fetch it with `{pull_command(MODEL)}`."
    with pytest.raises(ModelNotFound) as caught:
        find(MODEL, revision="a b")
    assert str(caught.value).endswith(f"sa2va pull {MODEL} --revision 'a b'`.")


@pytest.mark.parametrize("model", ["sa2va-tny", "a/b/c", "two words", "", "x" * 5000, "a\0b", "модель"])
def test_what_cannot_be_a_name_of_the_hub_comes_with_the_names_that_can_be(model: str) -> None:
    with pytest.raises(ModelNotFound, match=r"There is no model .*\(sa2va-tiny\)"):
        find(model)


@pytest.mark.parametrize("model", ["./missing", "/no/such/folder", "~nobody/folder", "/" + "x" * 5000])
def test_a_path_that_does_not_exist_is_said_to_be_one(model: str) -> None:
    with pytest.raises(ModelNotFound, match="There is no checkpoint folder"):
        find(model)


def test_a_download_that_was_cut_off_is_named_and_another_place_is_tried(tmp_path: Path, cache: Path) -> None:
    broken = make_checkpoint(tmp_path / "models" / "Org" / "Sa2VA-Small")
    (broken / "model.safetensors").rename(broken / "model-00001-of-00002.safetensors")
    (broken / INDEX).write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    )
    folders = [str(tmp_path / "models")]
    with pytest.raises(ModelNotFound) as caught:
        find(MODEL, folders=folders)
    assert f"{broken} is broken: model-00002-of-00002.safetensors is missing." in str(caught.value)
    assert f"`{pull_command(MODEL)}`" in str(caught.value)
    snapshot = make_snapshot(cache, COMMIT, "main")
    assert find(MODEL, folders=folders).folder == snapshot


def test_the_list_has_every_place_and_what_is_broken(tmp_path: Path, cache: Path) -> None:
    models = tmp_path / "models"
    make_checkpoint(models / "tuned")
    make_checkpoint(models / "Org" / "Nested")
    (models / "linked").symlink_to(models / "tuned")
    make_snapshot(cache, COMMIT, "main")
    other = make_snapshot(cache, COMMIT, "main", model="Org/Chat")
    (other / "config.json").write_text('{"model_type": "llama"}')
    damaged = make_snapshot(cache, COMMIT, "main", model="Org/sa2va-damaged")
    (damaged / "config.json").write_text("{")
    (models / "Sa2VA-collection").mkdir()
    found = {each.name: each for each in find_all([str(models), str(tmp_path / "absent")])}
    assert [(each.name, each.source) for each in found.values()] == [
        ("sa2va-tiny", "bundled"),
        ("Org/Nested", "folder"),
        ("tuned", "folder"),
        (MODEL, "cache"),
        ("Org/sa2va-damaged", "cache"),
    ]
    assert {name for name, each in found.items() if each.contents.problem} == {"Org/sa2va-damaged"}
    for name, each in found.items():
        if not each.contents.problem:
            assert find(name, folders=[str(models)]).folder == each.folder


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, "config.json is missing"),
        ({"config.json": "{"}, "config.json cannot be read: "),
        ({"config.json": "[" * 100_000}, "config.json cannot be read: "),
        ({"config.json": "\udcff"}, "config.json cannot be read: "),
        ({"config.json": "[]"}, "config.json holds no JSON object"),
        ({"config.json": CONFIG}, "holds no weights"),
        ({"config.json": CONFIG, "pytorch_model.bin": "x"}, "holds only pickled weights"),
        ({"config.json": CONFIG, "model.safetensors": ""}, "the weights are empty"),
        ({"config.json": CONFIG, INDEX: "{}"}, f"{INDEX} has no usable weight_map"),
        ({"config.json": CONFIG, INDEX: '{"weight_map": {}}'}, f"{INDEX} has no usable weight_map"),
        ({"config.json": CONFIG, INDEX: '{"weight_map": {"a": "../a.safetensors"}}'}, f"{INDEX} points to"),
        ({"config.json": CONFIG, "model.safetensors": "x"}, ""),
        ({"config.json": '{"model_type": "a plugin\'s"}'}, ""),
        ({"config.json": "\ufeff" + CONFIG, "model.safetensors": "x"}, ""),
        ({"config.json": "\ufeff" + CONFIG, INDEX: '\ufeff{"weight_map": {}}'}, f"{INDEX} has no usable"),
        ({"config.json": POINTER}, "config.json is a pointer of Git LFS"),
        ({"config.json": CONFIG, "model.safetensors": POINTER}, "model.safetensors is a pointer of Git LFS"),
        ({"config.json": CONFIG, "model.safetensors": WHOLE}, ""),
        ({"config.json": CONFIG, "model.safetensors": WHOLE[:-1]}, "model.safetensors is cut off"),
        ({"config.json": CONFIG, "model.safetensors": WHOLE[:20]}, "model.safetensors is cut off"),
        (
            {ADAPTER: '{"base_model_name_or_path": "Org/Base"}'},
            "is no checkpoint but an adapter alone of Org/Base",
        ),
        ({"config.json": CONFIG, ADAPTER: "{}"}, "is no checkpoint but an adapter alone, and does not say"),
        ({"config.json": CONFIG, ADAPTER: "{}", "model.safetensors": "x"}, ""),
    ],
)
def test_what_is_wrong_with_a_folder_is_a_few_words(
    tmp_path: Path, files: dict[str, str], problem: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    contents = CheckpointFolder(tmp_path)
    assert contents.problem.startswith(problem) if problem else contents.problem == ""
    assert str(tmp_path) not in contents.problem
    assert contents.size_on_disk == sum(
        len(text.encode("utf-8", "surrogateescape")) for text in files.values()
    )


@pytest.mark.skipif(sys.platform == "win32", reason="it has neither")
def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    assert CheckpointFolder(tmp_path).problem == "config.json is no file"
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").symlink_to("/dev/zero")
    assert CheckpointFolder(tmp_path).problem == "config.json is no file"


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"XDG_CACHE_HOME": "/b"},
        {"HF_HOME": "~/a", "XDG_CACHE_HOME": "/b"},
        {"HF_HOME": "/a", "HUGGINGFACE_HUB_CACHE": "/c"},
        {"HF_HOME": "/a", "HUGGINGFACE_HUB_CACHE": "/c", "HF_HUB_CACHE": "$HOME/d"},
    ],
)
def test_the_cache_is_where_the_hub_s_library_has_it(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = pytest.importorskip("huggingface_hub")
    for name in ("HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    constants = runpy.run_path(str(Path(library.__file__).with_name("constants.py")))
    assert hub_cache() == Path(constants["HF_HUB_CACHE"])


def test_an_empty_variable_is_no_place() -> None:
    assert hub_cache({"HF_HOME": ""}) == Path("~/.cache/huggingface/hub").expanduser()


def test_a_snapshot_is_recognised_without_a_look_into_it(cache: Path) -> None:
    found = identify(cache / "models--Org--Name" / "snapshots" / COMMIT)
    assert (found.name, found.source, found.revision) == ("Org/Name", "cache", COMMIT)


def test_a_slash_at_the_end_makes_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_checkpoint(tmp_path / "mymodel" / "sub")
    monkeypatch.chdir(tmp_path)
    assert find("mymodel/").folder == tmp_path / "mymodel"
    assert find("mymodel/sub/").folder == tmp_path / "mymodel" / "sub"
    with pytest.raises(ModelNotFound, match="no checkpoint folder 'other/'"):
        find("other/")


def test_a_folder_whose_name_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / os.fsdecode(b"mod\xe9le"))
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(ModelLoadFailed, match="is not UTF-8"):
        find(str(tmp_path / "link"))


def test_two_installations_of_one_bundled_model_do_not_share_a_worker(tmp_path, monkeypatch):
    here = specify(Settings(model="sa2va-tiny"))
    other = tmp_path / "bundled" / "sa2va-tiny"
    other.mkdir(parents=True)
    (other / "config.json").write_text("{}")
    monkeypatch.setattr("sa2va_host.models.checkpoints.bundled_folder", lambda: tmp_path / "bundled")
    there = specify(Settings(model="sa2va-tiny"))
    assert there.checkpoint == str(other)
    assert not there.is_served_by(here)
