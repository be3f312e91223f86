"""The socket a gateway listens on, opened here or inherited from the supervisor; and how many come in by it at a time."""

from __future__ import annotations

import os
import resource
import socket

from gateway.errors import SettingsError

BACKLOG = 2048
MOST_CONNECTIONS = 4096
OTHER_FILES = 256


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises SettingsError, with what to do, when there can be none."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server((str(address[0]), port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"cannot listen on {host}, port {port}: {error.strerror}; choose another by TIDEGATE_HOST, TIDEGATE_PORT"
        ) from None


def inherited() -> socket.socket | None:
    """The socket that the supervisor has opened for this process; None where there is no supervisor."""
    descriptor = os.environ.get("TIDEGATE_LISTEN_FD")
    return socket.socket(fileno=int(descriptor)) if descriptor else None


def most_connections() -> int:
    """How many connections may be open at a time, so that files are left for the database; the limit of files is raised for them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + OTHER_FILES
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    return max(allowed - OTHER_FILES, allowed // 2)
