"""The plugin manager with real plugins: found by entry point, named when they fail, switched off, traced."""

from __future__ import annotations

import inspect
import logging
import os
import subprocess
import sys

import pytest

from sa2va_host.plugins import hookspecs
from sa2va_host.plugins.hookspecs import FrontEnd, hookimpl
from sa2va_host.plugins.manager import create_manager, find_front_ends

NOTHING: dict[str, str] = {}


class Web:
    @hookimpl
    def register_front_ends(self, register):
        register(FrontEnd(name="web", summary="a page", run=len))


class Broken:
    @hookimpl
    def register_front_ends(self, register):
        raise RuntimeError("no luck")


class Misspelt:
    @hookimpl
    def register_frontends(self, register):
        raise AssertionError("is never called")


class WrongArgument:
    @hookimpl
    def register_front_ends(self, registrar):
        raise AssertionError("is never called")


class SecondCli:
    @hookimpl
    def register_front_ends(self, register):
        register(FrontEnd(name="cli", summary="an impostor", run=lambda arguments: 99))


def test_the_cli_is_a_plugin_found_by_its_entry_point():
    manager = create_manager(environment=NOTHING)
    assert manager.has_plugin("cli")
    assert find_front_ends(manager)["cli"].summary


def test_a_further_front_end():
    front_ends = find_front_ends(create_manager([("web", Web())], environment=NOTHING))
    assert front_ends["web"].run(["a", "b"]) == 2
    assert "cli" in front_ends


def test_a_raising_hook_is_named_and_the_others_work(caplog):
    manager = create_manager([("broken", Broken()), ("web", Web())], environment=NOTHING)
    assert {"cli", "web"} <= set(find_front_ends(manager))
    assert "plugin 'broken' failed in register_front_ends: RuntimeError('no luck')" in caplog.text


@pytest.mark.parametrize("plugin", [Misspelt(), WrongArgument()])
def test_a_hook_that_does_not_exist_is_reported(caplog, plugin):
    manager = create_manager([("odd", plugin), ("web", Web())], environment=NOTHING)
    assert not manager.has_plugin("odd")
    assert {"cli", "web"} <= set(find_front_ends(manager))
    assert "plugin 'odd' is left out" in caplog.text


def test_the_first_of_two_with_one_name_stays(caplog):
    manager = create_manager([("second", SecondCli()), ("second", Web())], environment=NOTHING)
    front_ends = find_front_ends(manager)
    assert front_ends["cli"].summary != "an impostor"
    assert "web" not in front_ends
    assert "plugin 'second' failed" in caplog.text
    assert "another one has that name" in caplog.text


@pytest.mark.parametrize(
    ("switch", "there"), [("cli", False), ("other, cli", False), ("all", True), ("", True)]
)
def test_switching_off(switch, there):
    manager = create_manager(environment={"SA2VA_DISABLE_PLUGINS": switch})
    assert manager.has_plugin("cli") is there


def test_tracing(capsys):
    find_front_ends(create_manager(environment={"SA2VA_TRACE_HOOKS": "1"}))
    assert "register_front_ends" in capsys.readouterr().err


def install_package(folder, name, body, entry="plugin"):
    """A distribution as pip leaves it in site-packages: a module and its metadata."""
    (folder / f"{name}.py").write_text(body)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[sa2va]\n{entry} = {name}\n")


def test_foreign_distributions(tmp_path, monkeypatch, caplog):
    install_package(
        tmp_path,
        "sa2va_greeter",
        "from sa2va_host.plugins.hookspecs import FrontEnd, hookimpl\n"
        "@hookimpl\n"
        "def register_front_ends(register):\n"
        "    register(FrontEnd(name='greeter', summary='greets', run=lambda arguments: 7))\n",
        entry="greeter",
    )
    install_package(tmp_path, "sa2va_rotten", "import a_module_that_is_not_there\n", entry="rotten")
    monkeypatch.syspath_prepend(tmp_path)
    front_ends = find_front_ends(create_manager(environment=NOTHING))
    assert front_ends["greeter"].run([]) == 7
    assert "cli" in front_ends
    assert "plugin 'rotten' is left out, it could not be imported" in caplog.text
    alone = create_manager(environment={"SA2VA_DISABLE_PLUGINS": "all"})
    assert sorted(name for name, _ in alone.list_name_plugin()) == ["cli", "vitmatte"]


def command(folder, *words):
    """The command where the packages in `folder` are installed too."""
    program = "from sa2va_plugins.command import main; raise SystemExit(main())"
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        env={**os.environ, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_bad_plugin_does_not_disturb_the_command(tmp_path):
    install_package(tmp_path, "sa2va_rotten", "raise RuntimeError('boom')\n", entry="rotten")
    done = command(tmp_path, "sgement")
    assert done.returncode == 2
    assert "invalid choice: 'sgement'" in done.stderr
    assert done.stderr.startswith("plugin 'rotten' is left out")
    assert "Traceback" not in done.stderr


def test_the_commands_own_words_wait_for_no_plugin_and_belong_to_none(tmp_path):
    install_package(
        tmp_path,
        "sa2va_impostor",
        "from sa2va_host.plugins.hookspecs import FrontEnd, hookimpl\n"
        "print('loaded')\n"
        "@hookimpl\n"
        "def register_front_ends(register):\n"
        "    register(FrontEnd(name='completion', summary='', run=lambda arguments: 7))\n",
        entry="impostor",
    )
    for words in (["--version"], ["completion", "--help"]):
        done = command(tmp_path, *words)
        assert done.returncode == 0
        assert "loaded" not in done.stdout
    assert command(tmp_path, "other").stdout == "loaded\n"


def test_the_command_line_can_be_switched_off(tmp_path, monkeypatch):
    monkeypatch.setenv("SA2VA_DISABLE_PLUGINS", "cli")
    done = command(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (2, "")
    assert "switched off" in done.stderr


def test_every_hook_is_documented():
    specs = [
        function
        for _, function in inspect.getmembers(hookspecs, inspect.isfunction)
        if hasattr(function, f"{hookspecs.PROJECT}_spec")
    ]
    assert specs
    manager = create_manager(environment=NOTHING)
    ours = ["register_front_ends", "register_mask_processors"]  # the example package uses the others
    for spec in specs:
        assert inspect.getdoc(spec)
        assert bool(getattr(manager.hook, spec.__name__).get_hookimpls()) == (spec.__name__ in ours)


def test_importing_the_manager_loads_no_plugin():
    code = (
        "import sys, sa2va_host.plugins.manager; assert not [m for m in sys.modules if 'sa2va_plugins' in m]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_managers_do_not_share_state():
    first = create_manager([("web", Web())], environment=NOTHING)
    second = create_manager(environment=NOTHING)
    assert first.has_plugin("web")
    assert not second.has_plugin("web")
    assert logging.getLogger("sa2va_host.plugins.manager").handlers == []


class Leaver:
    @hookimpl
    def register_front_ends(self, register):
        raise SystemExit(3)


def test_a_plugin_that_wants_to_exit_ends_nothing(tmp_path, monkeypatch, caplog):
    install_package(tmp_path, "sa2va_leaver", "raise SystemExit(3)\n", entry="leaver")
    monkeypatch.syspath_prepend(tmp_path)
    manager = create_manager([("other", Leaver()), ("web", Web())], environment=NOTHING)
    assert {"cli", "web"} <= set(find_front_ends(manager))
    assert "plugin 'leaver' is left out, it could not be imported: SystemExit(3)" in caplog.text
    assert "plugin 'other' failed in register_front_ends: SystemExit(3)" in caplog.text
