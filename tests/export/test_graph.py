"""The scoring graph: normalisation as trained, logit as the checkpoint's, heatmap as autograd's Grad-CAM."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from detector import ImageSpec, decode_image
from detector.tolerance import HEATMAP, LOGIT, PROBABILITY, disagreement
from export.graph import ScoringGraph
from training.models.checkpoint import Checkpoint, load_checkpoint


@pytest.fixture(scope="module")
def checkpoint(run_dir) -> Checkpoint:
    return load_checkpoint(run_dir / "best_model.pth")


@pytest.fixture(scope="module")
def images(checkpoint, photos) -> torch.Tensor:
    return torch.from_numpy(np.stack([decode_image(p, checkpoint.image_spec) for p in photos[:4]]))


def test_pixels_are_normalised_as_torchvision_does(images):
    from torchvision.transforms.v2.functional import normalize

    spec = ImageSpec(mean=(0.1, 0.5, 0.7), std=(0.2, 0.3, 0.4))

    class Echo(torch.nn.Module):
        def logit_and_map(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.sum(dim=(1, 2, 3)), x[:, 1]

    expected = normalize(images.permute(0, 3, 1, 2).float() / 255, list(spec.mean), list(spec.std))
    assert ScoringGraph(Echo(), spec)(images)[2].numpy() == pytest.approx(expected[:, 1].numpy(), abs=1e-5)


def test_the_logit_is_the_checkpoints(checkpoint, images):
    spec, net = checkpoint.image_spec, checkpoint.build()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    with torch.no_grad():
        logit, raw_prob, _ = ScoringGraph(net, spec)(images)
        expected = net((images.permute(0, 3, 1, 2) / 255 - mean) / std)
    assert not disagreement(logit, expected, LOGIT)
    assert not disagreement(raw_prob, torch.sigmoid(expected), PROBABILITY)


def test_the_heatmap_is_grad_cam_by_autograd(checkpoint, images):
    spec, net = checkpoint.image_spec, checkpoint.build()
    graph = ScoringGraph(net, spec)
    maps = net.features(images.permute(0, 3, 1, 2).float() * graph.scale + graph.shift).detach().requires_grad_()
    net.head(maps.mean(dim=(2, 3))).sum().backward()
    assert maps.grad is not None
    expected = (maps.grad.mean(dim=(2, 3), keepdim=True) * maps).sum(1).detach().numpy()
    with torch.no_grad():
        heatmap = graph(images)[2].numpy()
    assert not disagreement(heatmap, expected, HEATMAP)
