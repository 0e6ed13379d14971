"""The user's folders, also for a user whom the system knows nothing of."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from detector.errors import FileError
from serve.folders import user_folder
from tests.conftest import ROOT

NOBODY = 65533  # a user id without an entry in the password database
homeless = pytest.mark.skipif(os.getuid() != 0, reason="only root can become a user without an entry in the password database")
# The modules are imported before, since that user may not be allowed to read the interpreter's.
BECOME = f"""
import os, sys, serve.control, serve.client.grpc_stubs, unmask.__main__, unmask.commands.serve
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
"""


def as_nobody(temporary: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program as that user, with no HOME."""
    command = [sys.executable, "-c", BECOME + program, *arguments]
    return subprocess.run(command, cwd=ROOT, env={"TMPDIR": str(temporary)}, capture_output=True, text=True, check=False)


@pytest.fixture
def temporary(tmp_path_factory):
    """A folder for temporary files that everybody may write to, as /tmp is."""
    folder = tmp_path_factory.mktemp("temporary")
    folder.chmod(0o1777)
    for parent in folder.parents:
        if not parent.stat().st_mode & stat.S_IXOTH:
            parent.chmod(parent.stat().st_mode | stat.S_IXOTH)
    return folder


def test_folders_are_where_the_user_wants_them(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    assert user_folder("XDG_STATE_HOME", ".local/state") == tmp_path / ".local" / "state" / "unmask"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert user_folder("XDG_STATE_HOME", ".local/state") == tmp_path / "state" / "unmask"


@homeless
def test_without_a_home_they_are_in_a_private_temporary_folder(temporary):
    done = as_nobody(temporary, "print(serve.settings.load_settings({}).state, serve.client.grpc_stubs.cache_dir())")
    assert done.returncode == 0, done.stderr
    private = temporary / f"unmask-{NOBODY}"
    assert done.stdout.split() == [str(private / "state"), str(private / "cache" / "stubs")]
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert private.stat().st_uid == NOBODY


@homeless
@pytest.mark.parametrize("command", [("serve", "--help"), ("serve", "status")], ids=["help", "status"])
def test_commands_work_without_a_home(temporary, command):
    done = as_nobody(temporary, "sys.exit(unmask.__main__.main(sys.argv[1:]))", *command)
    assert "Traceback" not in done.stderr
    assert done.stdout


@pytest.mark.parametrize("harm", ["mode", "link", "file", "owner"])
def test_a_temporary_folder_that_others_may_enter_is_refused(monkeypatch, tmp_path, harm):
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / f"unmask-{os.getuid()}"
    if harm == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(tmp_path / "elsewhere")
    elif harm == "file":
        folder.touch(mode=0o600)
    else:
        folder.mkdir(mode=0o755 if harm == "mode" else 0o700)
    if harm == "owner":
        if os.getuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(FileError, match=rf"{folder.name}.*UNMASK_STATE"):
        user_folder("XDG_STATE_HOME", ".local/state")
