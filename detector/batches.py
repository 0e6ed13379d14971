"""Many files to decoded batches: each a picture or the error that stands in its place, the next batch decoded meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from detector.decode import decode_image
from detector.errors import FileError, ImageError, UnmaskError
from detector.spec import ImageSpec

Decoded = NDArray[np.uint8] | UnmaskError


def decode_file(path: Path, spec: ImageSpec) -> Decoded:
    """The pixels of a file, uint8[size, size, 3], or why there are none; nothing is raised for a file that is no photo."""
    try:
        return decode_image(path.read_bytes(), spec)
    except OSError as error:
        return FileError(f"can't be read ({error.strerror or error})")
    except ImageError as error:
        return error


def decoded_batches(paths: Sequence[Path], spec: ImageSpec, size: int) -> Iterator[list[Decoded]]:
    """Lists of `size` entries (the last may be shorter), one entry for each path, in order.

    Pillow decodes without the interpreter lock, so threads decode the next batch while the caller works on this one.
    """
    with ThreadPoolExecutor() as pool:
        ahead = [pool.submit(decode_file, path, spec) for path in paths[:size]]
        for start in range(0, len(paths), size):
            now, ahead = ahead, [pool.submit(decode_file, path, spec) for path in paths[start + size : start + 2 * size]]
            yield [future.result() for future in now]
