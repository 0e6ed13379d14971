"""Every error of every package: a code of its own, a status that fits, and a row in the reference."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator

import pytest

from detector.errors import ImageError, ModelOutputError, UnmaskError
from docs.generate import errors_page
from tests.conftest import ROOT

PACKAGES = ("detector", "training", "export", "handlers", "serve", "benchmarks")
# These run something when they are imported; locustfile lets gevent replace the standard library's sockets and threads.
SCRIPTS = re.compile(r".*\.__main__|.*\.locustfile|benchmarks\.peers\..*_app|handlers\.detector_handler")


def below(kind: type[UnmaskError]) -> Iterator[type[UnmaskError]]:
    for child in kind.__subclasses__():
        yield child
        yield from below(child)


@pytest.fixture(scope="module")
def errors() -> list[type[UnmaskError]]:
    """All subclasses of `UnmaskError` in the project, after every module is imported."""
    for package in PACKAGES:
        for module in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
            if not SCRIPTS.fullmatch(module.name):
                importlib.import_module(module.name)
    return [kind for kind in dict.fromkeys(below(UnmaskError)) if kind.__module__.partition(".")[0] in PACKAGES]


def test_each_error_has_a_code_of_its_own(errors):
    assert {kind.__module__.partition(".")[0] for kind in errors} == set(PACKAGES)
    assert [kind.__name__ for kind in errors if "code" not in vars(kind)] == []
    shared = {code: n for code, n in Counter(kind.code for kind in errors).items() if n > 1}
    assert shared == {}
    assert [kind.code for kind in errors if not re.fullmatch(r"[a-z][a-z0-9_]*", kind.code)] == []


def test_each_status_is_an_http_error(errors):
    assert {kind.__name__: kind.status for kind in errors if kind.status not in range(400, 600)} == {}


@pytest.mark.parametrize("package", ["benchmarks", "detector", "export", "handlers", "serve", "training"])
def test_errors_stand_in_one_module_of_their_package(errors, package):
    modules = {kind.__module__ for kind in errors if kind.__module__.partition(".")[0] == package}
    assert modules == {f"{package}.errors"}


def test_every_code_that_a_server_answers_with_is_in_the_reference_with_its_status(errors):
    in_answers, _, of_commands = errors_page().partition("## Of commands")
    photos = [kind for kind in errors if issubclass(kind, ImageError) and kind is not ImageError]
    own = [kind for kind in errors if kind.__module__.startswith("handlers.")]
    answered = (*photos, *own, ModelOutputError)
    row = re.compile(r"^\| `([a-z0-9_]+)` \| (\d+) \| \S", re.MULTILINE)
    assert dict(row.findall(in_answers)) == {kind.code: str(kind.status) for kind in answered}
    assert set(dict(row.findall(of_commands))) == {kind.code for kind in errors if kind not in (*answered, ImageError)}
