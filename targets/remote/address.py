"""Where a board is: `ssh://user@host:port`, and nothing that a shell or ssh could take for something else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import RecipeError

# Letters that names of users and hosts have, and a first one that no option starts with. A host may also be an alias of
# ~/.ssh/config or an IPv6 address.
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(%[A-Za-z0-9_.-]+)?")
HOW = "write it as ssh://user@host or ssh://user@host:port; the host may be a name from your ~/.ssh/config"


@dataclass(frozen=True, kw_only=True)
class Address:
    """user, port: None: what the ssh configuration says."""

    host: str
    user: str | None = None
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> Address:
        """RecipeError: it is no such address."""
        if any(ord(letter) < 33 or ord(letter) > 126 for letter in text):
            raise RecipeError(f"device {text!r} holds spaces or letters that no address has; {HOW}")
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise RecipeError(f"device {text!r}: {error}; {HOW}") from None
        if parts.scheme != "ssh" or not parts.netloc:
            raise RecipeError(f"device {text!r} is no ssh address; {HOW}")
        if parts.password is not None:
            raise RecipeError("a device's address holds no password: use an ssh key or your agent")
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise RecipeError(f"device {text!r} goes on after the host; {HOW}")
        user, _, host_port = parts.netloc.rpartition("@")
        host = host_port[1 : host_port.index("]")] if host_port.startswith("[") else host_port.partition(":")[0]
        if not HOST.fullmatch(host):
            raise RecipeError(f"device {text!r}: {host!r} is no host; {HOW}")
        if user and not USER.fullmatch(user):
            raise RecipeError(f"device {text!r}: {user!r} is no user; {HOW}")
        if port == 0:
            raise RecipeError(f"device {text!r}: 0 is no port; {HOW}")
        return cls(host=host, user=user or None, port=port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{self.user + '@' if self.user else ''}{host}{f':{self.port}' if self.port else ''}"
