"""Where and how precisely to compute: `accelerate` set up from the options."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DataLoaderConfiguration, InitProcessGroupKwargs, PartialState

from detector.errors import UsageError

LIBRARIES = ("torch", "torchvision", "timm", "accelerate", "scikit-learn", "numpy", "pillow")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc's mallopt(3)
# While the first process decodes a large folder the others wait.
_WAIT = timedelta(hours=6)


def make_accelerator(device: str, amp: str, *, batch_size: int, log_dir: Path | None = None) -> Accelerator:
    """One process on one device, or this one of those that `accelerate launch` started.

    log_dir: where TensorBoard's log is written; None for none.
    A batch is divided among processes, so that a run means the same on any number of them. Raises `UsageError` when the device
    is not there or can't do the precision asked for.
    """
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not found.get(device, True):
        raise UsageError(f"--device {device}: there is none on this machine; cpu and auto always work")
    keep_freed_memory()
    # Said outright where there is nothing else: accelerate joins processes on CPUs only when it is told.
    cpu = device == "cpu" or (device == "auto" and not any(found.values()))
    init = InitProcessGroupKwargs(timeout=_WAIT)
    state = PartialState(cpu=cpu, timeout=_WAIT)
    kind = state.device.type
    if device not in ("auto", kind):
        raise UsageError(f"--device {device}: accelerate was launched for {kind}")
    if (launched := int(os.environ.get("WORLD_SIZE", "1"))) != state.num_processes:
        raise UsageError(f"{launched} processes were launched, and on {kind} accelerate can't join them; launch one")
    accelerator = Accelerator(
        cpu=cpu,
        mixed_precision=precision(amp, kind),
        dataloader_config=DataLoaderConfiguration(split_batches=True, non_blocking=kind == "cuda"),
        kwargs_handlers=[init],
        **({"log_with": "tensorboard", "project_dir": log_dir} if log_dir else {}),
    )
    if amp == "auto" and accelerator.mixed_precision == "no" and accelerator.is_main_process:
        print(f"note: --amp auto changes nothing: this {kind} device has no bfloat16 instructions", file=sys.stderr)
    if batch_size % accelerator.num_processes:
        raise UsageError(
            f"--batch-size {batch_size} can't be divided among {accelerator.num_processes} processes; give a multiple"
        )
    if kind == "cuda":  # the same command twice gives the same metrics, for some speed
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
    return accelerator


def machine(accelerator: Accelerator) -> dict[str, Any]:
    """What a run computes on, as JSON values."""
    return {
        "device": str(accelerator.device),
        "precision": accelerator.mixed_precision,
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
    }


def versions() -> dict[str, str]:
    """The releases of Python and of the libraries that decide what a run computes."""
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, for its next step; where there is no glibc, nothing changes.

    glibc gives large blocks back to the system at once, and each step of a training run on a CPU then waits for tens of
    thousands of page faults as it gets the same memory again.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, -1)


def precision(amp: str, kind: str) -> str:
    """`no`, `fp16` or `bf16` on a device of this kind. Raises `UsageError` for one it can't do."""
    has_bf16 = torch.cuda.is_bf16_supported() if kind == "cuda" else kind == "cpu" and _cpu_has_bf16()
    if amp == "auto":
        return "bf16" if has_bf16 else "fp16" if kind == "cuda" else "no"
    if amp == "bf16" and not has_bf16:
        raise UsageError(f"--amp bf16: this {kind} device has no bfloat16 instructions; use --amp auto or leave it out")
    if amp == "fp16" and kind != "cuda":
        raise UsageError(f"--amp fp16 needs CUDA and this is {kind}; use --amp auto or leave it out")
    return amp


def _cpu_has_bf16() -> bool:
    return any(value is True and name.endswith("bf16") for name, value in torch.cpu.get_capabilities().items())
