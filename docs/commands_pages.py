"""The pages of the commands, from the registry of `unmask`."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import get_args, get_origin

from cyclopts import App
from cyclopts.argument import Argument

from serve.settings import Settings
from unmask.registry import GROUPS, build

TYPES = {int: "number", float: "number", str: "text", Path: "path"}


def command_pages() -> dict[str, str]:
    """The overview and a page for each group: path in the site, and Markdown."""
    app = build()
    pages = {f"reference/commands/{group.lower()}.md": commands_page(app, group) for group in GROUPS}
    return pages | {"reference/commands/index.md": overview_page()}


def overview_page() -> str:
    """All commands, by group, one line each."""
    lines = [
        "# Commands\n",
        "`unmask --help` prints this list, `unmask COMMAND --help` the options of a command, `unmask --version` the version.",
        "A command ends with 0 for success, 1 for a failure, 2 for wrong usage and 130 after Ctrl-C. A failure is one line on",
        "standard error that ends in a [code](../errors.md).\n",
    ]
    for group, commands in GROUPS.items():
        lines += [f"## {group}\n", "| command | |", "|---|---|"]
        for command in commands:
            link = f"{group.lower()}.md#unmask-{command.name.replace(' ', '-')}"
            lines.append(f"| [`unmask {command.name}`]({link}) | {command.summary} |")
        lines.append("")
    return "\n".join(lines)


def commands_page(app: App, group: str) -> str:
    """The commands of a group, with all options."""
    lines = [f"# Commands: {group}\n"]
    for command in GROUPS[group]:
        lines.append(f"## `unmask {command.name}` {{ #unmask-{command.name.replace(' ', '-')} }}\n")
        one = app
        for word in command.name.split():
            one = one[word]
        text, _, _ = inspect.cleandoc(one.help or command.summary).partition("\nParameters\n")
        arguments = [each for each in one.assemble_argument_collection(parse_docstring=True) if each.show]
        # The options that are settings of a server have a page of their own.
        own = [each for each in arguments if each.field_info.name not in Settings.model_fields or not _takes_settings(one)]
        lines += [f"```text\n{_usage(command.name, own, len(own) < len(arguments))}\n```\n", f"{text.strip()}\n"]
        if len(own) < len(arguments):
            lines.append("Options: each of the [settings of a server](../settings.md), and these.\n")
        for title in dict.fromkeys(each.parameter.group[0].name for each in own):
            listed = [each for each in own if each.parameter.group[0].name == title]
            if title not in ("Parameters", "Arguments"):
                lines.append(f"### {title} {{ #{_slug(command.name + '-' + title)} }}\n")
            lines += [_option(each) for each in listed]
    return "\n".join(lines)


def _takes_settings(command: App) -> bool:
    return any(each.hint is Settings for each in command.assemble_argument_collection())


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _usage(name: str, own: list[Argument], more: bool) -> str:
    words = []
    for each in own:
        first = each.names[0]
        several = get_origin(each.hint) is tuple
        if not first.startswith("--"):
            words.append(f"{first.rstrip('S')}{'…' if several else ''}" if several else first)
        elif each.required:
            words.append(f"{first} {_value(each)}")
    optional = more or any(not each.required and each.names[0].startswith("--") for each in own)
    return " ".join(["unmask", name, *(["[OPTIONS]"] if optional else []), *words])


def _value(option: Argument) -> str:
    """What an option takes, in capitals or as its choices; nothing for a switch."""
    if choices := option.get_choices():
        return "|".join(choices)
    hint = option.hint
    several = get_origin(hint) is tuple
    inner = get_args(hint)[0] if several and get_args(hint) else hint
    if inner is bool:
        return ""
    return TYPES.get(inner, "value").upper() + (" …" if several else "")


def _option(option: Argument) -> str:
    """An option as an entry of a definition list: its names, what it takes, what it means, its default."""
    names = [name for name in option.names if not name.startswith("--empty-")]
    head = ", ".join(f"`{name}`" for name in names)
    if names[0].startswith("--") and (value := _value(option)):
        head += f" `{value}`" if "|" in value else f" {value}"
    text = " ".join((option.parameter.help or "").split())
    assert text, f"{names[0]} has no sentence"
    if option.required:
        text += " Required."
    elif (default := _default(option)) is not None:
        text += f" Default: `{default}`."
    return f"{head}\n:   {text}\n"


def _default(option: Argument) -> str | None:
    """A default as it is typed, where it says more than the sentence does."""
    default = option.field_info.default
    if default is inspect.Parameter.empty or default is None or default is False or default == "" or default == ():
        return None
    if default is True:
        return "on"
    return ",".join(map(str, default)) if isinstance(default, tuple) else str(default)
