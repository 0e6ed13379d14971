"""The flags that fill `FitOptions`, in groups, and the old names those flags also answer to."""

from __future__ import annotations

import argparse
from pathlib import Path

from detector.spec import INTERPOLATIONS, RESIZE_RULES
from training.options import (
    AMP_CHOICES,
    AUGMENTATIONS,
    CALIBRATIONS,
    DEVICES,
    FAULTY_MODES,
    PSEUDO_FAKES,
    SCHEDULES,
    FitOptions,
)
from training.presets import preset

DEFAULT = FitOptions(Path())
OF_THE_MODEL = ("size", "hidden", "dropout", "head_norm")  # unless given, what suits the architecture


def options_of(arguments: argparse.Namespace) -> FitOptions:
    """The options in a namespace made by `add_fit_arguments`."""
    values = {name: getattr(arguments, name) for name in FitOptions.__dataclass_fields__}
    suits = preset(arguments.model)
    return FitOptions(**values | {name: getattr(suits, name) for name in OF_THE_MODEL if values[name] is None})


def add_fit_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `fit`, with the names that the older systems used as aliases."""
    add = parser.add_argument
    add(
        "--data",
        "--dataset_root",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder with Train/ and Validation/, each with Real/ and Fake/; or with real/ and fake/ alone",
    )
    add("--out", "--output_dir", type=Path, default=DEFAULT.out, metavar="DIR", help="where the run is written (run)")
    add("--resume", action="store_true", help="go on with an interrupted run")
    add("--overwrite", action="store_true", help="replace an existing run")
    _model(parser.add_argument_group("the model"))
    _photos(parser.add_argument_group("the photos"))
    _schedule(parser.add_argument_group("the schedule"))
    _calibration(parser.add_argument_group("calibration"))
    _machine(parser.add_argument_group("the machine"))
    _faults(parser.add_argument_group("faults, injected on purpose (see `python -m training faults`)"))


def _number(group: argparse._ArgumentGroup, *names: str, kind: type, text: str) -> None:
    default = getattr(DEFAULT, names[0].strip("-").replace("-", "_"))
    group.add_argument(*names, type=kind, default=default, help=f"{text} (%(default)s)")


def _model(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--model",
        default=DEFAULT.model,
        metavar="NAME",
        help="efficientnet_b0, resnet50, resnext50_32x4d, dual_stream, ensemble, or any convolutional timm or torchvision "
        "classifier (%(default)s)",
    )
    add("--members", type=Path, nargs="+", default=(), action=_Tuple, metavar="RUN", help="the runs an ensemble averages")
    add(
        "--mirror",
        action="store_true",
        help="an ensemble also scores the photo's mirror image: twice the work, a little better",
    )
    add("--size", "--img_size", type=int, help="height and width in pixels that the model sees (the model's own, else 128)")
    add("--hidden", type=_widths, metavar="N,N", help="widths of the head's hidden layers, `none` for a single linear layer")
    add("--dropout", type=float, help="dropout probability in the head")
    add("--head-norm", action=argparse.BooleanOptionalAction, default=None, help="batch norm after each hidden layer")
    add(
        "--multiscale",
        action="store_true",
        help="show the head the features of every block or resolution, not the last alone: for cues finer than the last",
    )
    add(
        "--gram",
        type=_numbers,
        default=DEFAULT.gram,
        metavar="N,N",
        help="also show it how the channels of these blocks or resolutions, counted from 1, go together (Gram matrices): "
        "texture, wherever it lies. Needs --multiscale",
    )
    _number(group, "--zoom", kind=float, text="enlarge the photo for the backbone: for cues too fine for its first layers")
    add(
        "--freeze-backbone",
        action="store_true",
        help="train the head alone, on features computed once; mixup then blends features. Needs --augment flip",
    )
    source = group.add_mutually_exclusive_group()
    source.add_argument(
        "--weights",
        metavar="FILE",
        help="weights to start from instead of the hub's ImageNet ones: .safetensors, .pth, or hf://org/repo",
    )
    source.add_argument("--no-pretrained", dest="pretrained", action="store_false", help="start from random weights")


def _photos(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--resize",
        choices=RESIZE_RULES,
        default=DEFAULT.resize,
        help="centred square, or both sides on their own (%(default)s)",
    )
    add("--interpolation", choices=INTERPOLATIONS, default=DEFAULT.interpolation, help="resize filter (%(default)s)")
    add(
        "--equalise", action="store_true", help="put both classes through one JPEG re-encode, so that it can't tell them apart"
    )
    add(
        "--pseudo-fakes",
        "--pseudo_fakes",
        choices=PSEUDO_FAKES,
        default=DEFAULT.pseudo_fakes,
        help="make fakes from real photos: sbi is self-blended images (%(default)s)",
    )
    add(
        "--augment",
        choices=AUGMENTATIONS,
        default=DEFAULT.augment,
        help="standard flips, turns, shifts and recolours; crop flips and cuts out seven eighths, every pixel's value as it "
        "was, for cues that turning and recolouring hide; flip does no more than that (%(default)s)",
    )
    _number(group, "--mixup", kind=float, text="alpha of mixup, which blends pairs of photos; 0.2 to 0.4 suits small sets")
    _number(
        group, "--tune-fraction", kind=float, text="part of the training photos that choose the epoch and the learning rate"
    )
    _number(
        group,
        "--calibrate-fraction",
        kind=float,
        text="part of the training photos that only the calibration is fitted on",
    )
    add(
        "--folds",
        type=int,
        metavar="K",
        help="calibrate on one of K folds of the training photos; K such runs make an ensemble that is calibrated on all",
    )
    add("--fold", type=int, metavar="I", help="which of the folds this run leaves aside, from 1 to K")
    add(
        "--group-by",
        metavar="REGEX",
        help="photos whose path matches alike (first group, or the whole match) stay in one part; near-duplicates always do",
    )
    _number(group, "--split-seed", kind=int, text="seed of the division into parts")


def _schedule(group: argparse._ArgumentGroup) -> None:
    _number(group, "--epochs", kind=int, text="epochs at most")
    _number(group, "--batch-size", "--batch_size", kind=int, text="photos per step, over all processes together")
    _number(group, "--lr", kind=float, text="AdamW's learning rate; 1e-4 to 3e-4 suits fine-tuning a small set")
    _number(group, "--weight-decay", kind=float, text="AdamW's weight decay")
    _number(group, "--clip", kind=float, text="gradient norm above which a step is scaled down")
    group.add_argument(
        "--schedule",
        choices=SCHEDULES,
        default=DEFAULT.schedule,
        help="plateau lowers the learning rate when tuning stalls; cosine warms up, falls to nothing, and its last epoch is "
        "kept (%(default)s)",
    )
    _number(group, "--patience", kind=int, text="epochs without a better one after which training stops")
    _number(
        group, "--lr-patience", kind=int, text="epochs without a better one after which the learning rate is divided by four"
    )
    _number(group, "--seed", kind=int, text="seed of the weights, the order and the augmentation")


def _calibration(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--calibration",
        choices=CALIBRATIONS,
        default=DEFAULT.calibration,
        help="how raw scores become probabilities (%(default)s)",
    )
    for flag, method in (("--calibrate", "isotonic"), ("--no-calibrate", "none")):
        group.add_argument(
            flag, dest="calibration", action="store_const", const=method, help=f"the same as --calibration {method}"
        )
    group.add_argument(
        "--target-fpr",
        type=float,
        metavar="RATE",
        help="choose the threshold that flags at most this share of the real photos held out for calibration (else 0.5)",
    )


def _machine(group: argparse._ArgumentGroup) -> None:
    amp = group.add_mutually_exclusive_group()
    amp.add_argument(
        "--amp",
        choices=AMP_CHOICES,
        nargs="?",
        const="auto",
        default=DEFAULT.amp,
        help="mixed precision: fp16 or bf16 on CUDA, bf16 on a CPU that has it; auto takes the best there is",
    )
    amp.add_argument("--use_amp", dest="amp", action="store_const", const="auto", help="the same as --amp auto")
    device = group.add_mutually_exclusive_group()
    device.add_argument("--device", choices=DEVICES, default=DEFAULT.device, help="where to train (%(default)s)")
    device.add_argument("--use_mps", dest="device", action="store_const", const="mps", help="the same as --device mps")
    add = group.add_argument
    add("--workers", type=int, help="loader processes (one less than there are CPUs for each training process, up to 4)")
    add("--cache-dir", type=Path, metavar="DIR", help="where decoded photos are kept (cache/ in the run folder)")
    add("--tensorboard", action="store_true", help="also write TensorBoard logs to tensorboard/ in the run folder")


def _faults(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--faulty-mode", "--faulty_mode", choices=FAULTY_MODES, help="what to break in training")
    _number(group, "--label-noise-frac", "--label_noise_frac", kind=float, text="share of labels that label_noise flips")
    _number(
        group,
        "--input-noise-std",
        "--input_noise_std",
        kind=float,
        text="standard deviation of input_noise, where 1 is black to white",
    )
    add(
        "--zero-grad-every-n",
        "--zero_grad_every_n",
        type=int,
        metavar="N",
        help="throw the gradient of every Nth step away, with any mode or none",
    )


class _Tuple(argparse.Action):
    def __call__(self, parser: object, namespace: argparse.Namespace, values: object, option: str | None = None) -> None:
        assert isinstance(values, list)
        setattr(namespace, self.dest, tuple(values))


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not numbers such as 4,5") from None


def _widths(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither widths such as 512,128 nor none") from None
