"""The errors of training that a user can mend; each code is stable across releases."""

from __future__ import annotations

from detector.errors import UnmaskError, UsageError


class DataProblem(UsageError):
    """The data folder is not laid out as expected, or holds too little."""

    code = "bad_data"


class Leak(UsageError):
    """Training and validation photos of a divided folder share a picture or a group."""

    code = "leak"


class UnknownModel(UnmaskError):
    """The architecture's name is in neither timm nor torchvision, or its features are no map or grid of places."""

    code = "unknown_model"
    status = 400


class UnfitSize(UsageError):
    """The architecture can't take photos of the size that was asked for."""

    code = "unfit_size"


class HubUnreachable(UnmaskError):
    """Weights were asked for that are on the hub, which does not answer, and not on this machine."""

    code = "hub_unreachable"
    status = 503


class WeightsNotInstalled(UnmaskError):
    """Pretrained weights were asked for that are in a package which is not installed."""

    code = "weights_not_installed"
    status = 503


class HubRefused(UnmaskError):
    """The hub does not have what was asked for, or does not let us have it."""

    code = "hub_refused"
    status = 502


class Diverged(UnmaskError):
    """The loss is no longer a number."""

    code = "diverged"


class TooFewToCalibrate(UsageError):
    """There are fewer calibration photos than the method needs."""

    code = "too_few_to_calibrate"


class TooFewToAbstain(UsageError):
    """There are fewer held-out photos than the error rates of `--abstain` take."""

    code = "too_few_to_abstain"
