"""`--config FILE`: options from a YAML file, where the command line does not give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cyclopts import App, ArgumentCollection
from cyclopts.config import Dict

from detector.errors import UsageError

FLAG = "--config"


def read_config_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Fill in what the file of `--config` says; an option that is given on the command line wins.

    Raises `UsageError` when the file can't be read. The parser refuses an option that the command does not have.
    """
    for argument in arguments:
        if FLAG in argument.names and argument.tokens:
            path = Path(argument.tokens[0].value)
            Dict(_options(path), source=str(path), use_commands_as_keys=False)(app, commands, arguments)


def _options(path: Path) -> dict[str, Any]:
    """The options in a file, by their names on the command line; null stands for one that is not given."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{FLAG} {path}: can't be read ({error.strerror})") from None
    except (ValueError, yaml.YAMLError) as error:
        raise UsageError(f"{FLAG} {path}: is not YAML ({str(error).splitlines()[0]})") from None
    if not isinstance(values, dict):
        raise UsageError(f"{FLAG} {path}: expected a mapping of options, such as `epochs: 10`")
    return {str(name).replace("_", "-"): value for name, value in values.items() if value is not None}
