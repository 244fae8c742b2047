"""The llama.cpp backend: requests in, completions out, computed on the process's one thread for that.

The calling thread renders and tokenizes; the compute thread loads the model, steps the runner and replies. Nothing else
ever touches the context.
"""

import functools
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from engine.errors import ModelError
from engine.inference.backend import score_content
from engine.inference.chat import ChatTemplate, Piece
from engine.inference.local.choices import LabelTree
from engine.inference.local.compute import compute_thread
from engine.inference.local.gguf import read_header
from engine.inference.local.jobs import GenerateJob, Job, ScoreJob, WinnerJob
from engine.inference.local.llama import LlamaModel, build_identity
from engine.inference.local.policy import check_memory, decide, planned_shape
from engine.inference.local.profiles import AS_IS, Profile, Tuning, machine_key
from engine.inference.local.shape import Shape
from engine.inference.service import Prepared, Reply
from engine.records import Completion, Generate, ModelRequest, Prompt, Request, Score
from engine.store.keys import seed_of
from engine.tasks.schema import RuntimeSettings


class LlamaBackend:
    """A GGUF model on this machine, as a `Backend`."""

    def __init__(
        self, path: Path, sha256: str, name: str, settings: RuntimeSettings, tuning: Tuning | None = None
    ) -> None:
        """Load the model. `sha256` is that of the original where `path` is a tuned copy.

        Raises:
            ModelError: the file cannot be loaded, there is not enough memory, or `deterministic` is asked for and the
                model does not pass the test.
        """
        header = read_header(path)
        shape = planned_shape(header, settings, tuning)
        self.memory = check_memory(header, shape, settings, name)
        self.context = shape.cells
        self.name, self.sha256, self.model_path = name, sha256, path
        self.notes: tuple[str, ...] = ()
        self._compute = compute_thread()
        self._compute.call(functools.partial(self._load, shape, settings))
        self._template = ChatTemplate(
            self._model.chat_template,
            self._model.token_text(self._model.bos),
            self._model.token_text(self._model.eos),
            self._model.adds_bos,
        )
        self._end_of_turn = self._find_end_of_turn()
        self._tree = functools.lru_cache(maxsize=256)(self._label_tree)
        layout = f" as {tuning.layout}" if tuning and tuning.layout != AS_IS else ""
        self.identity = f"{sha256}{layout} | {build_identity()} | {self.policy.identity}"
        self._replies: dict[str, Reply] = {}
        self._stepping = self._closed = False

    def prepare(self, request: Request) -> Prepared:
        """Render the prompt with the model's own template."""
        assert isinstance(request, ModelRequest)  # its role says so
        pieces = self._template.pieces(request.prompt)
        content: dict[str, object] = {
            "kind": type(request).__name__.lower(),
            "prompt": [[piece.text, int(piece.special)] for piece in pieces],
        }
        if isinstance(request, Score):
            content |= score_content(request)
        elif isinstance(request, Generate):
            content |= {
                "max_tokens": request.max_tokens,
                "stop": list(request.stop),
                "temperature": request.temperature,
                "top_p": request.top_p,
                "sample": request.sample if request.temperature > 0 else 0,
                "grammar": request.grammar,
            }
        return Prepared(request, "".join(piece.text for piece in pieces), content)

    def submit(self, asked: Sequence[tuple[str, Prepared]], reply: Reply) -> None:
        """Tokenize here, compute on the compute thread."""
        jobs: list[Job] = []
        for key, prepared in asked:
            job = self._job(key, prepared)
            if isinstance(job, Completion):
                reply(key, job)
            else:
                jobs.append(job)
        if jobs:
            self._compute.post(functools.partial(self._begin, jobs, reply))

    def cancel(self, keys: Collection[str] | None = None) -> None:
        """Drop what is unfinished and wait until that is done; with keys, drop theirs before the next step."""
        if self._closed:
            return
        if keys is None:
            self._compute.call(self._drop_all)
        else:
            self._compute.post(functools.partial(self._drop, frozenset(keys)))

    def count(self, prompt: Prompt) -> int:
        """Tokens of a prompt, begin-of-text included."""
        return len(self._tokens(self._template.pieces(prompt)))

    def computed_tokens(self) -> int:
        """Rows given to llama_decode so far."""
        return self._runner.decoded_rows

    def computed_outputs(self) -> int:
        """Rows of them whose logits were asked for."""
        return self._runner.decoded_outputs

    def decode_seconds(self) -> float:
        """Time spent inside llama_decode so far."""
        return self._runner.decode_seconds

    def close(self) -> None:
        """Drop what is unfinished and free the model."""
        if not self._closed:
            self._closed = True
            self._compute.call(self._free)

    def _job(self, key: str, prepared: Prepared) -> Job | Completion:
        """The job for a request, or a completion that says why there can be none."""
        request = prepared.request
        assert isinstance(request, ModelRequest)  # prepare has seen to it
        tokens = np.array(self._tokens(self._template.pieces(request.prompt)), dtype=np.int32)
        try:
            if isinstance(request, Score):
                tree = self._tree(request.continuations, request.end)
                winner = request.want == "winner"
                job: Job = WinnerJob(key, tokens, tree, request.bias) if winner else ScoreJob(key, tokens, tree)
            else:
                assert isinstance(request, Generate)  # Count never reaches a backend's queue
                job = GenerateJob(key, tokens, request, self._model, seed_of(key))
        except ModelError as error:
            return Completion(key=key, error=str(error), prompt_tokens=len(tokens))
        refusal = self._runner.refusal(job)
        if refusal:
            job.close()
            return Completion(key=key, error=refusal, prompt_tokens=len(tokens))
        return job

    def _label_tree(self, continuations: tuple[str, ...], end: str | None) -> LabelTree:
        labels = [tuple(self._model.tokenize(text, special=False)) for text in continuations]
        return LabelTree.of(labels, self._model.tokenize(end, special=False)[0] if end else self._end_of_turn)

    def _find_end_of_turn(self) -> int:
        """The token with which the template ends a reply; the vocabulary's end token where it shows none.

        llama.cpp's own guess (`llama_vocab_eot`) takes the wrong one of two for SmolLM2.
        """
        after = self._model.tokenize(self._template.after_reply(), special=True)
        return next((token for token in after if self._model.is_end(token)), self._model.eos)

    def _tokens(self, pieces: Sequence[Piece]) -> list[int]:
        tokens = [self._model.bos] if self._model.adds_bos else []
        for piece in pieces:
            tokens += self._model.tokenize(piece.text, piece.special)
        return tokens

    # ── on the compute thread ────────────────────────────────────────────────────────────────────

    def _load(self, shape: Shape, settings: RuntimeSettings) -> None:
        self._model = LlamaModel(self.model_path, settings.gpu_layers, settings.main_gpu)
        profile = Profile(self.sha256, machine_key(build_identity()))
        self.policy = decide(self._model, shape, settings, profile, self.name)
        self._runner = self.policy.open(self._model)

    def _begin(self, jobs: Sequence[Job], reply: Reply) -> None:
        self._replies |= {job.key: reply for job in jobs}
        self._runner.add(jobs)
        if not self._stepping:
            self._stepping = True
            self._compute.post(self._step)

    def _step(self) -> None:
        """One step, and another after what has come in meanwhile, while there is something to do."""
        try:
            for completion in self._runner.step():
                self._replies.pop(completion.key)(completion.key, completion)
        except ModelError as error:
            self._fail(str(error))
        self._stepping = self._runner.busy
        if self._stepping:
            self._compute.post(self._step)

    def _drop(self, keys: Collection[str]) -> None:
        if self._closed:
            return
        self._runner.drop(keys)
        for key in keys:
            self._replies.pop(key, None)

    def _drop_all(self) -> None:
        self._runner.clear()
        self._replies.clear()

    def _free(self) -> None:
        self._drop_all()
        self._runner.close()
        self._model.close()

    def _fail(self, reason: str) -> None:
        """A failed decode fails every unfinished request, each with the reason."""
        self._runner.clear()
        for key, reply in self._replies.items():
            reply(key, Completion(key=key, error=reason))
        self._replies.clear()
