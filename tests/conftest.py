"""What tests share: which of them run together, drawn photos, and a run and its artifacts, made once for all workers."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import settings
from PIL import Image, ImageFilter

from detector.cpus import available_cpus

if TYPE_CHECKING:
    from tests.serve.running import RunningServer

ROOT = Path(__file__).resolve().parent.parent
# Tests with these fixtures start a TorchServe or talk to one; those with the others wait for training or an export.
SERVE_FIXTURES = {
    *("server", "frontend", "start", "torchscript_server", "small_server", "guarded", "both", "watched", "cell"),
    *("recorded", "failing"),
}
SLOW_FIXTURES = {"artifacts", "tiny_run"}

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: threads that spin while they wait halve a busy machine
# A shell's background job starts with Ctrl-C ignored, and so would the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The same commit tries the same examples; `pytest --hypothesis-profile=default` looks for others.
settings.register_profile("same", derandomize=True)
settings.load_profile("same")


def pytest_xdist_auto_num_workers() -> int | None:
    """Workers for `-n auto`: one for each CPU that this process may use, at most four, as each takes some 2 GB."""
    return None if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else min(4, available_cpus())


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--faults` runs the long tests of faults as well, as `make faults` does."""
    parser.addoption("--faults", action="store_true", help="run the fault matrix as well: ten minutes")


def pytest_configure(config: pytest.Config) -> None:
    """Share the CPUs out among the workers, before any of them imports torch."""
    if config.getoption("numprocesses", None):
        return  # the process that starts the workers runs no test, and they would inherit its number
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cpus() // workers)))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the fault matrix out unless it is asked for.

    Mark what serves and what is slow, and put it into the groups that `--dist loadgroup` gives to one worker each: of the
    tests that serve those of a folder, which share a server, and of all others those of a module, which share its fixtures.
    """
    if not config.getoption("--faults"):
        long = [item for item in items if item.get_closest_marker("faults")]
        items[:] = [item for item in items if not item.get_closest_marker("faults")]
        config.hook.pytest_deselected(items=long)
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        if fixtures & SERVE_FIXTURES:
            item.add_marker("serve")
        if fixtures & SLOW_FIXTURES:
            item.add_marker("slow")
        module = item.nodeid.partition("::")[0]
        folder = "/".join(module.split("/")[:2])
        serves = item.get_closest_marker("serve") is not None
        item.add_marker(pytest.mark.xdist_group(f"serve, {folder}" if serves else module))


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    """A worker's engine sets torch's threads for its process; sums differ with them, so no test hands them to the next."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else int(os.environ["OMP_NUM_THREADS"])
    yield
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(before)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder called `name` that `make` writes, by the first worker that asks for it; no test may write to it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    made = folder.with_suffix(".made")
    with FileLock(folder.with_suffix(".lock")):
        if not made.exists():
            make(folder)
            made.touch()
    return folder


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real photos beside the checkout; a test that needs it is skipped without."""
    directory = ROOT.parent / "shared"
    if not (directory / "data").is_dir():
        pytest.skip("no real photos beside this checkout (../shared/data)")
    return directory


@pytest.fixture(scope="session")
def photo_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Fifty smooth random pictures as JPEG, the same everywhere."""
    directory = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for i in range(50):
        picture = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize((256, 256))
        picture.filter(ImageFilter.GaussianBlur(i % 5)).save(directory / f"{i:02d}.jpg", quality=80 + i % 16)
    return sorted(directory.iterdir())


@pytest.fixture(scope="session")
def photos(photo_files: list[Path]) -> list[bytes]:
    """The fifty photos' bytes."""
    return [p.read_bytes() for p in photo_files]


def encode(pixels: np.ndarray | Image.Image, format: str = "PNG", **options: object) -> bytes:
    """A picture's bytes in `format`."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    out = BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


@pytest.fixture(scope="session")
def slow_photo() -> bytes:
    """A photo of few bytes that takes long to decode."""
    ramp = np.arange(4000, dtype=np.uint16)
    return encode(np.repeat((np.add.outer(ramp, ramp) // 32).astype(np.uint8)[:, :, None], 3, axis=2))


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory, photos: list[bytes]) -> Path:
    """A run as training leaves it, without the training: a small seeded network whose answers on `photos` spread over
    both labels, and a steep isotonic curve."""
    return made_once(tmp_path_factory, "run", lambda folder: write_run(folder, "mobilenetv3_small_050", photos))


@pytest.fixture(scope="session")
def artifacts(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What export makes of `run_dir`: model.onnx, manifest.json and both archives."""
    from export import export_run

    return made_once(tmp_path_factory, "artifacts", lambda folder: export_run(run_dir, folder))


def write_run(folder: Path, model: str, photos: list[bytes], *, hidden: tuple[int, ...] = (16,), size: int = 128) -> None:
    """Write `best_model.pth`, `calibration.json` and `metrics.json` for a random network that answers as
    a trained one does: batch norm knows `photos`, and the last layer is scaled to logits of mean 0 and deviation 2."""
    import torch

    from detector import ImageSpec, decode_image
    from training.models.build import ModelConfig, build_model
    from training.models.checkpoint import Checkpoint, save_checkpoint

    folder.mkdir(parents=True, exist_ok=True)
    spec, config = ImageSpec(size=size), ModelConfig(name=model, hidden=hidden)
    torch.manual_seed(7)
    net = build_model(config).train()
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # statistics of exactly what comes next; without them features hardly differ by photo
    pixels = torch.from_numpy(np.stack([decode_image(p, spec) for p in photos])).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    with torch.no_grad():
        net((pixels / 255 - mean) / std)
        logits = net.eval()((pixels / 255 - mean) / std)
        last = net.head[-1]
        gain = 2 / logits.std()
        last.bias.copy_((last.bias - logits.mean()) * gain)
        last.weight.mul_(gain)
    fingerprint = "0123456789abcdef" * 4
    save_checkpoint(
        folder / "best_model.pth",
        Checkpoint(config, spec, net.state_dict(), arguments={"model": model, "seed": 7}, fingerprint=fingerprint),
    )
    x, y = steep_curve()
    write_json(folder / "calibration.json", {"method": "isotonic", "x": x, "y": y, "n": 200})
    metrics = {"validation": {"auc": {"value": 0.91, "low": 0.88, "high": 0.94}}, "fingerprint": fingerprint}
    metrics["reference_scores"] = {"edges": [0.0, 0.5, 1.0], "counts": [20, 30]}
    write_json(folder / "metrics.json", metrics)


def steep_curve() -> tuple[list[float], list[float]]:
    """Twenty knots as isotonic regression leaves them: ten plateaus, and steps between them as near as float32 can tell."""
    edges = np.linspace(0.05, 0.95, 9, dtype=np.float32)
    x = np.concatenate([[0.0], np.stack([np.nextafter(edges, np.float32(0)), edges], axis=1).ravel(), [1.0]])
    return [float(v) for v in x], [float(v) for v in np.linspace(0.02, 0.98, 10).repeat(2)]


def write_json(path: Path, values: object) -> None:
    """Write JSON."""
    path.write_text(json.dumps(values), encoding="utf-8")


@pytest.fixture(scope="session")
def server(artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real TorchServe with the ONNX archive and two workers, on free ports, for tests that only send requests."""
    from tests.serve.running import RunningServer

    running = RunningServer(artifacts, tmp_path_factory.mktemp("server"), "--workers", "2")
    try:
        yield running.await_ready()
    finally:
        running.stop()
