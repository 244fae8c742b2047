"""The runtime: drives flows, so that whatever they ask for together is computed together and never twice.

Each pass resumes every flow that can go on, answers what the store knows and hands the rest to the backends. What
comes back is committed, and only then used; flows go on while others still wait. Two flows that ask the same thing at
the same time share one call.
"""

import queue
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, TypeVar, cast

from engine.errors import ModelError
from engine.flows import Drop, Flow, Keep, Together, Watched
from engine.inference.backend import Backend
from engine.inference.service import Prepared, Service
from engine.inference.usage import Usage
from engine.records import Call, Completion, Count, Generate, Remark, Request, Role, Score, Trace
from engine.store.keys import call_key, canonical
from engine.store.store import Store

T = TypeVar("T")

Allow = Callable[[Usage], None]
Watch = Callable[[Usage, int], None]


@dataclass(eq=False)
class _Frame:
    """A running flow, where its result goes, and what it waits for: a call by its key, or flows side by side.

    `unsettled` are the answers to a flow that may yet be given up: they count once it is known that it was not.
    """

    flow: Flow[Any]
    parent: "_Frame | None" = None
    place: int = 0
    ended: bool = False
    awaited: str | None = None
    children: "list[_Frame]" = field(default_factory=list)
    results: list[Any] = field(default_factory=list)
    missing: int = 0
    drop: Drop | None = None
    unsettled: list[Completion] | None = None


class Runtime:
    """Models and services by role, one store, and the totals of what models were asked.

    Use it as a context manager, from one thread.
    """

    def __init__(
        self, backends: Mapping[Role, Backend], store: Store, services: Mapping[Role, Service] | None = None
    ) -> None:
        """`backends` needs a `task`; an absent `optimizer` is the task's. The runtime closes all it is given."""
        self._backends: dict[Role, Backend] = {"optimizer": backends["task"], **backends}
        self._services: dict[Role, Service] = {**(services or {}), **self._backends}
        self.store = store
        self.usage = Usage()

    def __enter__(self) -> "Runtime":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Free the models and services and close the store. Closing twice is harmless."""
        for service in self.services():
            service.close()
        self.store.close()

    def backend(self, role: Role) -> Backend:
        """The model that answers for a role."""
        return self._backends[role]

    def service(self, role: Role) -> Service:
        """Whatever answers for a role.

        Raises:
            ModelError: nothing does.
        """
        if role not in self._services:
            raise ModelError(f"nothing answers requests for {role} in this runtime")
        return self._services[role]

    def services(self) -> list[Service]:
        """Models, then other services, each once."""
        ordered = (*self._backends.values(), *self._services.values())
        return list({id(service): service for service in ordered}.values())

    def computed_tokens(self) -> int:
        """Rows given to llama_decode so far, by all models."""
        models = {id(backend): backend for backend in self._backends.values()}
        return sum(backend.computed_tokens() for backend in models.values())

    def run(self, flow: Flow[T], *, run: str = "", allow: Allow | None = None, watch: Watch | None = None) -> T:
        """Drive a flow to its end and return its result.

        `run` names the run its traces and remarks belong to. `allow` is called with the totals before every request,
        after every batch of completions and at the end; what it raises ends the flow. `watch` is told the totals and
        how many requests are open, for progress.
        """
        session = _Session(self, run, allow or _anything, watch or _nobody)
        started = time.perf_counter()
        try:
            return cast(T, session.drive(flow))
        finally:
            self.usage.seconds += time.perf_counter() - started


class _Session:
    """One `Runtime.run`: its frames, what they wait for, and what waits to be committed."""

    def __init__(self, runtime: Runtime, run: str, allow: Allow, watch: Watch) -> None:
        self._runtime, self._run, self._allow, self._watch = runtime, run, allow, watch
        self._ready: deque[tuple[_Frame, Any]] = deque()
        self._waiting: dict[str, list[_Frame]] = {}
        self._asked: dict[str, tuple[Service, Prepared]] = {}
        self._unwanted = False
        self._queue: list[str] = []
        self._traces: list[Trace] = []
        self._remarks: list[Remark] = []
        self._replies: queue.SimpleQueue[tuple[str, Completion]] = queue.SimpleQueue()

    def drive(self, flow: Flow[Any]) -> Any:
        root = _Frame(flow)
        root.results, root.missing = [None], 1
        top = _Frame(flow, parent=root)
        self._ready.append((top, None))
        try:
            while root.missing:
                while self._ready:
                    self._advance(*self._ready.popleft())
                self._cancel_unwanted()
                self._submit()
                if self._waiting:
                    self._receive()
            self._allow(self._runtime.usage)  # here too, so that a replay from the store ends where the first run did
            return root.results[0]
        finally:
            if root.missing:  # something was raised: drop what is in progress, what was finished stays
                for service in self._runtime.services():
                    service.cancel()
            self._commit(self._expected(self._arrived()))

    def _advance(self, frame: _Frame, value: Any) -> None:
        """Resume one flow with a value and see to whatever it asks for next."""
        if frame.ended:
            return
        try:
            effect = frame.flow.send(value)
        except StopIteration as stop:
            self._finish(frame, stop.value)
            return
        if isinstance(effect, Together | Watched):
            frame.results, frame.missing = [None] * len(effect.flows), len(effect.flows)
            frame.drop = effect.drop if isinstance(effect, Watched) else None
            frame.children = [_Frame(child, frame, place) for place, child in enumerate(effect.flows)]
            for child in frame.children:
                child.unsettled = [] if frame.drop else frame.unsettled
            self._ready.extend((child, None) for child in frame.children)
            if not effect.flows:
                self._ready.append((frame, []))
        elif isinstance(effect, Keep):
            self._traces += [kept for kept in effect.kept if isinstance(kept, Trace)]
            self._remarks += [kept for kept in effect.kept if isinstance(kept, Remark)]
            self._ready.append((frame, None))
        elif isinstance(effect, Count):
            count = self._runtime.backend(effect.role).count(effect.prompt)
            self._ready.append((frame, Completion(count=count)))
        else:
            self._ask(frame, effect)

    def _finish(self, frame: _Frame, result: Any) -> None:
        parent = frame.parent
        assert parent is not None  # only the root has none, and it runs no flow of its own
        frame.ended = True
        parent.results[frame.place] = result
        parent.missing -= 1
        for place in parent.drop(frame.place, result) if parent.drop else ():
            parent.results[place] = None
            parent.missing -= not parent.children[place].ended
            self._give_up(parent.children[place])
        if parent.missing == 0 and parent.parent is not None:
            self._settle(parent)
            self._ready.append((parent, parent.results))

    def _settle(self, frame: _Frame) -> None:
        """Flows that ran side by side have ended: count what was answered to those that were not given up.

        What the others had been answered by then is chance, so each of them counts as much as one that ended.
        """
        ended = [child for child, result in zip(frame.children, frame.results, strict=True) if result is not None]
        given_up = len(frame.children) - len(ended)
        frame.children = []
        if not frame.drop:
            return
        answers = [completion for child in ended for completion in child.unsettled or ()]
        for completion in answers:
            self._count(frame, completion)
        if ended and given_up:
            read = sum(completion.prompt_tokens for completion in answers) * given_up // len(ended)
            written = sum(completion.generated_tokens for completion in answers) * given_up // len(ended)
            self._count(frame, Completion(prompt_tokens=read, generated_tokens=written))

    def _count(self, frame: _Frame, completion: Completion) -> None:
        if frame.unsettled is None:
            self._runtime.usage.count(completion)
        else:
            frame.unsettled.append(completion)

    def _give_up(self, frame: _Frame) -> None:
        """End a flow and all it runs where they are. What it waits for goes on while anything else waits for it."""
        if frame.ended:
            return
        frame.ended = True
        frame.flow.close()
        for child in frame.children:
            self._give_up(child)
        if frame.awaited is not None:
            self._waiting[frame.awaited].remove(frame)
            self._unwanted = True

    def _cancel_unwanted(self) -> None:
        """Take calls that nothing waits for out of the queue, or cancel them where they are under way."""
        if not self._unwanted:
            return
        self._unwanted = False
        unwanted = {key for key, frames in self._waiting.items() if not frames}
        for key in unwanted:
            del self._waiting[key]
        queued = unwanted.intersection(self._queue)
        for key in queued:
            del self._asked[key]
        self._queue = [key for key in self._queue if key not in queued]
        for service in self._runtime.services():
            under_way = [key for key in unwanted - queued if self._asked[key][0] is service]
            if under_way:
                service.cancel(under_way)

    def _ask(self, frame: _Frame, request: Request) -> None:
        """Answer from the store, join a call in flight, or queue a new one."""
        usage = self._runtime.usage
        self._allow(usage)
        service = self._runtime.service(request.role)
        of_model = isinstance(request, Generate | Score)
        usage.calls += of_model
        try:
            prepared = service.prepare(request)
        except ModelError as error:
            usage.failed_calls += of_model
            self._ready.append((frame, Completion(error=str(error))))
            return
        key = call_key(service.identity, prepared.content)
        if key in self._waiting:
            usage.cached_calls += of_model
            self._waiting[key].append(frame)
            frame.awaited = key
            return
        known = self._runtime.store.completion(key)
        if known is not None:
            usage.cached_calls += of_model
            self._count(frame, known)
            self._ready.append((frame, known))
            return
        self._waiting[key] = [frame]
        frame.awaited = key
        self._asked[key] = (service, prepared)
        self._queue.append(key)

    def _submit(self) -> None:
        """Hand queued requests to their services, in the order asked; to models first, which work in the background."""
        queued, self._queue = self._queue, []
        for service in self._runtime.services() if queued else ():
            asked = [(key, self._asked[key][1]) for key in queued if self._asked[key][0] is service]
            if asked:
                service.submit(asked, lambda key, completion: self._replies.put((key, completion)))

    def _receive(self) -> None:
        """Wait for completions, commit those that have come, and ready the flows that wait for them."""
        usage = self._runtime.usage
        completions = self._expected([self._reply(), *self._arrived()])
        usage.computed_tokens = self._runtime.computed_tokens()
        self._commit(completions)
        for completion in completions:
            of_model = isinstance(self._asked.pop(completion.key)[1].request, Generate | Score)
            for frame in self._waiting.pop(completion.key, ()):
                if of_model:
                    self._count(frame, completion)
                frame.awaited = None
                self._ready.append((frame, completion))
        self._watch(usage, len(self._waiting))
        self._allow(usage)

    def _expected(self, arrived: Sequence[Completion]) -> list[Completion]:
        """Each call's completion once. One that was cancelled and asked again while it was answered may come twice."""
        return list({found.key: found for found in arrived if found.key in self._asked}.values())

    def _reply(self) -> Completion:
        key, completion = self._replies.get()
        return replace(completion, key=key)

    def _arrived(self) -> list[Completion]:
        """Completions that are here already."""
        found = []
        while not self._replies.empty():
            found.append(self._reply())
        return found

    def _commit(self, arrived: Sequence[Completion]) -> None:
        calls = []
        for completion in arrived:
            service, prepared = self._asked[completion.key]
            request = canonical(prepared.content)
            calls.append(
                Call(completion.key, service.name, prepared.content["kind"], request, prepared.prompt, completion)
            )
        if calls or self._traces or self._remarks:
            self._runtime.store.commit(calls, self._traces, self._run, self._remarks)
            self._traces.clear()
            self._remarks.clear()


def _anything(usage: Usage) -> None:
    """Allow every request."""


def _nobody(usage: Usage, open_requests: int) -> None:
    """Watch nothing."""
