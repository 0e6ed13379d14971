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
    """A kind of execution provider and, of GPUs, which one.

    kind: cpu, cuda or tensorrt, which leaves to cuda what it can't do itself.
    """

    kind: str
    index: int = 0

    @classmethod
    def parse(cls, name: str) -> Device:
        """From `cpu`, `cuda`, `cuda:N`, `tensorrt` or `tensorrt:N`. Raises `FileError` for any other name."""
        kind, _, index = name.partition(":")
        if kind not in _FIRST or (index and (kind == "cpu" or not index.isdecimal())):
            raise FileError(f"device {name!r} is unknown; cpu, cuda, cuda:N, tensorrt and tensorrt:N are accepted")
        return cls(kind, int(index or 0))

    @property
    def memory(self) -> str:
        """Whose memory it computes in, as ONNX Runtime and verdicts name it: cpu or cuda."""
        return "cpu" if self.kind == "cpu" else "cuda"

    @property
    def name(self) -> str:
        """What a verdict says: cpu or cuda:N."""
        return "cpu" if self.kind == "cpu" else f"cuda:{self.index}"

    @property
    def provider(self) -> str:
        """The execution provider that has to be there."""
        return _FIRST[self.kind]

    def providers(self, *, graphs: bool = False, engines: Path | None = None) -> list[Provider]:
        """ONNX Runtime's `providers`, the first one preferred.

        graphs: record the kernels of a batch size once and replay them (CUDA graphs); every input and output must then stay
        where it is. engines: a folder where TensorRT keeps what it has built, which takes it minutes.
        Options as in onnxruntime.ai/docs/execution-providers, CUDA and TensorRT.
        """
        chain: list[Provider] = [CPU]
        if self.kind != "cpu":
            # TensorFloat-32 keeps 10 bits of a product's mantissa: the calibrated answer would move with the batch.
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
