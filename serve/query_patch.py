"""Lets the query string of `/predictions/MODEL?key=value` reach the handler, which stock TorchServe 0.12 drops.

`InferenceRequestHandler.handlePredictions` ends in `predict(ctx, req, null, name, version)`; the null stands where
`/models/MODEL/invoke` and `/MODEL/predict` pass `new QueryStringDecoder(req.uri())`. This writes a copy of that one class with
the decoder in the null's place, to be put before TorchServe's jar on the class path; the jar itself stays as it is. TorchServe
is no longer maintained, so there is no release to wait for.
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
from pathlib import Path

from detector.errors import FileProblem

CLASS = "org/pytorch/serve/http/api/rest/InferenceRequestHandler.class"
KNOWN = "915ac25d1f8a2360181528aa8eabd3c769ebd807d54798f0bce9bc934213eb93"
# this.predict(ctx, req, null, name, version):
# aload_0 aload_1 aload_2, aconst_null, aload_3 iconst_2 aaload, aload 5, invokespecial
_CALL = bytes.fromhex("2a2b2c 01 2d0532 1905 b7")
_NULL_AT = 3
_CODE_LENGTH = 125  # of handlePredictions; the call is its last statement, so nothing behind it has to move


def write_patched_class(jar: Path, directory: Path) -> None:
    """Write the patched class under `directory`, a class path root.

    Raises `FileProblem` when the jar is not TorchServe 0.12.0's: without the patch `?use_calib=0` would be ignored in silence.
    """
    with zipfile.ZipFile(jar) as archive:
        original = archive.read(CLASS)
    if hashlib.sha256(original).hexdigest() != KNOWN:
        raise FileProblem(f"{jar.name}: is not that of torchserve 0.12.0; install torchserve==0.12.0")
    target = directory / CLASS
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(patched(original))


def patched(data: bytes) -> bytes:
    """The class file (JVM specification, chapter 4) with `new QueryStringDecoder(req.uri())` for the null."""
    count = int.from_bytes(data[8:10], "big")
    pool_end = _pool_end(data, count)
    call = data.index(_CALL, pool_end)
    end = call + len(_CALL) + 3  # the method's index and `return`
    start = end - _CODE_LENGTH
    assert data.count(_CALL, pool_end) == 1
    assert int.from_bytes(data[start - 4 : start], "big") == _CODE_LENGTH
    entries = [
        _utf8("io/netty/handler/codec/http/QueryStringDecoder"),
        struct.pack(">BH", 7, count),  # Class
        _utf8("<init>"),
        _utf8("(Ljava/lang/String;)V"),
        struct.pack(">BHH", 12, count + 2, count + 3),  # NameAndType
        struct.pack(">BHH", 10, count + 1, count + 4),  # Methodref
        _utf8("io/netty/handler/codec/http/FullHttpRequest"),
        struct.pack(">BH", 7, count + 6),
        _utf8("uri"),
        _utf8("()Ljava/lang/String;"),
        struct.pack(">BHH", 12, count + 8, count + 9),
        struct.pack(">BHH", 11, count + 7, count + 10),  # InterfaceMethodref
    ]
    # new, dup, aload_2, invokeinterface uri(), invokespecial <init>: at most six values on the stack, as before
    make = struct.pack(">BHBBBHBBBH", 0xBB, count + 1, 0x59, 0x2C, 0xB9, count + 11, 1, 0, 0xB7, count + 5)
    grown = len(make) - 1
    head = start - 12  # attribute_length u4, max_stack u2, max_locals u2, code_length u4
    attribute = int.from_bytes(data[head : head + 4], "big") + grown
    return b"".join(
        [
            data[:8],
            struct.pack(">H", count + len(entries)),
            data[10:pool_end],
            *entries,
            data[pool_end:head],
            struct.pack(">I", attribute),
            data[head + 4 : head + 8],
            struct.pack(">I", _CODE_LENGTH + grown),
            data[start : call + _NULL_AT],
            make,
            data[call + _NULL_AT + 1 :],
        ]
    )


def _utf8(text: str) -> bytes:
    return struct.pack(">BH", 1, len(text)) + text.encode()


def _pool_end(data: bytes, count: int) -> int:
    """Offset behind the constant pool; entries have no length of their own, only their tag's."""
    sizes = {3: 4, 4: 4, 5: 8, 6: 8, 7: 2, 8: 2, 9: 4, 10: 4, 11: 4, 12: 4, 15: 3, 16: 2, 17: 4, 18: 4, 19: 2, 20: 2}
    at, index = 10, 1
    while index < count:
        tag = data[at]
        at += 1 + (2 + int.from_bytes(data[at + 1 : at + 3], "big") if tag == 1 else sizes[tag])
        index += 2 if tag in (5, 6) else 1  # long and double take two places
    return at
