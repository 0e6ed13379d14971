"""What TorchServe's `Session` knows of a request, and the line that it makes of it.

A line has eleven fields with a tab between them: the address that took the request or `grpc`, status, nanoseconds from arrival
to answer, arrival by the clock of `time.monotonic_ns()`, job id, x-request-id, traceparent, content-length, version, method,
and URI. `-` stands for what is absent or not valid.
"""

from __future__ import annotations

from serve.jvm.changes import PRIVATE, PUBLIC, STATIC, Change, Field, Method, Replace, is_equal

HTTP = "io/netty/handler/codec/http"
SESSION = "org/pytorch/serve/http/Session"
STRING = "Ljava/lang/String;"
_PATTERN, _KEY = "Ljava/util/regex/Pattern;", "Lio/grpc/Context$Key;"

_VALID = {
    "VALID_ID": "[A-Za-z0-9._-]{8,128}",
    "VALID_TRACE": "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}",
    "VALID_LENGTH": "[0-9]{1,18}",
    "VALID_VERSION": "[!-~]{1,64}",
}
"""Static fields and the regular expressions that they hold, compiled once: every request is matched with them."""


def _valid(pattern: str, otherwise: str = 'ldc_w "-"') -> str:
    """`valid(value, pattern, otherwise)` of the value on the stack. pattern: a field's name."""
    return f"""
        getstatic {SESSION}.{pattern}:{_PATTERN}
        {otherwise}
        invokestatic {SESSION}.valid:({STRING}{_PATTERN}{STRING}){STRING}
    """


def _field(name: str, kind: str = STRING) -> str:
    return f"getfield {SESSION}.{name}:{kind}"


# return new String[] {otherwise, value}[pattern.matcher(value).matches() ? 1 : 0], without the branch: a boolean is 0 or 1.
_CHOOSE = Method(
    f"valid:({STRING}{_PATTERN}{STRING}){STRING}",
    code="""
        iconst_2
        anewarray java/lang/String
        dup
        iconst_0
        aload_2
        aastore
        dup
        iconst_1
        aload_0
        aastore
        aload_1
        aload_0
        invokevirtual java/util/regex/Pattern.matcher:(Ljava/lang/CharSequence;)Ljava/util/regex/Matcher;
        invokevirtual java/util/regex/Matcher.matches:()Z
        aaload
        areturn
    """,
    stack=4,
    locals=3,
    access=PRIVATE | STATIC,
)

# void identify(String id, String trace, String length): keep what of them is valid.
_IDENTIFY = Method(
    f"identify:({STRING}{STRING}{STRING})V",
    code=f"""
        aload_0
        aload_1
        {_valid("VALID_ID")}
        putfield {SESSION}.outside:{STRING}
        aload_0
        aload_2
        {_valid("VALID_TRACE")}
        putfield {SESSION}.trace:{STRING}
        aload_0
        aload_3
        {_valid("VALID_LENGTH")}
        putfield {SESSION}.length:{STRING}
        aload_0
        ldc_w "-"
        putfield {SESSION}.version:{STRING}
        return
    """,
    stack=4,
    locals=4,
)

# String answerId(): the id that came from outside, else the job's.
_ANSWER_ID = Method(
    f"answerId:(){STRING}",
    code=f"""
        aload_0
        {_field("outside")}
        {_valid("VALID_ID", otherwise=f"aload_0{chr(10)}{_field('requestId')}")}
        areturn
    """,
    stack=3,
    locals=1,
)

# static String asked(String version): tell the session of this gRPC call what version was asked for; returns the job's id.
_ASKED = Method(
    f"asked:({STRING}){STRING}",
    code=f"""
        getstatic {SESSION}.KEY:Lio/grpc/Context$Key;
        invokevirtual io/grpc/Context$Key.get:()Ljava/lang/Object;
        checkcast {SESSION}
        astore_1
        aload_1
        aload_0
        ldc_w ""
        invokestatic java/util/Objects.toString:(Ljava/lang/Object;{STRING}){STRING}
        {_valid("VALID_VERSION")}
        putfield {SESSION}.version:{STRING}
        aload_1
        {_field("requestId")}
        areturn
    """,
    stack=4,
    locals=2,
    access=PUBLIC | STATIC,
)

RETRY_AFTER_SECONDS = "1"
_RETRY = "grpc-retry-pushback-ms"
_STATUS_CODE = """
    aload_0
    invokevirtual io/grpc/Status.getCode:()Lio/grpc/Status$Code;
    invokevirtual io/grpc/Status$Code.value:()I
"""
# static Metadata trailers(Status status): when to ask again, with a call that is refused (RESOURCE_EXHAUSTED, 8), else null:
# new Metadata[] {null, metadata}[code == 8 ? 1 : 0].
_TRAILERS = Method(
    "trailers:(Lio/grpc/Status;)Lio/grpc/Metadata;",
    code=f"""
        new io/grpc/Metadata
        dup
        invokespecial io/grpc/Metadata.<init>:()V
        astore_1
        aload_1
        ldc_w "{_RETRY}"
        getstatic io/grpc/Metadata.ASCII_STRING_MARSHALLER:Lio/grpc/Metadata$AsciiMarshaller;
        invokestatic io/grpc/Metadata$Key.of:({STRING}Lio/grpc/Metadata$AsciiMarshaller;)Lio/grpc/Metadata$Key;
        ldc_w "{RETRY_AFTER_SECONDS}000"
        invokevirtual io/grpc/Metadata.put:(Lio/grpc/Metadata$Key;Ljava/lang/Object;)V
        iconst_2
        anewarray io/grpc/Metadata
        dup
        iconst_1
        aload_1
        aastore
        {is_equal(_STATUS_CODE, "bipush 8")}
        aaload
        areturn
    """,
    stack=4,
    locals=2,
    access=PUBLIC | STATIC,
)
SEND_TRAILERS = Replace(
    "sendErrorResponse",
    old="invokevirtual io/grpc/Status.asRuntimeException:()Lio/grpc/StatusRuntimeException;",
    new=f"""
        dup
        invokestatic {SESSION}.trailers:(Lio/grpc/Status;)Lio/grpc/Metadata;
        invokevirtual io/grpc/Status.asRuntimeException:(Lio/grpc/Metadata;)Lio/grpc/StatusRuntimeException;
    """,
    stack=3,
)

_STATIC_FIELDS = Method(
    "<clinit>:()V",
    code="\n".join(
        f"""
        ldc_w "{pattern}"
        invokestatic java/util/regex/Pattern.compile:({STRING}){_PATTERN}
        putstatic {SESSION}.{name}:{_PATTERN}
        """
        for name, pattern in _VALID.items()
    )
    + f"""
        ldc_w "session"
        invokestatic io/grpc/Context.key:({STRING}){_KEY}
        putstatic {SESSION}.KEY:{_KEY}
        return
    """,
    stack=1,
    locals=0,
    access=STATIC,
)


def _line() -> str:
    """The instructions of `toString`."""
    builder = "java/lang/StringBuilder"
    to_builder = f"L{builder};"
    fields = [
        ("remoteIp", STRING),
        ("code", "I"),
        ("", "J"),
        ("startTime", "J"),
        ("requestId", STRING),
        ("outside", STRING),
    ]
    fields += [(name, STRING) for name in ("trace", "length", "version", "method", "uri")]
    parts = []
    for name, kind in fields:
        value = f"aload_0\n{_field(name, kind)}"
        if not name:
            value = f"""
                invokestatic java/lang/System.nanoTime:()J
                aload_0
                {_field("startTime", "J")}
                lsub
            """
        parts.append(f"{value}\ninvokevirtual {builder}.append:({kind}){to_builder}")
    tab = f'\nldc_w "\\t"\ninvokevirtual {builder}.append:({STRING}){to_builder}\n'
    return f"""
        new {builder}
        dup
        invokespecial {builder}.<init>:()V
        {tab.join(parts)}
        invokevirtual {builder}.toString:(){STRING}
        areturn
    """


_MILLISECONDS, _NANOSECONDS = (
    f"invokestatic java/lang/System.{clock}:()J\nputfield {SESSION}.startTime:J" for clock in ("currentTimeMillis", "nanoTime")
)
OF_REST, _OF_GRPC = f"<init>:({STRING}L{HTTP}/HttpRequest;)V", f"<init>:({STRING}{STRING})V"


def _header(name: str, otherwise: str) -> str:
    return f"""
        aload_2
        invokeinterface {HTTP}/HttpRequest.headers:()L{HTTP}/HttpHeaders;
        ldc_w "{name}"
        ldc_w "{otherwise}"
        invokevirtual {HTTP}/HttpHeaders.get:(Ljava/lang/CharSequence;{STRING}){STRING}
    """


CHANGES: tuple[Change, ...] = (
    *(Field(name, STRING) for name in ("outside", "trace", "length", "version")),
    *(Field(name, _PATTERN, PRIVATE | STATIC) for name in _VALID),
    Field("KEY", _KEY, PUBLIC | STATIC),
    *(_STATIC_FIELDS, _CHOOSE, _IDENTIFY, _ANSWER_ID, _ASKED, _TRAILERS),
    Method(f"toString:(){STRING}", _line(), stack=5, locals=1),
    Replace(_OF_GRPC, _MILLISECONDS, _NANOSECONDS, stack=3),
    Replace(
        OF_REST,
        old=_MILLISECONDS,
        new=f"""
            {_NANOSECONDS}
            aload_0
            {_header("x-request-id", "-")}
            {_header("traceparent", "-")}
            {_header("content-length", "-")}
            invokevirtual {SESSION}.identify:({STRING}{STRING}{STRING})V
        """,
        stack=6,
    ),
)
