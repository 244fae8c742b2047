"""Models on a server: what is sent, what is made of the answers, and what happens when the server misbehaves.

The server here is a real one on the loopback interface, which imitates the protocol and its failures.
"""

import importlib.util
import json
import os
import queue
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import TaskMaker

from engine.cli import run as run_cli
from engine.errors import ModelError
from engine.flows import ask, together
from engine.inference.opening import open_backend
from engine.inference.remote.address import read_address
from engine.inference.remote.backend import RemoteBackend
from engine.inference.remote.replies import TokenLogprobs, choice_grammar, chosen
from engine.inference.remote.wire import Patience
from engine.inference.runtime import Runtime
from engine.records import Chat, Completion, Count, Generate, Message, Plain, Request, Score
from engine.store.keys import call_key, seed_of
from engine.store.store import Store
from engine.tasks.schema import RuntimeSettings
from engine.tasks.taskfile import load_task

QUICK = Patience(tries=4, delay_s=0.01, longest_delay_s=0.05, connect_s=2.0, total_s=5.0)
PATIENCE_S = 20.0
COUNTRY = "The United States of America"
ROOT = Path(__file__).parents[1]

Fault = Callable[["Handler", dict[str, Any]], bool]


def token_logprob(text: str) -> float:
    """What the server takes the log-probability of a word to be. It knows one country."""
    if text == " America":
        return -0.1
    return -round(1 + sum(text.encode()) % 97 / 10, 3)


def words(text: str) -> list[str]:
    """Tokens of the server: words with the white space before them."""
    return re.findall(r"\s*\S+|\s+$", text)


class Handler(BaseHTTPRequestHandler):
    """One request. `server.faults` are looked at first; each tells whether it has answered."""

    protocol_version = "HTTP/1.1"
    server: "FakeServer"

    def log_message(self, format: str, *args: Any) -> None:
        """Keep silent."""

    def do_GET(self) -> None:
        self.server.saw("GET", self.path, {}, dict(self.headers))
        if self.server.models is None:
            self.give(404, {"error": {"message": "no such place"}})
        else:
            self.give(200, {"object": "list", "data": self.server.models})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.working():
            self.server.saw("POST", self.path, body, dict(self.headers))
            if any(fault(self, body) for fault in self.server.faults):
                return
            time.sleep(self.server.delay_s)
            self.complete(body)

    def complete(self, body: dict[str, Any]) -> None:
        chat = self.path.endswith("/chat/completions")
        if not chat and not self.server.completions:
            self.give(404, {"error": {"message": "File Not Found"}})
        elif "grammar" in body and self.server.grammar == "refused":
            self.give(400, {"error": {"message": "unknown field: grammar"}})
        elif body.get("echo") and not self.server.echo:
            self.give(400, {"error": {"message": "Only no echo is supported"}})
        else:
            prompt = body["messages"][-1]["content"] if chat else body["prompt"]
            text = self.server.script(prompt, body)
            if "grammar" in body and self.server.grammar == "followed":
                text = re.findall(r'"([^" ]+)"', body["grammar"])[0]
            self.give(200, self.completion(prompt, text, body, chat))

    def completion(self, prompt: str, text: str, body: dict[str, Any], chat: bool) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
        if chat:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = prompt + text if body.get("echo") else text
        if body.get("logprobs"):
            tokens = [*self.server.first_token, *words(prompt), " more"]
            choice["logprobs"] = {
                "tokens": tokens,
                "token_logprobs": [
                    None,
                    *map(token_logprob, [*tokens, " most"][2:] if self.server.shifted else tokens[1:]),
                ],
                "text_offset": [sum(map(len, tokens[:place])) for place in range(len(tokens))],
                "top_logprobs": [None] * len(tokens),
            }
        usage = {"prompt_tokens": len(words(prompt)), "completion_tokens": len(words(text))}
        return {"id": "x", "object": "completion", "choices": [choice], "usage": usage}

    def give(self, status: int, body: Any, **headers: str) -> bool:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        return True


class FakeServer(ThreadingHTTPServer):
    """An OpenAI-compatible server that writes down what it is asked, and how much of it at the same time."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models: list[dict[str, Any]] | None = [{"id": "tiny", "owned_by": "here", "created": 1}]
        self.completions = self.echo = True
        self.shifted = False
        self.grammar = "followed"
        self.first_token: list[str] = []
        self.faults: list[Fault] = []
        self.delay_s = 0.0
        self.script: Callable[[str, dict[str, Any]], str] = lambda prompt, body: f"re {prompt[-20:]}"
        self.seen: list[tuple[str, str, dict[str, Any], dict[str, str]]] = []
        self.released = threading.Event()
        self._lock = threading.Lock()
        self._open = self.most_at_once = 0

    def working(self) -> "FakeServer":
        return self

    def __enter__(self) -> "FakeServer":
        with self._lock:
            self._open += 1
            self.most_at_once = max(self.most_at_once, self._open)
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._open -= 1

    def saw(self, *what: Any) -> None:
        with self._lock:
            self.seen.append(what)

    def handle_error(self, request: Any, address: Any) -> None:
        """A client that has hung up is no news."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def asked(self, ending: str) -> list[dict[str, Any]]:
        """Bodies of the requests to a path, those that only try out what the server can left out."""
        probes = ("1 2 3", COUNTRY, "Say hello.")
        return [
            body
            for method, path, body, _ in self.seen
            if method == "POST"
            and path == f"/v1{ending}"
            and (body.get("prompt") or body["messages"][-1]["content"]) not in probes
        ]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer()
    thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    fake.released.set()
    fake.shutdown()
    thread.join()
    fake.socket.close()


@pytest.fixture
def open_model(server: FakeServer) -> Iterator[Callable[..., RemoteBackend]]:
    opened: list[RemoteBackend] = []

    def make(patience: Patience = QUICK, name: str = "", **settings: Any) -> RemoteBackend:
        opened.append(RemoteBackend(name or f"{server.url}#tiny", RuntimeSettings(**settings), patience))
        return opened[-1]

    yield make
    server.released.set()
    for backend in opened:
        backend.close()


Opener = Callable[..., RemoteBackend]


def answers(backend: RemoteBackend, requests: Sequence[Request]) -> list[Completion]:
    """Completions of requests handed over together, in their order."""
    replies: queue.SimpleQueue[tuple[str, Completion]] = queue.SimpleQueue()
    asked = [(call_key(backend.identity, p.content), p) for p in map(backend.prepare, requests)]
    backend.submit(asked, lambda key, completion: replies.put((key, completion)))
    arrived = dict(replies.get(timeout=PATIENCE_S) for _ in asked)
    return [arrived[key] for key, _ in asked]


def answer(backend: RemoteBackend, request: Request) -> Completion:
    return answers(backend, [request])[0]


def say(text: str, **settings: Any) -> Generate:
    return Generate(Chat((Message("user", text),)), max_tokens=9, **settings)


CHAT = Chat((Message("system", "Be brief."), Message("user", "Which?")))


def failing(times: int, status: int, **headers: str) -> Fault:
    """Answers the first requests of a kind with an error."""
    left = [times]

    def fault(handler: Handler, body: dict[str, Any]) -> bool:
        if left[0] == 0:
            return False
        left[0] -= 1
        handler.give(status, {"error": {"message": "too busy"}}, **headers)
        return True

    return fault


def hanging(handler: Handler, body: dict[str, Any]) -> bool:
    """Never answers a prompt that says so."""
    if "hang" in json.dumps(body):
        handler.server.released.wait(PATIENCE_S)
        handler.close_connection = True
        return True
    return False


# ── addresses ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "LOCALHOST", "[::1]"])
def test_this_machine_needs_no_permission(host: str) -> None:
    assert read_address(f"http://{host}:8080/v1/#a/b:q4", allow_remote=False).model == "a/b:q4"


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "example.invalid", "0.0.0.0", "127.1", "localhost.example.invalid", "[::2]", "128.0.0.1"]
)
def test_another_machine_needs_permission_and_the_message_says_which(host: str) -> None:
    name = f"https://someone:secret@{host}:8080/v1#tiny"
    with pytest.raises(ModelError, match=r"is not this machine.*`runtime: \{allow_remote: true\}`") as caught:
        open_backend(name, Path(), RuntimeSettings())
    assert "secret" not in str(caught.value)
    assert read_address(name, allow_remote=True).name == f"https://{host}:8080/v1#tiny"


@pytest.mark.parametrize(
    "name",
    ["http://", "http://127.0.0.1/v1", "http://127.0.0.1/v1#", "http://127.0.0.1/v1?x=secret#m", "http:///v1#m",
     "http://127.0.0.1:99999/v1#m", "http://127.0.0.1:port/v1#m", "http://[::1/v1#m", "http://127.0.0.1/v1#a b"],
)  # fmt: skip
def test_what_is_no_address_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(ModelError, match="write it as http://host:port/v1#name") as caught:
        open_backend(name, Path(), RuntimeSettings())
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_task_file_allows_other_machines(make_task: TaskMaker) -> None:
    assert load_task(make_task(runtime={"allow_remote": True})).file.runtime.allow_remote
    assert not load_task(make_task()).file.runtime.allow_remote


# ── opening ──────────────────────────────────────────────────────────────────────────────────────


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_is_not_there_is_named_with_what_to_start() -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    with pytest.raises(ModelError, match=r"the connection failed.*start one: llama-server") as caught:
        open_backend(f"{url}#tiny", Path(), RuntimeSettings())
    assert str(caught.value).startswith(f"{url}/models: ")
    assert "\n" not in str(caught.value)


def test_identity_holds_what_lasts_and_no_credentials(server: FakeServer, open_model: Opener) -> None:
    server.models = [{"id": "other"}, {"id": "tiny", "created": 1, "meta": {"n_params": 7}, "permission": ["x"]}]
    name = f"{server.url}#tiny".replace("//", "//me:secret@")
    first = open_model(name=name)
    server.models[1] |= {"created": 2, "permission": ["y"]}
    assert open_model().identity == first.identity == f'{server.url}#tiny {{"id":"tiny","meta":{{"n_params":7}}}}'
    assert (first.name, first.sha256) == (f"{server.url}#tiny", "")
    assert server.seen[0][3]["Authorization"].startswith("Basic ")
    server.models[1]["meta"] = {"n_params": 8}
    assert open_model().identity != first.identity


@pytest.mark.parametrize(
    "models",
    [None, [], [{}], [{"id": "other"}], [{"id": "tiny", "meta": float("nan")}], [{"id": "tiny", "root": "\ud800"}]],
)
def test_a_server_without_an_entry_for_the_model_is_good_enough(
    server: FakeServer, open_model: Opener, models: list[dict[str, Any]] | None
) -> None:
    server.models = models
    assert open_model().identity == f"{server.url}#tiny "


def test_the_environment_names_no_proxy(
    server: FakeServer, open_model: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert answer(open_model(), say("hello")).text == "re hello"


def test_without_httpx_the_message_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['httpx'] = None\n"
        "from engine.cli import run\n"
        "from engine.inference.opening import open_backend\n"
        "from engine.tasks.schema import RuntimeSettings\n"
        "try: open_backend('http://127.0.0.1:9/v1#m', None, RuntimeSettings())\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "ModelError a model on a server needs httpx: pip install 'localgrad[remote]'\n"


# ── what is sent ─────────────────────────────────────────────────────────────────────────────────


def test_a_chat_is_sent_as_messages_with_its_settings(server: FakeServer, open_model: Opener) -> None:
    backend = open_model()
    request = Generate(CHAT, 7, stop=("\n",), temperature=0.5, top_p=0.9, sample=3)
    prepared = backend.prepare(request)
    found = answer(backend, request)
    (body,) = server.asked("/chat/completions")
    assert body == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Which?"}],
        "max_tokens": 7,
        "stop": ["\n"],
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": seed_of(call_key(backend.identity, prepared.content)) % 2**31,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert (found.text, found.finish, found.error) == ("re Which?", "stop", None)
    assert (found.prompt_tokens, found.generated_tokens, found.computed_tokens) == (1, 2, 3)
    assert prepared.prompt == "<system>\nBe brief.\n<user>\nWhich?\n<assistant>\n"


def test_greedy_requests_send_no_seed(server: FakeServer, open_model: Opener) -> None:
    answer(open_model(), say("x"))
    (body,) = server.asked("/chat/completions")
    assert body["temperature"] == 0.0
    assert not {"seed", "top_p", "stop", "grammar"} & set(body)


def test_keys_are_the_same_in_every_session_and_differ_with_every_setting(open_model: Opener) -> None:
    requests: list[Request] = [
        say("a"),
        say("b"),
        say("a", stop=("x",)),
        say("a", temperature=0.5),
        say("a", temperature=0.5, sample=1),
        say("a", temperature=0.5, top_p=0.5),
        say("a", grammar='root ::= "x"'),
        Generate(Chat((Message("user", "a"),), lead="b"), 9),
        Generate(Plain("a"), 9),
        Generate(Plain("a"), 8),
        Score(Plain("a"), ("x", "y")),
        Score(Plain("a"), ("x", "y"), end="\n"),
        Score(Plain("a"), ("y", "x")),
    ]

    def keys() -> list[str]:
        backend = open_model()
        return [call_key(backend.identity, backend.prepare(request).content) for request in requests]

    first = keys()
    assert len(set(first)) == len(requests)
    assert keys() == first


def test_a_plain_prompt_is_continued_as_it_stands(server: FakeServer, open_model: Opener) -> None:
    found = answer(open_model(), Generate(Plain("Once upon"), 5))
    assert found.text == "re Once upon"
    assert server.asked("/completions") == [
        {"model": "tiny", "prompt": "Once upon", "max_tokens": 5, "temperature": 0.0}
    ]


def test_without_completions_a_plain_prompt_is_one_user_message(server: FakeServer, open_model: Opener) -> None:
    server.completions = False
    backend = open_model()
    found = answers(backend, [Generate(Plain("Once upon"), 5), Generate(Plain("a time"), 5)])
    assert [completion.text for completion in found] == ["re Once upon", "re a time"]
    assert sorted(body["messages"][0]["content"] for body in server.asked("/chat/completions")) == [
        "Once upon",
        "a time",
    ]
    assert Counter(path for _, path, _, _ in server.seen)["/v1/completions"] == 1, "found once, and remembered"
    assert backend.notes == (
        f"{server.url}#tiny: the server has no /completions: plain prompts are sent as one user message",
    )


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (" Rome", " Rome"),
        ("Answer: Rome", " Rome"),
        (" answer: Rome", " Rome"),
        ("<think>\nhm\n</think>\n\nRome", "Rome"),
    ],
)
def test_a_lead_opens_the_reply_and_is_cut_where_it_is_repeated(
    server: FakeServer, open_model: Opener, reply: str, text: str
) -> None:
    server.script = lambda prompt, body: reply
    assert answer(open_model(), Generate(Chat((Message("user", "Where?"),), lead="Answer:"), 9)).text == text
    assert server.asked("/chat/completions")[0]["messages"][-1] == {"role": "assistant", "content": "Answer:"}


def test_where_a_last_assistant_message_is_refused_the_lead_ends_the_users_turn(
    server: FakeServer, open_model: Opener
) -> None:
    def strict(handler: Handler, body: dict[str, Any]) -> bool:
        wrong = body["messages"][-1]["role"] == "assistant" or "chat_template_kwargs" in body
        if wrong:
            handler.give(400, {"error": {"message": "roles must alternate"}})
        return wrong

    server.faults = [strict]
    server.script = lambda prompt, body: "Answer: Rome"
    assert answer(open_model(), Generate(Chat((Message("user", "Where?"),), lead="Answer:"), 9)).text == " Rome"
    assert server.asked("/chat/completions")[-1]["messages"] == [{"role": "user", "content": "Where?\n\nAnswer:"}]


def test_counting_is_an_estimate_of_four_bytes_a_token(server: FakeServer, open_model: Opener) -> None:
    backend = open_model()
    assert backend.count(Plain("")) == 0
    assert backend.count(Plain("abcde")) == 2
    assert backend.count(Plain("éé")) == 1
    assert backend.count(Chat((Message("user", "abcd"),), lead="e")) == 2
    with Runtime({"task": backend}, Store(":memory:")) as runtime:
        assert runtime.run(ask(Count(Plain("abcdefghi")))).count == 3
    assert [method for method, *_ in server.seen] == ["GET"], "it asks the server nothing"


# ── grammars ─────────────────────────────────────────────────────────────────────────────────────


def test_a_grammar_is_sent_to_a_server_that_follows_it(server: FakeServer, open_model: Opener) -> None:
    backend = open_model()
    assert answer(backend, say("x", grammar='root ::= "yes"')).text == "yes"
    assert server.asked("/chat/completions")[0]["grammar"] == 'root ::= "yes"'
    assert backend.notes == ()


@pytest.mark.parametrize("grammar", ["refused", "ignored"])
def test_without_grammars_requests_are_asked_without_one(server: FakeServer, open_model: Opener, grammar: str) -> None:
    server.grammar = grammar
    backend = open_model()
    found = answers(backend, [say(text, grammar='root ::= "yes"') for text in "ab"])
    assert sorted(completion.text or "" for completion in found) == ["re a", "re b"]
    assert all("grammar" not in body for body in server.asked("/chat/completions"))
    assert sum("grammar" in body for _, _, body, _ in server.seen) == 1, "found once, and remembered"
    assert [note.partition(": ")[2] for note in backend.notes] == [
        "the server follows no grammar: it is asked without one, and a reply that does not parse is a failure"
    ]


def test_a_single_grammar_that_is_refused_is_left_out(server: FakeServer, open_model: Opener) -> None:
    def picky(handler: Handler, body: dict[str, Any]) -> bool:
        wrong = "{9999}" in body.get("grammar", "")
        if wrong:
            handler.give(400, {"error": {"message": "failed to parse grammar"}})
        return wrong

    server.faults = [picky]
    backend = open_model()
    assert answer(backend, say("x", grammar='root ::= "a"{9999}')).text == "re x"
    assert backend.notes == ()


# ── scores ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("first_token", [[], ["<s>"]])
def test_a_score_sums_the_tokens_of_each_continuation(
    server: FakeServer, open_model: Opener, first_token: list[str]
) -> None:
    server.first_token = first_token
    backend = open_model()
    found = answer(backend, Score(Plain("Answer it now. Kind:"), (" place", " a person here"), end="\n"))
    by_hand = [token_logprob(" place"), sum(map(token_logprob, (" a", " person", " here")))]
    assert found.loglikelihoods == tuple(round(value, 3) for value in by_hand)
    assert found.computed_tokens == backend.computed_tokens() > 0
    assert backend.notes == ()


def test_a_chat_is_scored_after_its_turns_as_paragraphs(server: FakeServer, open_model: Opener) -> None:
    found = answer(open_model(), Score(CHAT, ("this", "that")))
    assert [body["prompt"] for body in server.asked("/completions")] == [
        "Be brief.\n\nWhich?\n\nthis",
        "Be brief.\n\nWhich?\n\nthat",
    ]
    assert found.loglikelihoods == (token_logprob("\n\nthis"), token_logprob("\n\nthat"))


def test_a_continuation_that_another_starts_with_has_its_end_counted(server: FakeServer, open_model: Opener) -> None:
    answer(open_model(), Score(Plain("Kind:"), (" no", " nothing", " yes"), end=";"))
    assert [body["prompt"] for body in server.asked("/completions")] == ["Kind: no;", "Kind: nothing", "Kind: yes"]


def test_tokens_are_told_apart_by_where_they_begin_and_end() -> None:
    found = TokenLogprobs(("ab", "cd", "ef", "gh"), (None, -1.0, -2.0, -4.0), (0, 2, 4, 6))
    assert found.sum_over("abcd", "ef") == -2.0
    assert found.sum_over("abc", "def") == -3.0, "a token across the border counts"
    assert found.sum_over("", "abcd") is None, "the first token has no probability"
    assert TokenLogprobs(("ef",), (-2.0,), (4,)).sum_over("abcd", "ef") is None, "the prompt is not covered"
    assert TokenLogprobs(("ef",), (), (4,)).sum_over("abcd", "ef") is None
    assert TokenLogprobs().sum_over("a", "b") is None


@pytest.mark.parametrize("grammar", ["followed", "refused"])
@pytest.mark.parametrize("prompt", [CHAT, Plain("Kind:")])
def test_without_likelihoods_a_choice_is_what_the_server_replies(
    server: FakeServer, open_model: Opener, grammar: str, prompt: Chat | Plain
) -> None:
    server.echo, server.grammar = False, grammar
    server.script = lambda prompt, body: "Person."
    backend = open_model()
    found = answer(backend, Score(prompt, ("person", "place")))
    assert found.loglikelihoods == (0.0, -20.0)
    ((body,),) = [found for found in (server.asked("/completions"), server.asked("/chat/completions")) if found]
    assert body["temperature"] == 0.0
    assert body.get("grammar") == ('root ::= " "? ("person" | "place")' if grammar == "followed" else None)
    assert "gives no usable likelihoods" in backend.notes[0]


def test_a_reply_that_is_no_choice_is_a_failed_completion(server: FakeServer, open_model: Opener) -> None:
    server.echo, server.grammar = False, "refused"
    server.script = lambda prompt, body: "I cannot say.\n"
    found = answer(open_model(), Score(CHAT, ("person", "place")))
    assert found.error == "the server gives no likelihoods, and its reply 'I cannot say.' is none of the choices"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [(" Yes\n", "yes"), ("**No**, because", "no"), ("No idea", "no idea"), ("no idea at all", "no idea"),
     ("nobody", None), ("", None), ('"yes"', "yes"), ("I say yes", None)],
)  # fmt: skip
def test_a_reply_means_the_choice_it_is_or_begins_with(reply: str, expected: str | None) -> None:
    choices = [" yes", " no", " no idea"]
    found = chosen(reply, choices)
    assert (None if found is None else choices[found].strip()) == expected


def test_a_choice_grammar_escapes_what_it_must() -> None:
    assert choice_grammar([" a", 'b"c\\', "d\ne"]) == r'root ::= " "? ("a" | "b\"c\\" | "d\ne")'


def test_a_server_that_answers_500_to_an_echo_gives_no_likelihoods(server: FakeServer, open_model: Opener) -> None:
    def broken(handler: Handler, body: dict[str, Any]) -> bool:
        if body.get("echo"):
            handler.give(500, {"error": {"message": "logprobs is not supported"}})
        return bool(body.get("echo"))

    server.faults = [broken]
    assert answer(open_model(), Score(Plain("Kind:"), ("a", "b"))).loglikelihoods == (0.0, -20.0)


def test_likelihoods_that_belong_to_the_next_token_are_not_used(server: FakeServer, open_model: Opener) -> None:
    server.shifted = True
    backend = open_model()
    assert answer(backend, Score(Plain("Kind:"), ("a", "b"))).loglikelihoods == (0.0, -20.0)
    assert "gives no usable likelihoods" in backend.notes[0]


# ── failures ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_passing_failure_is_asked_again(server: FakeServer, open_model: Opener, status: int) -> None:
    server.faults = [failing(2, status)]
    assert answer(open_model(), say("x")).text == "re x"
    assert len(server.asked("/chat/completions")) == 3


def test_retry_after_is_honoured_up_to_a_limit(server: FakeServer, open_model: Opener) -> None:
    for asked, limit_s, least_s, most_s in (("1", 30.0, 1.0, 4.0), ("600", 0.2, 0.2, 1.5)):
        server.faults = [failing(1, 429, Retry_After=asked)]
        backend = open_model(Patience(delay_s=0.01, longest_delay_s=limit_s))
        found = answer(backend, say("x"))
        assert found.text == "re x"
        assert least_s <= found.seconds < most_s


def test_after_all_tries_the_failure_is_told_and_other_requests_go_on(server: FakeServer, open_model: Opener) -> None:
    def fault(handler: Handler, body: dict[str, Any]) -> bool:
        if "bad" in json.dumps(body):
            handler.give(503, {"error": {"message": "too busy"}})
            return True
        return False

    server.faults = [fault]
    bad, good = answers(open_model(), [say("bad"), say("good")])
    assert good.text == "re good"
    assert bad.error == (
        f"{server.url}/chat/completions: the server answered 503 Service Unavailable in 4 tries: "
        "too busy; see its log, or lower `runtime: parallel`"
    )
    assert len(server.asked("/chat/completions")) == 5


def test_a_server_that_hangs_is_given_up_and_other_requests_go_on(server: FakeServer, open_model: Opener) -> None:
    server.faults = [hanging]
    backend = open_model(Patience(tries=2, delay_s=0.01, total_s=0.3))
    hung, good = answers(backend, [say("hang"), say("good")])
    assert good.text == "re good"
    assert (hung.error or "").startswith(f"{server.url}/chat/completions: no answer within 0.3 s in 2 tries: ")


def test_a_server_that_drips_is_given_up(server: FakeServer, open_model: Opener) -> None:
    def drip(handler: Handler, body: dict[str, Any]) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        for _ in range(40):
            handler.wfile.write(b" ")
            time.sleep(0.05)
        return True

    server.faults = [drip]
    found = answer(open_model(Patience(tries=1, total_s=0.4)), say("x"))
    assert "no answer within 0.4 s" in (found.error or "")
    assert found.seconds < 1.5


@pytest.mark.parametrize(
    "content",
    [b"<html>", b"{}", b'{"choices": []}', b'{"choices": [{"message": {"content": 7}}]}', b"[" * 100_000, b"\xff",
     b'{"choices": [{"text": "x"}], "usage": {"prompt_tokens": -1}}', b'{"choices": [{"text": "\\ud800"}]}'],
)  # fmt: skip
def test_what_is_no_completion_is_told_in_one_line(server: FakeServer, open_model: Opener, content: bytes) -> None:
    server.faults = [lambda handler, body: handler.give(200, content)]
    error = answer(open_model(), say("x")).error or ""
    assert error.startswith(f"{server.url}/chat/completions: the answer is no completion (")
    assert "\n" not in error
    assert len(error) < 500


def test_a_refusal_is_told_at_once_in_the_servers_words(server: FakeServer, open_model: Opener) -> None:
    server.faults = [lambda handler, body: handler.give(404, {"error": {"message": "model 'tiny'\n not found \ud800"}})]
    assert answer(open_model(), say("x")).error == (
        f"{server.url}/chat/completions: the server answered 404 Not Found: model 'tiny' not found ?"
    )
    assert len(server.asked("/chat/completions")) == 1


def test_a_redirect_is_not_followed(server: FakeServer, open_model: Opener) -> None:
    place = f"{server.url}/elsewhere"
    server.faults = [
        lambda handler, body: not handler.path.endswith("/elsewhere") and handler.give(307, {}, Location=place)
    ]
    error = answer(open_model(), say("x")).error or ""
    assert "the server answered 307 Temporary Redirect: redirects are not followed" in error
    assert not server.asked("/elsewhere")


def test_a_connection_that_breaks_is_tried_again(server: FakeServer, open_model: Opener) -> None:
    broken = [2]

    def hang_up(handler: Handler, body: dict[str, Any]) -> bool:
        broken[0] -= 1
        if broken[0] >= 0:
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True
        return broken[0] >= 0

    server.faults = [hang_up]
    assert answer(open_model(), say("x")).text == "re x"


# ── many at a time ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("parallel", "most"), [(3, 3), ("auto", 8)])
def test_the_server_never_sees_more_at_once_than_it_should(
    server: FakeServer, open_model: Opener, parallel: int | str, most: int
) -> None:
    server.delay_s = 0.2
    backend = open_model(parallel=parallel)
    found = answers(backend, [say(str(number)) for number in range(24)])
    assert [completion.text for completion in found] == [f"re {number}" for number in range(24)]
    assert most // 2 < server.most_at_once <= most  # a starved machine may not get them all there in time
    assert backend.computed_tokens() == sum(completion.computed_tokens for completion in found) == 24 * 3


def test_submit_returns_before_anything_is_answered(server: FakeServer, open_model: Opener) -> None:
    server.faults = [hanging]
    backend = open_model()
    started = time.perf_counter()
    backend.submit([(str(n), backend.prepare(say(f"hang {n}"))) for n in range(20)], lambda key, completion: None)
    assert time.perf_counter() - started < 0.5


def test_after_a_cancel_no_reply_comes_and_the_next_requests_are_answered(
    server: FakeServer, open_model: Opener
) -> None:
    server.faults = [hanging]
    backend = open_model(parallel=2)
    replied: list[str] = []
    asked = [(str(n), backend.prepare(say(f"hang {n}"))) for n in range(6)]
    backend.submit(asked, lambda key, completion: replied.append(key))
    while len(server.asked("/chat/completions")) < 2:
        time.sleep(0.01)
    backend.cancel()
    server.faults = []
    server.released.set()
    assert answer(backend, say("later")).text == "re later"
    assert replied == []
    assert len(server.asked("/chat/completions")) <= 5, "what had not begun is never asked"


def test_what_is_cancelled_by_its_key_gets_no_reply_and_the_rest_does(server: FakeServer, open_model: Opener) -> None:
    server.faults = [hanging]
    backend = open_model(parallel=2)
    replies: queue.SimpleQueue[str] = queue.SimpleQueue()
    texts = {"under way": "hang 1", "kept": "x", "in line": "y", "last": "z"}
    asked = [(key, backend.prepare(say(text))) for key, text in texts.items()]
    backend.submit(asked[:1], lambda key, completion: replies.put(key))
    while not server.asked("/chat/completions"):
        time.sleep(0.01)
    server.delay_s = 0.3
    backend.submit(asked[1:], lambda key, completion: replies.put(key))
    backend.cancel(["under way", "in line", "unknown"])
    assert [replies.get(timeout=PATIENCE_S) for _ in range(2)] == ["kept", "last"]
    server.faults = []
    server.released.set()
    backend.submit(asked[2:3], lambda key, completion: replies.put(key))
    assert replies.get(timeout=PATIENCE_S) == "in line", "it can be asked again"
    assert replies.empty()
    prompts = [body["messages"][-1]["content"] for body in server.asked("/chat/completions")]
    assert sorted(prompts) == ["hang 1", "x", "y", "z"]


def test_a_cancel_ends_the_waiting_between_two_tries(server: FakeServer, open_model: Opener) -> None:
    server.faults = [failing(1, 503)]
    backend = open_model(Patience(delay_s=60.0, longest_delay_s=60.0), parallel=1)
    backend.submit([("x", backend.prepare(say("x")))], lambda key, completion: None)
    while not server.asked("/chat/completions"):
        time.sleep(0.01)
    time.sleep(0.05)
    backend.cancel()
    assert answer(backend, say("later")).text == "re later"


def test_closing_twice_is_harmless_and_leaves_no_thread(server: FakeServer, open_model: Opener) -> None:
    backend = open_model()
    answer(backend, say("x"))
    backend.close()
    backend.close()
    assert not [thread for thread in threading.enumerate() if thread.name == backend.name]


def test_closing_does_not_wait_for_a_server_that_hangs(server: FakeServer, open_model: Opener) -> None:
    server.faults = [hanging]
    backend = open_model()
    backend.submit([("x", backend.prepare(say("hang")))], lambda key, completion: None)
    started = time.perf_counter()
    backend.close()
    assert time.perf_counter() - started < 3.0


# ── in a run ─────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_answered_and_then_replayed_from_the_store(
    server: FakeServer, open_model: Opener, tmp_path: Path
) -> None:
    requests: list[Request] = [*(say(str(number)) for number in range(5)), Score(Plain("Kind:"), (" a", " b"))]
    found = []
    for _ in range(2):
        with Runtime({"task": open_model()}, Store(tmp_path / "store.db")) as runtime:
            found.append(runtime.run(together([ask(request) for request in requests])))
            usage = runtime.usage
    assert [completion.text for completion in found[0]] == [*(f"re {number}" for number in range(5)), None]
    assert [completion.text for completion in found[1]] == [completion.text for completion in found[0]]
    assert found[1][-1].loglikelihoods == found[0][-1].loglikelihoods
    assert (usage.calls, usage.cached_calls, usage.computed_tokens) == (6, 6, 0)
    assert len(server.asked("/chat/completions")) == 5


def test_a_server_that_does_not_say_what_it_can_fails_requests_not_the_run(
    server: FakeServer, open_model: Opener
) -> None:
    server.faults = [failing(4, 503)]
    with Runtime({"task": open_model()}, Store(":memory:")) as runtime:
        found = runtime.run(together([ask(Generate(Plain(text), 5)) for text in "abc"]))
    assert all("503" in (completion.error or "") for completion in found)
    assert len(server.seen) == 5, "asked four times and not again"


@pytest.mark.parametrize("echo", [True, False])
def test_eval_scores_a_task_on_a_server(
    server: FakeServer, make_task: TaskMaker, capfd: pytest.CaptureFixture[str], echo: bool
) -> None:
    server.echo, server.grammar = echo, "ignored"
    server.script = lambda prompt, body: "Place." if "Where" in prompt else "It is a person"
    path = make_task(model=f"{server.url}#tiny", runtime={"parallel": 2})
    code = run_cli(["eval", str(path), "--split", "train", "--json"])
    done = capfd.readouterr()
    body = json.loads(done.out)
    assert code == 0, done.err
    assert body["calls"] == body["n"] > 0
    assert server.most_at_once <= 2
    notes = [line for line in done.err.splitlines() if "the server gives no usable likelihoods" in line]
    if echo:
        assert (body["failed"], notes) == (0, [])
    else:
        assert body["failed"] > 0, "what is none of the choices counts as failed"
        assert body["score"] > 0
        assert len(notes) == 1, "told once"


def test_eval_on_another_machine_is_refused_in_one_line(
    make_task: TaskMaker, capfd: pytest.CaptureFixture[str]
) -> None:
    code = run_cli(["eval", str(make_task(model="http://10.0.0.1:8080/v1#tiny"))])
    done = capfd.readouterr()
    assert code == 1
    assert "`runtime: {allow_remote: true}`" in done.err
    assert "Traceback" not in done.err


# ── a real server ────────────────────────────────────────────────────────────────────────────────


def missing_for_the_real_server() -> list[str]:
    parts = ("fastapi", "pydantic_settings", "sse_starlette", "starlette_context", "uvicorn")
    return [part for part in parts if importlib.util.find_spec(part) is None]


@pytest.mark.model
@pytest.mark.skipif(
    bool(missing_for_the_real_server()),
    reason=f"llama-cpp-python's server lacks {', '.join(missing_for_the_real_server())}",
)
def test_the_server_of_llama_cpp_scores_and_writes(tmp_path: Path) -> None:
    from engine.inference.models import find_model

    port, log = free_port(), tmp_path / "server.log"
    command = [sys.executable, "-m", "llama_cpp.server", "--model", str(find_model("smollm2-135m", tmp_path).path)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--n_ctx", "512", "--logits_all", "true"]
    command += ["--model_alias", "tiny", "--n_threads", "2"]
    with log.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        try:
            backend = _wait_for(f"http://127.0.0.1:{port}/v1#tiny", process, log)
            text = answer(backend, Generate(Plain("The capital of France is"), 4)).text or ""
            found = answer(backend, Score(Plain("The capital of France is"), (" Paris", " banana")))
            guided = answer(backend, say("Yes or no?", grammar='root ::= "yes" | "no"'))
            backend.close()
        finally:
            process.terminate()
    assert "Paris" in text
    assert found.loglikelihoods is not None, found.error
    assert found.loglikelihoods[0] > found.loglikelihoods[1] + 2
    assert guided.text in ("yes", "no")


def _wait_for(name: str, process: subprocess.Popen[bytes], log: Path) -> RemoteBackend:
    deadline = time.monotonic() + 60
    while True:
        try:
            return RemoteBackend(name, RuntimeSettings(parallel=1))
        except ModelError:
            assert process.poll() is None, log.read_text("utf-8", "replace")
            assert time.monotonic() < deadline, log.read_text("utf-8", "replace")
            time.sleep(0.2)
