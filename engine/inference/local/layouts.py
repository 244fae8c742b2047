"""Layouts: a model's weights in another format, which a machine may compute several times faster.

A copy lies in the user's cache folder under the hash of the file that it was made from, so that a changed file never
meets a copy of the old one. Copies can be deleted at any time and are made again, in about a second for 100 MB.
"""

import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import ModelError
from engine.inference.local.gguf import GgufHeader, Tensor, read_header
from engine.inference.local.llama import requantize
from engine.inference.local.policy import available_cores
from engine.inference.local.profiles import AS_IS, cache_folder
from engine.inference.local.shape import KV_TYPES, KvType
from engine.inference.models import ModelFile


@dataclass(frozen=True, slots=True)
class Layout:
    """llama.cpp's number of the file type, and the format of the matrices in such a file."""

    file_type: int
    matrices: KvType


# The likely winners first: a short time limit may not reach the others.
LAYOUTS: Mapping[str, Layout] = {
    "BF16": Layout(32, KV_TYPES["bf16"]),
    "Q8_0": Layout(7, KV_TYPES["q8_0"]),
    "Q4_0": Layout(2, KV_TYPES["q4_0"]),
    "F16": Layout(1, KV_TYPES["f16"]),
}


def laid_out(model: ModelFile, layout: str) -> Path:
    """The model's file in a layout: the file itself, or the copy in the cache folder, made if it is not whole.

    Raises:
        ModelError: there is no such layout, or the copy cannot be made.
    """
    if layout == AS_IS:
        return model.path
    if layout not in LAYOUTS:
        raise ModelError(f"unknown layout {layout!r}: one of {', '.join(LAYOUTS)}; run localgrad tune again")
    path = layout_path(model.sha256, layout)
    if not _is_whole(path, layout):
        _make(model, layout, path)
    return path


def layout_path(sha256: str, layout: str) -> Path:
    """Where the copy of a file with this hash lies, whether it is there or not."""
    return _folder() / f"{sha256[:24]}-{layout}.gguf"


def forget_layouts(sha256: str, keep: Collection[str] = ()) -> list[Path]:
    """Delete the copies of a file but for the layouts to keep; those that were there."""
    kept = {layout_path(sha256, layout) for layout in keep}
    gone = []
    for path in sorted(_folder().glob(f"{sha256[:24]}-*")):
        if path not in kept:
            path.unlink(missing_ok=True)
            gone.append(path)
    return gone


def planned_header(header: GgufHeader, layout: str) -> GgufHeader:
    """About the header that a file will have in a layout. llama.cpp may keep a few tensors in a more precise format."""
    if layout == AS_IS:
        return header
    return replace(
        header,
        file_type=LAYOUTS[layout].file_type,
        tensors=tuple(_converted(tensor, LAYOUTS[layout].matrices) for tensor in header.tensors),
    )


def _converted(tensor: Tensor, to: KvType) -> Tensor:
    if len(tensor.dims) < 2 or tensor.dims[0] % to.block_elements:
        return tensor
    elements = 1
    for length in tensor.dims:
        elements *= length
    return replace(tensor, kind=to.ggml_type, size=to.size(elements))


def _folder() -> Path:
    return cache_folder() / "layouts"


def _is_whole(path: Path, layout: str) -> bool:
    """Whether the file has a header of this layout and all bytes of its tensors."""
    try:
        return read_header(path).file_type == LAYOUTS[layout].file_type
    except ModelError:
        return False


def _make(model: ModelFile, layout: str, path: Path) -> None:
    """Write the copy beside its place and then put it there, so that no process ever opens half of it."""
    partial = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_room(model.path, layout, path.parent)
        requantize(model.path, partial, LAYOUTS[layout].file_type, available_cores())
        if not _is_whole(partial, layout):
            raise ModelError(f"{model.name}: llama.cpp made no whole file of it as {layout}")
        partial.replace(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)


def _check_room(source: Path, layout: str, folder: Path) -> None:
    header = read_header(source)
    tensors, converted = header.tensors, planned_header(header, layout).tensors
    needed = source.stat().st_size + sum(tensor.size for tensor in converted) - sum(tensor.size for tensor in tensors)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ModelError(
            f"{source.name} as {layout} needs {needed / 1e9:.1f} GB in {folder}, {free / 1e9:.1f} GB are free; "
            "make room, or set XDG_CACHE_HOME to a larger disk"
        )
