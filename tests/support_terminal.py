"""Commands on a terminal of so many columns, in a process of their own."""

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}

COMMANDS = """
import fcntl, json, struct, sys, termios
from engine.cli import run
for columns, arguments in json.loads(sys.argv[1]):
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    assert run(arguments) == 0
    print("=====", flush=True)
"""


def on_a_terminal(*commands: tuple[int, list[str]]) -> list[list[str]]:
    """The lines that commands print on terminals of so many columns, without colours and spaces at the end."""
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in ENVIRONMENT.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = [sys.executable, "-c", COMMANDS, json.dumps(commands)]
    with subprocess.Popen(process, stdin=theirs, stdout=theirs, env=environment) as running:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # what Linux says once the other side is closed
            while part := os.read(ours, 65536):
                said += part
        os.close(ours)
    assert running.returncode == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said.decode()).replace("\r\n", "\n")
    return [[line.rstrip() for line in part.split("\n") if line.strip()] for part in text.split("=====")[:-1]]
