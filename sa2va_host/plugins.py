"""The plugin manager: made by `create_manager`, passed to whoever calls hooks. Importing loads no plugin.

A plugin that cannot be imported, names a hook that does not exist, or raises is reported by name on the log
and left out; the others work on. Two switches in the environment:

- `SA2VA_DISABLE_PLUGINS`: names of plugins to leave out, separated by commas; `all` leaves out all but ours.
- `SA2VA_TRACE_HOOKS=1`: writes each hook call and its result to stderr.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata

import pluggy

from . import hookspecs
from .hookspecs import PROJECT, FrontEnd

DISTRIBUTION = "sa2va-host"

_log = logging.getLogger(__name__)


def create_manager(
    extra: Iterable[tuple[str, object]] = (), *, environment: Mapping[str, str] = os.environ
) -> pluggy.PluginManager:
    """A manager with every installed plugin that is not switched off, and the `(name, plugin)` of `extra`."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    if environment.get("SA2VA_TRACE_HOOKS", "") not in ("", "0"):
        manager.trace.root.setwriter(sys.stderr.write)
        manager.enable_tracing()
    disabled = {name.strip() for name in environment.get("SA2VA_DISABLE_PLUGINS", "").split(",")} - {""}
    for entry in sorted(metadata.entry_points(group=PROJECT), key=_is_ours, reverse=True):
        if entry.name in disabled or ("all" in disabled and not _is_ours(entry)):
            continue
        try:
            plugin = entry.load()
        except Exception as error:  # noqa: BLE001 - foreign code; one bad plugin must not take the others along
            _log.warning("plugin %r is left out, it could not be imported: %r", entry.name, error)
            continue
        _add(manager, entry.name, plugin)
    for name, plugin in extra:
        _add(manager, name, plugin)
    return manager


def find_front_ends(manager: pluggy.PluginManager) -> dict[str, FrontEnd]:
    """The registered front ends by name. The first of two with one name stays."""
    found: dict[str, FrontEnd] = {}

    def register(front_end: FrontEnd) -> None:
        if front_end.name in found:
            raise ValueError(f"there is a front end named {front_end.name!r} already")
        found[front_end.name] = front_end

    call_each(manager, "register_front_ends", register=register)
    return found


def call_each(manager: pluggy.PluginManager, hook: str, **arguments: object) -> None:
    """Call one hook plugin by plugin, in the order they were added; one that raises is named."""
    implementations = getattr(manager.hook, hook).get_hookimpls()
    plugins = [implementation.plugin for implementation in implementations]
    for implementation in implementations:
        others = [plugin for plugin in plugins if plugin is not implementation.plugin]
        try:
            manager.subset_hook_caller(hook, others)(**arguments)
        except Exception as error:  # noqa: BLE001 - foreign code, as above
            _log.warning("plugin %r failed in %s: %r", implementation.plugin_name, hook, error)


def main(arguments: Sequence[str] | None = None) -> int:
    """The `sa2va` command: runs the front end named `cli`."""
    front_ends = find_front_ends(create_manager())
    if "cli" not in front_ends:
        print("The command line is the plugin named 'cli', and it is switched off.", file=sys.stderr)  # noqa: T201
        return 2
    return front_ends["cli"].run(sys.argv[1:] if arguments is None else arguments)


def _is_ours(entry: metadata.EntryPoint) -> bool:
    return entry.dist is not None and entry.dist.name == DISTRIBUTION


def _add(manager: pluggy.PluginManager, name: str, plugin: object) -> None:
    if manager.has_plugin(name):
        _log.warning("plugin %r is left out: another one has that name", name)
        return
    try:
        manager.register(plugin, name=name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        if manager.get_plugin(name) is plugin:
            manager.unregister(plugin)
        _log.warning("plugin %r is left out: %s", name, " ".join(str(error).split()))
