"""Seven classes of TorchServe 0.12, changed where it can't be configured and put before its jar on the class path.

- The query string of `/predictions/MODEL?key=value` reaches the handler. Stock, `handlePredictions` passes null where the
  other paths pass `new QueryStringDecoder(req.uri())`.
- A request that finds the queue full is told so, over REST as 503 with `Retry-After`, over gRPC as RESOURCE_EXHAUSTED. Stock,
  it is told to scale workers up, with neither.
- While the file `draining` lies in the JVM's working directory every answer closes its connection, and while `refusing` does
  new requests are refused in the same way, so that the server can end with nothing in hand. Stock, clients that keep their
  connections open lose the request that they send next.
- A worker takes what waits, up to a batch, without waiting for more. Stock, it either waits (`maxBatchDelay`) though nobody
  comes, or, told not to, takes two at the most.
- The server ends when its connections are closed. Stock, it waits two more seconds for work that none of them can bring.

TorchServe is no longer maintained, so there is no release to wait for. The jar itself stays as it is.
"""

from __future__ import annotations

import hashlib
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

from detector.errors import FileError
from serve.classfile import JavaClass

DRAINING, REFUSING = "draining", "refusing"
RETRY_AFTER_SECONDS = "1"
_NO_WORKER = (
    '" has no worker to serve inference request. Please use scale workers API to add workers. '
    "If this is a sequence inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
)
_OVERLOADED = (
    '" takes no request now: its queue is full, it has no worker or it is stopping; try again in a second [overloaded]'
)
_RESPONSE = "io/netty/handler/codec/http/HttpResponse"
_STATUS = "io/netty/handler/codec/http/HttpResponseStatus"
_HEADERS = "io/netty/handler/codec/http/HttpHeaders"
_DECODER = "io/netty/handler/codec/http/QueryStringDecoder"
_REQUEST = "io/netty/handler/codec/http/FullHttpRequest"
# Opcodes (JVM specification, chapter 6).
_ILOAD_1, _ILOAD_2, _ISTORE_2 = b"\x1b", b"\x1c", b"\x3d"
_ICONST_0, _ICONST_1, _SIPUSH, _LDC_W = b"\x03", b"\x04", b"\x11", b"\x13"
_ALOAD_1, _ALOAD_2, _DUP, _POP, _ISUB, _IAND, _IOR, _IXOR = (
    b"\x2b",
    b"\x2c",
    b"\x59",
    b"\x57",
    b"\x64",
    b"\x7e",
    b"\x80",
    b"\x82",
)
_GETSTATIC, _VIRTUAL, _SPECIAL, _STATIC, _INTERFACE, _NEW = b"\xb2", b"\xb6", b"\xb7", b"\xb8", b"\xb9", b"\xbb"


def write_patched_classes(jar: Path, directory: Path) -> None:
    """Write the changed classes under `directory`, a class path root.

    Raises `FileError` when the jar is not TorchServe 0.12.0's: without them the server would behave differently in silence.
    """
    with zipfile.ZipFile(jar) as archive:
        for name, (known, patch) in PATCHES.items():
            original = archive.read(name)
            if hashlib.sha256(original).hexdigest() != known:
                raise FileError(f"{jar.name}: is not that of torchserve 0.12.0; install torchserve==0.12.0")
            changed = JavaClass(original)
            patch(changed)
            target = directory / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(changed.data)


def _pass_query(java: JavaClass) -> None:
    """`predict(ctx, req, new QueryStringDecoder(req.uri()), name, version)` where null was."""
    # aload_0, aload_1, aload_2 | aconst_null | aload_3, iconst_2, aaload, aload 5, invokespecial
    before, null, after = bytes.fromhex("2a2b2c"), b"\x01", bytes.fromhex("2d05321905b7")
    uri = _ALOAD_2 + _call(java, _INTERFACE, _REQUEST, "uri", "()Ljava/lang/String;")
    made = _new(java, _DECODER, uri)
    java.splice("handlePredictions", before + null + after, before + made + after, stack=6)


def _say_overloaded(java: JavaClass) -> None:
    java.reword(_NO_WORKER, _OVERLOADED)


def _exhausted_over_grpc(java: JavaClass) -> None:
    """`sendErrorResponse(observer, Status.RESOURCE_EXHAUSTED, …)` where a full queue gave INTERNAL."""
    status = [
        _GETSTATIC + _number(java.member("field", "io/grpc/Status", name, "Lio/grpc/Status;"))
        for name in ("INTERNAL", "RESOURCE_EXHAUSTED")
    ]
    before, after = bytes.fromhex("2a2c"), bytes.fromhex("190c")  # aload_0, aload_2 | aload 12, the exception of this case
    java.splice("prediction", before + status[0] + after, before + status[1] + after, stack=0)


def _retry_and_close(java: JavaClass) -> None:
    """At the start of `sendHttpResponse(ctx, response, keepAlive)`:

    `int copies = 1 - Math.min(Math.abs(response.status().code() - 503), 1);
    response.headers().set("Retry-After", Collections.nCopies(copies, "1"));
    keepAlive &= !new File("draining").exists();`

    Without a branch, which would need a stack frame of its own: no copies of a value set no header.
    """
    code = [
        *(_ALOAD_1, _call(java, _INTERFACE, _RESPONSE, "headers", f"()L{_HEADERS};"), _text(java, "Retry-After")),
        *(_ICONST_1, _ALOAD_1, _call(java, _INTERFACE, _RESPONSE, "status", f"()L{_STATUS};")),
        *(_call(java, _VIRTUAL, _STATUS, "code", "()I"), _SIPUSH, _number(503), _ISUB),
        *(_call(java, _STATIC, "java/lang/Math", "abs", "(I)I"), _ICONST_1),
        *(_call(java, _STATIC, "java/lang/Math", "min", "(II)I"), _ISUB, _text(java, RETRY_AFTER_SECONDS)),
        _call(java, _STATIC, "java/util/Collections", "nCopies", "(ILjava/lang/Object;)Ljava/util/List;"),
        *(_call(java, _VIRTUAL, _HEADERS, "set", f"(Ljava/lang/String;Ljava/lang/Iterable;)L{_HEADERS};"), _POP),
        *(_ILOAD_2, _file_exists(java, DRAINING), _ICONST_1, _IXOR, _IAND, _ISTORE_2),
    ]
    java.splice("sendHttpResponse", b"", b"".join(code), stack=5)


def _refuse(java: JavaClass) -> None:
    """`hasNoWorker(…) | new File("refusing").exists()` where addJob asked for the first alone."""
    asked = _call(
        *(java, _VIRTUAL, "org/pytorch/serve/wlm/WorkLoadManager", "hasNoWorker"),
        "(Lorg/pytorch/serve/wlm/ModelVersionName;)Z",
    )
    java.splice("addJob", asked, asked + _file_exists(java, REFUSING) + _IOR, stack=4)


def _take_what_waits(java: JavaClass) -> None:
    """`long delay = maxBatchDelay - 1`, and `if (delay <= 0) continue;` where the loop that fills a batch had `break`; it ends
    when none are left. One is taken off since TorchServe makes the default, 100 ms, of a `maxBatchDelay` of 0."""
    delay = b"\xb4" + _number(java.member("field", "org/pytorch/serve/wlm/Model", "maxBatchDelay", "I"))
    wide = bytes.fromhex("853706")  # i2l, lstore 6
    java.splice("pollBatch", delay + wide, delay + _ICONST_1 + _ISUB + wide, stack=3)
    # lload 6, lconst_0, lcmp, ifgt to the end of the loop's body, goto behind the loop; now to the end of the body too
    test, behind, on = bytes.fromhex("160609949d0006a7"), b"\x00\x09", b"\x00\x03"
    java.splice("pollBatch", test + behind, test + on, stack=0)


def _end_at_once(java: JavaClass) -> None:
    """`if (false)` where `shutdown(graceful)` had `if (graceful)` around the choice of Netty's quiet period, 2 s or none."""
    branch = bytes.fromhex("99000e")  # ifeq, to the call with no quiet period
    java.splice("shutdown", _ILOAD_1 + branch, _ICONST_0 + branch, stack=0)


def _file_exists(java: JavaClass, name: str) -> bytes:
    """`new File(name).exists()`; the name is relative to the JVM's working directory."""
    return _new(java, "java/io/File", _text(java, name)) + _call(java, _VIRTUAL, "java/io/File", "exists", "()Z")


def _new(java: JavaClass, owner: str, argument: bytes) -> bytes:
    """`new OWNER(argument)`, of a constructor that takes one string."""
    made = _NEW + _number(java.of_class(owner)) + _DUP
    return made + argument + _call(java, _SPECIAL, owner, "<init>", "(Ljava/lang/String;)V")


def _text(java: JavaClass, value: str) -> bytes:
    return _LDC_W + _number(java.string(value))


def _call(java: JavaClass, how: bytes, owner: str, name: str, descriptor: str) -> bytes:
    kind = "interface" if how == _INTERFACE else "method"
    call = how + _number(java.member(kind, owner, name, descriptor))
    return call + b"\x01\x00" if how == _INTERFACE else call  # the object alone is passed


def _number(value: int) -> bytes:
    return struct.pack(">H", value)


# By the class's file: the SHA-256 of the one that release 0.12.0 has, and what is changed in it.
PATCHES: dict[str, tuple[str, Callable[[JavaClass], None]]] = {
    "org/pytorch/serve/http/api/rest/InferenceRequestHandler.class": (
        "915ac25d1f8a2360181528aa8eabd3c769ebd807d54798f0bce9bc934213eb93",
        _pass_query,
    ),
    "org/pytorch/serve/util/ApiUtils.class": (
        "c98900b13f1e13722cbdb97d76d83db7671476a5e1e69ad57270b519b6bd86d0",
        _say_overloaded,
    ),
    "org/pytorch/serve/grpcimpl/InferenceImpl.class": (
        "8b85e06f700eeb9dc6e595307bcaf38c67209883a08dcd09039f72f1462e36cc",
        _exhausted_over_grpc,
    ),
    "org/pytorch/serve/util/NettyUtils.class": (
        "705f3daad4559394afa0152e71fc358fc14baab42133c2cc09e3726e11c52933",
        _retry_and_close,
    ),
    "org/pytorch/serve/wlm/ModelManager.class": (
        "c32ec7d1b524cc3992b068659874274c0611c2472dfe94eaadcabdc14a5c51bf",
        _refuse,
    ),
    "org/pytorch/serve/wlm/Model.class": (
        "7c5523f1fe77fe79aa32665469e17725e70518692abcf4987989ef72f10d4cff",
        _take_what_waits,
    ),
    "org/pytorch/serve/util/ServerGroups.class": (
        "8c4327920bcaae8e5f6a9f9b6ec5c028515e95752140a4c74e43ebe29db3ef65",
        _end_at_once,
    ),
}
