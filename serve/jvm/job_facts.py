"""Changes that tell a worker what it can't see: when a request came, what waited before it, and whether its client left."""

from __future__ import annotations

from serve.jvm.changes import Method, Replace

_SERVE = "org/pytorch/serve"
_INPUT = f"{_SERVE}/util/messages/RequestInput"
_STRING = "Ljava/lang/String;"


_HEADER = "unmask-job"


def _tell_worker(job: str, value: str) -> str:
    """`job.getPayload().updateHeaders(…, value)`."""
    return f"""
        {job}
        invokevirtual {_SERVE}/job/Job.getPayload:()L{_INPUT};
        ldc_w "{_HEADER}"
        {value}
        invokevirtual {_INPUT}.updateHeaders:({_STRING}{_STRING})V
    """


def _and(value: str) -> str:
    """A space and `value`, appended to the string on the stack."""
    concat = f"invokevirtual java/lang/String.concat:({_STRING}){_STRING}"
    return f'ldc_w " "\n{concat}\n{value}\n{concat}'


_OFFER = "aload_1\ninvokevirtual java/util/concurrent/LinkedBlockingDeque.offer:(Ljava/lang/Object;)Z\nireturn"
_BEGIN = f"""
    aload_1
    invokevirtual {_SERVE}/job/Job.getBegin:()J
    invokestatic java/lang/Long.toString:(J){_STRING}
"""
_PENDING = f"""
    aload_0
    invokevirtual {_SERVE}/wlm/Model.getPendingRequestsInJobQueue:()I
    invokestatic java/lang/Integer.toString:(I){_STRING}
"""
# When the job came, by the clock of Python's time.monotonic_ns(), and how many wait before it. One header holds all that a
# worker is told, as each costs time on both sides.
TELL_BEGIN_AND_QUEUE = Replace(
    f"addJob:(L{_SERVE}/job/Job;)Z",
    old=_OFFER,
    new=f"{_tell_worker('aload_1', _BEGIN + _and(_PENDING))}\n{_OFFER}",
    stack=6,
)

_ADD_REQUEST = f"""
    aload_3
    aload 5
    invokevirtual {_SERVE}/job/Job.getPayload:()L{_INPUT};
    invokevirtual {_SERVE}/util/messages/ModelInferenceRequest.addRequest:(L{_INPUT};)V
"""
_TOLD = f"""
    aload 5
    invokevirtual {_SERVE}/job/Job.getPayload:()L{_INPUT};
    invokevirtual {_INPUT}.getHeaders:()Ljava/util/Map;
    ldc_w "{_HEADER}"
    invokeinterface java/util/Map.get:(Ljava/lang/Object;)Ljava/lang/Object;
    invokestatic java/lang/String.valueOf:(Ljava/lang/Object;){_STRING}
"""
_IS_OPEN = f"""
    aload 5
    invokevirtual {_SERVE}/job/Job.isOpen:()Z
    invokestatic java/lang/String.valueOf:(Z){_STRING}
"""
# And whether the client still waits when a worker takes the job.
TELL_OPEN = Replace(
    "getRequest",
    old=_ADD_REQUEST,
    new=f"{_tell_worker('aload 5', _TOLD + _and(_IS_OPEN))}\n{_ADD_REQUEST}",
    stack=5,
)


def _or_else(name: str) -> str:
    """`.or(…)` for what is on the stack: the field, where that is null."""
    return f"""
        invokestatic java/util/Optional.ofNullable:(Ljava/lang/Object;)Ljava/util/Optional;
        aload_0
        getfield {_SERVE}/job/GRPCJob.{name}:Lio/grpc/stub/StreamObserver;
        invokevirtual java/util/Optional.orElse:(Ljava/lang/Object;)Ljava/lang/Object;
    """


# TorchServe's own says the opposite, and knows one of the three kinds of calls.
IS_OPEN = Method(
    "isOpen:()Z",
    code=f"""
        aload_0
        getfield {_SERVE}/job/GRPCJob.predictionResponseObserver:Lio/grpc/stub/StreamObserver;
        {_or_else("modelInferResponseObserver")}
        {_or_else("managementResponseObserver")}
        checkcast io/grpc/stub/ServerCallStreamObserver
        invokevirtual io/grpc/stub/ServerCallStreamObserver.isCancelled:()Z
        iconst_1
        ixor
        ireturn
    """,
    stack=2,
    locals=1,
)
