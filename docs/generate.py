"""The reference pages, written from the declarations: commands, settings, metrics, error codes and the Python names.

A hook of MkDocs, for `python -m mkdocs` in the project's root: the pages are part of the site and lie nowhere as files.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from enum import Enum
from typing import Literal, get_args, get_origin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from detector.errors import ImageError, UnmaskError, UsageError
from detector.metrics import Declaration
from detector.model_warnings import CODES as WARNING_CODES
from docs.commands_pages import command_pages
from docs.python_page import python_page
from handlers.errors import answered_errors
from handlers.metrics import Metric
from serve.metrics.declared import SupervisorMetric
from serve.records.metrics import RequestMetric
from serve.settings import Settings
from training.calibration.methods import AUTO, ISOTONIC, METHODS

PACKAGES = ("detector", "training", "export", "handlers", "serve", "benchmarks")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference pages to those of the folder."""
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> dict[str, str]:
    """All generated pages: path in the site, and Markdown."""
    return command_pages() | {
        "reference/settings.md": settings_page(),
        "reference/metrics.md": metrics_page(),
        "reference/errors.md": errors_page(),
        "reference/calibration.md": calibration_page(),
        "reference/python.md": python_page(),
    }


def settings_page() -> str:
    """Each setting of a server: its option, its variable, its sentence and its default."""
    lines = [
        "# Settings of a server\n",
        "Each setting is an option of `unmask serve start` and an environment variable. The option wins over the variable,",
        "and both over the default. A variable lists several folders as `PATH` does, separated by `:`. A switch is `true` or",
        "`false` in a variable.\n",
    ]
    for name, field in Settings.model_fields.items():
        if field.default_factory is not None:
            default = (
                str(inspect.getdoc(field.default_factory)).partition("\n")[0].partition(". ")[0].partition(" (")[0].rstrip(".")
            )
        else:
            value = field.default
            text = ":".join(map(str, value)) if isinstance(value, tuple) else str(value)
            default = f"`{text.lower() if isinstance(value, bool) else text}`" if text else ""
        words = str(field.description)
        accepted = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        words += f" One of {', '.join(f'`{each}`' for each in accepted)}." if accepted else ""
        words += f" Default: {default}." if default else ""
        lines.append(f"`--{name.replace('_', '-')}`, `UNMASK_{name.upper()}`\n:   {words}\n")
    return "\n".join([*lines, ""])


def metrics_page() -> str:
    """Each metric of `/metrics`: name, type, labels, help and buckets."""
    lines = [
        "# Metrics\n",
        "The supervisor serves them at `:8090/metrics`. [Watch a server](../how-to/prometheus.md) has the queries.",
        "It answers in OpenMetrics, with exemplars, where the request's `Accept` asks for it, and with gzip where",
        "`Accept-Encoding` does.\n",
    ]
    parts: tuple[tuple[str, str, type[Enum]], ...] = (
        ("Of requests", "From one record for each request, refused ones too.", RequestMetric),
        ("Of the workers", "Each worker counts these; the supervisor adds them up, dead workers' included.", Metric),
        (
            "Of the supervisor",
            "What can't be had is absent: the JVM's numbers for a user without an entry in the password database, a GPU's "
            "where there is none. The supervisor's own process has the usual `process_*`.",
            SupervisorMetric,
        ),
    )
    for title, words, metrics in parts:
        declared: list[Declaration] = [metric.value for metric in metrics]
        lines += [f"## {title}\n", f"{words}\n", "| name | type | labels | meaning |", "|---|---|---|---|"]
        lines += [_metric_row(each) for each in declared]
        buckets = [f"- `{d.name}`: {', '.join(f'{bound:g}' for bound in d.buckets)}" for d in declared if d.buckets]
        lines += ["", *(["Buckets of the histograms:\n", *buckets, ""] if buckets else [])]
    return "\n".join(lines)


def _metric_row(declared: Declaration) -> str:
    labels = ", ".join(f"`{label}`" for label in declared.labels)
    if declared.values:
        labels += f": {', '.join(f'`{value}`' for value in declared.values)}"
    return f"| `{declared.sample}` | {declared.kind.lower()} | {labels} | {declared.text} |"


def calibration_page() -> str:
    """Each calibration method."""
    lines = [
        "# Calibration methods\n",
        "A method turns raw probabilities into calibrated ones.",
        f"The default, `{AUTO}`, takes the one with the smallest cross-validated log-loss, `{ISOTONIC}` being among them from "
        f"{METHODS[ISOTONIC].advised} photos on. Where no curve beats raw probabilities in cross-validated log-loss and Brier "
        "score, it takes none.\n",
        "| `--calibration` | what it fits | fewest photos | advised from |",
        "|---|---|---|---|",
    ]
    lines += [f"| `{m.name}` | {m.sentence} | {m.fewest} | {m.advised or m.fewest} |" for m in METHODS.values()]
    lines += [
        "\n## Warnings of a model\n",
        "What the numbers of a run on its validation photos say against it. A warning changes nothing; "
        "[calibrate](../how-to/calibrate.md#read-the-warnings-of-a-model) says where it is shown.\n",
        "| code | when |",
        "|---|---|",
        *(f"| `{code}` | {sentence} |" for code, sentence in WARNING_CODES.items()),
    ]
    return "\n".join([*lines, ""])


def error_kinds() -> list[type[UnmaskError]]:
    """All errors of the project, each in the module `errors` of its package."""
    for package in PACKAGES:
        importlib.import_module(f"{package}.errors")

    def below(kind: type[UnmaskError]) -> Iterator[type[UnmaskError]]:
        for child in kind.__subclasses__():
            yield child
            yield from below(child)

    return [kind for kind in dict.fromkeys(below(UnmaskError)) if kind.__module__.partition(".")[0] in PACKAGES]


def errors_page() -> str:
    """Each code: its status or exit code, and when it comes."""
    kinds, answered = error_kinds(), answered_errors()
    lines = [
        "# Error codes\n",
        "A code is stable: match on it. The message beside it is for people and may change.\n",
        "## In answers of a server\n",
        "The form of such an answer is in [HTTP and gRPC](api.md#errors).\n",
        "| code | status | when |",
        "|---|---|---|",
    ]
    lines += [f"| `{kind.code}` | {kind.status} | {_first(kind)} |" for kind in answered]
    lines += [
        "",
        "## Of commands\n",
        "A command prints `error: MESSAGE [CODE]` on standard error, and `error: MESSAGE` where its exit code is 2.\n",
        "| code | exit code | when |",
        "|---|---|---|",
    ]
    for kind in sorted((k for k in kinds if k not in answered and k is not ImageError), key=lambda k: k.code):
        lines.append(f"| `{kind.code}` | {2 if issubclass(kind, UsageError) else 1} | {_first(kind)} |")
    return "\n".join([*lines, ""])


def _first(thing: object) -> str:
    """The first sentence of a docstring."""
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())
