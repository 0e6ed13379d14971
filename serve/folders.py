"""The user's own folders for state and cached files (XDG base directory specification)."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from detector.errors import FileError


def user_folder(variable: str, below_home: str) -> Path:
    """`$variable/unmask`, or `~/below_home/unmask`, or a private folder for temporary files where there is no home.

    variable: XDG_STATE_HOME or XDG_CACHE_HOME. A user without home has neither HOME nor an entry in the password database,
    as in a container that runs under any user id. Raises `FileError` when that user's temporary folder is not private.
    """
    if chosen := os.environ.get(variable):
        return Path(chosen) / "unmask"
    try:
        return Path.home() / below_home / "unmask"
    except RuntimeError:
        return _private_temporary() / Path(below_home).name.lstrip(".")


def _private_temporary() -> Path:
    folder = Path(tempfile.gettempdir()) / f"unmask-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise FileError(f"{folder}: can't be made ({error.strerror}); {_INSTEAD}") from None
    if not folder.is_dir() or folder.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise FileError(f"{folder}: is not a folder of this user's alone; remove it, or {_INSTEAD}")
    return folder


_INSTEAD = "set HOME, or name folders with UNMASK_STATE and UNMASK_STUBS"
