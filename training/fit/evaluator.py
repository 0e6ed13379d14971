"""The evaluator: a second copy of the network that scores photos in full precision while, and after, it is trained."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader, Dataset

from detector.spec import ImageSpec
from training.data.loader import Item, make_loader, normalise
from training.models.build import ModelConfig, build_model
from training.models.networks import PooledNet


class Evaluator:
    """Scores in full precision, as the network will be served, whatever it is trained in; with the weights loaded last."""

    def __init__(self, accelerator: Accelerator, config: ModelConfig, spec: ImageSpec, *, batch_size: int) -> None:
        self.accelerator = accelerator
        self.spec = spec
        self.batch_size = batch_size
        self.model = build_model(config, spec).to(memory_format=torch.channels_last).to(accelerator.device).eval()

    def parameters(self) -> int:
        """How many numbers the network has learned."""
        return sum(p.numel() for p in self.model.parameters())

    def load(self, weights: dict[str, Tensor]) -> None:
        """Take these weights."""
        self.model.load_state_dict(weights)

    def loader(self, photos: Dataset[Item], rows: NDArray[np.int64]) -> DataLoader:
        """These rows in order, divided among the processes."""
        pin = self.accelerator.device.type == "cuda"
        return self.accelerator.prepare(make_loader(photos, rows, batch_size=self.batch_size, pin=pin))

    def logits(self, loader: DataLoader, *, pooled: bool = False) -> NDArray[np.float32]:
        """Logits, float32[n], in order of row, of what `loader` gives: photos or, if `pooled`, their features."""

        def score(images: Tensor) -> Tensor:
            if pooled:
                return cast(PooledNet, self.model).head(images).squeeze(1)
            return self.model(normalise(images, self.spec))

        rows, logits = [], []
        with torch.inference_mode():
            for images, _, row in loader:
                out, where = self.accelerator.gather((score(images), row))
                logits.append(out.cpu().numpy())
                rows.append(where.cpu().numpy())
        # Processes get equally many photos, so some come twice.
        _, first = np.unique(np.concatenate(rows), return_index=True)
        return np.concatenate(logits)[first]

    def settled(self, weights: dict[str, Tensor], loader: DataLoader) -> dict[str, Tensor]:
        """These weights with the means and variances of batch norm that the photos of `loader` have, on the CPU.

        A network that was fitted on small squares has those of small squares, and whole photos have others: its scores are
        shifted and less sure (Touvron et al., arXiv 1906.06423; of statistics that are taken anew, Wu & Johnson, arXiv
        2105.07576).
        """
        self.load(weights)
        norms = [module for module in self.model.modules() if isinstance(module, _BatchNorm)]
        if not norms:
            return weights
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # all batches count alike
            norm.train()
        with torch.no_grad():
            for images, _, _ in loader:
                if len(images) > 1:  # one photo alone has no variance
                    self.model(normalise(images, self.spec))
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
            for own in (norm.running_mean, norm.running_var):
                if own is not None:
                    own.copy_(self.accelerator.reduce(own.clone(), "mean"))
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self.model.state_dict().items()}

    def probabilities(self, photos: Dataset[Item], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Raw probabilities, float32[n], of these rows, which are sorted, as the exported graph computes them."""
        return torch.from_numpy(self.logits(self.loader(photos, rows))).sigmoid().numpy()

    def heatmaps(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The class-activation maps, float32[N, h, w], of uint8[N, H, W, 3]."""
        with torch.inference_mode():
            x = torch.from_numpy(images).permute(0, 3, 1, 2).to(self.accelerator.device)
            return self.model.logit_and_map(normalise(x, self.spec))[1].float().cpu().numpy()
