"""Coverage-guided fuzzing of `decode_image` with atheris: `make fuzz`, or `python -m tests.fuzz_decode --seconds 60`.

It starts from drawn and mutated photos, keeps what reached new code in OUT/corpus for the next time, and ends at the first
file that raises anything but an `ImageError` or takes over ten seconds or 2 GB: it is kept in OUT/found, and the exit code
is not 0. What guides it is `detector` and Pillow's Python; the C libraries below are run, but not seen into.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["PIL", "detector"]):
    from PIL import JpegImagePlugin, MpoImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin  # noqa: F401

    from detector import ImageError, ImageSpec, decode_image

from tests import mutated

SPEC = ImageSpec(size=32, max_pixels=2**20)  # small, for many files a second
MOST_BYTES = 2**16


def decode(data: bytes) -> None:
    """The property: pixels of the asked shape, or a typed refusal."""
    try:
        pixels = decode_image(data, SPEC)
    except ImageError:
        return
    assert pixels.shape == SPEC.shape
    assert pixels.flags.c_contiguous


def mutate(data: bytes, most_bytes: int, seed: int) -> bytes:
    """libFuzzer's own mutation, after which a PNG's checksums are made right: Pillow reads no further than a wrong one."""
    data = atheris.Mutate(data, most_bytes)
    if not data.startswith(mutated.PNG_SIGNATURE):
        return data
    return mutated.with_right_checksums(data)[:most_bytes]


def main() -> None:
    """Fuzz for as long as was asked for; libFuzzer exits by itself, with 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz_decode", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, metavar="S", help="(default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("reports/fuzz"), metavar="DIR", help="(default: %(default)s)")
    parser.add_argument("file", type=Path, nargs="?", help="decode this one alone, such as one that was found")
    arguments = parser.parse_args()
    options = [f"-max_total_time={arguments.seconds}", f"-max_len={MOST_BYTES}", "-timeout=10", "-rss_limit_mb=2048"]
    if arguments.file:
        folders = [arguments.file]
    else:
        folders = [arguments.out / name for name in ("corpus", "seeds", "found")]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        for n, mutant in enumerate(mutated.corpus(150)):
            if len(mutant.data) <= MOST_BYTES:
                (arguments.out / "seeds" / f"{n:03d}").write_bytes(mutant.data)
        options.append(f"-artifact_prefix={folders.pop()}/")
    atheris.Setup([sys.argv[0], *options, *map(str, folders)], decode, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
