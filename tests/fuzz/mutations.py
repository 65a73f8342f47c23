"""Bad versions of good bytes and values, drawn from a Random: one with a key in the long run, hypothesis's own in a test."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeVar

import numpy as np

Value = TypeVar("Value")

NUMBERS: Sequence[Any] = (
    *(
        0,
        1,
        -1,
        2,
        7,
        255,
        256,
        65535,
        65536,
        2**31 - 1,
        2**31,
        -(2**31),
        2**32,
        2**53 + 1,
        2**62,
        2**63,
        2**64,
        -(2**63),
    ),
    *(10**30, 10**400, 0.5, -0.5, 1e-320, 1e38, 1e39, 1e308, float("nan"), float("inf"), float("-inf"), True, False),
)
TEXTS = (
    *(
        "",
        " ",
        "\n",
        "a\nb",
        "\0",
        "\x1b[31mred\x1b[0m",
        "\u202eright to left",
        "\ud800",
        "\udcff",
        "\udfff\ud800",
        "é" * 50,
    ),
    *(
        "../../etc/passwd",
        "/etc/passwd",
        "~/x",
        "a/b",
        "..",
        ".",
        "-",
        "NaN",
        "null",
        "1e999",
        "0x10",
        "1_000",
        "٣",
        "𝟙",
        "💥" * 30,
    ),
    *(
        "${oc.env:HOME}",
        "${a.b}",
        "${",
        "$(id)",
        "`id`",
        "%s%n",
        "{}",
        "{0.__class__}",
        "<script>",
        "'",
        '"',
        "\\",
        "((",
        "a" * 300,
    ),
    *("x" * 5000, "(a+)+$", "\ufeffbom", "a\u2028b", "a\x85b", "!!python/object/apply:os.system [id]", "_target_"),
)
RAW_JSON = (
    *(b"", b" ", b"null", b"[]", b"{}", b"1", b'""', b"NaN", b"[" * 100_000, b'{"a":' * 5_000, b"[" * 900 + b"]" * 900),
    *(
        b"1" * 5_000,
        b"-",
        b'{"a":1,"a":2}',
        b"\xff\xfe{\0}\0",
        b"\xef\xbb\xbf{}",
        b'{"a":1e999}',
        b'{"a":' + b"9" * 5_000 + b"}",
    ),
    *(b'"\\ud800"', b"{'a':1}", b"\x80\x02}q\x00.", b"\0" * 600, b"{}\n{}", b"[1,]", b'{"a"', b"tru", b"\xc3\x28"),
)


def damaged(draw: Random, data: bytes) -> bytes:
    """The same bytes hurt in one to four places."""
    for _ in range(draw.choice((1, 1, 2, 4))):
        data = draw.choice(_HURTS)(draw, data)
    return data


def strange(draw: Random, depth: int = 2) -> Any:  # noqa: ANN401
    """A value of JSON that nobody expects."""
    kind = draw.randrange(8)
    if kind < 3:
        return draw.choice(NUMBERS)
    if kind < 6 or depth == 0:
        return draw.choice(TEXTS)
    if kind == 6:
        return draw.choice((None, [], {}, [[]], [None], [1, 2, 3] * 400, {"": 1}, {str(n): n for n in range(400)}))
    return (
        [strange(draw, depth - 1) for _ in range(draw.randrange(4))] if draw.random() < 0.5 else {"a": strange(draw, 0)}
    )


def altered(draw: Random, value: Value) -> Value:
    """A copy of a tree of JSON in which one to three nodes are replaced, removed, renamed, added or wrapped."""
    tree: Any = json.loads(json.dumps(value))
    for _ in range(draw.choice((1, 1, 2, 3))):
        tree = _altered_once(draw, tree)
    return tree


def json_bytes(draw: Random, value: object) -> bytes:
    """The value as JSON that is bad in its meaning, its spelling or its bytes."""
    kind = draw.randrange(10)
    if kind == 0:
        return draw.choice(RAW_JSON)
    if kind == 1:
        return damaged(draw, json.dumps(value).encode())
    if kind == 2:
        text = json.dumps(altered(draw, value)).encode()
        return text.replace(
            draw.choice((b",", b":", b'"', b"{", b"}")), draw.choice((b"", b",,", draw.choice(RAW_JSON)[:2000])), 1
        )
    return json.dumps(altered(draw, value), ensure_ascii=draw.random() < 0.9).encode("utf-8", "surrogatepass")


def noise(draw: Random, count: int) -> bytes:
    """Random bytes, of one draw."""
    return np.random.default_rng(draw.getrandbits(64)).bytes(count)


def _altered_once(draw: Random, tree: Any) -> Any:  # noqa: ANN401
    if not isinstance(tree, dict | list) or not tree or draw.random() < 0.1:
        return draw.choice((strange(draw), [tree], {"a": tree}, str(tree)[:2000]))
    here: Any = draw.choice(sorted(tree)) if isinstance(tree, dict) else draw.randrange(len(tree))
    kind = draw.randrange(10)
    if kind < 6:
        tree[here] = _altered_once(draw, tree[here])
    elif kind < 8:
        del tree[here]
    elif isinstance(tree, dict):
        tree[draw.choice(TEXTS)] = tree.pop(here) if kind == 8 else strange(draw)
    else:
        tree.insert(here, tree[here] if kind == 8 else strange(draw))
    return tree


def _place(draw: Random, data: bytes) -> int:
    """Anywhere; half of the time in the beginning, where headers are."""
    return draw.randrange(min(len(data), 2048 if draw.random() < 0.5 else len(data)) + 1)


def _over(draw: Random, data: bytes, new: bytes) -> bytes:
    place = _place(draw, data)
    return data[:place] + new + data[place + len(new) :]


def _cut(draw: Random, data: bytes) -> bytes:
    return data[: _place(draw, data)]


def _without(draw: Random, data: bytes) -> bytes:
    place = _place(draw, data)
    return data[:place] + data[place + draw.choice((1, 4, 64, 512, 1024, 4096)) :]


def _noisy(draw: Random, data: bytes) -> bytes:
    return _over(draw, data, noise(draw, draw.choice((1, 4, 16, 256))))


def _flipped(draw: Random, data: bytes) -> bytes:
    place = _place(draw, data)
    return data[:place] + bytes(byte ^ 1 << draw.randrange(8) for byte in data[place : place + 1]) + data[place + 1 :]


def _numbered(draw: Random, data: bytes) -> bytes:
    number, width = draw.choice((0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)), draw.choice((2, 4, 8))
    return _over(draw, data, struct.pack(draw.choice("<>") + "Q", number)[: width if width < 8 else None])


def _zeroed(draw: Random, data: bytes) -> bytes:
    return _over(draw, data, bytes(draw.choice((4, 64, 512, 2048))))


def _repeated(draw: Random, data: bytes) -> bytes:
    place = _place(draw, data)
    piece = data[place : place + draw.choice((1, 8, 512, 2048))]
    return data[:place] + piece * draw.choice((2, 2, 9)) + data[place:]


def _mixed(draw: Random, data: bytes) -> bytes:
    first, second = sorted((_place(draw, data), _place(draw, data)))
    return data[:first] + data[second:] + data[first:second]


def _grown(draw: Random, data: bytes) -> bytes:
    return draw.choice((data + noise(draw, 300), data + data, noise(draw, 64) + data, noise(draw, len(data) % 3000)))


_HURTS: Sequence[Callable[[Random, bytes], bytes]] = (
    *(_cut, _without, _noisy, _noisy, _flipped, _flipped, _numbered, _numbered, _zeroed, _repeated, _mixed, _grown),
)
