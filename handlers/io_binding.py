"""ONNX Runtime's IO binding: inputs and outputs stay in the device's memory, at a few fixed batch sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detector.devices import Device
from detector.scorer import OUTPUTS, run_graph, run_options

Array = NDArray[np.float32]
_EXPLAINED = (*OUTPUTS, "heatmap")
_UNTIL_RECORDED = 3  # runs; ONNX Runtime lets two pass before it records


@dataclass(frozen=True)
class _Bucket:
    """A batch size. host: uint8[n, H, W, 3]. images: the same on the device. bindings: by whether there is a heatmap, what
    ONNX Runtime runs, its options, and the outputs."""

    host: NDArray[np.uint8]
    images: Any
    bindings: dict[bool, tuple[Any, Any, list[Any]]]


class IoBindingSession:
    """Runs a session through IO binding, in batches padded to the next of some sizes.

    No run allocates memory. The fixed shapes and addresses let CUDA graphs be recorded, one for each size with and without
    the heatmap (onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html).
    """

    def __init__(self, session: Any, device: Device, shape: tuple[int, ...], batch_size: int, *, graphs: bool = False) -> None:
        """shape: of a photo, (H, W, 3). batch_size: the largest of the sizes, which are powers of two below it."""
        self._session, self._device = session, device
        self._buckets = {size: self._bucket(size, shape, graphs) for size in bucket_sizes(batch_size)}

    def run(self, images: NDArray[np.uint8], *, heatmap: bool = False) -> list[Array]:
        """`OUTPUTS`, and with `heatmap` the heatmap too, of uint8[N, H, W, 3]."""
        largest = max(self._buckets)
        parts = [self._run(images[first : first + largest], heatmap) for first in range(0, len(images), largest)]
        return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]

    def _run(self, images: NDArray[np.uint8], heatmap: bool) -> list[Array]:
        bucket = self._buckets[min(size for size in self._buckets if size >= len(images))]
        bucket.host[: len(images)] = images
        bucket.images.update_inplace(bucket.host)
        binding, options, outputs = bucket.bindings[heatmap]
        self._session.run_with_iobinding(binding, options)
        return [np.array(output.numpy()[: len(images)]) for output in outputs]  # on a CPU a view of what the next run writes

    def _bucket(self, size: int, shape: tuple[int, ...], graphs: bool) -> _Bucket:
        from onnxruntime import OrtValue

        host = np.zeros((size, *shape), np.uint8)
        place = self._device.memory, self._device.index
        images = OrtValue.ortvalue_from_numpy(host, *place)
        bindings = {}
        for heatmap, names in ((False, OUTPUTS), (True, _EXPLAINED)):
            outputs = [OrtValue.ortvalue_from_numpy(found, *place) for found in self._probe(host, names, graphs)]
            binding = self._session.io_binding()
            binding.bind_ortvalue_input("images", images)
            for name, output in zip(names, outputs, strict=True):
                binding.bind_ortvalue_output(name, output)
            options = run_options()
            if graphs:
                options.add_run_config_entry("gpu_graph_id", str(2 * size + heatmap))
                for _ in range(_UNTIL_RECORDED):
                    self._session.run_with_iobinding(binding, options)
            bindings[heatmap] = binding, options, outputs
        return _Bucket(host, images, bindings)

    def _probe(self, host: NDArray[np.uint8], names: Sequence[str], graphs: bool) -> list[Array]:
        """Outputs of the right shapes."""
        options = run_options()
        if graphs:
            options.add_run_config_entry("gpu_graph_id", "-1")  # not to be recorded
        return run_graph(self._session, host, names, options)


def bucket_sizes(batch_size: int) -> list[int]:
    """Powers of two below `batch_size`, and that: 1, 2, 4, 8 of 8; 1, 2, 4, 6 of 6."""
    return [*(2**k for k in range(batch_size.bit_length()) if 2**k < batch_size), batch_size]
