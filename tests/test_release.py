"""One version everywhere, a changelog for it, and a release that is refused where something is missing."""

from __future__ import annotations

import importlib.util
import re

import pytest

import unmask
from tests.conftest import ROOT

# Where a version of ours is written: image tags and the label in the Dockerfile.
TAGS = re.compile(r"(?:unmask:|newTag: |ARG VERSION=|`VERSION`, `REVISION` \| `)v?(\d+\.\d+\.\d+)")
CHANGELOG = "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2025-01-31\n\n- Something.\n"


@pytest.fixture(scope="module")
def release():
    spec = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tags_of_images_and_manifests_are_the_packages_version():
    files = [ROOT / "Dockerfile", *(ROOT / "k8s").rglob("*.yaml"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    found = {(str(f.relative_to(ROOT)), version) for f in files for version in TAGS.findall(f.read_text(encoding="utf-8"))}
    assert {"Dockerfile", "k8s/overlays/cpu/kustomization.yaml", "k8s/overlays/gpu/kustomization.yaml"} <= {
        f for f, _ in found
    }
    assert {version for _, version in found} == {unmask.__version__}, found


def test_the_changelog_describes_the_version(release):
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[{re.escape(unmask.__version__)}\] - ", changelog, re.MULTILINE)
    assert re.search(r"^## \[Unreleased\]$", changelog, re.MULTILINE)


def test_a_whole_release_has_no_problem(release):
    assert release.problems("1.2.3", CHANGELOG, "", ["v1.2.2"]) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": "1.2.4"}, "no line '## [1.2.4]"),
        ({"uncommitted": " M README.md"}, "README.md"),
        ({"tags": ["v1.2.3"]}, "the tag v1.2.3 is there"),
        ({"changelog": CHANGELOG.replace("[Unreleased]\n", "[Unreleased]\n\n- More.\n")}, "belong under [1.2.3]"),
    ],
)
def test_what_is_missing_is_said(release, changes, said):
    given = {"version": "1.2.3", "changelog": CHANGELOG, "uncommitted": "", "tags": []} | changes
    (problem,) = release.problems(**given)
    assert said in problem
