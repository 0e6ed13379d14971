"""Engines run the scoring graph: ONNX Runtime or TorchScript behind one interface, chosen by the archive's model."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from detector.cpus import available_cpus
from detector.devices import Device
from detector.errors import FileError
from detector.manifest import Manifest
from detector.scorer import OUTPUTS, open_session, run_graph
from handlers.cpu_lock import CpuLock
from handlers.io_binding import IoBindingSession

ONNX_MODELS, TORCHSCRIPT_MODEL = ("model.onnx", "model.int8.onnx", "model.fp16.onnx"), "model.pt"
log = logging.getLogger("unmask")
Array = NDArray[np.float32]


class Scores(NamedTuple):
    """Outputs of the scoring graph: logit, raw and calibrated probability, float32[N] each, and, when it was asked for, the
    class-activation map, float32[N, h, w]."""

    logit: Array
    raw_prob: Array
    calibrated_prob: Array
    heatmap: Array | None


@dataclass(frozen=True)
class GpuOptions:
    """batch_size: the most photos at once. graphs: replay CUDA graphs. engine_cache: a folder for TensorRT's engines."""

    batch_size: int = 8
    graphs: bool = False
    engine_cache: Path | None = None


class Engine(Protocol):
    """A loaded model. `device` is "cpu" or "cuda:N"; `manifest` is the verified one that lay beside the model."""

    manifest: Manifest
    device: str

    def run(self, images: NDArray[np.uint8], *, heatmap: bool = False) -> Scores:
        """Score uint8[N, H, W, 3] from `decode_image`."""


def load_engine(
    directory: Path, *, device: str = "cpu", threads: int = 0, cpu_lock: CpuLock | None = None, gpu: GpuOptions | None = None
) -> Engine:
    """Load the model in `directory` after checking its SHA-256 against the `manifest.json` beside it.

    threads: per operator; 0 takes every CPU. cpu_lock: lets a worker use all CPUs for a single photo while the others are
    idle. gpu: how ONNX Runtime uses one.
    Raises `FileError` when the manifest or the model is missing, changed or can't be loaded, or the device is not there.
    """
    manifest = Manifest.load(directory / "manifest.json")
    found = [name for name in (*ONNX_MODELS, TORCHSCRIPT_MODEL) if (directory / name).is_file()]
    if len(found) != 1:
        accepted = ", ".join(ONNX_MODELS)
        raise FileError(f"the archive must hold one of {accepted} and {TORCHSCRIPT_MODEL}; it holds {len(found)} of them")
    manifest.verify(directory, only=(found[0],))
    if found[0] in ONNX_MODELS and Device.parse(device).kind != "cpu":
        return GpuEngine(directory / found[0], manifest, device=device, options=gpu or GpuOptions())
    if found[0] in ONNX_MODELS:
        return OnnxEngine(directory / found[0], manifest, threads=threads, cpu_lock=cpu_lock)
    if Device.parse(device).kind == "tensorrt":
        raise FileError("device tensorrt runs ONNX models only; use --device cuda for the TorchScript archive")
    return TorchScriptEngine(directory / found[0], manifest, device=device, threads=threads)


class OnnxEngine:
    """`model.onnx`, or its int8 or fp16 version, in ONNX Runtime on the CPU. Imports no torch."""

    device = "cpu"

    def __init__(self, path: Path, manifest: Manifest, *, threads: int = 0, cpu_lock: CpuLock | None = None) -> None:
        self.manifest = manifest
        self._session = open_session(path, threads=threads)
        # Several workers with few threads each have the best throughput; a single photo is fastest on all CPUs.
        share = cpu_lock is not None and 0 < threads < available_cpus()
        self._all_cpus_session = open_session(path, shared=True) if share else None
        self._cpu_lock = cpu_lock

    def run(self, images: NDArray[np.uint8], *, heatmap: bool = False) -> Scores:
        """Score uint8[N, H, W, 3] from `decode_image`."""
        names = (*OUTPUTS, "heatmap") if heatmap else OUTPUTS
        if self._all_cpus_session is None or self._cpu_lock is None:
            outputs = run_graph(self._session, images, names)
        else:
            with self._cpu_lock.hold(single=len(images) == 1) as all_cpus:
                outputs = run_graph(self._all_cpus_session if all_cpus else self._session, images, names)
        logit, raw_prob, calibrated_prob, *rest = outputs
        return Scores(logit, raw_prob, calibrated_prob, rest[0] if heatmap else None)


class GpuEngine:
    """The same models in ONNX Runtime on a GPU, by CUDA or TensorRT."""

    def __init__(self, path: Path, manifest: Manifest, *, device: str, options: GpuOptions) -> None:
        self.manifest = manifest
        where = Device.parse(device)
        self.device = where.name
        try:
            self._session = self._open(path, where, options, graphs=options.graphs)
        except Exception as error:
            if not options.graphs:
                raise
            # Of a layer that CUDA lacks, for one; the answers are the same without.
            log.warning("CUDA graphs can't be recorded, and photos are scored without: %s", error)
            self._session = self._open(path, where, options, graphs=False)

    def run(self, images: NDArray[np.uint8], *, heatmap: bool = False) -> Scores:
        """Score uint8[N, H, W, 3] from `decode_image`."""
        logit, raw_prob, calibrated_prob, *rest = self._session.run(images, heatmap=heatmap)
        return Scores(logit, raw_prob, calibrated_prob, rest[0] if heatmap else None)

    def _open(self, path: Path, where: Device, options: GpuOptions, *, graphs: bool) -> IoBindingSession:
        session = open_session(path, device=f"{where.kind}:{where.index}", graphs=graphs, engines=options.engine_cache)
        return IoBindingSession(session, where, self.manifest.image_spec.shape, options.batch_size, graphs=graphs)


class TorchScriptEngine:
    """`model.pt`, which stops at logit and heatmap, in torch; sigmoid and the manifest's curve are applied here."""

    def __init__(self, path: Path, manifest: Manifest, *, device: str = "cpu", threads: int = 0) -> None:
        import torch

        self.manifest = manifest
        self.device = device
        self._torch = torch
        if device != "cpu" and not torch.cuda.is_available():
            raise FileError(f"device {device} was asked for, and torch finds no usable GPU; use --device cpu")
        torch.backends.cudnn.allow_tf32 = False  # as for ONNX Runtime: its 10 bits would move the calibrated answer
        if threads:
            torch.set_num_threads(threads)
        try:
            warnings.filterwarnings("ignore", category=FutureWarning, module="torch.jit")  # 2.15 deprecates all of it
            module: torch.jit.ScriptModule = torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            reason = str(error).replace(str(path), path.name).strip().splitlines()[0]
            raise FileError(f"{path.name}: torch can't load it ({reason})") from None
        self._module = module.eval()

    def run(self, images: NDArray[np.uint8], *, heatmap: bool = False) -> Scores:
        """Score uint8[N, H, W, 3] from `decode_image`."""
        with self._torch.inference_mode():
            logit, maps = self._module(self._torch.from_numpy(images).to(self.device))
            raw_prob = self._torch.sigmoid(logit).cpu().numpy()
        return Scores(
            logit=logit.cpu().numpy(),
            raw_prob=raw_prob,
            calibrated_prob=self.manifest.curve(raw_prob),
            heatmap=maps.cpu().numpy() if heatmap else None,
        )
