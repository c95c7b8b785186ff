"""One plain file of a checkpoint's weights, for programs that know nothing of Heliostat.

`.safetensors` is written tensor by tensor, so that a model of any size needs the memory of its largest tensor; `.pt`,
a state dict as torch saves it, is whole in memory.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import torch
from pydantic import NonNegativeInt

from heliostat.errors import UserError
from heliostat.train import checkpoint
from heliostat.train.checkpoint import Manifest
from heliostat.train.draft import writing_to
from heliostat.train.sharded.read import Stored
from heliostat.values import Frozen

SAFETENSORS_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""As the format names them: https://github.com/huggingface/safetensors#format."""


class Exported(Frozen):
    """What an export has written."""

    checkpoint: str
    step: NonNegativeInt
    file: str
    num_bytes: NonNegativeInt
    """Of the file."""
    num_tensors: NonNegativeInt
    num_parameters: NonNegativeInt
    """Elements of all tensors; buffers count too."""
    tied: dict[str, str]
    """Further name -> name in the file. A `.pt` file has both; `safetensors.torch.load_model` finds them by itself."""


def export(path: str | Path, file: Path) -> Exported:
    """Write the model of a committed checkpoint to `file`, which is there whole or not at all.

    Args:
        path: of the checkpoint, whatever plan wrote it.
        file: `.safetensors` or `.pt`; one that is there is replaced.

    Raises:
        CheckpointError: the checkpoint is damaged.
        UserError: the file has another ending, or a tensor a type that the format does not know.
        StoreError: the file cannot be written.

    """
    write = _writer_for(file)
    manifest = checkpoint.verify(path)
    stored = Stored(Path(path) / checkpoint.MODEL)
    partial = file.with_name(f".{file.name}.partial")
    try:
        with writing_to(file, "the export", "make room or choose another place"):
            with partial.open("wb") as stream:
                write(stream, stored, manifest)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(file)
    finally:
        with suppress(OSError):
            partial.unlink()
    return Exported(
        checkpoint=str(path),
        step=manifest.step,
        file=str(file),
        num_bytes=file.stat().st_size,
        num_tensors=len(stored.shapes),
        num_parameters=sum(torch.Size(shape).numel() for shape in stored.shapes.values()),
        tied=manifest.tied,
    )


Write = Callable[[BinaryIO, Stored, Manifest], None]


def _writer_for(file: Path) -> Write:
    writers: dict[str, Write] = {".safetensors": _write_safetensors, ".pt": _write_state_dict}
    if file.suffix not in writers:
        raise UserError(
            "the ending of the file says what is written: .safetensors or .pt",
            where=str(file),
            got=file.suffix or "no ending",
        )
    return writers[file.suffix]


def _write_state_dict(stream: BinaryIO, stored: Stored, manifest: Manifest) -> None:
    state = {name: stored.tensor(name) for name in stored.shapes}
    torch.save(state | {name: state[first] for name, first in manifest.tied.items()}, stream)


def _write_safetensors(stream: BinaryIO, stored: Stored, manifest: Manifest) -> None:
    names = sorted(stored.shapes, key=lambda name: (-stored.dtype(name).itemsize, name))  # so that all are aligned
    header = _header(names, stored, manifest)
    stream.write(len(header).to_bytes(8, "little"))
    stream.write(header)
    stream.writelines(stored.tensor(name).reshape(-1).view(torch.uint8).numpy().data for name in names)


def _header(names: list[str], stored: Stored, manifest: Manifest) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt", **manifest.tied}}
    begin = 0
    for name in names:
        dtype, shape = stored.dtype(name), stored.shapes[name]
        if dtype not in SAFETENSORS_DTYPES:
            raise UserError("safetensors has no such type", where=name, got=str(dtype), next_step="export to .pt")
        end = begin + torch.Size(shape).numel() * dtype.itemsize
        entries[name] = {"dtype": SAFETENSORS_DTYPES[dtype], "shape": shape, "data_offsets": (begin, end)}
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)
