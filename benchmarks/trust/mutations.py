"""Turn valid files into hostile ones: changed bytes, cut files, edited headers and cards."""

import json
import struct
from functools import partial
from typing import Any

import numpy as np

Rng = np.random.Generator

NASTY: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 63, 65, 255, 2**31, 2**63, 2**64, 10**12, 10**400,
    -(10**12), 0.5, -0.0, 1e-320, 1e308, -1e308, float("nan"), float("inf"), -float("inf"), "",
    "metric", "../../../tmp/escape", "/etc/passwd", "a\0b", "\ud800", "x" * 5000, [], {}, [[]],
    [0], [-1], [10**12], [10**6, 10**6], [2**32, 2**32], [3, 3], {"a": 1}, {"": {}}, "F64", "BF16",
    "F16", "I8", "BOOL", "U64", "C64", "F8_E4M3", "F4", [0, 10**12], [8, 4],
)  # fmt: skip
NUMBERS = (0, 1, 7, 8, 0x7F, 0x80, 0xFF, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)


def mutate(content: bytes, others: list[bytes], rng: Rng) -> bytes:
    """Change a file in one to three ways."""
    ways = [_change_bytes, _change_bytes, _cut, partial(_splice, others=others)]
    if _header(content):
        ways += [_edit_header, _edit_card, _edit_card]
    elif content[:1] in (b"{", b"["):
        ways += [_edit_json] * 3
    for _ in range(int(rng.integers(1, 4))):
        content = ways[rng.integers(len(ways))](content, rng)
    return content


def _change_bytes(content: bytes, rng: Rng) -> bytes:
    if not content:
        return rng.bytes(8)
    changed = bytearray(content)
    # Where the headers lie, as often as anywhere.
    most = min(len(content), (16, 400, 4000, len(content))[rng.integers(4)])
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(most))
        kind = rng.integers(6)
        if kind == 0:
            flipped = changed[min(at, len(changed) - 1)] ^ 1 << rng.integers(8)
            changed[at : at + 1] = bytes([flipped])
        elif kind == 1:
            changed[at : at + 1] = rng.bytes(1)
        elif kind == 2:
            changed[at:at] = rng.bytes(int(rng.integers(1, 9)))
        elif kind == 3:
            del changed[at : at + int(rng.integers(1, 9))]
        elif kind == 4:
            number = struct.pack("<Q", NUMBERS[rng.integers(len(NUMBERS))])
            changed[at : at + 8] = number[: (1, 2, 4, 8)[rng.integers(4)]]
        elif rng.integers(50) == 0:
            changed[at:at] = b"[" * int(rng.integers(1, 200_000))
        else:
            digits = b'0123456789-+.eE"{}[]:,\\'
            changed[at : at + 1] = digits[rng.integers(len(digits))].to_bytes()
        if not changed:
            break
    return bytes(changed)


def _cut(content: bytes, rng: Rng) -> bytes:
    kind = rng.integers(3)
    at = int(rng.integers(len(content) + 1))
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[at:]
    return content + rng.bytes(int(rng.integers(1, 200)))


def _splice(content: bytes, rng: Rng, *, others: list[bytes]) -> bytes:
    other = others[rng.integers(len(others))]
    return content[: rng.integers(len(content) + 1)] + other[rng.integers(len(other) + 1) :]


def _header(content: bytes) -> tuple[dict[str, Any], bytes] | None:
    """Return the header of a safetensors file and its data; None where it is none."""
    try:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
    except (ValueError, RecursionError):
        return None
    return (header, content[8 + length :]) if isinstance(header, dict) and length else None


def pack(header: Any, data: bytes) -> bytes:
    """Make a safetensors file of a header and its data."""
    text = json.dumps(header).encode()  # lone surrogates stay escaped
    return len(text).to_bytes(8, "little") + text + data


def _edit_header(content: bytes, rng: Rng) -> bytes:
    found = _header(content)
    return content if found is None else pack(edit(found[0], rng), found[1])


def _edit_card(content: bytes, rng: Rng) -> bytes:
    header, data = _header(content) or ({}, b"")
    try:
        card = json.loads(header["__metadata__"]["card"])
    except (KeyError, TypeError, ValueError, RecursionError):
        return content
    return pack({**header, "__metadata__": {"card": json.dumps(edit(card, rng))}}, data)


def _edit_json(content: bytes, rng: Rng) -> bytes:
    try:
        return json.dumps(edit(json.loads(content), rng)).encode()
    except (ValueError, RecursionError):
        return content


def edit(value: Any, rng: Rng) -> Any:
    """Replace, remove, add, move or rename something in a JSON value."""
    if rng.integers(400) == 0:
        depth = 1 + int(rng.integers(10, 400))
        return json.loads("[" * depth + "]" * depth)
    value = _copy(value)
    places = _places(value)
    if not places:
        return _nasty(rng)
    holder, key = places[rng.integers(len(places))]
    kind = rng.integers(6)
    if kind == 0:
        del holder[key]
    elif kind == 1:
        other, other_key = places[rng.integers(len(places))]
        holder[key] = _copy(other[other_key])
    elif kind == 2 and isinstance(holder, dict):
        holder[str(_nasty(rng))] = holder.pop(key)
    elif kind == 3 and isinstance(holder, list):
        holder.extend(_copy(holder))
    else:
        holder[key] = _nasty(rng)
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    if not isinstance(value, dict | list):
        return []
    keys = list(value) if isinstance(value, dict) else range(len(value))
    return [place for key in keys for place in [(value, key), *_places(value[key])]]


def _copy(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _nasty(rng: Rng) -> Any:
    return _copy(NASTY[rng.integers(len(NASTY))])
