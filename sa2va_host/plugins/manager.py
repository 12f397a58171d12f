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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any, Literal

import pluggy

from sa2va_host.machine.distribution import DISTRIBUTION

from . import hookspecs
from .hookspecs import PROJECT, FrontEnd, KnownModel, MaskProcessor, ModelFamily

_KINDS = {
    "register_front_ends": "front end",
    "register_model_families": "model family",
    "register_mask_processors": "mask processor",
    "register_known_models": "known model",
}
"""What is registered through each hook."""

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
    left_out = [
        (entry.name, _load(manager, entry)) for entry in _entries() if _is_enabled(entry, environment)
    ]
    left_out += [(name, _add(manager, name, plugin)) for name, plugin in extra]
    for name, reason in left_out:
        if reason:
            _log.warning("plugin %r is left out, %s", name, reason)
    return manager


@dataclass(frozen=True)
class PluginReport:
    """One installed plugin, and what became of it."""

    name: str
    distribution: str
    version: str
    state: Literal["enabled", "disabled", "failed"]
    reason: str = ""
    """Why it failed."""
    hooks: tuple[str, ...] = ()
    """Those that it implements, by name; none for one that is not loaded."""


def list_plugins(environment: Mapping[str, str] = os.environ) -> list[PluginReport]:
    """Every installed plugin, in the order in which they are loaded. Calls their hooks, where they may fail too."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    reports = [_report(manager, entry, environment) for entry in _entries()]
    raised: dict[str, str] = {}
    for hook in _KINDS:
        raised = _register(manager, hook)[1] | raised
    return [
        replace(report, state="failed", reason=raised[report.name])
        if report.state == "enabled" and report.name in raised
        else report
        for report in reports
    ]


def find_front_ends(manager: pluggy.PluginManager) -> dict[str, FrontEnd]:
    """The registered front ends by name."""
    return _registered(manager, "register_front_ends")


def find_model_families(manager: pluggy.PluginManager) -> dict[str, ModelFamily]:
    """The registered model families by name."""
    return _registered(manager, "register_model_families")


def find_mask_processors(manager: pluggy.PluginManager) -> dict[str, MaskProcessor]:
    """The registered mask processors by name, those of the host and those of the worker."""
    return _registered(manager, "register_mask_processors")


def find_known_models(manager: pluggy.PluginManager) -> dict[str, KnownModel]:
    """The models that plugins know, by name; `sa2va_host.models.known_models` has ours too."""
    return _registered(manager, "register_known_models")


def _registered(manager: pluggy.PluginManager, hook: str) -> dict[str, Any]:
    """What plugins register through a hook, by name."""
    found, raised = _register(manager, hook)
    for name, reason in raised.items():
        _log.warning("plugin %r %s", name, reason)
    return found


def _register(manager: pluggy.PluginManager, hook: str) -> tuple[dict[str, Any], dict[str, str]]:
    """What plugins register through a hook, by name, the first of two with one name; and which plugins failed, why."""
    found: dict[str, Any] = {}

    def register(thing: Any) -> None:
        if thing.name in found:
            raise ValueError(f"there is a {_KINDS[hook]} named {thing.name!r} already")
        found[thing.name] = thing

    return found, _call_each(manager, hook, register=register)


def _call_each(manager: pluggy.PluginManager, hook: str, **arguments: object) -> dict[str, str]:
    """Call one hook plugin by plugin, in the order they were added; why those failed that raised, by plugin name."""
    raised = {}
    implementations = getattr(manager.hook, hook).get_hookimpls()
    plugins = [implementation.plugin for implementation in implementations]
    for implementation in implementations:
        others = [plugin for plugin in plugins if plugin is not implementation.plugin]
        try:
            manager.subset_hook_caller(hook, others)(**arguments)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - foreign code, which may even want to exit; the others stay
            raised[implementation.plugin_name] = f"failed in {hook}: {error!r}"
    return raised


def _entries() -> list[metadata.EntryPoint]:
    """Every entry point of the group, ours first, so that their names are taken."""
    return sorted(metadata.entry_points(group=PROJECT), key=_is_ours, reverse=True)


def _is_ours(entry: metadata.EntryPoint) -> bool:
    return entry.dist is not None and entry.dist.name == DISTRIBUTION


def _is_enabled(entry: metadata.EntryPoint, environment: Mapping[str, str]) -> bool:
    disabled = {name.strip() for name in environment.get("SA2VA_DISABLE_PLUGINS", "").split(",")}
    return entry.name not in disabled and (_is_ours(entry) or "all" not in disabled)


def _report(
    manager: pluggy.PluginManager, entry: metadata.EntryPoint, environment: Mapping[str, str]
) -> PluginReport:
    """Load one plugin, if it is enabled, and say how that went."""
    about = (entry.name, entry.dist.name if entry.dist else "", entry.dist.version if entry.dist else "")
    if not _is_enabled(entry, environment):
        return PluginReport(*about, "disabled")
    if reason := _load(manager, entry):
        return PluginReport(*about, "failed", reason)
    callers = manager.get_hookcallers(manager.get_plugin(entry.name)) or ()
    return PluginReport(*about, "enabled", hooks=tuple(sorted(caller.name for caller in callers)))


def _load(manager: pluggy.PluginManager, entry: metadata.EntryPoint) -> str:
    """Add the plugin of an entry point; the reason why that is not possible, else empty."""
    try:
        plugin = entry.load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - foreign code, as above
        return f"it could not be imported: {error!r}"
    return _add(manager, entry.name, plugin)


def _add(manager: pluggy.PluginManager, name: str, plugin: object) -> str:
    """Add a plugin; the reason why that is not possible, else empty."""
    if manager.has_plugin(name):
        return "another one has that name"
    try:
        manager.register(plugin, name=name)
        manager.check_pending()
    except (pluggy.PluginValidationError, ValueError) as error:
        if manager.get_plugin(name) is plugin:
            manager.unregister(plugin)
        return " ".join(str(error).split())
    return ""
