"""Settings: defaults < file < environment < argument, and nothing unknown passes."""

import os
from pathlib import Path

import numpy as np
import pytest

from sa2va_host import ConfigError
from sa2va_host.config import Settings, absolute, checked_timeout, load_settings
from sa2va_host.lifecycle.workers import run_directory


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "sa2va.toml"
    path.write_text('device = "cpu"\nkeep_alive = 60\ndtype = "float16"\n')
    return path


def test_each_place_beats_the_one_before(file):
    environment = {
        "SA2VA_CONFIG": str(file),
        "SA2VA_KEEP_ALIVE": "30",
        "SA2VA_DTYPE": "bfloat16",
        "HOME": "/",
    }
    settings = load_settings(environment=environment, dtype="float32", device=None)
    assert settings.model == Settings().model == "auto"
    assert settings.device == "cpu"
    assert settings.keep_alive == 30.0
    assert settings.dtype == "float32"


def test_nothing_given_is_the_defaults(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert load_settings(environment={}) == Settings()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"environment": {"SA2VA_KEEPALIVE": "1"}}, "SA2VA_KEEPALIVE"),
        ({"environment": {}, "keepalive": 1}, "keepalive"),
        ({"environment": {}, "keep_alive": "soon"}, "keep_alive"),
        ({"environment": {"SA2VA_KEEP_ALIVE": "nan"}}, "keep_alive"),
        ({"environment": {"SA2VA_TRANSPORT": "pigeon"}}, "transport"),
        ({"environment": {}, "timeout": 0}, "timeout"),
        ({"environment": {}, "timeout": -1}, "timeout"),
        ({"environment": {"SA2VA_TIMEOUT": "1e300"}}, "timeout"),
        ({"environment": {"SA2VA_TIMEOUT": "nan"}}, "timeout"),
        ({"environment": {}, "unload_wait": 2e9}, "unload_wait"),
        ({"environment": {}, "keep_alive": -1e300}, "keep_alive"),
        ({"environment": {}, "keep_alive": 2e12}, "keep_alive"),
        ({"environment": {}, "device": "toaster"}, "device is 'toaster'"),
        ({"environment": {}, "device": "cuda:x"}, "device is 'cuda:x'"),
        ({"environment": {}, "device": "cpu\udcff"}, "not UTF-8"),
        ({"environment": {}, "model": "/models/\udcff"}, "not UTF-8"),
        ({"environment": {}, "attention": "a\0b"}, "null character"),
        ({"environment": {}, "dtype": "int3"}, "dtype is 'int3'"),
        ({"environment": {}, "quantization": "3bit"}, "quantization is '3bit'. Use none, 8bit, 4bit."),
        ({"environment": {"SA2VA_LOG_LEVEL": "loud"}}, "log_level is 'loud'"),
        ({"environment": {}, "run_dir": "~nobodyxx/x"}, "~nobodyxx"),
        ({"environment": {}, "queue_bound": 0}, "queue_bound"),
        ({"environment": {"SA2VA_CONFIG": "/no/such/file"}}, "/no/such/file"),
        ({"environment": {"SA2VA_MODEL_FOLDERS": "models"}}, "'models', which is relative"),
        ({"environment": {}, "model_folders": "/models"}, "model_folders"),
        ({"environment": {"SA2VA_OFFLINE": "perhaps"}}, "offline"),
    ],
)
def test_a_wrong_setting_is_named(arguments, named):
    with pytest.raises(ConfigError) as caught:
        load_settings(**arguments)
    assert named in str(caught.value)


@pytest.mark.parametrize("text", ["devise = 1", "device = ", "device = 1", "[table]\nx = 1", "\udcff"])
def test_a_wrong_file_is_named(tmp_path, text):
    path = tmp_path / "settings.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError):
        load_settings(environment={}, file=path)


def test_model_folders_are_a_list_in_the_file_and_like_path_in_the_environment(tmp_path):
    path = tmp_path / "sa2va.toml"
    path.write_text('model_folders = ["/a b", "~/models"]\noffline = true\n')
    settings = load_settings(environment={}, file=path)
    assert settings.model_folders == ("/a b", "~/models")
    assert settings.offline
    environment = {"SA2VA_MODEL_FOLDERS": os.pathsep.join(["/a b", "", "/c"]), "SA2VA_OFFLINE": "0"}
    settings = load_settings(environment=environment, file=path)
    assert settings.model_folders == ("/a b", "/c")
    assert not settings.offline
    assert load_settings(base=settings, device="cpu").model_folders == ("/a b", "/c")


def test_an_empty_variable_counts_as_unset():
    assert load_settings(environment={"SA2VA_DEVICE": ""}).device == "auto"


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:11", "balanced", "offload"])
def test_devices_that_a_machine_may_have_pass(device):
    assert load_settings(environment={}, device=device).device == device


@pytest.mark.parametrize("variable", ["SA2VA_DEBUG", "SA2VA_VENV"])
def test_variables_that_are_read_elsewhere_are_no_settings(variable):
    assert load_settings(environment={variable: "1"}) == Settings()


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 2e9, 10**400, "5", [1]])
def test_a_timeout_that_nothing_can_wait_for_is_refused(seconds):
    with pytest.raises(ConfigError, match=r"wait is .*at most 1e\+09"):
        checked_timeout(seconds, "wait")


def test_a_timeout_passes_as_seconds():
    assert checked_timeout(None) is None
    assert checked_timeout(np.float32(0.5)) == 0.5
    assert checked_timeout(1e9) == 1e9


def test_relative_places_stay_where_they_were_when_the_settings_were_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = load_settings(environment={"SA2VA_RUN_DIR": "run", "SA2VA_WORKER_PYTHON": "./venv/bin/python"})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert settings.run_dir == str(tmp_path / "run")
    assert settings.worker_python == str(tmp_path / "venv" / "bin" / "python")
    assert run_directory(settings).path == tmp_path / "run"
    assert load_settings(environment={}, worker_python="python3").worker_python == "python3", (
        "looked for in PATH"
    )


def test_a_working_directory_that_is_gone_is_named(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ConfigError, match="'run' leads nowhere"):
        absolute("run")


TABLES = """
revision = "v1"
worker_python = "python-for-all"
[models."Org/Own"]
revision = "v2"
worker_python = "~/remote/bin/python"
[models."Org/Here"]
path = "~/models/here"
"""


@pytest.fixture
def tables(tmp_path):
    path = tmp_path / "sa2va.toml"
    path.write_text(TABLES)
    return path


def test_the_table_of_a_model_counts_for_that_model(tables):
    own = load_settings(environment={"SA2VA_MODEL": "Org/Own"}, file=tables)
    assert (own.model, own.revision) == ("Org/Own", "v2")
    assert own.worker_python == os.path.expanduser("~/remote/bin/python")  # noqa: PTH111 - what a shell says
    other = load_settings(environment={}, file=tables, model="Org/Other")
    assert (other.revision, other.worker_python) == ("v1", "python-for-all")


def test_environment_and_arguments_come_before_the_table_of_a_model(tables):
    settings = load_settings(
        environment={"SA2VA_WORKER_PYTHON": "python-of-today"}, file=tables, model="Org/Own", revision="v3"
    )
    assert (settings.revision, settings.worker_python) == ("v3", "python-of-today")


def test_a_model_with_a_path_is_that_folder_and_has_no_revision(tables):
    settings = load_settings(environment={}, file=tables, model="Org/Here")
    assert settings.model == os.path.expanduser("~/models/here")  # noqa: PTH111 - as above
    assert settings.revision == ""


def test_a_model_named_later_has_its_table_too(tables):
    base = load_settings(environment={}, file=tables)
    assert load_settings(base=base, model="Org/Own").revision == "v2"
    assert load_settings(base=base).revision == "v1"
    pinned = load_settings(base=base, model="Org/Own", revision="v3")
    assert load_settings(base=pinned, device="cpu").revision == "v3"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('models = "all"', "models"),
        ('[models."Org/A"]\nrevison = "v1"', "revison"),
        ('[models."Org/A"]\npath = 7', "path"),
        ('[models."Org/A"]\npath = "/a"\nrevision = "v1"', "a path and a revision for 'Org/A'"),
    ],
)
def test_a_wrong_table_is_named(tmp_path, text, said):
    path = tmp_path / "sa2va.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_settings(environment={}, file=path)


def test_tables_are_of_the_file_alone():
    with pytest.raises(ConfigError, match="SA2VA_MODELS names no setting"):
        load_settings(environment={"SA2VA_MODELS": "Org/A"})


def test_a_byte_order_mark_is_not_part_of_the_settings():
    file = Path(__file__).parents[1] / "cases" / "bom.toml"
    assert file.read_bytes().startswith(b"\xef\xbb\xbf")
    assert load_settings(environment={}, file=file).model == "sa2va-tiny"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_encoding_is_named_with_what_to_do(tmp_path, encoding):
    file = tmp_path / "sa2va.toml"
    file.write_bytes('model = "sa2va-tiny"\n'.encode(encoding))
    with pytest.raises(ConfigError, match="UTF-16 or UTF-32, not UTF-8") as caught:
        load_settings(environment={}, file=file)
    assert str(file) in caught.value.message
    assert "Save it as UTF-8" in caught.value.advice


def test_a_byte_of_an_older_encoding_is_named_with_its_line(tmp_path):
    file = tmp_path / "sa2va.toml"
    file.write_bytes('device = "cpu"\nmodel = "/Modelle/gro\u00df"\n'.encode("latin-1"))
    with pytest.raises(ConfigError, match="byte 0xdf in line 2"):
        load_settings(environment={}, file=file)
