"""Files of weights as others write them: their state dicts, read without running code from them."""

from __future__ import annotations

import argparse
import json
import pathlib
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detector.errors import FileError
from detector.files import shown

States = dict[str, dict[str, Tensor]]
INDEX = ".index.json"  # ends the name of the list of a divided file's parts

# Where more than one state dict fits equally well, an average over training is what its authors judged.
AVERAGED = re.compile(r"(^|[._])(ema|teacher|averaged|swa)([._]|$)")
_MAGIC = {
    b"version https://git-lfs": "a Git LFS pointer in place of the file; fetch it with `git lfs pull`, or download it anew",
    b"\x89HDF": "an HDF5 file, as Keras writes; weights of PyTorch are needed",
    b"GGUF": "a GGUF file; weights of PyTorch are needed",
    b"\x1f\x8b": "compressed; unpack it and name the file of weights in it",
    b"BZh": "compressed; unpack it and name the file of weights in it",
    b"\xfd7zXZ": "compressed; unpack it and name the file of weights in it",
    b"7z\xbc\xaf": "compressed; unpack it and name the file of weights in it",
    b"\x93NUMPY": "a NumPy array; weights of PyTorch are needed",
}
_SAVE = "`torch.save(model.state_dict(), 'weights.pth')`"
_SCRIPT = f"a TorchScript module; save the state dict of the model that it was made from with {_SAVE}"
_ONNX = f"an ONNX graph, whose weights have lost their names; save the model's state dict with {_SAVE}"
_WHOLE = re.compile(r"(torch\.nn\.|timm\.|torchvision\.models|__main__\.|.*\.(models?|networks?|nets?|modules?)\.)")
_NAMED = re.compile(r"GLOBAL ([\w.]+)|Unsupported class ([\w.]+)")


def read_states(path: Path) -> States:
    """The state dicts in a file, by where they are in it ("" for the file itself, such as `state_dict` or `model.ema` else).

    It may be a .safetensors file, a torch file, or the index of either divided into parts. Beside tensors it may hold plain
    values, Namespaces, paths, and numpy's scalars and arrays. Averages over training come first.
    Raises `FileError` that says what the file is, and what to do, for anything else. No code from it is run.
    """
    if path.name.endswith(INDEX):
        return {"": _parts(path)}
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise FileError(f"{shown(path)}: can't be read ({error.strerror})") from None
    if problem := _foreign(path, head):
        raise FileError(f"{shown(path.name)}: is {problem}")
    if _is_safetensors(head):
        return {"": _safetensors(path)}
    found = dict(_states(_torch_file(path)))
    if not found:
        raise FileError(f"{shown(path.name)}: holds no state dict, which is names with tensors; {_SAVE} writes one")
    return dict(sorted(found.items(), key=lambda item: not AVERAGED.search(item[0])))


def _foreign(path: Path, head: bytes) -> str:
    """What a file is that holds no weights for PyTorch; "" where it may."""
    if not head:
        return "empty; download it again"
    for magic, problem in _MAGIC.items():
        if head.startswith(magic):
            return problem
    if head.lstrip()[:1] == b"<":
        return "a page of HTML or XML, such as a site's answer in place of the file; download the file itself"
    if path.suffix == ".onnx" or b"pytorch" in head[:32]:
        return _ONNX
    if head[257:262] == b"ustar":
        return "compressed; unpack it and name the file of weights in it"
    if head[:1] in (b"{", b"[") and not _is_safetensors(head):
        return f"JSON; of a divided file of weights name the list of its parts, *{INDEX}"
    return _foreign_zip(path) if head.startswith(b"PK") else ""


def _foreign_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "cut off, or damaged; download it again"
    inside = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in inside or any("/code/" in name for name in names):
        return _SCRIPT
    if "data.pkl" in inside:
        return ""
    some = ", ".join(shown(name) for name in names[:3])
    if all(name.endswith(".npy") for name in names):
        return f"a NumPy archive ({some}), as JAX's weights are; weights of PyTorch are needed"
    return f"a zip archive of {some or 'nothing'}, not a torch file; unpack it and name the file of weights in it"


def _is_safetensors(head: bytes) -> bool:
    return len(head) > 9 and int.from_bytes(head[:8], "little") < 2**31 and head[8:9] == b"{"


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError:
        raise FileError(f"{shown(path.name)}: is a cut off or damaged .safetensors file; download it again") from None


def _parts(index: Path) -> dict[str, Tensor]:
    """The tensors of all parts of a divided file, which lie beside its index."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise FileError(f"{shown(index.name)}: is not the index of a divided file of weights (`weight_map`)") from None
    tensors: dict[str, Tensor] = {}
    for name in names:
        part = index.with_name(Path(str(name)).name)  # nothing outside its folder
        if not part.is_file():
            raise FileError(f"{shown(index.name)}: its part {shown(part.name)} is not beside it; download all {len(names)}")
        for state in read_states(part).values():
            tensors |= state
    return tensors


def _torch_file(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_harmless()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle's protocol, which the reader has not chosen
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        names = _refused(path, str(error))
        raise FileError(f"{shown(path.name)}: {_remedy(names)}; no code from it was run") from None
    except Exception as error:  # what is damaged fails in many ways
        raise FileError(
            f"{shown(path.name)}: is not a torch file of weights, or is damaged ({type(error).__name__}); {_SAVE} writes one"
        ) from None


def _harmless() -> list[Any]:
    """What training scripts store beside tensors, none of which runs code; some under the names of other versions' modules."""
    path, windows = pathlib.PurePosixPath, pathlib.PureWindowsPath
    kinds = {type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdgFDSU"}
    found: list[Any] = [argparse.Namespace, np.ndarray, np.dtype, *kinds, set, OrderedDict]
    scalar, reconstruct = np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        found += [(scalar, f"{module}.scalar"), (reconstruct, f"{module}._reconstruct")]
    for module in ("pathlib", "pathlib._local"):
        found += [(path, f"{module}.PosixPath"), (path, f"{module}.PurePosixPath")]
        found += [(windows, f"{module}.WindowsPath"), (windows, f"{module}.PureWindowsPath")]
    lightning = "lightning.fabric.utilities.data", "lightning_fabric.utilities.data", "pytorch_lightning.utilities.parsing"
    return found + [(OrderedDict, f"{module}.AttributeDict") for module in lightning]


def _refused(path: Path, said: str) -> list[str]:
    """The names of what a torch file would have to import."""
    try:
        with torch.serialization.safe_globals(_harmless()):
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # only torch's newer format is looked into
        names = []
    return sorted(names) or [a or b for a, b in _NAMED.findall(said)]


def _remedy(names: list[str]) -> str:
    names = sorted(names, key=lambda name: not _WHOLE.match(name))
    some = ", ".join(shown(name) for name in names[:3])
    if any(_WHOLE.match(name) for name in names):
        return f"holds a whole model ({some}), which only its code can load; where that is, save its state dict with {_SAVE}"
    if any("ShardedTensor" in name or "DTensor" in name for name in names):
        return f"holds one process's part of a model ({some}); gather it first, in FSDP with StateDictType.FULL_STATE_DICT"
    if not names:
        return f"is not a torch file of weights; {_SAVE} writes one"
    return (
        f"holds {some}, which is more than weights; if you trust the file, save what it holds of the model alone: "
        "`torch.save(torch.load(FILE, weights_only=False)['state_dict'], 'weights.pth')`"
    )


def _states(value: Any, where: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Each mapping of names to tensors in a loaded value, with the keys that lead to it."""
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    if not isinstance(value, Mapping) or where.count(".") > 3:
        return
    tensors = {name: tensor for name, tensor in value.items() if isinstance(name, str) and isinstance(tensor, Tensor)}
    if tensors:
        yield where, tensors
    for name, inner in value.items():
        if isinstance(name, str) and not name.startswith("optim"):
            yield from _states(inner, f"{where}.{name}" if where else name)
