"""The options of `fit`: one dataclass, the flags that fill it, and the old names those flags also answer to."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from detector.errors import UsageError
from detector.spec import INTERPOLATIONS, RESIZE_RULES, ImageSpec

AMP_CHOICES = ("no", "auto", "fp16", "bf16")
DEVICES = ("auto", "cpu", "cuda", "mps")
# Say where files go and how work is divided, not what is computed: a run may be resumed with others.
NOT_PART_OF_THE_RUN = ("out", "cache_dir", "workers", "resume", "overwrite")


@dataclass(frozen=True)
class FitOptions:
    """What `fit` is asked to do; `FIELDS` says each in a sentence. Raises `UsageError` for a value that can't work."""

    data: Path
    out: Path = Path("run")
    model: str = "efficientnet_b0"
    hidden: int = 256
    dropout: float = 0.2
    weights: Path | None = None
    pretrained: bool = True
    size: int = 128
    resize: str = "crop"
    interpolation: str = "bilinear"
    epochs: int = 20
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 1e-4
    clip: float = 1.0
    patience: int = 6
    lr_patience: int = 2
    tune_fraction: float = 0.1
    calibrate_fraction: float = 0.1
    calibrate: bool = True
    amp: str = "no"
    device: str = "auto"
    seed: int = 0
    workers: int | None = None
    cache_dir: Path | None = None
    resume: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        problems = [f"--{name.replace('_', '-')} must be {what}" for name, what in self._problems()]
        if self.resume and self.overwrite:
            problems.append("--resume goes on with a run and --overwrite throws it away; give one of them")
        if self.weights is not None and not self.weights.is_file():
            problems.append(f"--weights {self.weights}: no such file")
        if problems:
            raise UsageError("; ".join(problems))

    def _problems(self) -> list[tuple[str, str]]:
        part = "above 0 and below 0.5"
        checks = [
            ("size", 16 <= self.size <= 2048, "from 16 to 2048"),
            ("hidden", self.hidden >= 1, "1 or more"),
            ("dropout", 0 <= self.dropout < 1, "from 0 to below 1"),
            ("epochs", self.epochs >= 1, "1 or more"),
            ("batch_size", self.batch_size >= 2, "2 or more"),
            ("lr", 0 < self.lr < 10, "above 0 and below 10"),
            ("weight_decay", 0 <= self.weight_decay < 1, "from 0 to below 1"),
            ("clip", self.clip > 0, "above 0"),
            ("patience", self.patience >= 1, "1 or more"),
            ("lr_patience", self.lr_patience >= 0, "0 or more"),
            ("tune_fraction", 0 < self.tune_fraction < 0.5, part),
            ("calibrate_fraction", 0 < self.calibrate_fraction < 0.5, part),
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
        values = {k: v for k, v in asdict(self).items() if k not in NOT_PART_OF_THE_RUN}
        return {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> FitOptions:
        """The options in a namespace made by `add_fit_arguments`."""
        return cls(**{name: getattr(arguments, name) for name in cls.__dataclass_fields__})


def add_fit_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `fit`, with the names that the older systems used as aliases."""
    default = FitOptions(Path())
    add = parser.add_argument

    def number(*names: str, kind: type, text: str) -> None:
        add(*names, type=kind, default=getattr(default, names[0].strip("-").replace("-", "_")), help=f"{text} (%(default)s)")

    add(
        "--data",
        "--dataset_root",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with Train/ and Validation/, each with Real/ and Fake/; or with real/ and fake/ alone",
    )
    add("--out", "--output_dir", type=Path, default=default.out, metavar="DIR", help="where the run is written (run)")
    add(
        "--model", default=default.model, metavar="NAME", help="any convolutional timm or torchvision classifier (%(default)s)"
    )
    number("--hidden", kind=int, text="width of the head's hidden layer")
    number("--dropout", kind=float, text="dropout probability in the head")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--weights", type=Path, metavar="FILE", help="backbone weights, .safetensors or .pth, instead of the hub's"
    )
    source.add_argument("--no-pretrained", dest="pretrained", action="store_false", help="start from random weights")
    number("--size", "--img_size", kind=int, text="height and width in pixels that the model sees")
    add(
        "--resize",
        choices=RESIZE_RULES,
        default=default.resize,
        help="centred square, or both sides on their own (%(default)s)",
    )
    add("--interpolation", choices=INTERPOLATIONS, default=default.interpolation, help="resize filter (%(default)s)")
    number("--epochs", kind=int, text="epochs at most")
    number("--batch-size", "--batch_size", kind=int, text="photos per step, over all processes together")
    number("--lr", kind=float, text="AdamW's learning rate; 1e-4 to 3e-4 suits fine-tuning a small set")
    number("--weight-decay", kind=float, text="AdamW's weight decay")
    number("--clip", kind=float, text="gradient norm above which a step is scaled down")
    number("--patience", kind=int, text="epochs without a better one after which training stops")
    number("--lr-patience", kind=int, text="epochs without a better one after which the learning rate is divided by four")
    number("--tune-fraction", kind=float, text="part of the training photos that choose the epoch and the learning rate")
    number("--calibrate-fraction", kind=float, text="part of the training photos that only the calibration is fitted on")
    add("--calibrate", action=argparse.BooleanOptionalAction, default=default.calibrate, help="fit the isotonic curve")
    amp = parser.add_mutually_exclusive_group()
    amp.add_argument(
        "--amp",
        choices=AMP_CHOICES,
        nargs="?",
        const="auto",
        default=default.amp,
        help="mixed precision: fp16 or bf16 on CUDA, bf16 on a CPU that has it; auto takes the best there is",
    )
    amp.add_argument("--use_amp", dest="amp", action="store_const", const="auto", help="the same as --amp auto")
    device = parser.add_mutually_exclusive_group()
    device.add_argument("--device", choices=DEVICES, default=default.device, help="where to train (%(default)s)")
    device.add_argument("--use_mps", dest="device", action="store_const", const="mps", help="the same as --device mps")
    number("--seed", kind=int, text="seed of the split, the weights, the order and the augmentation")
    add("--workers", type=int, help="loader processes (none on a CPU, else up to 4)")
    add("--cache-dir", type=Path, metavar="DIR", help="where decoded photos are kept (cache/ in the run folder)")
    add("--resume", action="store_true", help="go on with an interrupted run")
    add("--overwrite", action="store_true", help="replace an existing run")
