"""Score photos in this process with an exported ONNX model; needs neither a server nor torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from detector.cpus import available_cpus, has_vnni
from detector.decode import decode_photo
from detector.devices import Device
from detector.errors import FileError
from detector.files import shown
from detector.manifest import Manifest
from detector.verdict import Verdict

if TYPE_CHECKING:
    import onnxruntime

Scores = NDArray[np.float32]
MANIFEST = "manifest.json"
OUTPUTS = ("logit", "raw_prob", "calibrated_prob")


def open_session(
    model: Path | bytes,
    *,
    device: str = "cpu",
    threads: int = 0,
    shared: bool = False,
    graphs: bool = False,
    engines: Path | None = None,
) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session for a model's file, or its bytes.

    device: a name that `Device.parse` accepts. threads: per operator; 0 means all CPUs that this process may use. shared:
    other processes use the same CPUs, so threads stop spinning when a run ends. graphs, engines: see `Device.providers`.
    Raises `FileError` when the model can't be loaded or the device is not available.
    """
    # onnxruntime 1.31 stores a device id and usage events and tries to send them, unless this is set before its import.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or available_cpus()
    options.log_severity_level = 3
    if shared:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    # Without VNNI, x86 kernels add int8 products in 16 bits, which saturate; the option selects slower ones that use 32.
    options.add_session_config_entry("session.x64quantprecision", "0" if has_vnni() else "1")
    where = Device.parse(device)
    if where.kind != "cpu":
        onnxruntime.preload_dlls(directory="")  # finds CUDA and cuDNN in the nvidia-* wheels
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # TensorRT has no option for it; see `Device.providers`
    try:
        # WeightBiasQuantization also rounds float32 layers between int8 ones, with one scale for all channels.
        session = onnxruntime.InferenceSession(
            _path_or_bytes(model),
            options,
            providers=where.providers(graphs=graphs, engines=engines),
            disabled_optimizers=["WeightBiasQuantization"],
        )
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        name = "the model" if isinstance(model, bytes) else shown(model.name)
        reason = str(error).replace(str(model), name).splitlines()[0]
        raise FileError(f"{name}: ONNX Runtime can't load it ({reason})") from None
    if where.provider not in session.get_providers():
        lacks = "usable CUDA GPU" if where.kind == "cuda" else "usable GPU with TensorRT's libraries"
        raise FileError(f"device {where.kind} was asked for, and ONNX Runtime finds no {lacks}; use --device cpu")
    return session


def _path_or_bytes(model: Path | bytes) -> str | bytes:
    """What ONNX Runtime loads a model from: its path where that is UTF-8, which it has to be, or else its bytes."""
    if isinstance(model, bytes):
        return model
    return str(model) if shown(model) == str(model) else model.read_bytes()


def run_graph(
    session: onnxruntime.InferenceSession,
    images: NDArray[np.uint8],
    outputs: Sequence[str],
    options: onnxruntime.RunOptions | None = None,
) -> list[NDArray[np.float32]]:
    """The named outputs of the scoring graph for images, uint8[N, H, W, 3]; layers that only others need are skipped.

    options: from `run_options`; made for this run without it.
    """
    result: list[Scores] = session.run(list(outputs), {"images": images}, options or run_options())
    return result


def run_options() -> onnxruntime.RunOptions:
    """Options of a run that computes only the requested outputs; by default ONNX Runtime computes the heatmap always."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.only_execute_path_to_fetches = True
    return options


def _refuse_other_files(model: Path) -> None:
    """Raise a `FileError` that says what was given instead of an exported ONNX model."""
    name, suffix = shown(model), model.suffix.lower()
    if model.is_dir():
        inside = model / "model.onnx"
        hint = f"give {shown(inside)}" if inside.is_file() else "give a model.onnx, which `unmask export` writes"
        raise FileError(f"{name}: is a folder; {hint}")
    if not model.is_file():
        raise FileError(f"{name}: no such file; `unmask export` writes model.onnx")
    if suffix in (".pth", ".pt"):
        raise FileError(f"{name}: is a file of PyTorch; give the model.onnx that `unmask export` makes of a run")
    if suffix == ".mar":
        raise FileError(f"{name}: is an archive for TorchServe; give the model.onnx that lies beside it")
    if suffix != ".onnx":
        raise FileError(f"{name}: is not an ONNX model; give a model.onnx, which `unmask export` writes")
    if not model.with_name(MANIFEST).is_file():
        raise FileError(f"{name}: has no {MANIFEST} beside it; `unmask export` writes both")


class Scorer:
    """Scores photos with an exported ONNX model in this process.

    model: path of `model.onnx`, with its `manifest.json` beside it; the model's SHA-256 is checked before it is loaded.
    device: a name that `Device.parse` accepts. threads: per operator; 0 means all CPUs that this process may use.
    max_pixels, max_jpeg_pixels: the most that one photo may have; 0 takes the bound of the model's image spec.
    Raises `FileError` when a file is missing, changed or unreadable, or the device is not available.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        device: str = "cpu",
        threads: int = 0,
        max_pixels: int = 0,
        max_jpeg_pixels: int = 0,
    ) -> None:
        path = Path(model)
        _refuse_other_files(path)
        self.manifest = Manifest.load(path.with_name(MANIFEST))
        self.manifest.verify(path.parent, only=(path.name,))
        self.image_spec = self.manifest.image_spec.bounded(max_pixels=max_pixels, max_jpeg_pixels=max_jpeg_pixels)
        self.device = device
        self._session = open_session(path, device=device, threads=threads)

    def scores(self, images: NDArray[np.uint8]) -> tuple[Scores, Scores, Scores]:
        """Logits, raw and calibrated probabilities, float32[N] each, of images, uint8[N, H, W, 3], from `decode_image`."""
        logit, raw_prob, calibrated_prob = run_graph(self._session, images, OUTPUTS)
        return logit, raw_prob, calibrated_prob

    def heatmaps(self, images: NDArray[np.uint8]) -> Scores:
        """Class-activation maps of the logit, float32[N, h, w], of images, uint8[N, H, W, 3]; above zero leans fake.

        Source: Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016.
        """
        return run_graph(self._session, images, ("heatmap",))[0]

    def score_images(
        self,
        images: Sequence[NDArray[np.uint8]],
        *,
        use_calibrator: bool = True,
        cropped: Sequence[float] | None = None,
    ) -> list[Verdict]:
        """Verdicts for decoded images, uint8[H, W, 3] each, in order and in one batch.

        use_calibrator: decide on the calibrated probability, otherwise on the raw one. cropped: of each image's
        `DecodedPhoto`, for the verdicts to say. Raises `ModelOutputError` when a score is not finite.
        """
        left_out = cropped if cropped is not None else [None] * len(images)
        return [
            self.manifest.verdict(*scores, device=self.device, use_calibrator=use_calibrator, cropped=share)
            for *scores, share in zip(*self.scores(np.stack(images)), left_out, strict=True)
        ]

    def score(self, data: bytes, *, use_calibrator: bool = True) -> Verdict:
        """The verdict for one encoded photo. Raises `ImageError` when it can't be decoded."""
        photo = decode_photo(data, self.image_spec)
        return self.score_images([photo.pixels], use_calibrator=use_calibrator, cropped=[photo.cropped])[0]
