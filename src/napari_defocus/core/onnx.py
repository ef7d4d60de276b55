"""Graphs of tensors for ONNX Runtime: written to ONNX models, and opened.

Of protobuf's wire format this writes the little that such graphs need; the `onnx` package would do
the same with 31 MB of its own. Field numbers are those of ``onnx.proto``
(https://github.com/onnx/onnx), which never change.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Attribute = int | str | Sequence[int]

# Old on purpose: versions that all supported runtimes read.
IR_VERSION = 8
OPSET = 17
_FLOAT, _INT64 = 1, 7


def open_session(model: bytes, threads: int = 1, *, keep: bool = True) -> Any:
    """Open a model as an ONNX Runtime session, on the CPU, for so many threads at a time.

    It may be run from several threads at once; to `keep` its memory from run to run is quicker.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = keep
    options.enable_mem_pattern = False  # a pattern for each shape of a tile would be kept
    options.log_severity_level = 3  # errors alone
    # Threads that wait at full speed would take the cores of others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Graph:
    """An ONNX graph under construction; its methods return the name of what they add."""

    def __init__(self) -> None:
        self._nodes: list[bytes] = []
        self._tensors: list[bytes] = []
        self._inputs: list[bytes] = []
        self._outputs: list[bytes] = []
        self._named = 0

    def input(self, name: str, shape: Sequence[int | str]) -> str:
        """Add a float tensor that is fed; sizes that are not fixed have a name."""
        self._inputs.append(_block(11, _value(name, shape)))
        return name

    def output(self, name: str, shape: Sequence[int | str]) -> None:
        """Declare a float tensor of the graph as one that can be fetched."""
        self._outputs.append(_block(12, _value(name, shape)))

    def tensor(self, values: npt.ArrayLike) -> str:
        """Add a constant: integers as int64, other numbers as float32."""
        array = np.asarray(values)
        whole = array.dtype.kind in "iu"
        array = array.astype("<i8" if whole else "<f4")
        name = self._name()
        sizes = b"".join(_whole(1, size) for size in array.shape)
        kind = _whole(2, _INT64 if whole else _FLOAT)
        self._tensors.append(_block(5, sizes + kind + _block(8, name) + _block(9, array.tobytes())))
        return name

    def node(
        self, kind: str, inputs: Iterable[str], *, name: str | None = None, **settings: Attribute
    ) -> str:
        """Apply an operator to tensors of the graph."""
        name = name or self._name()
        parts = [_block(1, given) for given in inputs]
        parts += [_block(2, name), _block(3, name), _block(4, kind)]
        parts += [_block(5, _attribute(key, value)) for key, value in settings.items()]
        self._nodes.append(_block(1, b"".join(parts)))
        return name

    def model(self) -> bytes:
        """Return the model as an ``.onnx`` file holds it."""
        parts = [*self._nodes, _block(2, "graph"), *self._tensors, *self._inputs, *self._outputs]
        opset = _block(1, "") + _whole(2, OPSET)
        return _whole(1, IR_VERSION) + _block(7, b"".join(parts)) + _block(8, opset)

    def _name(self) -> str:
        self._named += 1
        return f"v{self._named}"


def _varint(number: int) -> bytes:
    number &= 2**64 - 1  # negative numbers are written as those of 64 bits
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _whole(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _block(field: int, content: bytes | str) -> bytes:
    content = content.encode() if isinstance(content, str) else content
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _attribute(name: str, value: Attribute) -> bytes:
    head = _block(1, name)
    if isinstance(value, str):
        return head + _block(4, value) + _whole(20, 3)
    if isinstance(value, int):
        return head + _whole(3, value) + _whole(20, 2)
    return head + b"".join(_whole(8, part) for part in value) + _whole(20, 7)


def _value(name: str, shape: Sequence[int | str]) -> bytes:
    """Describe a float tensor."""
    sizes = b"".join(
        _block(1, _whole(1, size) if isinstance(size, int) else _block(2, size)) for size in shape
    )
    kind = _whole(1, _FLOAT) + _block(2, sizes)
    return _block(1, name) + _block(2, _block(1, kind))
