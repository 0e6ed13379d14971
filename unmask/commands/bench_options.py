"""What the commands of `unmask bench` share: options, and how they end."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, Token
from cyclopts.validators import Number

from detector.files import write_json
from unmask.parameters import Count


def _counts(type_: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    text = ",".join(token.value for token in tokens)
    if not all(part.isdigit() and int(part) for part in text.split(",")):
        raise ValueError(f"{text!r} is not whole numbers above zero, such as 1,8,32")
    return tuple(int(part) for part in text.split(","))


def numbers(type_: Any, tokens: Sequence[Token]) -> tuple[float, ...]:
    """Numbers above zero, separated by commas, or `none`."""
    text = ",".join(token.value for token in tokens)
    if text == "none":
        return ()
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = (0.0,)
    if not all(0 < number < 1e6 for number in found):
        raise ValueError(f"{text!r} is not numbers above zero, such as 0.5,0.9, nor none")
    return found


Counts = Annotated[tuple[int, ...], Parameter(converter=_counts, n_tokens=1)]
Seconds = Annotated[float, Parameter(validator=Number(gte=0.5, lte=86_400))]
Photos = Annotated[Path | None, Parameter(name="--photos", help="Folder of photos to send (default: drawn photos).")]
PhotoCount = Annotated[Count, Parameter(name="--photo-count", help="How many photos to send, one after the other.")]
Artifacts = Annotated[Path, Parameter(help="Folder that `unmask export` wrote.")]
Workers = Annotated[Count | None, Parameter(name="--workers", help="Number of worker processes (default: the server's).")]
Out = Annotated[Path | None, Parameter(name="--out", help="Also write the JSON to this file.")]


def print_and_keep(result: dict[str, Any], out: Path | None) -> None:
    """Print JSON, and write it to `out` too."""
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, result)
    print(json.dumps(result, indent=2))


def exit_code(ok: bool, problem: str) -> int:
    """0, or 1 with the problem said."""
    if not ok:
        print(f"error: {problem}", file=sys.stderr)
    return 0 if ok else 1
