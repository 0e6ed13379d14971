"""What can go wrong around a server, each with a stable code."""

from __future__ import annotations

from detector.errors import UnmaskError


class StartupFailed(UnmaskError):
    """The server did not become ready; the message has the worker's or the JVM's reason."""

    code = "startup_failed"


class ClassFileError(UnmaskError):
    """A compiled Java class is not one, or does not hold what a patch expects there."""

    code = "bad_class_file"


class PortTaken(UnmaskError):
    """Something else listens on a port that was asked for."""

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
    """The server does not serve this version of the model; the message names those it does."""

    code = "unknown_version"
    status = 404


class TokenRefused(UnmaskError):
    """TorchServe wants another token: the one it got is wrong, has expired, or was not there."""

    code = "token_refused"
    status = 400


class ServerUnreachable(UnmaskError):
    """Nothing answers where the server should be."""

    code = "server_unreachable"
    status = 503
