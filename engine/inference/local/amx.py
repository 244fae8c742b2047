"""Whether llama.cpp's kernels for Intel's AMX can be used here: tried on a file's weights, in a process that may die.

They are the fastest a processor has for quantized weights, and come with llama.cpp's extra buffer types. Some compilers
drop stores of the tile configuration, and the first matrix product then kills the process (GCC 12.2; llama.cpp's pull
request 26954). A build does not tell how it was compiled, so a child process asks it, once for each file, machine and
installation. Run as a module, this is that child: `python -m engine.inference.local.amx FILE.gguf`.
"""

import hashlib
import importlib.util
import signal
import subprocess
import sys
from pathlib import Path

from engine.inference.local.profiles import cache_folder, machine_key

_CHILD = (sys.executable, "-m", "engine.inference.local.amx")
_ROWS = 40  # more than a tile has, and no multiple of it
_HOLDS, _DIES = "holds", "dies"
_OWN_DEATHS = tuple(-number for number in (signal.SIGSEGV, signal.SIGILL))  # others, as for memory, come from elsewhere


def is_built_in(system_info: str) -> bool:
    """Whether the kernels are part of the build, by what `llama_print_system_info` says."""
    return "AMX_INT8 = 1" in system_info


def holds(path: Path, build: str) -> bool:
    """Whether a model file can be computed with the kernels in this build, from an earlier trial or by a new one."""
    if not is_built_in(build):
        return True
    known = _marker(path, build)
    try:
        return known.read_text("utf-8") == _HOLDS
    except OSError:
        status = subprocess.run([*_CHILD, str(path)], capture_output=True, check=False).returncode
    if status == 0 or status in _OWN_DEATHS:
        _keep(known, _DIES if status else _HOLDS)
    return status == 0


def _marker(path: Path, build: str) -> Path:
    """The file that keeps an answer: one for each model file, machine and installation of llama.cpp."""
    library = importlib.util.find_spec("llama_cpp")
    installed = Path(library.origin).stat().st_mtime_ns if library and library.origin else 0
    facts = f"{path.name} {path.stat().st_size if path.exists() else 0} {installed}"
    return cache_folder() / "amx" / f"{machine_key(build)}-{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


def _keep(marker: Path, answer: str) -> None:
    """Remember an answer. A folder that cannot be written is no error: the next process asks again."""
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text(answer, "utf-8")
    except OSError:
        return


def _compute(path: str) -> int:
    """Load the file with all kernels and compute a few rows; 0 where that went well."""
    import llama_cpp  # here, because `llama.py` sets the environment before it is first imported

    model_parameters = llama_cpp.llama_model_default_params()
    model_parameters.use_extra_bufts, model_parameters.n_gpu_layers = True, 0
    model = llama_cpp.llama_model_load_from_file(path.encode(), model_parameters)
    if not model:
        return 1
    context_parameters = llama_cpp.llama_context_default_params()
    context_parameters.n_ctx = context_parameters.n_batch = context_parameters.n_ubatch = 64
    context = llama_cpp.llama_init_from_model(model, context_parameters)
    if not context:
        return 1
    tokens = (llama_cpp.llama_token * _ROWS)(*range(_ROWS))
    return int(llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, _ROWS)) != 0)


if __name__ == "__main__":
    sys.exit(_compute(sys.argv[1]))
