"""`sa2va plugins` tells of every installed plugin what became of it."""

from __future__ import annotations

import json
import sys

import pytest

from sa2va_plugins.cli.main import main

GREETER = """
from sa2va_host.plugins.hookspecs import FrontEnd, hookimpl

@hookimpl
def register_front_ends(register):
    register(FrontEnd(name={name!r}, summary="greets", run=lambda arguments: 0))
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a distribution with one plugin where Python finds it, as pip does: `install("greeter", SOURCE)`."""
    monkeypatch.syspath_prepend(tmp_path)

    def put(name, source):
        module = f"sa2va_{name}"
        (tmp_path / f"{module}.py").write_text(source)
        info = tmp_path / f"{module}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[sa2va]\n{name} = {module}\n")

    yield put
    for module in [module for module in sys.modules if module.startswith("sa2va_") and module.endswith("_t")]:
        del sys.modules[module]


def listed(capsys):
    """What `plugins --json` says, by name."""
    assert main(["plugins", "--json"]) == 0
    return {plugin["name"]: plugin for plugin in json.loads(capsys.readouterr().out)["plugins"]}


def test_one_that_works(install, capsys):
    install("greeter_t", GREETER.format(name="greeter"))
    found = listed(capsys)
    assert found["greeter_t"] == {
        "name": "greeter_t",
        "distribution": "sa2va_greeter_t",
        "version": "1.5",
        "state": "enabled",
        "reason": "",
        "hooks": ["register_front_ends"],
    }
    assert (found["cli"]["distribution"], found["cli"]["state"]) == ("sa2va-host", "enabled")
    assert next(iter(found)) == "cli", "ours come first, so that nobody takes their names"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import a_module_that_is_not_there\n", "could not be imported"),
        (GREETER.format(name="x").replace("register_front_ends", "register_frontends"), "register_frontends"),
        (GREETER.format(name="x").replace("def", "raise OSError('boom')\ndef"), "OSError('boom')"),
        (GREETER.format(name="x").replace("register(Front", "1 / 0, register(Front"), "ZeroDivisionError"),
        (GREETER.format(name="cli"), "there is a front end named 'cli' already"),
    ],
)
def test_one_that_fails(install, capsys, source, reason):
    install("broken_t", source)
    found = listed(capsys)
    assert found["broken_t"]["state"] == "failed"
    assert reason in found["broken_t"]["reason"]
    assert found["cli"]["state"] == "enabled"
    main(["plugins"])
    shown = capsys.readouterr().out.splitlines()
    assert shown[-1] == f"broken_t: {found['broken_t']['reason']}"


def test_one_that_takes_our_name(install, capsys):
    install("cli", GREETER.format(name="other"))
    assert main(["plugins", "--json"]) == 0
    ours, theirs = (
        plugin for plugin in json.loads(capsys.readouterr().out)["plugins"] if plugin["name"] == "cli"
    )
    assert (ours["distribution"], ours["state"]) == ("sa2va-host", "enabled")
    assert (theirs["state"], theirs["reason"]) == ("failed", "another one has that name")


def test_one_that_is_switched_off_is_not_even_imported(install, capsys, monkeypatch):
    install("quiet_t", "raise SystemExit('imported')\n")
    monkeypatch.setenv("SA2VA_DISABLE_PLUGINS", "quiet_t")
    assert listed(capsys)["quiet_t"]["state"] == "disabled"
