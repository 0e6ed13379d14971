"""Changes for the end of a server: no new connection, an answer to each request on the open ones, and none of them reset.

TERM lets the JVM run `ModelServer.stop()`. While the file `draining` is there, that closes the listener for REST, lets gRPC's
connections end, and then waits, as the main thread does, for the KILL that comes when nothing is left to do. Without the file
the JVM ends as TorchServe's does.
"""

from __future__ import annotations

from serve.jvm.changes import Change, Replace

DRAINING = "draining"
"""The file, in the JVM's working directory."""

_HTTP = "io/netty/handler/codec/http"
_SERVE = "org/pytorch/serve"
_STRING = "Ljava/lang/String;"
_IS_DRAINING = f"""
    new java/io/File
    dup
    ldc_w "{DRAINING}"
    invokespecial java/io/File.<init>:({_STRING})V
    invokevirtual java/io/File.exists:()Z
"""

# keepAlive &= !new File("draining").exists();
CLOSE_WITH_THE_ANSWER = Replace(
    "sendHttpResponse",
    old="",
    new=f"""
        iload_2
        {_IS_DRAINING}
        iconst_1
        ixor
        iand
        istore_2
    """,
    stack=4,
)

# Thread.sleep(new File("draining").exists() ? 32767 * 1000L : 0), without the branch: nine hours.
_WAIT = f"""
    {_IS_DRAINING}
    sipush 32767
    imul
    sipush 1000
    imul
    i2l
    invokestatic java/lang/Thread.sleep:(J)V
"""
_LINGER = "getstatic io/netty/channel/ChannelOption.SO_LINGER:Lio/netty/channel/ChannelOption;"
_FUTURES = f"getfield {_SERVE}/ModelServer.futures:Ljava/util/List;"
_ITERATOR = "invokeinterface java/util/List.iterator:()Ljava/util/Iterator;"
_CLOSED = "invokeinterface io/netty/channel/ChannelFuture.sync:()Lio/netty/channel/ChannelFuture;\npop"
_SNAPSHOT = f"invokevirtual {_SERVE}/snapshot/SnapshotManager.saveShutdownSnapshot:()V"

MODEL_SERVER: tuple[Change, ...] = (
    # childOption(ChannelOption.SO_LINGER, -1), where it was 0: closing a connection threw away what was not yet sent.
    Replace("initializeServer", old=f"{_LINGER}\niconst_0", new=f"{_LINGER}\niconst_m1"),
    # The listener for REST does not wait for the calls over gRPC.
    Replace("stopgRPCServer", old="invokevirtual io/grpc/Server.awaitTermination:()V", new="pop"),
    # Of the listeners, the first: that for predictions. The supervisor goes on asking the one for management.
    Replace(
        "stop",
        old=f"{_FUTURES}\n{_ITERATOR}",
        new=f"{_FUTURES}\niconst_0\niconst_1\ninvokeinterface java/util/List.subList:(II)Ljava/util/List;\n{_ITERATOR}",
        stack=3,
    ),
    Replace("stop", old=_SNAPSHOT, new=f"{_SNAPSHOT}\n{_WAIT}", stack=3),
    # The main thread waits for that listener, and would close all connections then.
    Replace("startAndWait", old=_CLOSED, new=f"{_CLOSED}\n{_WAIT}", stack=3),
)
