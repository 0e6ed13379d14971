"""Changes for one line about each answered request in TorchServe's access log, over REST and gRPC.

`serve/jvm/session.py` has the line itself.
"""

from __future__ import annotations

from serve.jvm.changes import PUBLIC, STATIC, Change, Method, Replace
from serve.jvm.session import HTTP, OF_REST, SESSION, STRING

_SERVE = "org/pytorch/serve"

# static void refused(Channel channel, HttpMessage request, int code): a line for a request that HttpRequestHandler never sees.
_REFUSED = f"refused:(Lio/netty/channel/Channel;L{HTTP}/HttpMessage;I)V"
_LOG = f"getstatic %s.logger:Lorg/slf4j/Logger;\naload %d\ninvokevirtual {SESSION}.toString:(){STRING}\n"
_LOG += f"invokeinterface org/slf4j/Logger.info:({STRING})V"

NETTY_UTILS: tuple[Change, ...] = (
    Replace(
        "requestReceived",
        old="invokeinterface io/netty/channel/Channel.remoteAddress:()Ljava/net/SocketAddress;",
        new="invokeinterface io/netty/channel/Channel.localAddress:()Ljava/net/SocketAddress;",
    ),
    Replace(
        "sendHttpResponse",
        old=f"invokevirtual {SESSION}.getRequestId:(){STRING}",
        new=f"invokevirtual {SESSION}.answerId:(){STRING}",
    ),
    Method(
        _REFUSED,
        code=f"""
            new {SESSION}
            dup
            aload_0
            invokeinterface io/netty/channel/Channel.localAddress:()Ljava/net/SocketAddress;
            invokestatic java/lang/String.valueOf:(Ljava/lang/Object;){STRING}
            aload_1
            checkcast {HTTP}/HttpRequest
            invokespecial {SESSION}.{OF_REST}
            astore_3
            aload_3
            iload_2
            invokevirtual {SESSION}.setCode:(I)V
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
    old = f"getstatic {HTTP}/HttpObjectAggregator.{answer}:L{HTTP}/FullHttpResponse;"
    channel = "aload_2\ninvokeinterface io/netty/channel/ChannelPipeline.channel:()Lio/netty/channel/Channel;"
    return Replace("continueResponse", old, _say_refused(channel, "aload_0", code) + old, stack=3)


HTTP_OBJECT_AGGREGATOR: tuple[Change, ...] = (
    Replace(
        f"handleOversizedMessage:(Lio/netty/channel/ChannelHandlerContext;L{HTTP}/HttpMessage;)V",
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
        invokestatic io/grpc/Metadata$Key.of:({STRING}Lio/grpc/Metadata$AsciiMarshaller;)Lio/grpc/Metadata$Key;
        invokevirtual io/grpc/Metadata.get:(Lio/grpc/Metadata$Key;)Ljava/lang/Object;
        invokestatic java/lang/String.valueOf:(Ljava/lang/Object;){STRING}
    """


_INTERCEPTOR = f"{_SERVE}/grpcimpl/GRPCInterceptor"
_WRAPPED = f"""
    new {_INTERCEPTOR}$2
    dup
    aload_0
    aload_1
    aload 6
    invokespecial {_INTERCEPTOR}$2.<init>:(L{_INTERCEPTOR};Lio/grpc/ServerCall;L{SESSION};)V
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
            invokevirtual {SESSION}.identify:({STRING}{STRING}{STRING})V
        """,
        stack=5,
    ),
    Replace(
        "interceptCall",
        old=_DENIED,
        new=f"""
            aload 6
            bipush 7
            invokevirtual {SESSION}.setCode:(I)V
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
            getstatic {SESSION}.KEY:Lio/grpc/Context$Key;
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
        new=f"{version}\ninvokestatic {SESSION}.asked:({STRING}){STRING}",
    )


_QUEUE = "aload_0\ngetfield org/apache/logging/log4j/core/appender/AsyncAppenderEventDispatcher.queue:\
Ljava/util/concurrent/BlockingQueue;"
# LockSupport.parkNanos(queue.isEmpty() ? 100_000_000 : 0) before the thread that writes the lines waits for the next one.
# Otherwise it wakes for each line, and drives a worker off its CPU and out of its caches: that took 5 % of all answers.
GATHER = Replace(
    "dispatchAll",
    old=f"{_QUEUE}\ninvokeinterface java/util/concurrent/BlockingQueue.take:()Ljava/lang/Object;",
    new=f"""
        {_QUEUE}
        invokeinterface java/util/concurrent/BlockingQueue.isEmpty:()Z
        sipush 10000
        imul
        sipush 10000
        imul
        i2l
        invokestatic java/util/concurrent/locks/LockSupport.parkNanos:(J)V
        {_QUEUE}
        invokeinterface java/util/concurrent/BlockingQueue.take:()Ljava/lang/Object;
    """,
    stack=2,
)
