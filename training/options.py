"""The options of `unmask train`: declared once, for the command line, `--config` and the reference page.

The dataclass holds only what can work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional, TypeVar

from cyclopts import Group, Parameter, Token

from detector.errors import UsageError
from detector.files import shown
from detector.spec import IMAGENET_MEAN, IMAGENET_STD, ImageSpec
from training.calibration.methods import AUTO, NONE, CalibrationMethod, described
from training.presets import DUAL_STREAM, ENSEMBLE, normalisation, preset

CALIBRATION_HELP = f"How raw scores become probabilities. {described()}."
CROSS_FIT = 3  # folds, where nothing else is said
# Training photos from which a network that is trained whole leaves a part aside: it is large enough for a good curve, and
# hardly missed (docs/explanation/calibration.md).
CROSS_FITTED_BELOW = 5000
CALIBRATE_FRACTION = 0.1
HUB = "hf://"  # weights from a repository of the Hugging Face hub: hf://org/repo
STRENGTH = {"label_noise": "label_noise_frac", "input_noise": "input_noise_std"}
# Say how one network is made and trained, which an ensemble of finished ones is not.
OF_TRAINING = (
    *("hidden", "dropout", "head_norm", "multiscale", "gram", "zoom", "freeze_backbone", "augment", "crop", "mixup"),
    *("weights", "partial", "pretrained"),
    *("epochs", "batch_size", "lr", "weight_decay", "clip", "schedule", "patience", "lr_patience"),
    *("faulty_mode", "label_noise_frac", "input_noise_std", "zero_grad_every_n", "amp"),
)
# Say where files go and how work is divided, not what is computed: a run may be resumed with others.
NOT_PART_OF_THE_RUN = ("out", "cache_dir", "workers", "resume", "overwrite", "tensorboard", "report")


def _numbers(type_: Any, tokens: tuple[Token, ...]) -> tuple[int, ...]:
    """Whole numbers separated by commas, or `none`."""
    text = ",".join(token.value for token in tokens)
    try:
        return () if text in ("none", "") else tuple(int(number) for number in text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} is neither numbers such as 512,128 nor none") from None


def _rates(type_: Any, tokens: tuple[Token, ...]) -> tuple[float, float]:
    """Two numbers separated by a comma; what they may be is said by `rates_problem`."""
    text = ",".join(token.value for token in tokens)
    try:
        fpr, fnr = map(float, text.split(","))
    except ValueError:
        raise ValueError(f"{text!r} is not two rates such as 0.05,0.05") from None
    return fpr, fnr


def rates_problem(abstain: tuple[float, float] | None, target_fpr: float | None) -> str | None:
    """What is wrong with the rates of `--abstain`, beside `--target-fpr`; None when nothing is."""
    if abstain is None:
        return None
    if not all(0 < rate < 0.5 for rate in abstain):
        return "--abstain must be two rates above 0 and below 0.5, such as 0.05,0.05"
    if target_fpr is not None:
        return "--abstain and --target-fpr both say from where on a photo is Fake; give one of them"
    return None


def _group(title: str, order: int) -> Parameter:
    return Parameter(group=Group(title, sort_key=order))


_SWITCH = Parameter(negative=())
_NUMBERS = Parameter(converter=_numbers, n_tokens=1)
RATES = Parameter(converter=_rates, n_tokens=1)
_MODEL, _PHOTOS, _SCHEDULE = _group("The model", 2), _group("The photos", 3), _group("The schedule", 4)
_CALIBRATION, _MACHINE = _group("Calibration", 5), _group("The machine", 6)
_FAULTS = _group("Faults, injected on purpose (see `unmask faults`)", 7)
# An option that is the architecture's own unless given (`training.presets`): None stands for it on the command line, and
# `FitOptions` puts the value in its place, so that nobody else sees None.
T = TypeVar("T")
if TYPE_CHECKING:
    OfTheModel = Annotated[T, "filled in by FitOptions"]
else:
    OfTheModel = Optional
_UNTIL_FILLED: Any = None


@Parameter(name="*")
@dataclass(frozen=True)
class FitOptions:
    """What `unmask train` is asked to do. Raises `UsageError` for a value that can't work."""

    data: Annotated[Path, Parameter(name=("--data", "--dataset_root"))]
    """Folder with Train/ and Validation/, each with Real/ and Fake/; or with real/ and fake/ alone."""
    out: Annotated[Path, Parameter(name=("--out", "--output_dir"))] = Path("run")
    """Folder that the run is written to."""
    labels: str | None = None
    """What the labels of Parquet and webdataset files mean, such as real=0,fake=1 (default: they are called real and fake)."""
    resume: Annotated[bool, _SWITCH] = False
    """Continue an interrupted run."""
    overwrite: Annotated[bool, _SWITCH] = False
    """Replace an existing run."""

    model: Annotated[str, _MODEL] = "efficientnet_b0"
    """efficientnet_b0, efficientnet_lite0, efficientnet_lite1, efficientnet_lite2, resnet50, resnext50_32x4d, dual_stream,
    ensemble, or another classifier of timm or torchvision, convolutional or of tokens (ViT, DINOv2, Swin and their kin)."""
    members: Annotated[tuple[Path, ...], _MODEL, Parameter(consume_multiple=True)] = ()
    """Finished runs that an ensemble averages: --members RUN RUN …"""
    mirror: Annotated[bool, _MODEL, _SWITCH] = False
    """Let an ensemble also score the mirror image of each photo: twice the work, a little better."""
    size: Annotated[OfTheModel[int], _MODEL, Parameter(name=("--size", "--img_size"))] = _UNTIL_FILLED
    """Height and width in pixels of the model's input (default: the architecture's, or 128)."""
    hidden: Annotated[OfTheModel[tuple[int, ...]], _MODEL, _NUMBERS] = _UNTIL_FILLED
    """Widths of the head's hidden layers, such as 512,128; `none` for a single linear layer."""
    dropout: Annotated[OfTheModel[float], _MODEL] = _UNTIL_FILLED
    """Dropout probability in the head."""
    head_norm: Annotated[OfTheModel[bool], _MODEL] = _UNTIL_FILLED
    """Batch norm after each hidden layer of the head."""
    multiscale: Annotated[bool, _MODEL, _SWITCH] = False
    """Give the head the features of every block or resolution, not the last alone: for fine cues."""
    gram: Annotated[tuple[int, ...], _MODEL, _NUMBERS] = ()
    """Also give it the Gram matrices of these blocks or resolutions, counted from 1, such as 4,5: texture, wherever it lies.
    Needs --multiscale."""
    zoom: Annotated[float, _MODEL] = 1.0
    """Enlarge the photo for the backbone: for cues too fine for its first layers."""
    freeze_backbone: Annotated[bool, _MODEL, _SWITCH] = False
    """Train the head alone, on features that are computed once; mixup then blends features. Needs --augment flip."""
    weights: Annotated[str | None, _MODEL] = None
    """Weights to start from instead of the hub's ImageNet ones: a .safetensors or .pth file, or hf://org/repo."""
    partial: Annotated[bool, _MODEL, _SWITCH] = False
    """Take what the file of --weights has for the backbone, however little; the rest is random."""
    pretrained: Annotated[bool, _MODEL] = True
    """Start from ImageNet weights, which efficientnet_lite0, 1 and 2 find in unmask[pretrained] and others on the hub;
    --no-pretrained starts from random ones."""

    resize: Annotated[Literal["crop", "stretch"], _PHOTOS] = "crop"
    """How a photo becomes a square: cut out the centre, or scale both sides on their own."""
    interpolation: Annotated[Literal["bilinear", "bicubic", "lanczos"], _PHOTOS] = "bilinear"
    """Resize filter."""
    color: Annotated[Literal["srgb", "stored"], _PHOTOS] = "srgb"
    """Colours of photos with an embedded profile: converted to sRGB, or the numbers as they are stored."""
    max_pixels: Annotated[int, _PHOTOS] = ImageSpec.max_pixels
    """Most width x height of a photo; larger ones are passed over."""
    max_jpeg_pixels: Annotated[int, _PHOTOS] = ImageSpec.max_jpeg_pixels
    """The same for a JPEG, which is decoded at a fraction of its size."""
    equalise: Annotated[bool, _PHOTOS, _SWITCH] = False
    """Re-encode the photos of both classes as JPEG, so that compression can't tell them apart."""
    pseudo_fakes: Annotated[Literal["none", "sbi"], _PHOTOS, Parameter(name=("--pseudo-fakes", "--pseudo_fakes"))] = "none"
    """Make fakes from real photos: sbi makes self-blended images."""
    augment: Annotated[Literal["standard", "crop", "robust", "flip"], _PHOTOS] = "standard"
    """standard flips, turns, shifts and recolours; crop flips and cuts out a square, and leaves each pixel's value as it was;
    robust does the same, and then puts half of the squares through what photos meet on their way: JPEG, WebP,
    a smaller copy, blur, noise, other colours, grey; flip only flips."""
    crop: Annotated[int | None, _PHOTOS] = None
    """Side in pixels of the square that --augment crop and robust cut out (default: seven eighths of --size). Half of --size
    takes a quarter of the time; at the end batch norm takes its statistics from whole photos."""
    mixup: Annotated[float, _PHOTOS] = 0.0
    """Alpha of mixup, which blends pairs of photos; 0.2 to 0.4 suits small sets."""
    tune_fraction: Annotated[float, _PHOTOS] = 0.1
    """Part of the training photos that choose the epoch and the learning rate."""
    calibrate_fraction: Annotated[float | None, _PHOTOS] = None
    """Part of the training photos that only the calibration is fitted on, in place of cross-fitting (0.1 where neither is
    asked for)."""
    cross_fit: Annotated[int | None, _PHOTOS] = None
    """Calibrate on all training photos, each scored by a network that was fitted without its fold, of so many folds; 0 leaves
    a part aside instead."""
    folds: Annotated[int | None, _PHOTOS] = None
    """Calibrate on one of K folds of the training photos; K such runs make an ensemble that is calibrated on all."""
    fold: Annotated[int | None, _PHOTOS] = None
    """Which of the folds this run leaves out, from 1 to K."""
    group_by: Annotated[str | None, _PHOTOS] = None
    """Regular expression; photos whose path matches alike (first group, or the whole match) stay in one part."""
    split_seed: Annotated[int, _PHOTOS] = 0
    """Seed of the division into parts."""

    epochs: Annotated[int, _SCHEDULE] = 20
    """Largest number of epochs."""
    batch_size: Annotated[int, _SCHEDULE, Parameter(name=("--batch-size", "--batch_size"))] = 32
    """Photos per step, over all processes together."""
    lr: Annotated[float, _SCHEDULE] = 1e-3
    """Learning rate of AdamW; 1e-4 to 3e-4 suits fine-tuning on a small set."""
    weight_decay: Annotated[float, _SCHEDULE] = 1e-4
    """Weight decay of AdamW."""
    clip: Annotated[float, _SCHEDULE] = 1.0
    """Gradient norm above which a step is scaled down."""
    schedule: Annotated[Literal["plateau", "cosine"], _SCHEDULE] = "plateau"
    """plateau lowers the learning rate when tuning stalls; cosine warms up, falls to zero, and keeps its last epoch."""
    patience: Annotated[int, _SCHEDULE] = 6
    """Epochs without a better one after which training stops."""
    lr_patience: Annotated[int, _SCHEDULE] = 2
    """Epochs without a better one after which the learning rate is divided by four."""
    seed: Annotated[int, _SCHEDULE] = 0
    """Seed of the weights, the order and the augmentation."""

    calibration: Annotated[CalibrationMethod, _CALIBRATION, Parameter(help=CALIBRATION_HELP)] = AUTO
    target_fpr: Annotated[float | None, _CALIBRATION] = None
    """Choose the threshold that flags at most this share of the real photos held out for calibration (else 0.5)."""
    abstain: Annotated[tuple[float, float] | None, _CALIBRATION, RATES] = None
    """FPR,FNR: call photos Uncertain where at most so many real ones could not be called Fake, nor so many fake ones Real."""

    amp: Annotated[Literal["no", "auto", "fp16", "bf16"], _MACHINE] = "no"
    """Mixed precision: fp16 or bf16 on CUDA, bf16 on a CPU that has it; auto takes the best there is."""
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], _MACHINE] = "auto"
    """Where to train."""
    workers: Annotated[int | None, _MACHINE] = None
    """Number of loader processes (default: one fewer than the CPUs of each training process, at most 4)."""
    cache_dir: Annotated[Path | None, _MACHINE] = None
    """Folder for decoded photos (default: cache/ in the run folder)."""
    tensorboard: Annotated[bool, _MACHINE, _SWITCH] = False
    """Also write TensorBoard logs, to tensorboard/ in the run folder."""
    report: Annotated[bool, _MACHINE, Parameter(negative="--no-report")] = True
    """Write the report page and its plots; `unmask calibrate` writes them later too."""

    faulty_mode: Annotated[
        Literal["label_noise", "input_noise", "shuffle_labels", "wrong_loss", "random_weight_reset"] | None,
        _FAULTS,
        Parameter(name=("--faulty-mode", "--faulty_mode")),
    ] = None
    """What to break in training."""
    label_noise_frac: Annotated[float, _FAULTS, Parameter(name=("--label-noise-frac", "--label_noise_frac"))] = 0.2
    """Share of the labels that label_noise flips."""
    input_noise_std: Annotated[float, _FAULTS, Parameter(name=("--input-noise-std", "--input_noise_std"))] = 0.1
    """Standard deviation of input_noise, where 1 is black to white."""
    zero_grad_every_n: Annotated[int | None, _FAULTS, Parameter(name=("--zero-grad-every-n", "--zero_grad_every_n"))] = None
    """Discard the gradient of every Nth step, with any mode or none."""

    def __post_init__(self) -> None:
        suits = preset(self.model)
        for name in ("size", "hidden", "dropout", "head_norm"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(suits, name))
        problems = [f"--{name.replace('_', '-')} must be {what}" for name, what in self._problems()]
        if self.resume and self.overwrite:
            problems.append("--resume goes on with a run and --overwrite throws it away; give one of them")
        if self.weights is not None and not self.weights.startswith(HUB) and not Path(self.weights).is_file():
            problems.append(f"--weights {self.weights}: {_not_a_file(Path(self.weights))}")
        if self.partial and self.weights is None:
            problems.append("--partial is for a file of --weights")
        if (self.model == ENSEMBLE) != bool(self.members):
            problems.append("--model ensemble and --members RUN RUN … go together")
        if self.mirror and not self.members:
            problems.append("--mirror is for an ensemble")
        if self.gram and not self.multiscale:
            problems.append("--gram names blocks or resolutions; give --multiscale too")
        if self.model == DUAL_STREAM and (self.gram or self.zoom != 1 or self.freeze_backbone):
            problems.append("--gram, --zoom and --freeze-backbone are for networks of one stream")
        if problem := rates_problem(self.abstain, self.target_fpr):
            problems.append(problem)
        if self.crop is not None and self.augment not in ("crop", "robust"):
            problems.append("--crop is the side of the square that --augment crop and robust cut out; give one of them")
        if self.freeze_backbone:
            problems += self._problems_of_freezing()
        if self.folds is not None and not self.members:
            if self.fold is None:
                problems.append("--folds needs --fold, the one of them that this run leaves aside")
            if not self.holds_out:
                problems.append("--folds leaves photos aside to calibrate on; give a --calibration")
        if self.cross_fit:
            problems += self._problems_of_crossing()
        if problems:
            raise UsageError("; ".join(problems))

    def _problems_of_crossing(self) -> list[str]:
        problems = []
        if self.folds is not None:
            problems.append("--folds leaves one fold aside to calibrate on, and --cross-fit none; give one of them")
        if self.calibrate_fraction is not None:
            problems.append("--cross-fit calibrates on all training photos; leave --calibrate-fraction out")
        if not self.holds_out:
            problems.append("--cross-fit scores photos to calibrate on; give a --calibration")
        return problems

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
            ("crop", self.crop is None or 16 <= self.crop <= self.size, "from 16 to --size"),
            ("epochs", self.epochs >= 1, "1 or more"),
            ("batch_size", self.batch_size >= 2, "2 or more"),
            ("lr", 0 < self.lr < 10, "above 0 and below 10"),
            ("weight_decay", 0 <= self.weight_decay < 1, "from 0 to below 1"),
            ("clip", self.clip > 0, "above 0"),
            ("patience", self.patience >= 1, "1 or more"),
            ("lr_patience", self.lr_patience >= 0, "0 or more"),
            ("tune_fraction", 0 < self.tune_fraction < 0.5, part),
            ("calibrate_fraction", self.calibrate_fraction is None or 0 < self.calibrate_fraction < 0.5, part),
            ("cross_fit", self.cross_fit in (None, 0) or 2 <= (self.cross_fit or 0) <= 20, "0, or from 2 to 20"),
            ("folds", self.folds is None or 2 <= self.folds <= 20, "from 2 to 20"),
            ("fold", self.fold is None or (self.folds is not None and 1 <= self.fold <= self.folds), "from 1 to --folds"),
            ("target_fpr", self.target_fpr is None or 0 < self.target_fpr < 0.5, part),
            ("label_noise_frac", 0 < self.label_noise_frac <= 1, "above 0 and at most 1"),
            ("input_noise_std", 0 < self.input_noise_std <= 1, "above 0 and at most 1"),
            ("zero_grad_every_n", self.zero_grad_every_n is None or self.zero_grad_every_n >= 1, "1 or more"),
            ("max_pixels", self.max_pixels >= 1, "1 or more"),
            ("max_jpeg_pixels", self.max_jpeg_pixels >= 1, "1 or more"),
            ("split_seed", 0 <= self.split_seed < 2**31, "from 0 to 2147483647"),
            ("seed", 0 <= self.seed < 2**31, "from 0 to 2147483647"),
            ("workers", self.workers is None or self.workers >= 0, "0 or more"),
        ]
        return [(name, what) for name, good, what in checks if not good]

    @property
    def holds_out(self) -> bool:
        """Whether photos are needed that the network has not seen, for a curve, a threshold or a band."""
        return self.calibration != NONE or self.target_fpr is not None or self.abstain is not None

    def crossed(self, photos: int) -> int:
        """In how many folds so many training photos are cross-fitted; 0 where a part of them is left aside, or none."""
        if self.cross_fit is not None or self.folds is not None or not self.holds_out:
            return self.cross_fit or 0
        if self.calibrate_fraction is not None or (photos >= CROSS_FITTED_BELOW and not self.freeze_backbone):
            return 0
        return CROSS_FIT

    @property
    def image_spec(self) -> ImageSpec:
        """How photos are prepared, in training and from then on: normalised as the first weights expect, if there are any."""
        given = self.pretrained or self.weights is not None
        mean, std = normalisation(self.model) if given else (IMAGENET_MEAN, IMAGENET_STD)
        return ImageSpec(
            size=self.size,
            resize=self.resize,
            interpolation=self.interpolation,
            mean=mean,
            std=std,
            color=self.color,
            max_pixels=self.max_pixels,
            max_jpeg_pixels=self.max_jpeg_pixels,
        )

    def recorded(self) -> dict[str, Any]:
        """The options that decide what is computed, as plain values for checkpoints and reports."""
        left_out = NOT_PART_OF_THE_RUN + (OF_TRAINING if self.members else ())
        values = {k: v for k, v in asdict(self).items() if k not in left_out}
        return {k: _plain(v) for k, v in values.items()}


@Parameter(name="*")
@dataclass(frozen=True)
class GridOptions(FitOptions):
    """The options of `unmask faults`: those of a run, with defaults for many brief ones.

    It lies in this module because its annotations are evaluated here.
    """

    out: Annotated[Path, Parameter(name=("--out", "--output_dir"))] = Path("faults")
    """Folder that the runs, the table and the plot are written to."""
    epochs: Annotated[int, _SCHEDULE] = 4
    """Largest number of epochs of each run."""
    cross_fit: Annotated[int | None, _PHOTOS] = 0
    """Calibrate on all training photos, each scored by a network that was fitted without its fold, of so many folds; 0 leaves
    a part aside instead."""


def _not_a_file(path: Path) -> str:
    """What --weights names where that is no file, and what it may name."""
    if not path.is_dir():
        return "no such file"
    if (path / ".metadata").is_file():
        return (
            "is a folder of torch.distributed.checkpoint; make one file of it with "
            "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER weights.pth`"
        )
    suffixes = (".index.json", ".safetensors", ".bin", ".pth", ".pt", ".ckpt")
    some = sorted(
        (n for n in map(str, (e.name for e in path.iterdir())) if n.endswith(suffixes)),
        key=lambda n: (-n.endswith(suffixes[0]), n),
    )
    return f"is a folder; name a file in it{': ' + ', '.join(map(shown, some[:3])) if some else ''}"


def without_places(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Recorded options for cards and manifests, which travel to other machines: absolute paths are cut to their last part."""
    return {name: _without_place(value) for name, value in arguments.items()}


def _without_place(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_place(v) for v in value]
    if not isinstance(value, str):
        return value
    return shown(Path(value).name if Path(value).is_absolute() else value)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def faults_in(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The faults that a run's recorded arguments injected, with their strength; {} for a clean run."""
    found: dict[str, Any] = {}
    if mode := arguments.get("faulty_mode"):
        found["faulty_mode"] = mode
        if strength := STRENGTH.get(mode):
            found[strength] = arguments[strength]
    if n := arguments.get("zero_grad_every_n"):
        found["zero_grad_every_n"] = n
    return found
