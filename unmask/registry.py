"""The commands: each with its group, its function, which is imported when it is called, and one line of help."""

from __future__ import annotations

from typing import Any, NamedTuple

from cyclopts import App, Parameter

from unmask.config_file import read_config_file


class Command(NamedTuple):
    """One command. name: its words, such as `serve start`. function: `module:name`."""

    name: str
    function: str
    help: str


ABOUT = "Train, calibrate, export and serve a deepfake-image detector."
GROUPS: dict[str, tuple[Command, ...]] = {
    "Train": (
        Command("train", "train:train", "Train, calibrate and evaluate a detector on labelled photos."),
        Command("evaluate", "evaluate:evaluate", "Evaluate a checkpoint or an exported model on labelled photos."),
        Command("calibrate", "evaluate:calibrate", "Fit the calibration or the threshold of a finished run again."),
        Command("audit", "data:audit", "Find duplicates, leaks, unreadable files and shortcuts in a data folder."),
        Command("faults", "train:faults", "Train with each kind of injected fault and compare with a clean run."),
        Command("inspect", "data:inspect", "Print what a checkpoint is, without running code from it."),
        Command("push", "data:push", "Push a finished run to the Hugging Face hub."),
        Command("demo-data", "data:demo_data", "Draw the demo set: portraits, photographed and forged."),
    ),
    "Export": (
        Command("export", "export:export", "Write ONNX, TorchScript and archives from a run, proven equal to it."),
        Command("verify", "export:verify", "Check the hashes and the parity of exported artifacts."),
        Command("recalibrate", "export:recalibrate", "Give artifacts the calibration that their run has now."),
    ),
    "Serve": (
        Command("serve start", "serve:start", "Start a server; it runs until TERM or Ctrl-C."),
        Command("serve stop", "serve:stop", "Drain a server and end it."),
        Command("serve status", "serve:status", "Print the state of a server as JSON; exit with 0 when it is ready."),
        Command("serve promote", "serve:promote", "Make a version the default one."),
        Command("serve token", "serve:token", "Print the token for predictions, or renew it."),
        Command("serve render", "serve:render", "Write TorchServe's files and print the command that uses them."),
        Command("serve setup", "serve:setup", "Generate the gRPC stubs and print their folder."),
    ),
    "Score": (
        Command("predict", "serve:predict", "Send photos to a server; print one verdict a line."),
        Command("score", "score:score", "Score files and folders without a server."),
    ),
    "Measure": (
        Command("bench run", "bench:run", "Load a server with Locust and write a report."),
        Command("bench roofline", "bench:roofline", "Measure the same work in one process, without a server."),
        Command("bench compare", "bench:compare", "Compare a server with the roofline and with other servers."),
        Command("bench soak", "bench:soak", "Load a server for long and look for leaks."),
        Command("bench training", "bench:training", "Compare training throughput with timm's recipe."),
        Command("bench results", "bench:results", "Train every architecture on two sets and write docs/results.md."),
    ),
}
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


def overview(folder: str = "") -> str:
    """All commands, or those of one folder such as `serve`, on one screen, each with one line."""
    name, about = (f"unmask {folder}", FOLDERS[folder]) if folder else ("unmask", ABOUT)
    lines = [f"Usage: {name} COMMAND [OPTIONS]", "", about, ""]
    for group, commands in GROUPS.items():
        if listed := [command for command in commands if not folder or command.name.startswith(f"{folder} ")]:
            lines += [group, *(f"  {command.name:<15} {command.help}" for command in listed), ""]
    return "\n".join(
        [*lines, "`unmask COMMAND --help` lists the options of a command. `unmask --version` prints the version."]
    )
