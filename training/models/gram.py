"""Gram features: how a layer's channels go together over the whole photo, which is its texture wherever that lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from detector.errors import UsageError
from training.models.backbones import resized_down
from training.models.heads import MlpHead
from training.models.networks import PooledNet

WIDEST = 128  # channels of a map that are taken, evenly spaced; their pairs are what counts
_EPSILON = 1e-6  # under the root, whose slope at zero would be infinite


class Maps(Protocol):
    """A backbone that gives the map of each of its blocks or resolutions, finest first."""

    def maps(self, x: Tensor) -> list[Tensor]:
        """float32[N, C, h, w] each."""


class GramFeatures(nn.Module):
    """From a map float32[N, C, h, w] to its channels' means and the square roots of their mean products, float32[N, `width`].

    pairs: False for the means alone.
    Mean products are the Gram matrix, whose upper triangle is taken (Gatys et al., arXiv 1505.07376; for generated faces Liu,
    Qi and Torr, arXiv 2002.00133). The root, with the product's sign, brings them to the scale of the means.
    """

    pairs: Tensor
    places: Tensor

    def __init__(self, channels: int, *, pairs: bool = True) -> None:
        super().__init__()
        taken = min(channels, WIDEST) if pairs else 0
        rows, columns = torch.triu_indices(taken, taken)
        self.channels, self.taken, self.width = channels, taken, channels + len(rows)
        places = torch.full((taken, taken), len(rows))  # below the diagonal: the zero that is put behind the last pair
        places[rows, columns] = torch.arange(len(rows))
        self.register_buffer("pairs", rows * taken + columns, persistent=False)
        self.register_buffer("places", places.flatten(), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Means first, then pairs of channels."""
        means = maps.mean(dim=(2, 3))
        return torch.cat([means, _root(self._products(maps))], dim=1) if self.taken else means

    def contributions(self, maps: Tensor, gradient: Tensor) -> Tensor:
        """What each place adds to the features, by the logit's `gradient` with respect to them: float32[N, h, w]."""
        of_means, of_roots = gradient.split([self.channels, self.width - self.channels], dim=1)
        linear = torch.einsum("nc,nchw->nhw", of_means, maps)
        if not self.taken:
            return linear
        of_products = of_roots / (2 * torch.sqrt(self._products(maps).abs() + _EPSILON))
        padded = torch.cat([of_products, torch.zeros_like(of_products[:, :1])], dim=1)
        weights = padded[:, self.places].unflatten(1, (self.taken, self.taken))
        flat = self._some(maps).flatten(2)
        return linear + (flat * (weights @ flat)).sum(dim=1).unflatten(1, maps.shape[2:])

    def _some(self, maps: Tensor) -> Tensor:
        return maps[:, :: self.channels // self.taken][:, : self.taken]

    def _products(self, maps: Tensor) -> Tensor:
        flat = self._some(maps).flatten(2)
        return (flat @ flat.transpose(1, 2)).flatten(1)[:, self.pairs] / flat.shape[2]


class GramNet(PooledNet):
    """A backbone's maps, the Gram features of each, and a head on all of them."""

    head: MlpHead

    def __init__(self, features: nn.Module, grams: Sequence[GramFeatures], head: MlpHead, *, zoom: float = 1.0) -> None:
        super().__init__(features, head, zoom=zoom)
        self.grams = nn.ModuleList(grams)

    def pooled(self, x: Tensor) -> Tensor:
        """The Gram features of all maps, float32[N, C]."""
        return self._pooled(self._maps(x))

    def logit_and_map(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logit, and which places speak for it: float32[N] and float32[N, h, w] at the last map's size, in eval mode.

        Grad-CAM as in `PooledNet`, where the channels are the maps' own and the products of each pair of them; finer maps are
        averaged to the size of the last.
        """
        maps = self._maps(x)
        logit, gradient = self.head.with_gradient(self._pooled(maps))
        height, width = maps[-1].shape[2:]
        heat = torch.zeros_like(maps[-1][:, 0])
        grams = [cast(GramFeatures, gram) for gram in self.grams]
        for gram, each, part in zip(grams, maps, gradient.split([gram.width for gram in grams], dim=1), strict=True):
            heat = heat + resized_down(gram.contributions(each, part).unsqueeze(1), height, width).squeeze(1)
        return logit.squeeze(1), heat / (height * width)

    def _maps(self, x: Tensor) -> list[Tensor]:
        return cast(Maps, self.features).maps(self.zoomed(x))

    def _pooled(self, maps: list[Tensor]) -> Tensor:
        return torch.cat([gram(each) for gram, each in zip(self.grams, maps, strict=True)], dim=1)


def _root(products: Tensor) -> Tensor:
    return products.sign() * (torch.sqrt(products.abs() + _EPSILON) - _EPSILON**0.5)


def gram_net(
    features: nn.Module,
    numbers: Sequence[int],
    hidden: tuple[int, ...],
    dropout: float,
    norm: bool = False,
    *,
    size: int,
    zoom: float = 1.0,
) -> GramNet:
    """A `GramNet` on a backbone of `multiscale`: the means of all its maps, and the pairs of those with these numbers, from 1.

    size: of the backbone's input in pixels. Raises `UsageError` for a number that no map has.
    """
    with torch.no_grad():
        channels = [each.shape[1] for each in cast(Maps, features.eval()).maps(torch.zeros(1, 3, size, size))]
    features.train()
    if missing := [number for number in numbers if not 1 <= number <= len(channels)]:
        raise UsageError(f"--gram {missing[0]}: this network's maps are numbered from 1 to {len(channels)}")
    grams = [GramFeatures(count, pairs=number in numbers) for number, count in enumerate(channels, 1)]
    return GramNet(features, grams, MlpHead(sum(gram.width for gram in grams), hidden, dropout, norm, even=True), zoom=zoom)
