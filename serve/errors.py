"""What goes wrong around a server: on its way up and down, and in its clients' hands."""

from __future__ import annotations

from detector.errors import UnmaskError


class StartupFailed(UnmaskError):
    """The server did not become ready; the message has the worker's or the JVM's reason."""

    code = "startup_failed"


class ClassFileError(UnmaskError):
    """A compiled Java class is not one, or does not hold what a patch expects there."""

    code = "bad_class_file"


class PortTaken(UnmaskError):
    """Another process uses a port that was asked for."""

    code = "port_taken"


class AlreadyRunning(UnmaskError):
    """A server already runs from this state folder."""

    code = "already_running"


class ServerDied(UnmaskError):
    """TorchServe ended by itself after it had been ready."""

    code = "server_died"


class StillRunning(UnmaskError):
    """A server was told to stop and did not."""

    code = "still_running"


class NotRunning(UnmaskError):
    """No server runs from this state folder."""

    code = "not_running"


class UnknownVersion(UnmaskError):
    """The server does not serve this version of the model; the message names those it serves."""

    code = "unknown_version"
    status = 404


class ServerUnreachable(UnmaskError):
    """Nothing answers at the server's address."""

    code = "server_unreachable"
    status = 503


# Below: what TorchServe's frontend answers by itself, before a handler has seen the request.


class ModelNotFound(UnmaskError):
    """The server has no model, or no version of it, of this name."""

    code = "model_not_found"
    status = 404


class TimedOut(UnmaskError):
    """The server did not answer in time."""

    code = "timeout"
    status = 408


class Overloaded(UnmaskError):
    """The queue is full, the server stops, or all its workers are being replaced; ask again later."""

    code = "overloaded"
    status = 503


class OutOfMemory(UnmaskError):
    """The worker ran out of memory with the photo in hand."""

    code = "out_of_memory"
    status = 507


class TokenRefused(UnmaskError):
    """The token is wrong, has expired, or is missing."""

    code = "token_refused"
    status = 400


class ServerError(UnmaskError):
    """TorchServe failed in another way; the message has its reason."""

    code = "server_error"
