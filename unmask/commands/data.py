"""`unmask audit`, `inspect`, `push` and `demo-data`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from training.data.photos import check_layout
from training.fit.preflight import require_file
from unmask.parameters import AsJson, Count, LabelledPhotos, Labels, Switch


def audit(
    directory: LabelledPhotos,
    /,
    *,
    labels: Labels = None,
    group_by: str | None = None,
    out: Path | None = None,
    json_: AsJson = False,
) -> int:
    """Find duplicates, leaks, unreadable files and shortcuts in a data folder.

    Exits with 1 where there are leaks; all else is a warning.

    Parameters
    ----------
    group_by
        Regular expression; photos whose path matches alike belong together, as for `unmask train`.
    out
        Also write audit.json and audit.txt to this folder.
    """
    check_layout(directory, fakes_needed=False)
    from training.audit.audit import audit_folder

    found = audit_folder(directory, labels=labels, group_by=group_by, out=out, progress=True)
    print(json.dumps(found.to_dict(), indent=2, ensure_ascii=False) if json_ else found.text())
    return 1 if found.leaks or found.leaking_groups else 0


def inspect(checkpoint: Annotated[Path, Parameter(help="best_model.pth, final_model.pth or last.pth.")], /) -> int:
    """Print what a checkpoint is, without running code from it."""
    require_file(checkpoint, "`unmask train` writes checkpoints")
    from training.models.inspection import describe

    print(json.dumps(describe(checkpoint), indent=2))
    return 0


def push(run: Path, repository: str, /, *, public: Switch = False, allow_faulty: Switch = False) -> int:
    """Push a finished run to the Hugging Face hub.

    The token is that of HF_TOKEN or of `hf auth login`.

    Parameters
    ----------
    run
        Folder that `unmask train` wrote.
    repository
        ORG/NAME on the hub; it is made when it is not there.
    public
        Make a new repository public; without this it is private.
    allow_faulty
        Push a run with injected faults all the same.
    """
    require_file(run / "best_model.pth", "give a folder that `unmask train` wrote")
    from training.report.push import push as push_run

    print(push_run(run, repository, private=not public, allow_faulty=allow_faulty))
    return 0


def demo_data(
    directory: Annotated[Path, Parameter(help="Folder that Train/ and Validation/ are written to.")],
    /,
    *,
    count: Count | None = None,
    size: Count | None = None,
    seed: Annotated[int, Parameter(help="The same seed draws the same photos.")] = 0,
) -> int:
    """Draw the demo set: portraits, photographed and forged.

    Parameters
    ----------
    count
        Number of photos.
    size
        Height and width in pixels.
    """
    from training.demo.dataset import generate

    sizes = {name: value for name, value in (("count", count), ("size", size)) if value is not None}
    generate(directory, seed=seed, progress=True, **sizes)
    return 0
