"""The commands: each with its group and its function, which is imported when it is called."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from cyclopts import App, Parameter

from unmask.config_file import read_config_file


@cache
def _docstrings(module: str) -> dict[str, str]:
    """The docstring of each function of a module of commands."""
    source = (Path(__file__).with_name("commands") / f"{module}.py").read_text(encoding="utf-8")
    return {n.name: ast.get_docstring(n) or "" for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)}


class Command(NamedTuple):
    """One command. name: its words, such as `serve start`. function: `module:name` in `unmask.commands`."""

    name: str
    function: str

    @property
    def summary(self) -> str:
        """The first line of the function's docstring, read without importing its module."""
        module, _, name = self.function.partition(":")
        return _docstrings(module)[name].partition("\n")[0]


ABOUT = "Train, calibrate, export and serve a deepfake-image detector."
GROUPS: dict[str, tuple[Command, ...]] = {
    "Train": (
        Command("train", "train:train"),
        Command("evaluate", "evaluate:evaluate"),
        Command("calibrate", "evaluate:calibrate"),
        Command("audit", "data:audit"),
        Command("faults", "train:faults"),
        Command("inspect", "data:inspect"),
        Command("push", "data:push"),
        Command("demo-data", "data:demo_data"),
    ),
    "Export": (
        Command("export", "export:export"),
        Command("verify", "export:verify"),
        Command("recalibrate", "export:recalibrate"),
    ),
    "Serve": (
        Command("serve start", "serve:start"),
        Command("serve stop", "serve:stop"),
        Command("serve status", "serve:status"),
        Command("serve promote", "serve:promote"),
        Command("serve token", "serve:token"),
        Command("serve render", "serve:render"),
        Command("serve setup", "serve:setup"),
        Command("feedback", "feedback:feedback"),
    ),
    "Score": (
        Command("predict", "serve:predict"),
        Command("score", "score:score"),
    ),
    "Measure": (
        Command("bench run", "bench:run"),
        Command("bench roofline", "bench:roofline"),
        Command("bench compare", "bench_compare:compare"),
        Command("bench peers", "bench_compare:peers"),
        Command("bench soak", "bench:soak"),
        Command("bench capacity", "bench_load:capacity"),
        Command("bench matrix", "bench_load:matrix"),
        Command("bench training", "bench_training:training"),
        Command("bench results", "bench_training:results"),
    ),
}
EXTRAS = {"Train": "training", "Export": "export", "Serve": "serve", "Score": "score", "Measure": "benchmarks"}
"""What to install for the commands of a group."""
FOLDERS = {"serve": "Start, stop and inspect a server.", "bench": "Measure servers and training."}


def _shown(default: Any) -> Any:
    """A default as it is typed on the command line; nothing for a switch that is off."""
    if isinstance(default, tuple):
        return ",".join(str(part) for part in default) or None
    return None if default is False or default == "" else default


def build() -> App:
    """The command line. Nothing but this package and cyclopts is imported."""
    app = App(
        name="unmask",
        help=ABOUT,
        version_flags=[],
        help_format="markdown",
        default_parameter=Parameter(negative_iterable=(), show_default=_shown),
        config=[read_config_file],
    )
    folders = {name: App(name=name, help=text) for name, text in FOLDERS.items()}
    for each in folders.values():
        app.command(each)
    for command in (command for group in GROUPS.values() for command in group):
        folder, _, name = command.name.rpartition(" ")
        (folders[folder] if folder else app).command(f"unmask.commands.{command.function}", name=name)
    return app


def extra_for(arguments: Sequence[str]) -> str:
    """The extra of this package that a command line needs; "" where it names no command."""
    typed = " ".join(arguments)
    for group, commands in GROUPS.items():
        if any(typed == command.name or typed.startswith(f"{command.name} ") for command in commands):
            return "server" if typed.startswith("predict") else EXTRAS[group]
    return ""


def overview(folder: str = "") -> str:
    """All commands, or those of one folder such as `serve`, on one screen, each with one line."""
    name, about = (f"unmask {folder}", FOLDERS[folder]) if folder else ("unmask", ABOUT)
    lines = [f"Usage: {name} COMMAND [OPTIONS]", "", about, ""]
    for group, commands in GROUPS.items():
        if listed := [command for command in commands if not folder or command.name.startswith(f"{folder} ")]:
            lines += [group, *(f"  {command.name:<15} {command.summary}" for command in listed), ""]
    return "\n".join(
        [*lines, "`unmask COMMAND --help` lists the options of a command. `unmask --version` prints the version."]
    )
