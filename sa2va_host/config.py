"""One settings object: defaults < file < environment < argument. An unknown key is refused, wherever it
stands.

The file is ``sa2va.toml`` in the user's configuration directory, or the one that ``SA2VA_CONFIG`` names. A
variable of the environment is the setting's name in capitals after ``SA2VA_``. Nothing is read on import.
"""

from __future__ import annotations

import codecs
import os
import re
import sys
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any, cast

import msgspec

from .errors import ConfigError
from .protocol.limits import MAX_SECONDS
from .protocol.specification import QUANTIZATIONS

_DEVICE = re.compile(r"auto|balanced|cpu|mps|offload|cuda(:[0-9]{1,3})?")
_WORDS = {
    "transport": ("auto", "ipc", "tcp"),
    "dtype": ("auto", "float32", "bfloat16", "float16"),
    "quantization": QUANTIZATIONS,
    "log_level": ("debug", "info", "warning", "error", "critical"),
}
"""Settings of which each value is known."""
LONGEST = 1e9
"""The most seconds that anything is waited for, some 30 years: the system's own clocks stop not far above."""
_NOT_SETTINGS = frozenset({"COMMAND", "CONFIG", "DEBUG", "DISABLE_PLUGINS", "TRACE_HOOKS", "VENV"})
"""Variables that begin with SA2VA_ and are read elsewhere."""


class ModelSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file says of one model, in a table ``[models."ORG/NAME"]``. It counts where neither the environment nor
    an argument says otherwise.
    """

    path: str = ""
    """The folder that the name stands for, instead of looking for it."""
    revision: str = ""
    worker_python: str = ""
    """As in `Settings`."""
    trust_remote_code: bool = False
    """Whether code of the checkpoint's own may run."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a user can set. Durations are seconds."""

    model: str = "auto"
    """A bundled model's name, a checkpoint folder, or `ORG/NAME`; auto takes the known checkpoint here with the most
    parameters that fits the GPU's total memory, else the bundled one (`sa2va_host.models.choice`).
    """
    revision: str = ""
    """The branch, tag or commit of a model in the hub's cache; empty takes `main`, else the only snapshot. A bundled
    model has none.
    """
    model_folders: tuple[str, ...] = ()
    """Where models are looked for by name, as `FOLDER/ORG/NAME` and `FOLDER/NAME`: absolute, or from `~`. In
    the environment they are separated as in PATH.
    """
    models: dict[str, ModelSettings] = {}
    """What differs for single models, by the names that `model` takes. Only the file has it."""
    offline: bool = False
    """`sa2va pull` refuses. Nothing else touches the network, but for a kernel that ``attention`` names."""
    device: str = "auto"
    """auto, cpu, mps, cuda, cuda:N; balanced spreads the model over all NVIDIA GPUs, offload keeps in the computer's
    memory what one has no room for.
    """
    dtype: str = "auto"
    attention: str = "auto"
    """auto, sdpa, flash_attention_2, eager, or a prebuilt kernel's name, such as `kernels-community/flash-attn2`, which
    transformers then fetches. One that does not run on the device is passed over for sdpa.
    """
    quantization: str = "none"
    trust_remote_code: bool = False
    """Whether a checkpoint's own code runs, in its worker, where it brings any. For a model of the hub ``revision``
    must then be a commit.
    """
    trust_workflows: bool = False
    """Whether a ComfyUI workflow may name what runs here: the code of a checkpoint, a worker's Python, a kernel that is
    fetched for ``attention``. A workflow may come from anybody, and the settings of ComfyUI's page are open to whoever
    reaches its port, so this is set in the file or the environment alone.
    """
    tracker_decoder: str = ""
    """Whose mask decoder propagates masks where a call conditions on masks: a folder or `ORG/NAME` with SAM2's original
    weights, or a Sa2VA-i checkpoint. Empty takes the model's own.
    """
    keep_alive: float = 300.0
    """How long an idle worker stays, from the end of the last call: 0 ends it at once, negative keeps it
    for ever.
    """
    timeout: float | None = None
    """The longest a call may take, with start and loading; None waits for as long as there is progress."""
    run_dir: str = ""
    """Where records, sockets and logs live; empty takes the user's runtime directory. A relative one is made absolute
    when the settings are loaded, as is `worker_python`.
    """
    transport: str = "auto"
    """auto, ipc or tcp (loopback with CURVE)."""
    worker_python: str = ""
    """The interpreter that runs the worker, a path or a name in PATH; empty takes this one."""
    start_timeout: float = 60.0
    """How long a worker process may take until it answers (it does so before it loads anything)."""
    stall_limit: float = 600.0
    """A worker without any progress for this long is ended; one that loads its model, after 0.3 of it."""
    cancel_grace: float = 30.0
    """How long a cancelled call may go on with its current step before the worker is ended."""
    unload_wait: float = 10.0
    """How long `unload` waits for other clients' running calls before it refuses."""
    queue_bound: int = 32
    """How many calls may wait in a worker, and how many one client may have open."""
    max_active: int = 4
    """How many calls a worker works on in turns."""
    comfyui_cache_bytes: int = 1_000_000_000
    """How much memory ComfyUI's process may keep of the model's last answers, so that a changed threshold or a new wire
    does not run the model again: some 0.3 MB for each object in an image or a frame. 0 keeps none.
    """
    log_level: str = "info"
    """What the worker writes into its log: debug, info, warning, error or critical."""


_FIELDS = {field.name: field for field in msgspec.structs.fields(Settings)}


def load_settings(
    *,
    base: Settings | None = None,
    environment: Mapping[str, str] | None = None,
    file: Path | None = None,
    **arguments: Any,
) -> Settings:
    """Settings from all four places; an argument that is None counts as not given. Raises `ConfigError`.

    ``base`` stands for everything below the arguments when it is given; the table of a model that an argument names
    comes before it. ``environment`` replaces ``os.environ``; ``file`` the configuration file, which must then exist.
    """
    environment = os.environ if environment is None else environment
    unknown = sorted(set(arguments) - set(_FIELDS))
    if unknown:
        raise ConfigError(f"There is no setting {unknown[0]!r}.", advice=f"Settings: {', '.join(_FIELDS)}.")
    if base is not None:
        below, above = msgspec.structs.asdict(base), {}
    else:
        below, above = _from_file(environment, file), _from_environment(environment)
    above |= {name: value for name, value in arguments.items() if value is not None}
    settings = _placed(_convert(below | above))
    if base is None or "model" in above:
        settings = _with_model(settings, above)
    return check(settings)


def _placed(settings: Settings) -> Settings:
    """Settings whose relative places stay where they are now."""

    def interpreter(python: str) -> str:
        return absolute(python) if os.sep in python else python  # else a name in PATH

    models = {
        name: msgspec.structs.replace(
            own, path=absolute(own.path), worker_python=interpreter(own.worker_python)
        )
        for name, own in settings.models.items()
    }
    return msgspec.structs.replace(
        settings,
        run_dir=absolute(settings.run_dir),
        worker_python=interpreter(settings.worker_python),
        models=models,
    )


def _with_model(settings: Settings, said: Mapping[str, Any]) -> Settings:
    """Settings in which the table of their model counts, but for what is said about it elsewhere."""
    table = settings.models.get(settings.model)
    if table is None:
        return settings
    values = {
        name: value
        for name, value in msgspec.structs.asdict(table).items()
        if value and name in _FIELDS and name not in said
    }
    if table.path:
        values |= {"model": table.path, "revision": said.get("revision", "")}
    return msgspec.structs.replace(settings, **values)


def absolute(path: str) -> str:
    """A path of the settings, from `~` or from the working directory as it is now; empty stays empty.

    Raises `ConfigError` where there is no such home or no working directory.
    """
    try:
        return str(Path(path).expanduser().absolute()) if path else ""
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"The path {path!r} leads nowhere: {error}", advice="Write it from the root."
        ) from error


def settings_file(environment: Mapping[str, str] | None = None) -> Path:
    """The configuration file that counts, whether it exists or not."""
    environment = os.environ if environment is None else environment
    return Path(environment["SA2VA_CONFIG"]) if environment.get("SA2VA_CONFIG") else _default_file()


def origins(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Where each setting's value comes from: ``default``, the configuration file's path, or the name of a variable.

    Raises `ConfigError` as `load_settings` does.
    """
    environment = os.environ if environment is None else environment
    found = dict.fromkeys(_FIELDS, "default")
    found |= dict.fromkeys(_from_file(environment, None), str(settings_file(environment)))
    return found | {name: f"SA2VA_{name.upper()}" for name in _from_environment(environment)}


def settings_text(path: Path) -> str:
    """The text of a configuration file: UTF-8, with or without a byte order mark, which is not part of it.

    Raises `ConfigError` for another encoding, such as the UTF-16 of an older PowerShell, and OSError.
    """
    content = path.read_bytes()
    advice = "Save it as UTF-8: most editors ask for the encoding under Save As."
    # TOML allows no null character, and UTF-16 and UTF-32 have one beside every letter of a setting's name.
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in content:
        raise ConfigError(f"The configuration file {path} is UTF-16 or UTF-32, not UTF-8.", advice=advice)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"The configuration file {path} is not UTF-8: byte 0x{content[error.start]:02x} in line {line}.",
            advice=advice,
        ) from error


def check(settings: Settings) -> Settings:
    """The same settings, or a `ConfigError` that names the impossible value."""
    for name, value in msgspec.structs.asdict(settings).items():
        if isinstance(value, str):
            _check_text(name, value)
    for name, words in _WORDS.items():
        if getattr(settings, name) not in words:
            raise ConfigError(f"{name} is {getattr(settings, name)!r}.", advice=f"Use {', '.join(words)}.")
    if not _DEVICE.fullmatch(settings.device):
        raise ConfigError(
            f"device is {settings.device!r}.",
            advice="Use auto, cpu, cuda, cuda:N, mps, balanced or offload.",
        )
    for name in ("start_timeout", "stall_limit", "cancel_grace", "unload_wait", "timeout"):
        checked_timeout(getattr(settings, name), name)
    if not -MAX_SECONDS <= settings.keep_alive <= MAX_SECONDS:
        raise ConfigError(
            f"keep_alive is {settings.keep_alive}.", advice="A negative number keeps it for ever."
        )
    _check_models(settings)
    for name in ("queue_bound", "max_active"):
        if not 1 <= getattr(settings, name) <= 10_000:
            raise ConfigError(f"{name} is {getattr(settings, name)}.", advice="Use 1 to 10000.")
    if settings.comfyui_cache_bytes < 0:
        raise ConfigError(
            f"comfyui_cache_bytes is {settings.comfyui_cache_bytes}.",
            advice="Use a number of bytes, or 0 to keep none.",
        )
    return settings


def _check_models(settings: Settings) -> None:
    for folder in settings.model_folders:
        _check_text("model_folders", folder)
        if not (folder.startswith("~") or Path(folder).is_absolute()):
            raise ConfigError(
                f"model_folders has {folder!r}, which is relative.", advice="Write the whole path."
            )
    for name, table in settings.models.items():
        if table.path and table.revision:
            raise ConfigError(
                f"models has a path and a revision for {name!r}, and a folder has none.",
                advice="Take one of them out.",
            )


def checked_timeout(seconds: object, name: str = "timeout") -> float | None:
    """The seconds that a caller gave, above 0 and at most `LONGEST`; None, no limit, stays None.

    ``name`` is what the caller calls them. Raises `ConfigError`.
    """
    if seconds is None:
        return None
    if isinstance(seconds, Real) and 0 < cast("float", seconds) <= LONGEST:
        return float(seconds)
    raise ConfigError(
        f"{name} is {seconds!r}.", advice=f"Use a number of seconds above 0, at most {LONGEST:g}."
    )


def _check_text(name: str, text: str) -> None:
    """Refuse what no worker can be told: messages and records are UTF-8, and no path has a null character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{name} is {text!r}, which is not UTF-8.", advice="Rename it.") from error
    if "\0" in text:
        raise ConfigError(f"{name} is {text!r}, with a null character in it.", advice="Take it out.")


def _from_file(environment: Mapping[str, str], file: Path | None) -> dict[str, Any]:
    named = file or (Path(environment["SA2VA_CONFIG"]) if environment.get("SA2VA_CONFIG") else None)
    path = named or _default_file()
    try:
        text = settings_text(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        if named is None:
            return {}
        raise ConfigError(f"There is no configuration file {path}.", advice="Check SA2VA_CONFIG.") from error
    except OSError as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error}.") from error
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"The configuration file {path} is not TOML: {error}.") from error
    for name in values:
        if name not in _FIELDS:
            raise ConfigError(
                f"{path}: there is no setting {name!r}.", advice=f"Settings: {', '.join(_FIELDS)}."
            )
    return values


def _default_file() -> Path:
    from platformdirs import user_config_path

    return user_config_path("sa2va", appauthor=False) / "sa2va.toml"


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for variable, text in environment.items():
        if not variable.startswith("SA2VA_") or variable[6:] in _NOT_SETTINGS:
            continue
        name = variable[6:].lower()
        if name not in _FIELDS or name == "models":
            raise ConfigError(
                f"{variable} names no setting.", advice=f"Settings: {', '.join(_FIELDS)}; or unset it."
            )
        if text:
            is_list = name == "model_folders"
            values[name] = [part for part in text.split(os.pathsep) if part] if is_list else text
    return values


def _convert(values: dict[str, Any]) -> Settings:
    try:
        # Not strict: the environment has only words, so "30" must do for a number.
        return msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"A setting has an impossible value: {error}.") from error
