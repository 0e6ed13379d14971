"""Changes for one line about each answered request in TorchServe's access log.

A line has eleven fields with a tab between them: the address that took the request or `grpc`, status, nanoseconds from arrival
to answer, arrival by the clock of `time.monotonic_ns()`, job id, x-request-id, traceparent, content-length, version, method,
and URI. `-` stands for what is absent or not valid.
"""

from __future__ import annotations

from serve.jvm.changes import PRIVATE, PUBLIC, STATIC, Change, Field, Method, Replace

_HTTP = "io/netty/handler/codec/http"
_SERVE = "org/pytorch/serve"
_SESSION = f"{_SERVE}/http/Session"
_STRING = "Ljava/lang/String;"

VALID_ID, VALID_VERSION = "[A-Za-z0-9._-]{8,128}", "[!-~]{1,64}"
_VALID_TRACE, _VALID_LENGTH = "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", "[0-9]{1,18}"


def _valid(pattern: str, otherwise: str = 'ldc_w "-"') -> str:
    """`valid(value, pattern, otherwise)` of the value on the stack."""
    return f"""
        ldc_w "{pattern}"
        {otherwise}
        invokestatic {_SESSION}.valid:({_STRING}{_STRING}{_STRING}){_STRING}
    """


def _field(name: str, kind: str = _STRING) -> str:
    return f"getfield {_SESSION}.{name}:{kind}"


# return new String[] {otherwise, value}[value.matches(pattern) ? 1 : 0], without the branch: a boolean is 0 or 1.
_CHOOSE = Method(
    f"valid:({_STRING}{_STRING}{_STRING}){_STRING}",
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
        aload_0
        aload_1
        invokevirtual java/lang/String.matches:(Ljava/lang/String;)Z
        aaload
        areturn
    """,
    stack=4,
    locals=3,
    access=PRIVATE | STATIC,
)

# void identify(String id, String trace, String length): keep what of them is valid.
_IDENTIFY = Method(
    f"identify:({_STRING}{_STRING}{_STRING})V",
    code=f"""
        aload_0
        aload_1
        {_valid(VALID_ID)}
        putfield {_SESSION}.outside:{_STRING}
        aload_0
        aload_2
        {_valid(_VALID_TRACE)}
        putfield {_SESSION}.trace:{_STRING}
        aload_0
        aload_3
        {_valid(_VALID_LENGTH)}
        putfield {_SESSION}.length:{_STRING}
        aload_0
        ldc_w "-"
        putfield {_SESSION}.version:{_STRING}
        return
    """,
    stack=4,
    locals=4,
)

# String answerId(): the id that came from outside, else the job's.
_ANSWER_ID = Method(
    f"answerId:(){_STRING}",
    code=f"""
        aload_0
        {_field("outside")}
        {_valid(VALID_ID, otherwise=f"aload_0{chr(10)}{_field('requestId')}")}
        areturn
    """,
    stack=3,
    locals=1,
)

# static String asked(String version): tell the session of this gRPC call what version was asked for; returns the job's id.
_ASKED = Method(
    f"asked:({_STRING}){_STRING}",
    code=f"""
        getstatic {_SESSION}.KEY:Lio/grpc/Context$Key;
        invokevirtual io/grpc/Context$Key.get:()Ljava/lang/Object;
        checkcast {_SESSION}
        astore_1
        aload_1
        aload_0
        ldc_w ""
        invokestatic java/util/Objects.toString:(Ljava/lang/Object;{_STRING}){_STRING}
        {_valid(VALID_VERSION)}
        putfield {_SESSION}.version:{_STRING}
        aload_1
        {_field("requestId")}
        areturn
    """,
    stack=4,
    locals=2,
    access=PUBLIC | STATIC,
)

_KEY = Method(
    "<clinit>:()V",
    code=f"""
        ldc_w "session"
        invokestatic io/grpc/Context.key:({_STRING})Lio/grpc/Context$Key;
        putstatic {_SESSION}.KEY:Lio/grpc/Context$Key;
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
        ("remoteIp", _STRING),
        ("code", "I"),
        ("", "J"),
        ("startTime", "J"),
        ("requestId", _STRING),
        ("outside", _STRING),
    ]
    fields += [(name, _STRING) for name in ("trace", "length", "version", "method", "uri")]
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
    tab = f'\nldc_w "\\t"\ninvokevirtual {builder}.append:({_STRING}){to_builder}\n'
    return f"""
        new {builder}
        dup
        invokespecial {builder}.<init>:()V
        {tab.join(parts)}
        invokevirtual {builder}.toString:(){_STRING}
        areturn
    """


_MILLISECONDS, _NANOSECONDS = (
    f"invokestatic java/lang/System.{clock}:()J\nputfield {_SESSION}.startTime:J"
    for clock in ("currentTimeMillis", "nanoTime")
)
_OF_REST, _OF_GRPC = f"<init>:({_STRING}L{_HTTP}/HttpRequest;)V", f"<init>:({_STRING}{_STRING})V"


def _header(name: str, otherwise: str) -> str:
    return f"""
        aload_2
        invokeinterface {_HTTP}/HttpRequest.headers:()L{_HTTP}/HttpHeaders;
        ldc_w "{name}"
        ldc_w "{otherwise}"
        invokevirtual {_HTTP}/HttpHeaders.get:(Ljava/lang/CharSequence;{_STRING}){_STRING}
    """


SESSION: tuple[Change, ...] = (
    *(Field(name, _STRING) for name in ("outside", "trace", "length", "version")),
    Field("KEY", "Lio/grpc/Context$Key;", PUBLIC | STATIC),
    *(_KEY, _CHOOSE, _IDENTIFY, _ANSWER_ID, _ASKED),
    Method(f"toString:(){_STRING}", _line(), stack=5, locals=1),
    Replace(_OF_GRPC, _MILLISECONDS, _NANOSECONDS, stack=3),
    Replace(
        _OF_REST,
        old=_MILLISECONDS,
        new=f"""
            {_NANOSECONDS}
            aload_0
            {_header("x-request-id", "-")}
            {_header("traceparent", "-")}
            {_header("content-length", "-")}
            invokevirtual {_SESSION}.identify:({_STRING}{_STRING}{_STRING})V
        """,
        stack=6,
    ),
)

# static void refused(Channel channel, HttpMessage request, int code): a line for a request that HttpRequestHandler never sees.
_REFUSED = f"refused:(Lio/netty/channel/Channel;L{_HTTP}/HttpMessage;I)V"
_LOG = f"getstatic %s.logger:Lorg/slf4j/Logger;\naload %d\ninvokevirtual {_SESSION}.toString:(){_STRING}\n"
_LOG += f"invokeinterface org/slf4j/Logger.info:({_STRING})V"

NETTY_UTILS: tuple[Change, ...] = (
    Replace(
        "requestReceived",
        old="invokeinterface io/netty/channel/Channel.remoteAddress:()Ljava/net/SocketAddress;",
        new="invokeinterface io/netty/channel/Channel.localAddress:()Ljava/net/SocketAddress;",
    ),
    Replace(
        "sendHttpResponse",
        old=f"invokevirtual {_SESSION}.getRequestId:(){_STRING}",
        new=f"invokevirtual {_SESSION}.answerId:(){_STRING}",
    ),
    Method(
        _REFUSED,
        code=f"""
            new {_SESSION}
            dup
            aload_0
            invokeinterface io/netty/channel/Channel.localAddress:()Ljava/net/SocketAddress;
            invokestatic java/lang/String.valueOf:(Ljava/lang/Object;){_STRING}
            aload_1
            checkcast {_HTTP}/HttpRequest
            invokespecial {_SESSION}.{_OF_REST}
            astore_3
            aload_3
            iload_2
            invokevirtual {_SESSION}.setCode:(I)V
            {_LOG % (f"{_SERVE}/util/NettyUtils", 3)}
            return
        """,
        stack=4,
        locals=4,
        access=PUBLIC | STATIC,
    ),
)


def _say_refused(channel: str, request: str, code: int) -> str:
    return f"{channel}\n{request}\nsipush {code}\ninvokestatic {_SERVE}/util/NettyUtils.{_REFUSED}\n"


def _say_before(answer: str, code: int) -> Replace:
    """In `continueResponse`, which answers a client that asks before it sends the body."""
    old = f"getstatic {_HTTP}/HttpObjectAggregator.{answer}:L{_HTTP}/FullHttpResponse;"
    channel = "aload_2\ninvokeinterface io/netty/channel/ChannelPipeline.channel:()Lio/netty/channel/Channel;"
    return Replace("continueResponse", old, _say_refused(channel, "aload_0", code) + old, stack=3)


HTTP_OBJECT_AGGREGATOR: tuple[Change, ...] = (
    Replace(
        f"handleOversizedMessage:(Lio/netty/channel/ChannelHandlerContext;L{_HTTP}/HttpMessage;)V",
        old="",
        new=_say_refused(
            "aload_1\ninvokeinterface io/netty/channel/ChannelHandlerContext.channel:()Lio/netty/channel/Channel;",
            "aload_2",
            413,
        ),
        stack=3,
    ),
    _say_before("EXPECTATION_FAILED", 417),
    _say_before("TOO_LARGE", 413),
)


def _metadata(name: str) -> str:
    """`String.valueOf(headers.get(Metadata.Key.of(name, …)))`; `null` is no valid value of any."""
    return f"""
        aload_2
        ldc_w "{name}"
        getstatic io/grpc/Metadata.ASCII_STRING_MARSHALLER:Lio/grpc/Metadata$AsciiMarshaller;
        invokestatic io/grpc/Metadata$Key.of:({_STRING}Lio/grpc/Metadata$AsciiMarshaller;)Lio/grpc/Metadata$Key;
        invokevirtual io/grpc/Metadata.get:(Lio/grpc/Metadata$Key;)Ljava/lang/Object;
        invokestatic java/lang/String.valueOf:(Ljava/lang/Object;){_STRING}
    """


_INTERCEPTOR = f"{_SERVE}/grpcimpl/GRPCInterceptor"
_WRAPPED = f"""
    new {_INTERCEPTOR}$2
    dup
    aload_0
    aload_1
    aload 6
    invokespecial {_INTERCEPTOR}$2.<init>:(L{_INTERCEPTOR};Lio/grpc/ServerCall;L{_SESSION};)V
    aload_2
"""
_DENIED = "aload_1\ngetstatic io/grpc/Status.PERMISSION_DENIED:Lio/grpc/Status;"
_LISTENER = "Lio/grpc/ServerCall$Listener;"

GRPC_INTERCEPTOR: tuple[Change, ...] = (
    Replace(
        "interceptCall",
        old="""
            aload_1
            invokevirtual io/grpc/ServerCall.getAttributes:()Lio/grpc/Attributes;
            getstatic io/grpc/Grpc.TRANSPORT_ATTR_REMOTE_ADDR:Lio/grpc/Attributes$Key;
            invokevirtual io/grpc/Attributes.get:(Lio/grpc/Attributes$Key;)Ljava/lang/Object;
            checkcast java/net/SocketAddress
            invokevirtual java/lang/Object.toString:()Ljava/lang/String;
        """,
        new='ldc_w "grpc"',
    ),
    Replace(
        "interceptCall",
        old="astore 6",
        new=f"""
            astore 6
            aload 6
            {_metadata("x-request-id")}
            {_metadata("traceparent")}
            ldc_w "-"
            invokevirtual {_SESSION}.identify:({_STRING}{_STRING}{_STRING})V
        """,
        stack=5,
    ),
    Replace(
        "interceptCall",
        old=_DENIED,
        new=f"""
            aload 6
            bipush 7
            invokevirtual {_SESSION}.setCode:(I)V
            {_LOG % (_INTERCEPTOR, 6)}
            {_DENIED}
        """,
        stack=3,
    ),
    # Contexts.interceptCall(Context.current().withValue(Session.KEY, session), call, headers, next): `asked` finds it there.
    Replace(
        "interceptCall",
        old=f"""
            aload_3
            {_WRAPPED}
            invokeinterface io/grpc/ServerCallHandler.startCall:(Lio/grpc/ServerCall;Lio/grpc/Metadata;){_LISTENER}
        """,
        new=f"""
            invokestatic io/grpc/Context.current:()Lio/grpc/Context;
            getstatic {_SESSION}.KEY:Lio/grpc/Context$Key;
            aload 6
            invokevirtual io/grpc/Context.withValue:(Lio/grpc/Context$Key;Ljava/lang/Object;)Lio/grpc/Context;
            {_WRAPPED}
            aload_3
            invokestatic io/grpc/Contexts.interceptCall:(Lio/grpc/Context;Lio/grpc/ServerCall;Lio/grpc/Metadata;\
Lio/grpc/ServerCallHandler;){_LISTENER}
        """,
        stack=6,
    ),
)


def ask(method: str, version: str) -> Replace:
    """`Session.asked(version)` for the id of a gRPC job, where it was a random one of its own."""
    return Replace(
        method,
        old="""
            invokestatic java/util/UUID.randomUUID:()Ljava/util/UUID;
            invokevirtual java/util/UUID.toString:()Ljava/lang/String;
        """,
        new=f"{version}\ninvokestatic {_SESSION}.asked:({_STRING}){_STRING}",
    )
