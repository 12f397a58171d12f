"""Optional packages for image files and masks: whether they are installed, and what to run where they are not."""

from __future__ import annotations

import functools
import logging
from importlib import import_module, metadata
from importlib.util import find_spec

from .errors import ConfigError
from .machine.descriptors import is_shortage

_OPENCV = (
    "opencv-python-headless",
    "opencv-contrib-python-headless",
    "opencv-python",
    "opencv-contrib-python",
)
"""The distributions that bring `cv2`, all into the same folder: whichever is installed last replaces the others."""
_FIRST_WITH_NUMPY_2 = 2

_log = logging.getLogger("sa2va_host")


def check_exr() -> None:
    """Raises `ConfigError` where the package that reads and writes OpenEXR is not installed."""
    if find_spec("OpenEXR") is None:
        raise _missing("OpenEXR files need the package OpenEXR.", "exr")


def check_matting() -> None:
    """Raises `ConfigError` where the package that estimates foreground colours is not installed."""
    if find_spec("pymatting") is None:
        raise _missing("Decontaminating colours needs the package pymatting.", "matting")


def opencv_is_installed() -> bool:
    """Whether there is a `cv2`, which may be broken. Takes no time."""
    try:
        return find_spec("cv2") is not None
    except (
        ValueError
    ):  # another thread imports it, and has put OpenCV's own module, without a spec, in its place
        return True


def has_opencv() -> bool:
    """Whether `cv2` can be used, whichever distribution brought it. The first call imports it; where that fails, it
    says once in the log that NumPy and Pillow take its place. Raises `OSError` or `ImportError` where no descriptor is
    left.
    """
    return _opencv_failure() is None


def check_opencv(what: str, *, tried: bool = True) -> None:
    """Raises `ConfigError` where `cv2` cannot be used. ``what`` needs it: "Growing a mask". Unless ``tried`` it is
    looked up alone, which takes no time, and one that is broken passes.

    The advice never installs one OpenCV over another, nor another NumPy than the one that is here.
    """
    if not tried and opencv_is_installed():
        return
    failure = _opencv_failure()
    if failure is None:
        return
    from .machine.commands import extra_command, pip_command

    if not failure:
        held = _held_numpy()
        raise ConfigError(
            f"{what} needs the package OpenCV, which is not installed.",
            advice=f"Run: {extra_command('opencv', *held)}",
        )
    found = next((each for name in _OPENCV for each in metadata.distributions(name=name)), None)
    name = found.metadata["Name"] if found is not None else "cv2"
    if "cannot open shared object file" in failure:
        advice = (
            "Install the library that it names with the system's package manager (libGL.so.1 is in libgl1)."
        )
    elif found is None:
        advice = f"Run: {extra_command('opencv', *_held_numpy())}"
    else:
        again = pip_command(["--force-reinstall", "--no-deps", f"{name}=={found.version}"])
        advice = f"Run: {again}"
    raise ConfigError(
        f"{what} needs the package OpenCV, and {name} is here but cannot be imported: {failure}.",
        advice=advice,
    )


@functools.cache
def _opencv_failure() -> str | None:
    """None where `cv2` can be used, empty where there is none, else why not."""
    if not opencv_is_installed():
        failure = ""
    else:
        try:
            # What pip leaves of one OpenCV after another was removed is an empty package.
            import_module("cv2").resize  # noqa: B018
            return None
        except Exception as error:
            # A library that is broken may fail in any way. A shortage passes, and is not remembered.
            if is_shortage(error):
                raise
            failure = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
    reason = f"cannot be imported ({failure})" if failure else "is not installed"
    _log.info("OpenCV %s: NumPy and Pillow resize masks and write PNG files in its place, slower.", reason)
    return failure


def _held_numpy() -> list[str]:
    """The requirement that keeps this environment's NumPy 1: newer OpenCVs ask for 2, which others here may not
    bear.
    """
    version = next((each.version for each in metadata.distributions(name="numpy")), "")
    major = version.partition(".")[0]
    return [f"numpy=={version}"] if major.isdecimal() and int(major) < _FIRST_WITH_NUMPY_2 else []


def _missing(what: str, extra: str) -> ConfigError:
    from .machine.commands import extra_command

    return ConfigError(what, advice=f"Run: {extra_command(extra)}")
