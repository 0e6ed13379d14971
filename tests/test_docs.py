"""The documentation builds, needs nothing from elsewhere, and its reference has what the program has."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from docs.generate import pages
from serve.settings import Settings
from tests.conftest import ROOT
from unmask.registry import GROUPS, build

# What a browser fetches by itself: not <a href>, which a reader follows.
LOADED = re.compile(r"<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\bsrc=[\"']?([^\"'\s>]+)|<link\b([^>]*)>")
ELSEWHERE = re.compile(r"(?:[a-z]+:)?//", re.IGNORECASE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(out)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr
    return out


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    """The generated pages."""
    return pages()


def loaded(page: str) -> Iterator[str]:
    for source, link in LOADED.findall(page):
        if source:
            yield source
        elif href := re.search(r"href=[\"']?([^\"'\s>]+)", link):
            yield href[1]


@pytest.mark.slow
def test_the_site_builds_and_its_pages_load_nothing_from_elsewhere(site):
    built = sorted(site.rglob("*.html"))
    assert {"index.html", "tutorial.html", "how-to/serve.html", "reference/commands/train.html", "reference/errors.html"} <= {
        str(page.relative_to(site)) for page in built
    }
    for page in built:
        sources = list(loaded(page.read_text(encoding="utf-8")))
        assert sources
        assert [source for source in sources if ELSEWHERE.match(source)] == [], page
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        assert not re.search(r"(?:url\(|@import\s)\s*[\"']?(?:[a-z]+:)?//", text), style


def test_every_command_and_option_is_in_the_reference(reference):
    app = build()
    for group, commands in GROUPS.items():
        page = reference[f"reference/commands/{group.lower()}.md"]
        parts = dict(re.findall(r"^## `unmask ([\w -]+?)`.*?\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
        assert list(parts) == [command.name for command in commands]
        for command in commands:
            found = app
            for word in command.name.split():
                found = found[word]
            named = set(re.findall(r"`(--[\w-]+)`", parts[command.name]))
            settings = {f"--{name.replace('_', '-')}" for name in Settings.model_fields}
            declared = {argument.names[0] for argument in found.assemble_argument_collection() if argument.show}
            missing = {name for name in declared if name.startswith("--")} - named
            assert not missing - (settings if "settings of a server" in parts[command.name] else set())


def test_every_setting_is_in_the_reference_with_its_sentence(reference):
    found = re.findall(r"^`--([\w-]+)`, `(\w+)`\n:   (.+)$", reference["reference/settings.md"], re.MULTILINE)
    assert [flag.replace("-", "_") for flag, *_ in found] == list(Settings.model_fields)
    for flag, variable, sentence in found:
        assert variable == f"UNMASK_{flag.replace('-', '_').upper()}"
        assert sentence.startswith(str(Settings.model_fields[flag.replace("-", "_")].description))


def test_every_metric_of_a_server_is_in_the_reference(reference, server, photos):
    httpx.post(server.record.rest_url, content=photos[0], timeout=60).raise_for_status()
    httpx.post(server.record.rest_url, content=b"no photo", timeout=60)
    text = httpx.get(f"{server.record.supervisor_url}/metrics", timeout=60).text
    exposed = dict(re.findall(r"^# TYPE (\w+) (\w+)$", text, re.MULTILINE))
    documented = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", reference["reference/metrics.md"], re.MULTILINE))
    without_gpu = {name: kind for name, kind in documented.items() if not name.startswith("unmask_gpu")}
    assert without_gpu == {name: kind for name, kind in exposed.items() if name.startswith("unmask_")}


def watched() -> tuple[list[str], list[str]]:
    """The YAML and the queries of the page on Prometheus."""
    page = (ROOT / "docs" / "how-to" / "prometheus.md").read_text(encoding="utf-8")
    return re.findall(r"```yaml\n(.*?)```", page, re.DOTALL), re.findall(r"^\| [^|]+ \| `([^`]+)` \|$", page, re.MULTILINE)


def test_the_queries_name_metrics_that_exist(reference):
    documented = dict(re.findall(r"^\| `(\w+)` \| (\w+) \|", reference["reference/metrics.md"], re.MULTILINE))
    series = {
        name + end
        for name, kind in documented.items()
        for end in (("_bucket", "_count", "_sum") if kind == "histogram" else ("",))
    }
    yamls, queries = watched()
    named = set(re.findall(r"\bunmask_\w+", "\n".join([*yamls, *queries])))
    assert len(queries) > 5
    assert named
    assert named <= series


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_prometheus_accepts_the_configuration_and_the_queries(tmp_path):
    parts, queries = watched()
    records = {"groups": [{"name": "queries", "rules": [{"record": f"q{i}", "expr": q} for i, q in enumerate(queries)]}]}
    (tmp_path / "k8s").symlink_to(ROOT / "k8s")
    for name, text, kind in (
        ("prometheus.yml", "".join(parts), "config"),
        ("queries.yml", json.dumps(records), "rules"),
    ):
        (tmp_path / name).write_text(text)
        command = ["promtool", "check", kind, str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_reference_is_the_same_on_another_machine(reference, tmp_path):
    code = "import json; from docs.generate import pages; print(json.dumps(pages()))"
    moved = {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state"), "COLUMNS": "40", "UNMASK_REST_PORT": "1"}
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | moved,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert json.loads(result.stdout) == reference
    for path, text in reference.items():
        assert not re.search(r"\bat 0x[0-9a-f]+", text), path
        assert str(ROOT) not in text, path
        assert str(Path.home()) not in text, path
