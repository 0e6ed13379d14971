"""The page of the public Python names, from their signatures and docstrings."""

from __future__ import annotations

import inspect
import re
from typing import Any

import unmask


def python_page() -> str:
    """The public names of `unmask`: signature, docstring, methods."""
    lines = [
        "# Python\n",
        "These names are public: `from unmask import Scorer`. Each is imported when it is first used, so `import unmask` is",
        "cheap. `unmask.__version__` is the version.\n",
    ]
    for name in sorted(unmask.__all__, key=str.lower):
        if name.startswith("__"):
            continue
        thing = getattr(unmask, name)
        lines += [f"## `{name}` {{ #{name.lower()} }}\n"]
        if not inspect.isclass(thing):
            lines += [_signature(name, thing), _prose(thing)]
            continue
        protocol = getattr(thing, "_is_protocol", False)
        if not protocol:
            lines.append(_signature(name, thing))
        lines.append(_prose(thing))
        for member, value in vars(thing).items():
            if member.startswith("_"):
                continue
            if isinstance(value, property):
                lines += [f"### `{name}.{member}` {{ #{name.lower()}-{member} }}\n", _prose(value)]
            elif inspect.isroutine(inspect.unwrap(getattr(thing, member))):
                lines += [f"### `{name}.{member}()` {{ #{name.lower()}-{member} }}\n"]
                lines += [_signature(member, getattr(thing, member)), _prose(getattr(thing, member))]
    return "\n".join(lines)


def _signature(name: str, thing: Any) -> str:
    signature = inspect.signature(thing)
    words, starred = [], False
    for each in signature.parameters.values():
        if each.name == "self":
            continue
        if each.kind is each.KEYWORD_ONLY and not starred:
            words.append("*")
            starred = True
        words.append(_parameter(each))
    returns = signature.return_annotation
    returned = "" if returns in (signature.empty, "None", None) else f" -> {_type(returns)}"
    text = f"{name}({', '.join(words)}){returned}"
    if len(text) > 72:
        text = f"{name}(\n    " + ",\n    ".join(words) + f",\n){returned}"
    return f"```python\n{text}\n```\n"


def _parameter(parameter: inspect.Parameter) -> str:
    default = parameter.default
    shown = "" if default is parameter.empty else " = …" if repr(default) == "<factory>" else f" = {default!r}"
    return f"{parameter.name}: {_type(parameter.annotation)}{shown}"


def _type(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def _prose(thing: Any) -> str:
    """A docstring as Markdown; what it says of each parameter or field becomes a list."""
    names = set(getattr(thing, "__dataclass_fields__", {}))
    if callable(thing):
        names |= set(inspect.signature(thing).parameters)
    each = "|".join(sorted(map(re.escape, names), key=len, reverse=True)) or "(?!)"
    described = re.compile(rf"(?:(?<=[.:] )|^)((?:{each})(?:, (?:{each}))*): ")
    blocks = []
    for paragraph in re.sub(r"\n(?=Returns )", "\n\n", inspect.getdoc(thing) or "").split("\n\n"):
        # What comes before the first name, then a name and its description in turn.
        lead, *rest = described.split(" ".join(paragraph.split()))
        blocks += [lead.strip()] if lead.strip() else []
        items = [
            f"- {', '.join(f'`{name}`' for name in which.split(', '))}: {text.strip()}"
            for which, text in zip(rest[::2], rest[1::2], strict=True)
        ]
        blocks += ["\n".join(items)] if items else []
    return "\n\n".join(blocks) + "\n"
