"""What OpenSSH's messages mean for somebody who wants to reach a board."""

from __future__ import annotations

import re

from ..errors import DeviceError, LostConnectionError, UnreachableError
from .address import Address

CLOSED = re.compile(
    r"closed by remote host|Connection reset|Broken pipe|Timeout, server .* not responding|"
    r"client_loop: send disconnect|mux_client|Connection to .* closed|Shared connection to .* closed|control socket",
    re.IGNORECASE,
)
NO_ROUTE, REFUSED, SILENT = (
    r"No route to host|Network is unreachable",
    r"Connection refused",
    r"Connection timed out|Operation timed out|timed out",
)
AWAY = (NO_ROUTE, REFUSED, SILENT)  # what a board that restarts looks like for a while
CAUSES = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one that is known. If you flashed the board again, forget the old key with "
        "`ssh-keygen -R {known}`; if not, somebody else may be answering",
    ),
    (
        r"Host key verification failed|No .* host key is known",
        "its host key is not known yet: connect once by hand (`ssh {plain}`), compare the fingerprint and accept it",
    ),
    (
        r"Could not resolve hostname|Name or service not known|nodename nor servname",
        "no such host: check the name, your network and ~/.ssh/config",
    ),
    (NO_ROUTE, "there is no route to it: is it on, and in the same network?"),
    (REFUSED, "it answers, but no ssh server listens there: check the port, and that sshd runs"),
    (SILENT, "it does not answer: is it on, and in the same network?"),
    (
        r"Permission denied|Too many authentication failures|no mutual signature",
        "it accepts no key of yours, and a password is never asked for here: install one with `ssh-copy-id {plain}`",
    ),
    (r"Bad owner or permissions|bad configuration option", "your ssh configuration cannot be used"),
)  # fmt: skip


def explain(stderr: str, address: Address) -> DeviceError:
    """The error to raise: LostConnectionError where trying again can help."""
    last = stderr.strip().splitlines()[-1] if stderr.strip() else "ssh said nothing"
    names = {
        "plain": f"{'-p ' + str(address.port) + ' ' if address.port else ''}"
        f"{address.user + '@' if address.user else ''}{address.host}",
        "known": f"[{address.host}]:{address.port}" if address.port else address.host,
    }
    for pattern, advice in CAUSES:
        if re.search(pattern, stderr, re.IGNORECASE):
            kind = UnreachableError if pattern in AWAY else DeviceError
            return kind(f"{address}: {advice.format(**names)} ({last})")
    if CLOSED.search(stderr) or not stderr.strip():
        return LostConnectionError(f"{address}: the connection broke ({last})")
    return DeviceError(f"{address}: ssh failed: {last}")
