"""Checkpoints of others: each shape that training scripts leave is loaded, or refused with what to do."""

from __future__ import annotations

import argparse
import io
import json
import pathlib
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from detector.errors import UnmaskError
from detector.spec import ImageSpec
from training.models.build import ModelConfig, build_model
from training.models.weight_files import read_states
from training.models.weights import described, initial_model, load_backbone

State = dict[str, Tensor]
CONFIG = ModelConfig(name="test_resnet", hidden=(8,))
VIT = ModelConfig(name="test_vit3", hidden=(8,))  # built for one input size


@pytest.fixture(scope="module")
def donor() -> nn.Module:
    """timm's classifier of ten classes, whose weights every file here has."""
    torch.manual_seed(5)
    return timm.create_model("test_resnet", num_classes=10)


def under(prefix: str, state: State) -> State:
    """The same tensors with a prefix before each name."""
    return {prefix + name: tensor for name, tensor in state.items()}


def wrapped(model: nn.Module, *kinds: str) -> State:
    """The state dict of a model in real wrappers, the last one outermost."""
    for kind in kinds:
        if kind == "compile":
            model = torch.compile(model)
        elif kind == "parallel":
            model = nn.DataParallel(model)  # names as DistributedDataParallel does
        else:
            model = torch.optim.swa_utils.AveragedModel(model)
    return dict(model.state_dict())


def numbers() -> dict[str, Any]:
    """What training scripts keep beside the weights."""
    return {
        "epoch": 7,
        "args": argparse.Namespace(lr=1e-3, data=pathlib.PosixPath("/data"), classes=np.arange(3)),
        "metric": np.float64(0.9),
        "best": np.float32(0.8),
        "history": np.zeros((2, 2)),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"params": [0]}]},
    }


# What is saved, from timm's classifier.
LOADED: dict[str, Callable[[nn.Module], Any]] = {
    "a plain state dict": lambda m: m.state_dict(),
    "timm's train.py": lambda m: {"arch": "test_resnet", "state_dict": m.state_dict(), "version": 2, **numbers()},
    "timm's train.py with EMA": lambda m: {"state_dict": random_like(m), "state_dict_ema": m.state_dict(), **numbers()},
    "model_ema": lambda m: {"model": random_like(m), "model_ema": m.state_dict(), **numbers()},
    "Lightning": lambda m: {
        "state_dict": under("model.", m.state_dict()) | {"loss.weight": torch.ones(2)},
        "pytorch-lightning_version": "2.5",
        "hyper_parameters": {"lr": 1e-3, "root": pathlib.PosixPath("/data")},
        "callbacks": {"ModelCheckpoint{}": {"best_model_score": torch.tensor(0.9)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
    },
    "Lightning, a network in a module": lambda m: {"state_dict": under("net.backbone.", m.state_dict())},
    "DDP": lambda m: wrapped(m, "parallel"),
    "torch.compile": lambda m: wrapped(m, "compile"),
    "torch.compile in DDP": lambda m: {"state_dict": wrapped(m, "compile", "parallel")},
    "DDP in torch.compile": lambda m: {"state_dict": wrapped(m, "parallel", "compile")},
    "Lightning, compiled": lambda m: {"state_dict": under("model.", wrapped(m, "compile"))},
    "a compiled part of a model": lambda m: {n.replace("layer1.", "layer1._orig_mod."): t for n, t in m.state_dict().items()},
    "accelerate": lambda m: OrderedDict(m.state_dict()),
    "DeepfakeBench": lambda m: under("module.backbone.", m.state_dict()) | {"module.head.fc.weight": torch.zeros(2, 8)},
    "CNNDetection": lambda m: {"model": {**m.state_dict(), "fc.weight": torch.zeros(1, 8)}, "total_steps": 400, **numbers()},
    "Hugging Face's timm wrapper": lambda m: under("timm_model.", m.state_dict()),
    "MoCo": lambda m: {
        "arch": "resnet50",
        "state_dict": under("module.encoder_q.", m.state_dict())
        | under("module.encoder_k.", random_like(m))
        | {"module.queue": torch.zeros(4, 8), "module.queue_ptr": torch.zeros(1, dtype=torch.long)},
    },
    "BYOL": lambda m: under("online_encoder.net.", m.state_dict()) | under("target_encoder.net.", random_like(m)),
    "DINO": lambda m: {
        "student": under("module.backbone.", random_like(m)),
        "teacher": under("backbone.", m.state_dict()) | {"head.mlp.0.weight": torch.zeros(3, 8)},
        **numbers(),
    },
    "FSDP, whole": lambda m: {f"_fsdp_wrapped_module.{n}": t for n, t in m.state_dict().items()},
    "AveragedModel": lambda m: wrapped(m, "averaged"),
    "params_ema": lambda m: {"params": random_like(m), "params_ema": m.state_dict()},
    "MMPretrain": lambda m: {"meta": {"epoch": 3}, "state_dict": under("backbone.", m.state_dict())},
    "PEFT's base model": lambda m: under("base_model.model.", m.state_dict()),
    "an encoder in a dict of modules": lambda m: {"modules": {"encoder": m.state_dict(), "decoder": {"a": torch.ones(1)}}},
    "float16": lambda m: {name: t.half() if t.is_floating_point() else t for name, t in m.state_dict().items()},
    "bfloat16": lambda m: {"model": {n: t.bfloat16() if t.is_floating_point() else t for n, t in m.state_dict().items()}},
    "a network without a classifier": lambda m: {n: t for n, t in m.state_dict().items() if not n.startswith("fc.")},
    "without batch norm's counters": lambda m: {n: t for n, t in m.state_dict().items() if "num_batches" not in n},
    "a grey stem": lambda m: grey(m.state_dict()),
    "Windows paths": lambda m: {"state_dict": m.state_dict(), "out": as_class("pathlib", "WindowsPath", "D:\\run")},
    "Lightning's AttributeDict": lambda m: {
        "state_dict": m.state_dict(),
        "hyper_parameters": as_dict("lightning.fabric.utilities.data", "AttributeDict"),
    },
}


def random_like(model: nn.Module) -> State:
    """Another state dict for the same model."""
    return {name: torch.rand(tensor.shape).to(tensor.dtype) for name, tensor in model.state_dict().items()}


def grey(state: State) -> State:
    """A state dict whose first layer takes one channel."""
    first = next(name for name, tensor in state.items() if tensor.dim() == 4 and tensor.shape[1] == 3)
    return {**state, first: state[first].sum(dim=1, keepdim=True)}


class _Made:
    """An object that is pickled as a call of something by its name."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.fixture(autouse=True)
def _foreign_modules() -> Iterator[None]:
    """Modules that are not installed here may be named in pickles, and are gone when these are read."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "made_for_a_test", False):
            del sys.modules[name]


def _named(module: str, name: str, base: type = object) -> type:
    """A class that pickles by a name in a module that is not installed, or that names it otherwise."""
    made = type(name, (base,), {"__module__": module})
    if module not in sys.modules:
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            path = ".".join(parts[:end])
            if path not in sys.modules:
                stand_in = types.ModuleType(path)
                stand_in.made_for_a_test = True
                sys.modules[path] = stand_in
    if not hasattr(sys.modules[module], name) or getattr(sys.modules[module], "made_for_a_test", False):
        setattr(sys.modules[module], name, made)
    return made


def as_class(module: str, name: str, *arguments: Any) -> Any:
    """A call of a class of another platform or library."""
    found = getattr(sys.modules.get(module), name, None)
    return _Made(found or _named(module, name), *arguments)


def as_dict(module: str, name: str) -> Any:
    """A dictionary of another library's kind."""
    return _named(module, name, dict)(lr=0.1)


@pytest.mark.parametrize("shape", LOADED)
def test_a_checkpoint_of_others_is_loaded_whole(shape: str, donor: nn.Module, tmp_path: Path) -> None:
    torch.save(LOADED[shape](donor), tmp_path / "w.pth")
    _drop_foreign_modules()
    model = build_model(CONFIG)
    match = load_backbone(model, read_states(tmp_path / "w.pth"), "w.pth")
    assert (match.missing, match.unfit) == ([], [])
    assert match.count == len([n for n in donor.state_dict() if not n.startswith("fc.") and "num_batches" not in n])
    assert "all" in described(match, "w.pth")
    half = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(shape)
    own = dict(model.features.model.state_dict())
    for name, tensor in donor.state_dict().items():
        if name in own and "num_batches" not in name and own[name].shape[1:2] != (3,):
            assert torch.equal(own[name], tensor.to(half).float() if half else tensor), name


def _drop_foreign_modules() -> None:
    for name, module in list(sys.modules.items()):
        if getattr(module, "made_for_a_test", False):
            del sys.modules[name]


@pytest.mark.parametrize("form", ["safetensors", "safetensors, named .pth", "divided safetensors", "divided .bin"])
def test_a_file_of_tensors_is_loaded_by_what_it_is(form: str, donor: nn.Module, tmp_path: Path) -> None:
    state = {name: tensor.contiguous() for name, tensor in donor.state_dict().items()}
    path = tmp_path / ("w.pth" if "named" in form else "w.safetensors")
    if form.startswith("divided"):
        suffix = form.rpartition(" ")[2].lstrip(".")
        halves = [dict(list(state.items())[::2]), dict(list(state.items())[1::2])]
        where = {}
        for number, half in enumerate(halves, 1):
            name = f"model-{number:05d}-of-00002.{suffix}"
            (save_file if suffix == "safetensors" else torch.save)(half, tmp_path / name)
            where |= dict.fromkeys(half, name)
        path = tmp_path / f"model.{suffix}.index.json"
        path.write_text(json.dumps({"metadata": {}, "weight_map": where}))
    else:
        save_file(state, path)
    assert not load_backbone(build_model(CONFIG), read_states(path), path.name).missing
    if form.startswith("divided"):
        (tmp_path / name).unlink()
        with pytest.raises(UnmaskError, match=f"its part {name} is not beside it"):
            read_states(path)


def test_timm_converts_the_names_and_positions_of_public_checkpoints(tmp_path: Path) -> None:
    torch.manual_seed(6)
    donor = timm.create_model("test_vit3", num_classes=10)
    torch.save({"model": donor.state_dict()}, tmp_path / "deit.pth")  # for 160 px
    model = build_model(VIT, ImageSpec(size=96))
    match = load_backbone(model, read_states(tmp_path / "deit.pth"), "deit.pth")
    assert not match.missing
    assert model.features.model.pos_embed.shape != donor.pos_embed.shape


def test_a_norm_before_or_after_pooling_is_the_same_weights(tmp_path: Path) -> None:
    donor = timm.create_model("test_vit2", num_classes=0, fc_norm=False)
    assert any(name.startswith("norm.") for name in donor.state_dict())
    torch.save(donor.state_dict(), tmp_path / "w.pth")
    model = build_model(ModelConfig("test_vit2", hidden=(8,)), ImageSpec(size=160))
    assert not load_backbone(model, read_states(tmp_path / "w.pth"), "w.pth").missing


@pytest.mark.parametrize("name", ["test_convnext", "test_vit", "test_mambaout"])
def test_a_network_of_several_maps_takes_the_file_of_the_whole_one(name: str, tmp_path: Path) -> None:
    torch.save(timm.create_model(name, img_size=64).state_dict() if name == "test_vit" else
               timm.create_model(name).state_dict(), tmp_path / "w.pth")  # fmt: skip
    model = build_model(ModelConfig(name, hidden=(8,), multiscale=True), ImageSpec(size=64))
    match = load_backbone(model, read_states(tmp_path / "w.pth"), "w.pth")
    assert not match.missing


WHOLE = "state dict with `torch.save(model.state_dict(), 'weights.pth')`"


def _zip(names: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return out.getvalue()


def _saved(value: Any, **how: Any) -> bytes:
    out = io.BytesIO()
    torch.save(value, out, **how)
    return out.getvalue()


def _script(model: nn.Module) -> bytes:
    out = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), out)
    return out.getvalue()


# A file's name and contents, and what is said of it.
REFUSED: dict[str, tuple[str, Callable[[nn.Module], bytes], str]] = {
    "empty": ("w.pth", lambda m: b"", "is empty; download it again"),
    "an error page": ("w.pth", lambda m: b"<!DOCTYPE html><html>Not found</html>", "page of HTML.*download the file itself"),
    "an XML error": ("w.bin", lambda m: b"<?xml version='1.0'?><Error/>", "page of HTML or XML"),
    "a Git LFS pointer": ("w.pth", lambda m: b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
    "cut off": ("w.pth", lambda m: _saved(m.state_dict())[:4000], "is cut off, or damaged; download it again"),
    "cut off safetensors": ("w.safetensors", lambda m: (64).to_bytes(8, "little") + b'{"a":', "cut off or damaged"),
    "another zip": ("w.pth", lambda m: _zip({"model/readme.txt": b""}), "zip archive of model/readme.txt.*unpack it"),
    "a NumPy archive": ("w.npz", lambda m: _zip({"a.npy": b"", "b.npy": b""}), "NumPy archive.*weights of PyTorch are needed"),
    "a gzip": ("w.pth", lambda m: b"\x1f\x8b\x08\x00" + bytes(20), "is compressed; unpack it"),
    "Keras": ("w.h5", lambda m: b"\x89HDF\r\n\x1a\n", "HDF5 file"),
    "ONNX": ("w.onnx", lambda m: b"\x08\x08\x12\x07pytorch", f"an ONNX graph.*{WHOLE[:10]}"),
    "TorchScript": ("w.pt", _script, "a TorchScript module; save the state dict"),
    "a config": ("config.json", lambda m: b'{"model_type": "vit"}', r"is JSON; .*\*\.index\.json"),
    "a whole model": ("w.pth", _saved, "holds a whole model .*timm.models.resnet.*save its state dict"),
    "a whole model in a checkpoint": ("w.ckpt", lambda m: _saved({"model": nn.Linear(1, 1)}), "holds a whole model"),
    "omegaconf": (
        "w.ckpt",
        lambda m: _saved({"state_dict": m.state_dict(), "cfg": as_dict("omegaconf.dictconfig", "DictConfig")}),
        r"holds omegaconf\.dictconfig\.DictConfig, which is more than weights; .*weights_only=False\)\['state_dict'\]",
    ),
    "no tensors": ("w.pth", lambda m: _saved({"epoch": 3}), "holds no state dict"),
    "a tensor alone": ("w.pth", lambda m: _saved(torch.zeros(3)), "holds no state dict"),
    "text": ("w.pth", lambda m: b"weights here", "is not a torch file of weights"),
    "code": ("w.pth", lambda m: _saved({"state_dict": _Made(print, "code ran")}), "holds .*print.*no code from it was run"),
    "code in a bare pickle": ("w.pth", lambda m: pickle.dumps(_Made(print, "code ran")), "no code from it was run"),
    "code in the old format": (
        "w.pth",
        lambda m: _saved({"a": _Made(print, "code ran")}, _use_new_zipfile_serialization=False),
        "print.*no code from it was run",
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", REFUSED)
def test_what_is_no_state_dict_is_refused_by_what_it_is(
    shape: str, donor: nn.Module, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name, contents, words = REFUSED[shape]
    (tmp_path / name).write_bytes(contents(donor))
    _drop_foreign_modules()
    with pytest.raises(UnmaskError, match=words) as caught:
        read_states(tmp_path / name)
    assert caught.value.message.startswith(name)
    assert str(tmp_path) not in caught.value.message
    assert "code ran" not in capfd.readouterr().out


def without(state: State, start: str) -> State:
    """A state dict without the names that start so."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(start)}


# A state dict, and what is said of it.
UNFIT: dict[str, tuple[Callable[[nn.Module], State], str]] = {
    "a part": (
        lambda m: without(m.state_dict(), "layer4."),
        r"\d+ of \d+ tensors; the rest would be random: layer4\..*, … \(\d+\).*--partial takes what fits",
    ),
    "another shape": (
        lambda m: {n: torch.zeros(9, *t.shape[1:]) if n == "conv1.0.weight" or n == "conv1.weight" else t
                   for n, t in m.state_dict().items()},
        r"of another shape: conv1.*weight is 9x3x\d+x\d+ there and \d+x3x\d+x\d+ here",
    ),
    "six channels": (
        lambda m: {n: t.repeat(1, 2, 1, 1) if t.dim() == 4 and t.shape[1] == 3 else t for n, t in m.state_dict().items()},
        r"of another shape: conv1.*is \d+x6x",
    ),
    "int8": (
        lambda m: {n: (t * 9).to(torch.int8) if t.dim() == 4 else t for n, t in m.state_dict().items()},
        r"of another shape: .* is int8 ",
    ),
    "another network": (
        lambda m: timm.create_model("test_efficientnet").state_dict(),
        "--model must name the one it was trained with",
    ),
    "FSDP, flat": (lambda m: {"_fsdp_wrapped_module._flat_param": torch.zeros(99)}, "FULL_STATE_DICT"),
    "an adapter": (
        lambda m: {"base_model.model.blocks.0.attn.qkv.lora_A.weight": torch.zeros(4, 4)},
        r"0 of \d+ tensors.*an adapter \(LoRA\).*merge_and_unload",
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", UNFIT)
def test_a_state_dict_that_does_not_fit_is_refused_with_what_is_missing(shape: str, donor: nn.Module, tmp_path: Path) -> None:
    state, words = UNFIT[shape]
    torch.save(state(donor), tmp_path / "w.pth")
    with pytest.raises(UnmaskError, match=words):
        initial_model(CONFIG, weights=str(tmp_path / "w.pth"), pretrained=True)


def test_partial_takes_what_fits_and_says_what_is_random(
    donor: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"state_dict": under("net.", without(donor.state_dict(), "layer4."))}, tmp_path / "w.pth")
    model = initial_model(CONFIG, weights=str(tmp_path / "w.pth"), pretrained=True, partial=True)
    (said,) = capsys.readouterr().err.splitlines()
    assert "from 'state_dict' under 'net.'; random: layer4." in said
    assert "; not used: net.fc.weight, net.fc.bias" in said
    assert torch.equal(model.features.model.layer1[0].conv1.weight, donor.layer1[0].conv1.weight)


def test_a_file_of_the_other_library_says_which_model_it_is_for(tmp_path: Path) -> None:
    import torchvision

    torch.save(torchvision.models.mobilenet_v3_small(weights=None).state_dict(), tmp_path / "w.pth")
    torch.save(torchvision.models.efficientnet_b0(weights=None).state_dict(), tmp_path / "b0.pth")
    with pytest.raises(UnmaskError, match="it is a file for --model torchvision/efficientnet_b0"):
        initial_model(ModelConfig("efficientnet_b0"), weights=str(tmp_path / "b0.pth"), pretrained=True)
