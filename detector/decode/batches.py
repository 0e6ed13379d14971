"""Decode files in batches, the next batch while the caller works on this one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from detector.decode.image import DecodedPhoto, decode_photo
from detector.errors import FileError, ImageError, UnmaskError
from detector.packed import Readable
from detector.spec import ImageSpec

Decoded = DecodedPhoto | UnmaskError


def decode_file(path: Readable, spec: ImageSpec) -> Decoded:
    """A file as the model sees it, or the error that explains why there are none."""
    try:
        return decode_photo(path.read_bytes(), spec)
    except OSError as error:
        return FileError(f"can't be read ({error.strerror or error})")
    except ImageError as error:
        return error


def decoded_batches(paths: Sequence[Readable], spec: ImageSpec, size: int) -> Iterator[list[Decoded]]:
    """Lists of `size` entries, in order: a file as the model sees it, or its error. The last list may be shorter.

    Pillow decodes without the interpreter lock, so threads decode the next batch meanwhile.
    """
    with ThreadPoolExecutor() as pool:
        ahead = [pool.submit(decode_file, path, spec) for path in paths[:size]]
        for start in range(0, len(paths), size):
            now, ahead = ahead, [pool.submit(decode_file, path, spec) for path in paths[start + size : start + 2 * size]]
            yield [future.result() for future in now]
