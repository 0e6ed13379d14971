"""What `unmask export`, `verify` and `recalibrate` print for a person; the same numbers are in manifest.json."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detector.files import shown
from detector.manifest import Manifest

PRECISIONS = {"int8": "8 bits", "fp16": "16 bits"}


def summary(manifest: Manifest, out: Path) -> str:
    """The files in `out` with their sizes, parity, what fewer bits cost, and the command that serves them; several lines."""
    names = ["manifest.json", *manifest.files]
    width = max(len(name) for name in names)
    model = manifest.model
    return "\n".join(
        [
            f"{model.name} {model.version}: {model.backbone}, calibration {manifest.calibration_method}, {_answers(manifest)}",
            *(f"  {name:{width}}  {_size((out / name).stat().st_size):>8}" for name in names),
            _parity(manifest.parity),
            *(_precision(name, report) for name, report in manifest.precision.items()),
            *(f"warning: {warning['message']} [{warning['code']}]" for warning in manifest.warnings),
            f"next:   unmask serve start --artifacts {shown(out)}",
        ]
    )


def _answers(manifest: Manifest) -> str:
    if (band := manifest.uncertain) and band.lower < band.upper:
        return f"Real below {band.lower:.4g}, Fake from {band.upper:.4g} on, Uncertain in between"
    return f"Fake from {manifest.threshold:.4g} on"


def verify_summary(report: dict[str, Any], artifacts: Path) -> str:
    """Of what `verify_artifacts` returns: each check that failed with its reason, else parity; several lines."""
    checks = report["checks"]
    failed = [f"  {name}: {said.removeprefix(f'{name}: ')}" for name, said in checks.items() if said != "ok"]
    if failed:
        return "\n".join([f"{shown(artifacts)}: {len(failed)} of {len(checks)} checks failed", *failed])
    errors = [
        f"{name}: the logit is {error:.2g} of its standard deviation from float32's"
        for name, error in report["parity"].get("precision", {}).items()
        if error is not None
    ]
    lines = [f"{shown(artifacts)}: all {len(checks)} checks passed ({', '.join(checks)})", _parity(report["parity"]), *errors]
    return "\n".join([*lines, f"next:   unmask serve start --artifacts {shown(artifacts)}"])


def worst(parity: dict[str, Any]) -> tuple[str, float]:
    """What comes nearest to its bound in a manifest's parity, and its fraction of that bound."""
    return max(_fractions(parity), key=lambda found: found[1])


def _fractions(parity: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name in ("logit", "raw_prob", "heatmap"):
        yield from ((f"{name}, {runner}", found["fraction"]) for runner, found in parity[name].items())
    yield from ((name, parity[name]["fraction"]) for name in ("calibrated", "curve"))


def _parity(parity: dict[str, Any]) -> str:
    what, fraction = worst(parity)
    used = parity.get("pictures", "pictures")
    return f"parity: on {parity['photos']} images ({used}) the largest difference is {fraction:.0%} of its bound ({what})"


def _precision(name: str, report: dict[str, Any]) -> str:
    """One line on a model of fewer bits."""
    layers, error, auc = report["layers"], report["logit_error"], report["auc"]
    kept = sum(len(names) for names in layers["float32"].values())
    line = (
        f"{name}: {layers['reduced']} of {layers['reduced'] + kept} layers in {PRECISIONS[name]}, the logit moves by "
        f"{error['judged']:.2g} of its standard deviation, AUC {auc['float32']:.4f} -> {auc[name]:.4f}"
    )
    if times := report.get("times_as_fast"):
        line += f", {times['batch_1']:g} times as fast for one photo" + ("" if times["vnni"] else " (this CPU has no VNNI)")
    return line


def _size(count: int) -> str:
    """Bytes in the unit that suits them."""
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 2**10:.1f} KiB"
