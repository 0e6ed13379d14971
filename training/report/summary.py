"""Summaries for a terminal: of a finished run and of an evaluation."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from detector.files import shown

ANSWERS = {  # of a model with a band
    "coverage": "Photos with an answer (coverage)",
    "fpr": "Real photos called Fake (FPR)",
    "fnr": "Fake photos called Real (FNR)",
    "error": "Wrong ones among the answers",
}
LISTED = 3  # of the families and groups that a model does worst on


def summary(metrics: dict[str, Any], out: Path) -> str:
    """What a person wants to read when a run is finished: `metrics` as in `metrics.json`, `out` the run folder."""
    v = metrics["validation"]
    lines = [_quality("validation", v), f"calibration: {metrics['calibration']['method']}, {_calibration_error(v)}"]
    if why := metrics["calibration"].get("why"):
        lines.append(f"  {metrics['calibration']['method']}: {why}")
    lines += [f"warning: {warning['message']} [{warning['code']}]" for warning in metrics.get("warnings", [])]
    if choice := metrics.get("threshold_choice"):
        lines.append(f"threshold: {choice['threshold']:.4f}; {choice['notes'][0]}")
    lines += _answers(metrics)
    run = shlex.quote(shown(out))
    if (page := out / "report" / "index.html").is_file():
        lines.append(f"report: {shown(page)}")
    if metrics.get("faults"):
        lines += [
            "faults were injected into this run on purpose; export refuses it without --allow-faulty",
            f"next:   unmask export --run {run} --out artifacts/ --allow-faulty",
        ]
    else:
        lines.append(f"next:   unmask export --run {run} --out artifacts/")
    return "\n".join(lines)


def summary_of_evaluation(result: dict[str, Any], out: Path | None = None) -> str:
    """What a person wants to read of an evaluation: `result` as in `evaluation.json`, `out` where that was written."""
    v, counts = result["validation"], result["counts"]
    part = "" if result["part"] == "all" else f", {result['part']} part"
    lines = [
        f"{result['model']} on {result['data']}{part}: {counts['real']} real and {counts['fake']} fake photos",
        _quality("metrics", v),
        f"at threshold {v['threshold']:.4g}: fakes found {interval(v['recall'])}, real photos flagged {interval(v['fpr'])}",
        f"calibration: {_calibration_error(v)}",
    ]
    lines += [f"warning: {warning['message']} [{warning['code']}]" for warning in result["warnings"]]
    lines += _answers(result)
    if unreadable := result["unreadable"]:
        lines.append(f"skipped: {len(unreadable)} files that can't be read")
    lines += [*_families(result["families"] or []), *_groups(result["groups"] or [])]
    if corrupted := result["robustness"]:
        lines.append(f"robustness: AUC {corrupted['untouched']['auc']['value']:.3f} on untouched photos")
        for kind in corrupted["kinds"].values():
            level = kind["levels"][-1]
            changed = 100 * level["changed"]["value"]
            lines.append(
                f"  {kind['unit']} {level['level']:g}: AUC {interval(level['auc'])}, {changed:.0f} % of verdicts changed"
            )
        lines += [f"  {sentence}" for sentence in corrupted["sentences"]]
    if (game := result["pointing_game"]) and game["score"]:
        lines.append(
            f"pointing game: {interval(game['score'])} of {game['photos']} heatmaps hit; {game['chance']:.3f} by chance"
        )
    lines.append(
        f"report: {shown(out / 'report' / 'index.html')}" if out else "all numbers: --json; a page with plots: --out DIR"
    )
    return "\n".join(lines)


def interval(value: dict[str, float]) -> str:
    """A value with its interval."""
    return f"{value['value']:.3f} ({value['low']:.3f}–{value['high']:.3f})"


def _quality(name: str, v: dict[str, Any]) -> str:
    return f"{name}, {v['n']} photos: AUC {interval(v['auc'])}, accuracy {interval(v['accuracy'])} (95 % intervals)"


def _calibration_error(v: dict[str, Any]) -> str:
    return (
        f"error (ECE) {v['ece_raw']['value']:.3f} before and {v['ece']['value']:.3f} after, "
        f"Brier skill {v['brier_skill']['value']:.3f}"
    )


def _answers(metrics: dict[str, Any]) -> list[str]:
    """What the band of Uncertain does, where there is one or one was asked for."""
    notes = (metrics.get("band_choice") or {}).get("notes", [])
    if not (band := metrics.get("uncertain")):
        return [f"Uncertain: {note}" for note in notes]
    told = metrics["abstention"]
    error = f", wrong on {interval(told['error'])} of them" if told["error"] else ""
    said = f"Uncertain from {band[0]:.4f} to {band[1]:.4f}: answers {interval(told['coverage'])} of the photos{error}"
    return [said, *notes]


def _families(rows: list[dict[str, Any]]) -> list[str]:
    """The fake families that are found least, and the real ones that are flagged most."""
    fakes = sorted((row for row in rows if row["class"] == "fake"), key=lambda row: row["flagged"]["value"])
    reals = sorted((row for row in rows if row["class"] == "real"), key=lambda row: -row["flagged"]["value"])
    lines = [f"  {row['family']}: {interval(row['flagged'])} of {row['n']} found" for row in fakes[:LISTED]]
    lines += [f"  {row['family']}: {interval(row['flagged'])} of {row['n']} flagged" for row in reals[:LISTED]]
    return ["families, the worst of each class:", *lines] if lines else []


def _groups(rows: list[dict[str, Any]]) -> list[str]:
    told = [(row, row["tpr"]) for row in rows if row["tpr"]]
    worst = sorted(told, key=lambda item: item[1]["value"])[:LISTED]
    lines = [f"  {row['group']}: {interval(tpr)} of its fakes found, {row['n']} photos" for row, tpr in worst]
    return [f"groups, {len(rows)} in all, those with the fewest fakes found:", *lines] if lines else []
