"""`sa2va config` says what counts, and who said so."""

from __future__ import annotations

import json

import pytest

from sa2va_host.config import Settings, origins, settings_file
from sa2va_plugins.cli.main import main


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A configuration file that counts, and one variable above it."""
    path = tmp_path / "sa2va.toml"
    path.write_text('device = "cpu"\nkeep_alive = 60\n')
    monkeypatch.setenv("SA2VA_CONFIG", str(path))
    monkeypatch.setenv("SA2VA_KEEP_ALIVE", "30")
    return path


def test_every_setting_with_its_value_and_origin(file, capsys):
    assert main(["config", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["file"], document["exists"]) == (str(file), True)
    assert set(document["settings"]) == set(Settings.__struct_fields__)
    assert document["settings"]["device"] == {"value": "cpu", "from": str(file)}
    assert document["settings"]["keep_alive"] == {"value": 30.0, "from": "SA2VA_KEEP_ALIVE"}
    assert document["settings"]["timeout"] == {"value": None, "from": "default"}


def test_as_a_table(file, capsys):
    assert main(["config"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line}
    assert rows["device"] == ['"cpu"', str(file)]
    assert rows["keep_alive"] == ["30.0", "SA2VA_KEEP_ALIVE"]
    assert rows["timeout"] == ["none", "default"]
    assert lines[-1] == f"The file is {file}."


def test_the_path_is_told_whatever_the_file_holds(file, capsys):
    file.write_text("devise = 1")
    assert main(["config", "--path"]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    assert main(["config"]) == 2
    assert "'devise'" in capsys.readouterr().err


def test_the_tables_of_single_models(file, capsys):
    file.write_text('[models."Org/Own"]\nworker_python = "python3.11"\ntrust_remote_code = true\n')
    assert main(["config", "--json"]) == 0
    models = json.loads(capsys.readouterr().out)["settings"]["models"]
    assert models["from"] == str(file)
    assert models["value"]["Org/Own"]["worker_python"] == "python3.11"
    assert main(["config"]) == 0
    assert '"trust_remote_code": true' in capsys.readouterr().out


def test_without_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("SA2VA_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(["config"]) == 0
    assert capsys.readouterr().out.endswith(f"{settings_file()}, which does not exist yet.\n")


def test_an_empty_variable_is_no_origin(file):
    environment = {"SA2VA_CONFIG": str(file), "SA2VA_DEVICE": "", "SA2VA_DTYPE": "float16"}
    found = origins(environment)
    assert (found["device"], found["dtype"], found["model"]) == (str(file), "SA2VA_DTYPE", "default")
