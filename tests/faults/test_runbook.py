"""The runbook has a section for each alert, and its commands are those that the fault matrix runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.faults.runbook import RUNBOOK, sections
from tests.prometheus import alerts

MATRIX = Path(__file__).parent / "test_matrix.py"
# A GPU that goes is not at hand; and no way was found in which a server loses its workers' metrics.
NOT_PROVOKED = {"UnmaskGpuLost", "UnmaskWorkerMetricsAbsent"}


def test_each_alert_has_its_section_and_each_section_its_alert():
    assert set(sections()) == {alert.name for alert in alerts()}
    headings = re.findall(r"^## (.+)$", RUNBOOK.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(headings) == len(sections())


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_an_alert_leads_to_its_section(alert):
    page, _, anchor = alert.runbook_url.partition("#")
    assert page.rpartition("/")[2].partition(".")[0] == RUNBOOK.stem
    assert anchor == alert.name.lower()


def test_a_section_says_what_it_means_what_to_look_at_and_what_to_do():
    for section in sections().values():
        said = re.findall(r"^\*\*(\w+)", section.text, re.MULTILINE)
        assert said == ["It", "Look", "Do"], section.name


def test_the_matrix_provokes_each_alert_and_runs_the_commands_of_its_section():
    cells = re.split(r"^def ", MATRIX.read_text(encoding="utf-8"), flags=re.MULTILINE)
    run, provoked = set(), set()
    for cell in cells:
        named = set(re.findall(r"Unmask\w+", cell))
        acted = " ".join(re.findall(r"\.acts\((.*?)\)", cell))
        provoked |= named if ".fires(" in cell else set()
        run |= set(re.findall(r"Unmask\w+", " ".join(re.findall(r"alerts = (.*)", cell)) if "*alerts" in acted else acted))
    assert provoked == set(sections()) - NOT_PROVOKED
    assert run == {name for name, section in sections().items() if section.commands}
