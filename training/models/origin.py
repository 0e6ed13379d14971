"""Where the first weights of a network came from and under which licence: a sentence for metrics and the model card."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from detector.files import shown
from training.options import HUB
from training.presets import DUAL_STREAM, PACKAGED


def origin(model: str, *, weights: str | None, pretrained: bool) -> str:
    """What a run with these options started from. weights: a file, or an address on the hub, in place of the usual ones."""
    if weights is not None:
        return f"`{weights if weights.startswith(HUB) else shown(Path(weights).name)}`"
    if not pretrained:
        return "random"
    if model in PACKAGED:
        packaged = PACKAGED[model]
        name = f"{packaged.package} {version(packaged.package)}"
        return f"ImageNet weights from the package {name}, licence {packaged.licence}, {packaged.source}"
    return _on_the_hub(model)


def _on_the_hub(model: str) -> str:
    import timm
    import torchvision

    from training.models.build import VISUAL

    name = VISUAL if model == DUAL_STREAM else model
    plain = name.removeprefix("torchvision/")
    if plain != name or not timm.is_model(name):
        return f"`{torchvision.models.get_model_weights(plain).DEFAULT}` of torchvision, licence BSD-3-Clause"
    declared = timm.get_pretrained_cfg(name)
    if declared is None:
        return f"the hub's weights of `{name}`"
    where = f"`{declared.hf_hub_id}`" if declared.hf_hub_id else f"{declared.url}"
    return f"{where}, licence {declared.license or 'not stated'}"
