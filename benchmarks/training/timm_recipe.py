"""timm's training recipe, from timm's own parts, timed: what `unmask train` is held against.

The dataset, loader, augmentation, optimiser and loss are those that its `train.py` makes by default for ImageNet, and the
loop's order is the same. It is given channels-last and mixed precision where the other side has them. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import timm
import torch
from timm.data.config import resolve_data_config
from timm.data.dataset_factory import create_dataset
from timm.data.loader import create_loader
from timm.optim import create_optimizer_v2  # type: ignore[attr-defined]
from torch import nn


def images_per_second(
    data: Path, *, model: str, size: int, batch_size: int, epochs: int, workers: int, device: str, bf16: bool
) -> list[float]:
    """Photos per second in each of `epochs` passes over the class folders in `data`."""
    torch.manual_seed(0)
    network = timm.create_model(model, pretrained=False, num_classes=2).to(device).to(memory_format=torch.channels_last)
    config = resolve_data_config({"input_size": (3, size, size)}, model=network)
    cuda = device == "cuda"
    loader = create_loader(
        create_dataset("", root=str(data), split="train", is_training=True, batch_size=batch_size),
        input_size=config["input_size"],
        batch_size=batch_size,
        is_training=True,
        mean=config["mean"],
        std=config["std"],
        num_workers=workers,
        use_prefetcher=cuda,  # timm's prefetcher moves batches to a GPU; there is none to move to on a CPU
        pin_memory=cuda,
        device=torch.device(device),
    )
    optimizer = create_optimizer_v2(network, opt="adamw", lr=1e-4, weight_decay=1e-4)
    loss_function = nn.CrossEntropyLoss()
    network.train()
    speeds = []
    for _ in range(epochs):
        start, seen = time.perf_counter(), 0
        for images, labels in loader:
            x = images.to(device).contiguous(memory_format=torch.channels_last)
            with torch.autocast(device, torch.bfloat16) if bf16 else nullcontext():
                loss = loss_function(network(x), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            seen += len(images)
        if cuda:
            torch.cuda.synchronize()
        speeds.append(seen / (time.perf_counter() - start))
    return speeds


def main() -> int:
    """Time the recipe with the flags that `benchmarks.training` gives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of class folders")
    parser.add_argument("--model", required=True)
    for flag in ("--size", "--batch-size", "--epochs", "--workers"):
        parser.add_argument(flag, type=int, required=True)
    parser.add_argument("--device", choices=("cpu", "cuda"), required=True)
    parser.add_argument("--bf16", action="store_true")
    print(json.dumps(images_per_second(**vars(parser.parse_args()))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
