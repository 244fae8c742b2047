"""Tools as a service: what a user's function takes, and what it gives.

A function is taken to be a pure one of its arguments, as a model is of its prompt: what it gave is kept in the store
until its file changes.
"""

import json
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from engine.errors import LocalgradError
from engine.inference.models import file_sha256
from engine.inference.service import Prepared, Reply
from engine.records import CallTool, Completion, Describe, Request
from engine.tasks.usercode import load_function
from engine.tools.functions import call_tool, tool_declaration


class ToolService:
    """Answers Describe and CallTool; the paths of `file.py:function` start from `folder`.

    A file is read once, so that the functions in it share what else is in it.
    """

    name = "tools"
    identity = "tools 1"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._functions: dict[str, tuple[Callable[..., Any], str]] = {}
        self._files: dict[Path, ModuleType] = {}

    def function(self, tool: str) -> Callable[..., Any]:
        """The function that `file.py:function` names, read once.

        Raises:
            UsageError: no such file.
            ContentError: no such function, or it cannot be a tool.
        """
        return self._loaded(tool)[0]

    def prepare(self, request: Request) -> Prepared:
        """A tool is keyed by the content of its file.

        Raises:
            UsageError, ContentError: as `function`.
        """
        assert isinstance(request, Describe | CallTool)  # the role is these two's
        content = {"tool": request.tool.rpartition(":")[2], "source": self._loaded(request.tool)[1]}
        if isinstance(request, Describe):
            return Prepared(request, request.tool, {"kind": "describe", **content})
        shown = f"{content['tool']} {request.arguments}"
        return Prepared(request, shown, {"kind": "tool", "arguments": request.arguments, **content})

    def submit(self, asked: Sequence[tuple[str, Prepared]], reply: Reply) -> None:
        """Answer in the calling thread, one after another: a user's function need not bear company."""
        for key, prepared in asked:
            reply(key, self._answer(prepared.request))

    def _answer(self, request: Request) -> Completion:
        assert isinstance(request, Describe | CallTool)  # prepare has seen to it
        function = self.function(request.tool)
        try:
            if isinstance(request, Describe):
                return Completion(text=json.dumps(tool_declaration(function), ensure_ascii=False))
            with redirect_stdout(sys.stderr):  # results alone go to stdout
                return Completion(text=call_tool(function, json.loads(request.arguments)))
        except LocalgradError as error:
            return Completion(error=str(error))

    def _loaded(self, tool: str) -> tuple[Callable[..., Any], str]:
        if tool not in self._functions:
            function = load_function(tool, self._folder, f"tool {tool!r}", self._files)
            tool_declaration(function)
            self._functions[tool] = function, file_sha256(self._folder / tool.rpartition(":")[0])
        return self._functions[tool]

    def cancel(self, keys: Collection[str] | None = None) -> None:
        """Nothing is ever unfinished."""

    def close(self) -> None:
        """Nothing to free."""
