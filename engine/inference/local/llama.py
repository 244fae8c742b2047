"""A GGUF model held by llama.cpp's low-level interface: weights, vocabulary, grammars.

This file, `context.py` and `pooling.py` hold all ctypes. Only tokenizing is thread-safe.
"""

import ctypes
import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import ModelError
from engine.inference.local import amx

# Read by OpenMP when llama.cpp loads. A thread that waits for the others spins this often and then sleeps. With the
# default it spins for milliseconds: on 2 cores beside one busy process a batch of 256 rows ran at 63 tokens/s, with
# 1000 at 261; alone 500 and 498.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import llama_cpp


class LlamaModel:
    """Weights and vocabulary of one GGUF file."""

    def __init__(self, path: Path, gpu_layers: int = 0, main_gpu: int = 0) -> None:
        """Load the file.

        Raises:
            ModelError: it is no GGUF file, is damaged, or does not fit in memory.
        """
        _check_magic(path)
        _quiet()
        llama_cpp.llama_backend_init()
        parameters = llama_cpp.llama_model_default_params()
        self.gpu_layers = gpu_layers
        parameters.n_gpu_layers, parameters.main_gpu = gpu_layers, main_gpu
        parameters.check_tensors = True
        parameters.use_extra_bufts = amx.holds(path, build_identity())
        self.handle = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.handle:
            raise ModelError(
                f"{path}: llama.cpp cannot load this file ({last_complaint()}); is it complete and a supported model?"
            )
        self.path = path
        self._vocab = llama_cpp.llama_model_get_vocab(self.handle)
        self.vocabulary = int(llama_cpp.llama_vocab_n_tokens(self._vocab))
        self.trained_context = int(llama_cpp.llama_model_n_ctx_train(self.handle))
        self.adds_bos = bool(llama_cpp.llama_vocab_get_add_bos(self._vocab))
        self.bos = int(llama_cpp.llama_vocab_bos(self._vocab))
        self.eos = int(llama_cpp.llama_vocab_eos(self._vocab))
        self.piece: Callable[[int], bytes] = functools.lru_cache(maxsize=None)(self._piece)
        self.is_end: Callable[[int], bool] = functools.lru_cache(maxsize=None)(self._is_end)

    @property
    def chat_template(self) -> str | None:
        """The template in the file's metadata, if it has one."""
        raw = llama_cpp.llama_model_chat_template(self.handle, None)
        return raw.decode("utf-8", "replace") if raw else None

    @property
    def description(self) -> str:
        """Architecture, size and layout in llama.cpp's own words, such as `llama 135M Q4_1`."""
        buffer = ctypes.create_string_buffer(256)
        llama_cpp.llama_model_desc(self.handle, buffer, 256)
        return buffer.value.decode("utf-8", "replace")

    def metadata(self, key: str) -> str | None:
        """A value of the file's metadata as text, up to 255 bytes of it; None where there is no such key."""
        buffer = ctypes.create_string_buffer(256)
        length = llama_cpp.llama_model_meta_val_str(self.handle, key.encode(), buffer, 256)
        return buffer.value.decode("utf-8", "replace") if length >= 0 else None

    def token_text(self, token: int) -> str:
        """How the vocabulary writes a control token; empty for none."""
        raw = llama_cpp.llama_vocab_get_text(self._vocab, token) if token >= 0 else b""
        return raw.decode("utf-8", "replace") if raw else ""

    def tokenize(self, text: str, special: bool, framed: bool = False) -> list[int]:
        """Token ids of a text. Control tokens are recognized only where `special` is set.

        `framed` adds the tokens that the vocabulary puts before and after every text, such as begin-of-text.
        """
        raw = text.encode("utf-8", "surrogatepass")
        size = len(raw) + 8
        buffer = (llama_cpp.llama_token * size)()
        count = llama_cpp.llama_tokenize(self._vocab, raw, len(raw), buffer, size, framed, special)
        if count < 0:
            raise ModelError(f"{self.path}: the tokenizer failed on a text of {len(raw)} bytes")
        return list(buffer[:count])

    def _piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(256)
        length = llama_cpp.llama_token_to_piece(self._vocab, token, buffer, 256, 0, False)
        return buffer.raw[: max(0, length)]

    def _is_end(self, token: int) -> bool:
        return bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))

    def grammar(self, gbnf: str) -> "Grammar":
        """Compile a GBNF grammar with start symbol `root`.

        Raises:
            ModelError: llama.cpp refuses it.
        """
        sampler = llama_cpp.llama_sampler_init_grammar(self._vocab, gbnf.encode(), b"root")
        if not sampler:
            raise ModelError("llama.cpp refuses this grammar; its parser has said why on stderr")
        return Grammar(sampler, self.vocabulary)

    def close(self) -> None:
        """Free the weights."""
        if self.handle:
            llama_cpp.llama_model_free(self.handle)
            self.handle = None


class Grammar:
    """A compiled grammar and its place in it."""

    def __init__(self, sampler: ctypes.c_void_p, vocabulary: int) -> None:
        self._sampler: ctypes.c_void_p | None = sampler
        self._ids = np.arange(vocabulary, dtype=np.int32)

    def allows(self, token: int) -> bool:
        """Whether the grammar can go on with this one token. Looks at no other."""
        return bool(np.isfinite(self._mask(np.array([token], dtype=np.int32), np.zeros(1, dtype=np.float32)))[0])

    def masked(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits with -inf wherever the grammar cannot go on. Looks at the whole vocabulary: slow."""
        return self._mask(self._ids, logits)

    def accept(self, token: int) -> None:
        """Move on past a token that `allows` has said yes to."""
        llama_cpp.llama_sampler_accept(self._sampler, token)

    def _mask(self, ids: NDArray[np.int32], logits: NDArray[np.float32]) -> NDArray[np.float32]:
        candidates = np.empty(len(ids), dtype=_CANDIDATE)
        candidates["id"], candidates["logit"], candidates["p"] = ids, logits, 0.0
        array = llama_cpp.llama_token_data_array(
            data=candidates.ctypes.data_as(llama_cpp.llama_token_data_p), size=len(ids), selected=-1, sorted=False
        )
        llama_cpp.llama_sampler_apply(self._sampler, ctypes.byref(array))
        return candidates["logit"].copy()

    def close(self) -> None:
        """Free the compiled grammar."""
        if self._sampler:
            llama_cpp.llama_sampler_free(self._sampler)
            self._sampler = None


_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


def offloads() -> bool:
    """Whether this build of llama.cpp can put layers on a GPU."""
    return bool(llama_cpp.llama_supports_gpu_offload())


def build_identity() -> str:
    """What about the runtime changes answers: its version and the instruction sets it was built to use."""
    info = llama_cpp.llama_print_system_info().decode("utf-8", "replace").strip()
    return f"llama-cpp-python {llama_cpp.__version__} | {info}"


def requantize(source: Path, target: Path, file_type: int, threads: int) -> None:
    """Write a model's weights in another format, given by llama.cpp's number of the file type.

    Raises:
        ModelError: llama.cpp cannot read the source, convert it or write the target.
    """
    _check_magic(source)
    _quiet()
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype, parameters.nthread, parameters.allow_requantize = file_type, threads, True
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters)):
        raise ModelError(f"{source}: llama.cpp cannot convert this file ({last_complaint()})")


def _check_magic(path: Path) -> None:
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    if magic != b"GGUF":
        raise ModelError(f"{path}: not a GGUF file (it starts with {magic!r}); give the path of a .gguf model")


_complaints: list[str] = []


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _listen(level: int, text: bytes, user_data: ctypes.c_void_p) -> None:
    if level == _LOG_ERROR and text.strip():
        _complaints.append(text.decode("utf-8", "replace").strip())
        del _complaints[:-20]


_LOG_ERROR = 4


def _quiet() -> None:
    """Keep llama.cpp's own log off the terminal, but remember its errors for our messages."""
    _complaints.clear()
    llama_cpp.llama_log_set(_listen, ctypes.c_void_p(0))


def last_complaint() -> str:
    """What was wrong first, since the last time someone asked."""
    complaint = _complaints[0].split(": ", 1)[-1] if _complaints else "no reason given"
    _complaints.clear()
    return complaint
