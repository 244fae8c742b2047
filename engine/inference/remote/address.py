"""The address of a model on a server, `http://host:port/v1#name`: read and checked, its credentials apart.

It opens no connection and resolves no name.
"""

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from engine.errors import ModelError

_FORM = "http://host:port/v1#name"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens and what it calls the model. `url` has no trailing slash and no credentials."""

    url: str
    model: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def name(self) -> str:
        """The model as a person may read it."""
        return f"{self.url}#{self.model}"


def is_address(name: str) -> bool:
    """Whether a model name means a server."""
    return name.startswith(("http://", "https://"))


def read_address(name: str, allow_remote: bool) -> Address:
    """The parts of a model name that `is_address`.

    Raises:
        ModelError: it is no such address, or leaves this machine without `allow_remote`.
    """
    try:
        parts = urlsplit(name)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ModelError(f"a model's address is not valid ({error}): write it as {_FORM}") from None
    if not host or parts.query or not parts.fragment or any(ord(sign) <= 32 for sign in name):
        shown = f"{parts.scheme}://{host or ''}"
        raise ModelError(f"model {shown}…: a host and the model's name after a # are needed: write it as {_FORM}")
    place = f"[{host}]" if ":" in host else host
    url = f"{parts.scheme}://{place}{f':{port}' if port is not None else ''}{parts.path.rstrip('/')}"
    if not (allow_remote or _is_loopback(host)):
        raise ModelError(
            f"{url}: {host} is not this machine, and prompts and rows would leave it; "
            "if you mean that, write `runtime: {allow_remote: true}` in the task file"
        )
    return Address(url, unquote(parts.fragment), unquote(parts.username or ""), unquote(parts.password or ""))


def _is_loopback(host: str) -> bool:
    """localhost, 127.0.0.0/8 or ::1 as written; a name that merely resolves to them does not count."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
