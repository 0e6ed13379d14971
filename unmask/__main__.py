"""The `unmask` command: errors become one line and an exit code that scripts can trust."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper

from cyclopts import App, CycloptsError

from detector.errors import UnmaskError, UsageError
from unmask import __version__
from unmask.registry import FOLDERS, build, extra_for, overview

OUR_PACKAGES = {"benchmarks", "detector", "export", "handlers", "serve", "training", "unmask"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns 0 for success, 1 for a failure, 2 for wrong usage, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name that is not UTF-8 is printed, not a traceback
    return exit_code(lambda: _call(arguments))


def exit_code(call: Callable[[], int | None]) -> int:
    """What `call` returns, or the exit code of what it raises, with one line on stderr and no stack trace."""
    try:
        return call() or 0
    except UsageError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return 2
    except UnmaskError as error:
        print(f"error: {error.message} [{error.code}]", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        sys.stderr.close()
        return 1


def _call(arguments: list[str]) -> int | None:
    if arguments == ["--version"]:
        print(__version__)
        return 0
    folder, asked = (arguments[0], arguments[1:]) if arguments[:1] and arguments[0] in FOLDERS else ("", arguments)
    if asked in ([], ["--help"], ["-h"]):
        print(overview(folder), file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    app = build()
    try:
        command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
        result: int | None = command(*bound.args, **bound.kwargs)
    except CycloptsError as error:
        raise _usage_error(error) from None
    except ImportError as error:
        # cyclopts wraps what a command's module raises when it is imported.
        cause = error.__cause__ if isinstance(error.__cause__, ModuleNotFoundError) else error
        raise _not_installed(cause, arguments) from error
    except UsageError as error:
        error.message = _as_typed(error.message, app, arguments)
        raise
    return result


def _not_installed(error: ImportError, arguments: Sequence[str]) -> Exception:
    """What to install for a command whose packages are not there; the error itself where one of ours is missing."""
    extra, package = extra_for(arguments), (error.name or "").partition(".")[0]
    if not extra or not package or package in OUR_PACKAGES:
        return error
    return UsageError(f"this command needs {package}, which is not installed; install unmask[{extra}]")


def _usage_error(error: CycloptsError) -> UsageError:
    """What the parser refuses, in the form of our own errors."""
    cause = error.__cause__
    if "serve.settings" in sys.modules:
        from pydantic import ValidationError

        from serve.settings import refused

        if isinstance(cause, ValidationError):
            return refused(cause)
    first, _, rest = str(error).strip().rstrip(".").partition(" ")
    return UsageError(f"{first.lower() if first.istitle() else first} {rest}")


def _as_typed(message: str, app: App, arguments: Sequence[str]) -> str:
    """A message about an option, with the name that was typed where the option has more than one."""
    typed = {argument.partition("=")[0] for argument in arguments if argument.startswith("--")}
    words, _, _ = app.parse_commands(arguments)
    command = app
    for word in words:
        command = command[word]
    for option in command.assemble_argument_collection():
        first, *others = option.names
        if others and first not in typed and (used := typed.intersection(others)):
            message = re.sub(rf"{re.escape(first)}(?![\w-])", used.pop(), message)
    return message


if __name__ == "__main__":
    sys.exit(main())
