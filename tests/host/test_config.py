"""Settings: defaults < file < environment < argument, and nothing unknown passes."""

import os

import pytest

from sa2va_host import ConfigError
from sa2va_host.config import Settings, load_settings


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
