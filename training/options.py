"""The options of `fit`: one dataclass that holds only what can work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from detector.errors import UsageError
from detector.spec import ImageSpec
from training.presets import DUAL_STREAM, ENSEMBLE

AMP_CHOICES = ("no", "auto", "fp16", "bf16")
DEVICES = ("auto", "cpu", "cuda", "mps")
SCHEDULES = ("plateau", "cosine")
CALIBRATIONS = ("isotonic", "platt", "temperature", "beta", "none")
AUGMENTATIONS = ("standard", "crop", "flip")
PSEUDO_FAKES = ("none", "sbi")
HUB = "hf://"  # weights from a repository of the Hugging Face hub: hf://org/repo
FAULTY_MODES = ("label_noise", "input_noise", "shuffle_labels", "wrong_loss", "random_weight_reset")
_STRENGTH = {"label_noise": "label_noise_frac", "input_noise": "input_noise_std"}
# Say how one network is made and trained, which an ensemble of finished ones is not.
OF_TRAINING = (
    *("hidden", "dropout", "head_norm", "multiscale", "gram", "zoom", "freeze_backbone", "augment", "mixup"),
    *("weights", "pretrained"),
    *("epochs", "batch_size", "lr", "weight_decay", "clip", "schedule", "patience", "lr_patience"),
    *("faulty_mode", "label_noise_frac", "input_noise_std", "zero_grad_every_n", "amp"),
)
# Say where files go and how work is divided, not what is computed: a run may be resumed with others.
NOT_PART_OF_THE_RUN = ("out", "cache_dir", "workers", "resume", "overwrite", "tensorboard")


@dataclass(frozen=True)
class FitOptions:
    """What `fit` is asked to do; `training.flags` says each in a sentence. Raises `UsageError` for a value that can't work."""

    data: Path
    out: Path = Path("run")
    model: str = "efficientnet_b0"
    members: tuple[Path, ...] = ()
    mirror: bool = False
    hidden: tuple[int, ...] = (256,)
    dropout: float = 0.2
    head_norm: bool = False
    multiscale: bool = False
    gram: tuple[int, ...] = ()
    zoom: float = 1.0
    freeze_backbone: bool = False
    weights: str | None = None
    pretrained: bool = True
    size: int = 128
    resize: str = "crop"
    interpolation: str = "bilinear"
    equalise: bool = False
    pseudo_fakes: str = "none"
    augment: str = "standard"
    mixup: float = 0.0
    epochs: int = 20
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 1e-4
    clip: float = 1.0
    schedule: str = "plateau"
    patience: int = 6
    lr_patience: int = 2
    tune_fraction: float = 0.1
    calibrate_fraction: float = 0.1
    folds: int | None = None
    fold: int | None = None
    group_by: str | None = None
    split_seed: int = 0
    calibration: str = "isotonic"
    target_fpr: float | None = None
    faulty_mode: str | None = None
    label_noise_frac: float = 0.2
    input_noise_std: float = 0.1
    zero_grad_every_n: int | None = None
    amp: str = "no"
    device: str = "auto"
    seed: int = 0
    workers: int | None = None
    cache_dir: Path | None = None
    tensorboard: bool = False
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        problems = [f"--{name.replace('_', '-')} must be {what}" for name, what in self._problems()]
        if self.resume and self.overwrite:
            problems.append("--resume goes on with a run and --overwrite throws it away; give one of them")
        if self.weights is not None and not self.weights.startswith(HUB) and not Path(self.weights).is_file():
            problems.append(f"--weights {self.weights}: no such file")
        if (self.model == ENSEMBLE) != bool(self.members):
            problems.append("--model ensemble and --members RUN RUN … go together")
        if self.mirror and not self.members:
            problems.append("--mirror is for an ensemble")
        if self.gram and not self.multiscale:
            problems.append("--gram names blocks or resolutions; give --multiscale too")
        if self.model == DUAL_STREAM and (self.gram or self.zoom != 1 or self.freeze_backbone):
            problems.append("--gram, --zoom and --freeze-backbone are for networks of one stream")
        if self.freeze_backbone:
            problems += self._problems_of_freezing()
        if self.folds is not None and not self.members:
            if self.fold is None:
                problems.append("--folds needs --fold, the one of them that this run leaves aside")
            if self.calibration == "none" and self.target_fpr is None:
                problems.append("--folds leaves photos aside to calibrate on; give a --calibration")
        if problems:
            raise UsageError("; ".join(problems))

    def _problems_of_freezing(self) -> list[str]:
        problems = []
        if self.weights is None and not self.pretrained:
            problems.append("--freeze-backbone keeps the weights that the backbone starts with, and random ones know nothing")
        if self.augment != "flip":
            problems.append("--freeze-backbone knows each photo and its mirror image; give --augment flip")
        if self.pseudo_fakes != "none" or self.faulty_mode == "input_noise":
            problems.append("--pseudo-fakes and input_noise make new pictures in each epoch; --freeze-backbone can't see them")
        return problems

    def _problems(self) -> list[tuple[str, str]]:
        part = "above 0 and below 0.5"
        checks = [
            ("size", 16 <= self.size <= 2048, "from 16 to 2048"),
            ("hidden", all(width >= 1 for width in self.hidden), "widths of 1 or more, such as 512,128"),
            ("dropout", 0 <= self.dropout < 1, "from 0 to below 1"),
            ("zoom", 1 <= self.zoom <= 4, "from 1 to 4"),
            ("mixup", 0 <= self.mixup <= 4, "from 0 to 4"),
            ("epochs", self.epochs >= 1, "1 or more"),
            ("batch_size", self.batch_size >= 2, "2 or more"),
            ("lr", 0 < self.lr < 10, "above 0 and below 10"),
            ("weight_decay", 0 <= self.weight_decay < 1, "from 0 to below 1"),
            ("clip", self.clip > 0, "above 0"),
            ("patience", self.patience >= 1, "1 or more"),
            ("lr_patience", self.lr_patience >= 0, "0 or more"),
            ("tune_fraction", 0 < self.tune_fraction < 0.5, part),
            ("calibrate_fraction", 0 < self.calibrate_fraction < 0.5, part),
            ("folds", self.folds is None or 2 <= self.folds <= 20, "from 2 to 20"),
            ("fold", self.fold is None or (self.folds is not None and 1 <= self.fold <= self.folds), "from 1 to --folds"),
            ("target_fpr", self.target_fpr is None or 0 < self.target_fpr < 0.5, part),
            ("label_noise_frac", 0 < self.label_noise_frac <= 1, "above 0 and at most 1"),
            ("input_noise_std", 0 < self.input_noise_std <= 1, "above 0 and at most 1"),
            ("zero_grad_every_n", self.zero_grad_every_n is None or self.zero_grad_every_n >= 1, "1 or more"),
            ("split_seed", 0 <= self.split_seed < 2**31, "from 0 to 2147483647"),
            ("seed", 0 <= self.seed < 2**31, "from 0 to 2147483647"),
            ("workers", self.workers is None or self.workers >= 0, "0 or more"),
        ]
        return [(name, what) for name, good, what in checks if not good]

    @property
    def image_spec(self) -> ImageSpec:
        """How photos are prepared, in training and from then on."""
        return ImageSpec(size=self.size, resize=self.resize, interpolation=self.interpolation)

    def recorded(self) -> dict[str, Any]:
        """The options that decide what is computed, as plain values for checkpoints and reports."""
        left_out = NOT_PART_OF_THE_RUN + (OF_TRAINING if self.members else ())
        values = {k: v for k, v in asdict(self).items() if k not in left_out}
        return {k: _plain(v) for k, v in values.items()}


def without_places(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded options with absolute paths cut to their last part: cards and manifests travel to other machines."""
    return {name: _without_place(value) for name, value in arguments.items()}


def _without_place(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_place(v) for v in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def faults_in(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The faults that a run's recorded arguments injected, with their strength; {} for a clean run."""
    found: dict[str, Any] = {}
    if mode := arguments.get("faulty_mode"):
        found["faulty_mode"] = mode
        if strength := _STRENGTH.get(mode):
            found[strength] = arguments[strength]
    if n := arguments.get("zero_grad_every_n"):
        found["zero_grad_every_n"] = n
    return found
