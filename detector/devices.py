"""Where the scoring graph runs: ONNX Runtime's execution providers for a device, by its name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from detector.errors import FileError

Provider = str | tuple[str, dict[str, str]]
CPU = "CPUExecutionProvider"
_FIRST = {"cpu": CPU, "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


@dataclass(frozen=True)
class Device:
    """A device that ONNX Runtime runs on.

    kind: cpu, cuda or tensorrt; TensorRT leaves layers that it does not support to CUDA. index: of the GPU.
    """

    kind: str
    index: int = 0

    @classmethod
    def parse(cls, name: str) -> Device:
        """The device named `cpu`, `cuda`, `cuda:N`, `tensorrt` or `tensorrt:N`. Raises `FileError` for any other name."""
        kind, _, index = name.partition(":")
        if kind not in _FIRST or (index and (kind == "cpu" or not index.isdecimal())):
            raise FileError(f"device {name!r} is unknown; cpu, cuda, cuda:N, tensorrt and tensorrt:N are accepted")
        return cls(kind, int(index or 0))

    @property
    def memory(self) -> str:
        """Kind of memory that inputs and outputs are in, as ONNX Runtime names it: cpu or cuda."""
        return "cpu" if self.kind == "cpu" else "cuda"

    @property
    def name(self) -> str:
        """Name of the device in verdicts: cpu or cuda:N."""
        return "cpu" if self.kind == "cpu" else f"cuda:{self.index}"

    @property
    def provider(self) -> str:
        """The execution provider that ONNX Runtime must have."""
        return _FIRST[self.kind]

    def providers(self, *, graphs: bool = False, engines: Path | None = None) -> list[Provider]:
        """The argument `providers` of an ONNX Runtime session, the preferred one first.

        graphs: record the kernels of each batch size once and replay them (CUDA graphs); inputs and outputs must then keep
        their addresses. engines: folder for the engines that TensorRT builds, which takes minutes.
        Source: onnxruntime.ai/docs/execution-providers, CUDA and TensorRT.
        """
        chain: list[Provider] = [CPU]
        if self.kind != "cpu":
            # TensorFloat-32 keeps 10 bits of a product's mantissa: the calibrated probability would vary with the batch.
            cuda = {"device_id": str(self.index), "use_tf32": "0"}
            recorded = graphs and self.kind == "cuda"
            chain.insert(0, ("CUDAExecutionProvider", cuda | ({"enable_cuda_graph": "1"} if recorded else {})))
        if self.kind == "tensorrt":
            options = {"device_id": str(self.index)}
            if graphs:
                options["trt_cuda_graph_enable"] = "1"
            if engines is not None:
                options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(engines)}
                options |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(engines)}
            chain.insert(0, (self.provider, options))
        return chain
