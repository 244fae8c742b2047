"""Reading a text file that a person wrote: UTF-8, or one line that says where it is not."""

import re
from pathlib import Path

from engine.errors import ContentError, UsageError

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")


def read_text(path: Path) -> str:
    """The text of a UTF-8 file without its byte order mark; a CRLF reads as LF wherever it stands.

    Raises:
        UsageError: there is no such file, or it cannot be read.
        ContentError: it is not UTF-8; the message starts with file:line.
    """
    if not path.is_file():
        if (path / "task.yaml").is_file():
            raise UsageError(f"{path}: is a folder; give {path / 'task.yaml'}")
        raise UsageError(f"{path}: {'is a folder, not a file' if path.is_dir() else 'no such file'}")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    return decoded(raw, path)


def decoded(raw: bytes, path: Path) -> str:
    """The text of bytes that came from `path`, as `read_text` gives it.

    Raises:
        ContentError: they are not UTF-8; the message starts with file:line.
    """
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ContentError(f"{path}:{line}: not UTF-8 text") from None


def is_whole(text: str) -> bool:
    """Whether every character is whole: an escaped half of a surrogate pair is none, and cannot be written."""
    return not _HALF_CHARACTER.search(text)
