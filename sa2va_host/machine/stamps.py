"""What files say of themselves without being read: by that it is known whether a digest of them is still right.

A digest of many megabytes is kept, in this process and in the user's cache folder, for as long as the files' sizes,
times and inodes are those that it was made of.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path

_SETTLED = 2.0
"""Seconds after which a change of a file shows in its times: those of some file systems are as coarse."""
_kept: dict[str, tuple[tuple[object, ...], str]] = {}
"""By what the digests are of: their files' stamp, and the digest."""


def digest(parts: Iterable[str | bytes], size: int = 16) -> str:
    """A digest of texts and bytes, each with its length, as ``2 * size`` hex digits."""
    made = hashlib.blake2b(digest_size=size)
    for part in parts:
        content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        made.update(len(content).to_bytes(8, "little"))
        made.update(content)
    return made.hexdigest()


def kept_digest(
    what: str, files: Iterable[tuple[str, os.stat_result]], make: Callable[[], str], *, on_disk: bool = False
) -> str:
    """``make()``, or what it said when the files were the same by their stamp. ``what`` names the digest: its kind and
    the folder. ``on_disk`` keeps it for other processes too, in the user's cache folder.
    """
    stamp = tuple(
        (name, about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
        for name, about in files
    )
    known = _kept.get(what)
    if known is not None and known[0] == stamp:
        return known[1]
    newest = max((max(mtime, ctime) for *_, mtime, ctime in stamp), default=0)
    # A file that changes again within the same tick of its clock would look as it does now.
    is_settled = time.time() - newest / 1e9 > _SETTLED
    of = digest([repr(stamp)]) if on_disk and is_settled else ""
    found = _read(what, of) if of else ""
    if not found:
        found = make()
        if of:
            _write(what, of, found)
    if is_settled:
        _kept[what] = stamp, found
    return found


def regular_files(
    folder: str | os.PathLike[str],
    wanted: Callable[[str], bool],
    *,
    most: int = 10_000,
) -> list[tuple[str, os.stat_result]]:
    """The regular files in a folder and those below it, by their path in it (`models/sam2.py`), each with what the
    system says of it. Links count as what they lead to.

    ``wanted`` is asked about the name of each file and each folder. What cannot be looked at is left out. Raises
    `OSError` where the folder itself cannot, and where it holds more than ``most`` files.
    """
    found: list[tuple[str, os.stat_result]] = []
    left = [("", os.fspath(folder))]
    seen = set()  # a link may lead upwards
    while left:
        above, place = left.pop()
        try:
            with os.scandir(place) as entries:
                names = [entry.name for entry in entries if wanted(entry.name)]
        except OSError:
            if not above:
                raise
            continue
        for name in names:
            path = f"{place}{os.sep}{name}"
            with contextlib.suppress(OSError):
                # Not the entry's, which on Windows has no inode; a `Path` would take as long as the question itself.
                about = os.stat(path)  # noqa: PTH116
                if stat.S_ISREG(about.st_mode):
                    found.append((above + name, about))
                elif stat.S_ISDIR(about.st_mode) and (about.st_dev, about.st_ino) not in seen:
                    seen.add((about.st_dev, about.st_ino))
                    left.append((f"{above}{name}/", path))
        if len(found) > most:
            raise OSError(errno.EFBIG, f"more than {most} files")
    return sorted(found, key=lambda each: each[0])


def _place(what: str) -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("sa2va", appauthor=False) / "digests" / digest([what])


def _read(what: str, stamp: str) -> str:
    with contextlib.suppress(OSError, ValueError, RuntimeError):
        known, found = _place(what).read_text(encoding="ascii").split()
        if known == stamp:
            return found
    return ""


def _write(what: str, stamp: str, found: str) -> None:
    """Keep a digest; where that is not possible, it is made again."""
    with contextlib.suppress(OSError, RuntimeError):
        place = _place(what)
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = place.with_name(f".{place.name}.{os.getpid()}.{time.monotonic_ns()}")
        temporary.write_text(f"{stamp} {found}", encoding="ascii")
        temporary.replace(place)
