"""Classes of TorchServe 0.12.0 and of Netty, changed where no setting helps and put before its jar on the class path.

`docs/explanation/torchserve.md` says for each why it is needed, what else was tried, and what would make it unnecessary.
TorchServe is no longer maintained, so there is no release to wait for. The jar itself stays as it is.
"""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path

from detector.errors import FileError
from serve.errors import ClassFileError
from serve.jvm import access_lines, draining, job_facts, session
from serve.jvm.changes import Patch, Replace, Reword, is_equal
from serve.jvm.classfile import JavaClass

OVERLOADED = (
    '" takes no request now: its queue is full, it has no worker or it is stopping; try again in a second [overloaded]'
)


_NETTY = "io/netty/handler/codec/http"
_SERVE = "org/pytorch/serve"
_STRING = "Ljava/lang/String;"


# predict(ctx, req, new QueryStringDecoder(req.uri()), segments[2], version), where it was predict(ctx, req, null, …).
_PASS_QUERY = Replace(
    "handlePredictions",
    old="""
        aload_0
        aload_1
        aload_2
        aconst_null
        aload_3
    """,
    new=f"""
        aload_0
        aload_1
        aload_2
        new {_NETTY}/QueryStringDecoder
        dup
        aload_2
        invokeinterface {_NETTY}/FullHttpRequest.uri:(){_STRING}
        invokespecial {_NETTY}/QueryStringDecoder.<init>:({_STRING})V
        aload_3
    """,
    stack=6,
)

_SAY_OVERLOADED = Reword(
    '" has no worker to serve inference request. Please use scale workers API to add workers. '
    "If this is a sequence inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize",
    OVERLOADED,
)


def _status(method: str, exception: str, status: str) -> Replace:
    """`sendErrorResponse(observer, Status.…, exception, …)`, where the status was INTERNAL. exception: how it is loaded."""
    return Replace(
        method,
        old=f"getstatic io/grpc/Status.INTERNAL:Lio/grpc/Status;\n{exception}",
        new=f"getstatic io/grpc/Status.{status}:Lio/grpc/Status;\n{exception}",
    )


_STATUS_OF_PREDICTIONS = (
    _status("prediction", "aload 12", "RESOURCE_EXHAUSTED"),  # the job was not taken
    _status("prediction", "aload 8", "NOT_FOUND"),
    _status("prediction", "aload 6", "INVALID_ARGUMENT"),  # without the name of a model
)
_STATUS_OF_MODEL_INFER = (
    _status("modelInfer", "aload 16", "RESOURCE_EXHAUSTED"),
    _status("modelInfer", "aload 13\naconst_null", "NOT_FOUND"),
    _status("modelInfer", "aload 13", "INVALID_ARGUMENT"),
)

_STATUS_CODE = f"""
    aload_1
    invokeinterface {_NETTY}/HttpResponse.status:()L{_NETTY}/HttpResponseStatus;
    invokevirtual {_NETTY}/HttpResponseStatus.code:()I
"""
# response.headers().set("Retry-After", Collections.nCopies(code == 503 ? 1 : 0, "1")): no copies of a value set no header.
_RETRY_AFTER = Replace(
    "sendHttpResponse",
    old="",
    new=f"""
        aload_1
        invokeinterface {_NETTY}/HttpResponse.headers:()L{_NETTY}/HttpHeaders;
        ldc_w "Retry-After"
        {is_equal(_STATUS_CODE, "sipush 503")}
        ldc_w "{session.RETRY_AFTER_SECONDS}"
        invokestatic java/util/Collections.nCopies:(ILjava/lang/Object;)Ljava/util/List;
        invokevirtual {_NETTY}/HttpHeaders.set:({_STRING}Ljava/lang/Iterable;)L{_NETTY}/HttpHeaders;
        pop
    """,
    stack=5,
)

# if (!keepAlive || code == 400), where it was code >= 400: only what can't be parsed leaves a connection that can't be used.
_KEEP_ALIVE = Replace(
    "sendHttpResponse",
    old="iload 7\nsipush 400\nif_icmplt +38",
    new="iload 7\nsipush 400\nif_icmpne +38",
)

# long delay = maxBatchDelay - 1: TorchServe makes its default, 100 ms, of a setting of 0, so the one rendered is one more.
_DELAY = f"getfield {_SERVE}/wlm/Model.maxBatchDelay:I"
_ONE_LESS_DELAY = Replace(
    "pollBatch",
    old=f"""
        {_DELAY}
        i2l
        lstore 6
    """,
    new=f"""
        {_DELAY}
        iconst_1
        isub
        i2l
        lstore 6
    """,
    stack=3,
)

# if (delay <= 0) continue, where the loop that fills a batch had break: it ends when nothing waits or the batch is full.
_TAKE_WHAT_WAITS = Replace(
    "pollBatch",
    old="""
        lload 6
        lconst_0
        lcmp
        ifgt +6
        goto +9                 // behind the loop
    """,
    new="""
        lload 6
        lconst_0
        lcmp
        ifgt +6
        goto +3                 // to the end of the loop's body
    """,
)

# list.add(Float.parseFloat(data.toString().replace("null", "NaN").replace("\"", ""))), where it was data.getAsFloat(), which
# takes "NaN" and throws for a null.
_NO_NUMBER = Replace(
    "lambda$setOutputContents$5",
    old="invokevirtual com/google/gson/JsonElement.getAsFloat:()F",
    new=f"""
        invokevirtual java/lang/Object.toString:(){_STRING}
        ldc_w "null"
        ldc_w "NaN"
        invokevirtual java/lang/String.replace:(Ljava/lang/CharSequence;Ljava/lang/CharSequence;){_STRING}
        ldc_w "\\""
        ldc_w ""
        invokevirtual java/lang/String.replace:(Ljava/lang/CharSequence;Ljava/lang/CharSequence;){_STRING}
        invokestatic java/lang/Float.parseFloat:({_STRING})F
    """,
    stack=4,
)

PATCHES: dict[str, Patch] = {
    f"{_SERVE}/http/api/rest/InferenceRequestHandler": Patch(
        "915ac25d1f8a2360181528aa8eabd3c769ebd807d54798f0bce9bc934213eb93",
        "d7981157e677b66d8055050f3ac23868cb3b4196229c9dd388f2693561d68d46",
        (_PASS_QUERY,),
    ),
    f"{_SERVE}/util/ApiUtils": Patch(
        "c98900b13f1e13722cbdb97d76d83db7671476a5e1e69ad57270b519b6bd86d0",
        "d8f981d69da1a141af893af6b5d8d0a2780b744272249dadd3b3e13721c5b644",
        (_SAY_OVERLOADED,),
    ),
    f"{_SERVE}/grpcimpl/InferenceImpl": Patch(
        "8b85e06f700eeb9dc6e595307bcaf38c67209883a08dcd09039f72f1462e36cc",
        "daa3ee87903c40eb871b00d5f52254de232d8e93530009f483d0a0ea8fff1f1c",
        (*_STATUS_OF_PREDICTIONS, access_lines.ask("prediction", "aload 5"), session.SEND_TRAILERS),
    ),
    f"{_SERVE}/util/NettyUtils": Patch(
        "705f3daad4559394afa0152e71fc358fc14baab42133c2cc09e3726e11c52933",
        "3377dd50c77c44c2c913658137c3764b0709276b8eab5a9e6ae788404d0bb85b",
        (draining.CLOSE_WITH_THE_ANSWER, _RETRY_AFTER, _KEEP_ALIVE, *access_lines.NETTY_UTILS),
    ),
    f"{_SERVE}/wlm/Model": Patch(
        "7c5523f1fe77fe79aa32665469e17725e70518692abcf4987989ef72f10d4cff",
        "85ab74030dbb19389c7e8ed101488b181d3ef038f2f4843a0212e5e126bfb434",
        (_ONE_LESS_DELAY, _TAKE_WHAT_WAITS, job_facts.TELL_BEGIN_AND_QUEUE),
    ),
    f"{_SERVE}/http/Session": Patch(
        "08cab9ac58d796c7a9553efc84e485efd299a7d75f00860395dbdc2762613181",
        "dbf5afaa54f74f691ffd440b6b262397edd90657b457235888df8fef51294c5e",
        session.CHANGES,
    ),
    f"{_SERVE}/grpcimpl/GRPCInterceptor": Patch(
        "43ccf60fdede17fb9194c59ccf2304d47d94a60884a0880a91595e6e33b53292",
        "b4be4d839a2ee23c16445fe882bede38c8cd2644bcac2534a5d2fa78f20fe48a",
        access_lines.GRPC_INTERCEPTOR,
    ),
    f"{_SERVE}/grpcimpl/OpenInferenceProtocolImpl": Patch(
        "ba8370dbc201f55076081b2cd86eef1b0d505a89e1cefbb938ffcf4d5015f63c",
        "3c5343c339b541a93171e03e83a205bc8ed99ed500bf2b38a8bbc9512491fba2",
        (*_STATUS_OF_MODEL_INFER, access_lines.ask("modelInfer", "aload 4"), session.SEND_TRAILERS),
    ),
    f"{_SERVE}/job/GRPCJob": Patch(
        "37d38e228b6314e854c0ab05d7488eb29ade8239683289b36d027357784058ce",
        "8e63bcc20a2f43ea472c23190fad386d9053a574b50f756012ad4309fbd4d7a5",
        (job_facts.IS_OPEN, _NO_NUMBER),
    ),
    f"{_SERVE}/wlm/BatchAggregator": Patch(
        "a2518f61d90c11c73d18fab1da637bc03ab32a050e52be4bbd236e263c30c973",
        "1b53f41036e7b3059dd5fdf847d8a984445eff23ecc5240dff3eee5bfcd8211a",
        (job_facts.TELL_OPEN,),
    ),
    f"{_SERVE}/ModelServer": Patch(
        "779d0df5bfc17c5ad09ac46d63d9a017d48a4cd68c1b7464de914d3cb40190b9",
        "f44d444646260c5059536dd61ae5bf6f16e168e3dc34f6f1361658f12108d3fb",
        draining.MODEL_SERVER,
    ),
    f"{_NETTY}/HttpObjectAggregator": Patch(
        "712b5a38c4e71b4df0547a28deb3079faad022f1337cbad30f30648cf2cc5684",
        "60490053585fb0904041198dceb02427890a137126f671ce88b79869e7aff58a",
        access_lines.HTTP_OBJECT_AGGREGATOR,
    ),
    "org/apache/logging/log4j/core/appender/AsyncAppenderEventDispatcher": Patch(
        "39e24a51a41dc9497cc4688f400af2d81cf6e3019abd7c32111840f88ec20af7",
        "b08e13796440f6a69e44c47ebef4e53ea13927e88685f1f6f6fa8f4265634967",
        (access_lines.GATHER,),
    ),
}
"""By the class's name."""


def write_patched_classes(jar: Path, directory: Path) -> None:
    """Write the changed classes, and nothing else, under `directory`, a class path root.

    Raises `FileError` when the jar is not TorchServe 0.12.0's: without them the server would behave differently in silence.
    """
    shutil.rmtree(directory, ignore_errors=True)  # another release may have changed other classes
    with zipfile.ZipFile(jar) as archive:
        for name, patch in PATCHES.items():
            original = archive.read(f"{name}.class")
            if hashlib.sha256(original).hexdigest() != patch.original:
                raise FileError(f"{jar.name}: is not that of torchserve 0.12.0; install torchserve==0.12.0")
            target = directory / f"{name}.class"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(patched(name, original))


def patched(name: str, original: bytes) -> bytes:
    """The file of a class with the changes of `PATCHES` in it.

    Raises `ClassFileError` when a change finds something else than it expects, or leads to another file than the one that was
    tested.
    """
    patch, java = PATCHES[name], JavaClass(original)
    for change in patch.changes:
        change.apply(java)
    data = java.write()
    if hashlib.sha256(data).hexdigest() != patch.patched:
        raise ClassFileError(f"{name}: the changes make another class than the one that was tested")
    return data
