"""Audit: what is wrong with a folder of labelled photos, before anything is learned from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detector.files import write_json
from training.audit.duplicates import Match, find_matches, group_names
from training.audit.likeness import MOST
from training.audit.shortcuts import measure, notable
from training.data.facts import PhotoFacts, read_facts
from training.data.photos import CLASSES, Photo, find_photos
from training.errors import Leak

SHOWN = 5  # pairs that a message names


@dataclass(frozen=True)
class Audit:
    """What was found. names, parts, labels: of each photo, as in `Photo`. groups: the --group-by group, or None.

    shortcuts: AUC by feature; see `training.audit.shortcuts.measure`.
    """

    names: tuple[str, ...]
    parts: tuple[str | None, ...]
    labels: tuple[int, ...]
    groups: tuple[str | None, ...]
    matches: tuple[Match, ...]
    unreadable: dict[str, str]
    shortcuts: dict[str, float]

    @property
    def leaks(self) -> list[Match]:
        """Matches between Train and Validation; of a folder that is not divided there are none."""
        return [m for m in self.matches if self._leaks(m)]

    @property
    def leaking_groups(self) -> list[str]:
        """Groups with photos on both sides."""
        sides: dict[str, set[str | None]] = {}
        for name, group, part in zip(self.names, self.groups, self.parts, strict=True):
            if group is not None and name not in self.unreadable:
                sides.setdefault(group, set()).add(part)
        return sorted(group for group, parts in sides.items() if len(parts) > 1)

    @property
    def contradictions(self) -> list[Match]:
        """Matches between the classes."""
        return [m for m in self.matches if self._contradicts(m)]

    @property
    def crowded(self) -> int:
        """Photos with so many near duplicates that only `MOST` were looked for."""
        return int((np.bincount(np.array([m.first for m in self.matches if not m.exact], np.int64)) >= MOST).sum())

    def _leaks(self, match: Match) -> bool:
        return self.parts[match.first] != self.parts[match.second]

    def _contradicts(self, match: Match) -> bool:
        return self.labels[match.first] != self.labels[match.second]

    @property
    def warned_of(self) -> dict[str, float]:
        """The shortcuts that deserve a warning."""
        return notable(
            self.shortcuts, np.array([y for n, y in zip(self.names, self.labels, strict=True) if self._readable(n)])
        )

    def _readable(self, name: str) -> bool:
        return name not in self.unreadable

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Readable photos of each class, by the folder's own parts."""
        return {
            part or "all": {
                name: sum(
                    (p, y) == (part, label) and self._readable(n)
                    for n, p, y in zip(self.names, self.parts, self.labels, strict=True)
                )
                for name, label in CLASSES.items()
            }
            for part in sorted(set(self.parts), key=str)
        }

    def summary(self) -> dict[str, Any]:
        """What a run's `metrics.json` records: numbers, and no list that grows with the folder."""
        return {
            "exact_duplicates": sum(m.exact for m in self.matches),
            "near_duplicates": sum(not m.exact for m in self.matches),
            "crowded": self.crowded,
            "between_classes": len(self.contradictions),
            "leaks": len(self.leaks) + len(self.leaking_groups),
            "unreadable": len(self.unreadable),
            "shortcuts": {name: round(auc, 3) for name, auc in self.shortcuts.items()},
            "shortcuts_warned_of": sorted(self.warned_of),
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {
            "counts": self.counts,
            **{f"{key}_count" if key in ("leaks", "unreadable") else key: value for key, value in self.summary().items()},
            "leaks": [self._pair(m) for m in self.leaks],
            "leaking_groups": self.leaking_groups,
            "duplicates": [self._pair(m) for m in self.matches],
            "unreadable": self.unreadable,
        }

    def _pair(self, match: Match) -> dict[str, Any]:
        return {
            "photos": [self.names[match.first], self.names[match.second]],
            "exact": match.exact,
            "likeness": round(match.likeness, 3),
        }

    def text(self) -> str:
        """The audit for people."""
        lines = ["photos"]
        lines += [f"  {part}: {c['real']} real, {c['fake']} fake" for part, c in self.counts.items()]
        warnings = [m for m in self.matches if not self._leaks(m)]
        lines += ["", "duplicates"]
        lines += _listed("between Train and Validation (leaks)", [self._line(m) for m in self.leaks])
        lines += _listed("groups on both sides (leaks)", self.leaking_groups)
        lines += _listed("within a side, of one class", [self._line(m) for m in warnings if not self._contradicts(m)])
        lines += _listed("within a side, of both classes", [self._line(m) for m in warnings if self._contradicts(m)])
        if self.crowded:
            lines += [f"  photos with {MOST} near duplicates or more, of which {MOST} are counted: {self.crowded}"]
        lines += ["", "unreadable files", *_listed("skipped", [f"{n}: {why}" for n, why in self.unreadable.items()])]
        lines += ["", "shortcuts: AUC between the classes of each alone (0.5 is chance)"]
        flagged = self.warned_of
        lines += [f"  {name:<13} {auc:.3f}{'  <- warning' if name in flagged else ''}" for name, auc in self.shortcuts.items()]
        lines += [] if self.shortcuts else ["  not measured: fewer than ten photos of a class"]
        leaks = len(self.leaks) + len(self.leaking_groups)
        found = f"{leaks} leak{'s' if leaks > 1 else ''}: what is reported on such a folder means nothing"
        lines += ["", found if leaks else "no leaks"]
        return "\n".join(lines)

    def require_no_leak(self) -> None:
        """Raise `Leak`, naming some pairs, where training and validation share something."""
        found = [self._line(m) for m in self.leaks] + [f"the group {group}" for group in self.leaking_groups]
        if found:
            more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise Leak(
                f"Train and Validation share photos ({Leak.code}, {len(found)} found): {'; '.join(found[:SHOWN])}{more}. "
                "Remove them from one side; `unmask audit` lists all"
            )

    def warning(self) -> str | None:
        """A line about shortcuts, or None where there are none to speak of."""
        if not (found := self.warned_of):
            return None
        named = ", ".join(f"{name} {auc:.2f}" for name, auc in sorted(found.items(), key=lambda item: -item[1]))
        return (
            f"warning: the classes differ in what has nothing to do with forgery (AUC {named}); the detector may learn that "
            "instead. --equalise makes compression alike; `unmask audit` says more"
        )

    def _line(self, match: Match) -> str:
        how = "the same file" if match.exact else f"alike, {match.likeness:.3f}"
        return f"{self.names[match.first]} = {self.names[match.second]} ({how})"


def audit_photos(photos: Sequence[Photo], facts: Sequence[PhotoFacts], group_by: str | None = None) -> Audit:
    """The audit of photos whose facts were read.

    Raises `UsageError` for a `group_by` that is no pattern or matches nothing.
    """
    readable = [row for row, fact in enumerate(facts) if fact.problem is None]
    return Audit(
        names=tuple(photo.name for photo in photos),
        parts=tuple(photo.part for photo in photos),
        labels=tuple(photo.label for photo in photos),
        groups=tuple(group_names(photos, group_by)),
        matches=tuple(find_matches(facts)),
        unreadable={photos[row].name: fact.problem for row, fact in enumerate(facts) if fact.problem is not None},
        shortcuts=measure([facts[row] for row in readable], np.array([photos[row].label for row in readable], np.int64)),
    )


def audit_folder(
    data: Path, *, labels: str | None = None, group_by: str | None = None, out: Path | None = None, progress: bool = False
) -> Audit:
    """Audit a folder, one class or both; with `out`, write `audit.json` and `audit.txt` there."""
    photos = find_photos(data, fakes_needed=False, labels=labels)
    found = audit_photos(photos, read_facts(photos, progress=progress), group_by)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "audit.json", found.to_dict())
        (out / "audit.txt").write_text(found.text() + "\n", encoding="utf-8")
    return found


def _listed(title: str, lines: Sequence[str], shown: int = 20) -> list[str]:
    """A count, and under it the first of what was counted."""
    more = [f"    … and {len(lines) - shown} more; --json lists them all"] if len(lines) > shown else []
    return [f"  {title}: {len(lines)}", *(f"    {line}" for line in lines[:shown]), *more]
