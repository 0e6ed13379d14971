"""What can go wrong in an export, beyond a bad file."""

from __future__ import annotations

from detector.errors import UnmaskError


class ParityError(UnmaskError):
    """Two runtimes that must give one answer do not; nothing is written."""

    code = "parity"
    status = 500


class PrecisionError(UnmaskError):
    """With fewer bits the model answers otherwise; nothing is written."""

    code = "precision"
    status = 500


class AucTooLow(UnmaskError):
    """The run's AUC is not surely as high as `--require-auc` asks; nothing is written."""

    code = "auc_too_low"
    status = 500


class ArchiveError(UnmaskError):
    """torch-model-archiver refused what it was given."""

    code = "archive"
    status = 500
