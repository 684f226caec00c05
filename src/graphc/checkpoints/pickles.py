"""Pickles read as data: an interpreter of the opcodes that plain values are written with.

Enters: bytes, and what may be named in them.  Leaves: values; CheckpointError for anything else.
Never here: `pickle`, imports by name, and code of the file's choosing.

Python's own unpickler is not used: a memo index of four bytes makes it allocate gigabytes, as does a declared length, and how much
work it does is not bounded.  Here every opcode has a cost in bytes, and a pickle that costs more than `LIMIT` is an error.
Source of the opcodes: the documentation in Python's `pickletools`.
"""

from __future__ import annotations

import gc
import struct
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from graphc.errors import CheckpointError

LIMIT = 96 << 20  # bytes that one pickle may make of itself; an attribute to raise for greater ones
STORED = 8192  # what every storage of a file adds to that: a tensor with its place and name is less
STEP = 64  # about what an opcode makes: a small object and its place in a list
_KEY_PARTS = 64
_NAME_LIMIT = 1000
_INT_BYTES = 255


class Name:
    """A name that a pickle may use.  `make(*arguments)` is what calling it means; `value` what it is where it is not called."""

    __slots__ = ("make", "text", "value")

    def __init__(self, text: str, make: Callable[..., Any] | None, value: Any = None) -> None:
        self.text, self.make, self.value = text, make, value

    def __repr__(self) -> str:
        return f"<{self.text}, named in a file>"


Find = Callable[[str, str], Any]
Fill = Callable[[Any, Any], bool]


class Unpickler:
    """One pickle after another, from a place in a file's bytes.

    find: (module, name) -> a `Name`, or a plain value that the name stands for.   stored: a persistent id -> what it is.
    fill: gives an object its state; False where the object takes none.
    """

    def __init__(self, data: memoryview, at: int, find: Find, stored: Callable[[Any], Any], fill: Fill) -> None:
        self.data, self.at = data, at
        self._find, self._stored, self._fill = find, stored, fill
        self._left = LIMIT
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The value of the next pickle; `at` is then behind it.  Raises CheckpointError."""
        self._stack, self._marks, self._memo = [], [], {}
        collects = gc.isenabled()
        gc.disable()  # nothing here is garbage, and looking for it again and again would take longer than the rest
        try:
            return self._run()
        except KeyError:
            raise CheckpointError("its pickle has an opcode or a memo index that none of tensors has") from None
        except (IndexError, struct.error):
            raise CheckpointError("its pickle is cut short or damaged") from None
        finally:
            self._stack, self._marks, self._memo = [], [], {}
            if collects:
                gc.enable()

    def _run(self) -> Any:
        data, run = self.data, _RUN
        while True:
            self._left -= STEP
            if self._left < 0:
                raise self._too_much()
            code = data[self.at]
            self.at += 1
            if code == 46:  # STOP
                return self._pop()
            run[code](self)

    def charge(self, nbytes: int) -> None:
        """Count what is made.  Raises CheckpointError beyond `LIMIT`."""
        self._left -= nbytes
        if self._left < 0:
            raise self._too_much()

    def _too_much(self) -> CheckpointError:
        return CheckpointError(f"its pickle makes more than {LIMIT} bytes of objects (graphc.checkpoints.pickles.LIMIT)")

    # ---- the stack

    def _pop(self) -> Any:
        stack, marks = self._stack, self._marks
        if len(stack) <= (marks[-1] if marks else 0):
            raise CheckpointError("its pickle is damaged: its stack is empty")
        return stack.pop()

    def _top(self) -> Any:
        value = self._pop()
        self._stack.append(value)
        return value

    def _marked(self) -> list[Any]:
        start = self._marks.pop()
        values = self._stack[start:]
        del self._stack[start:]
        return values

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _drop(self) -> None:
        self._pop()

    def _drop_marked(self) -> None:
        self._marked()

    # ---- bytes of the file

    def _take(self, count: int) -> memoryview:
        end = self.at + count
        if count < 0 or end > len(self.data):
            raise CheckpointError("its pickle is cut short")
        taken = self.data[self.at : end]
        self.at = end
        return taken

    def _number(self, form: struct.Struct) -> Any:
        (value,) = form.unpack_from(self.data, self.at)
        self.at += form.size
        return value

    def _line(self) -> str:
        line, end, _ = bytes(self.data[self.at : self.at + _NAME_LIMIT]).partition(b"\n")
        if not end:
            raise CheckpointError("its pickle is damaged: a name has no end")
        self.at += len(line) + 1
        return str(line, "utf-8", "replace")

    def _text(self, count: int) -> None:
        taken = self._take(count)
        self.charge(4 * count)
        try:
            self._push(str(taken, "utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            raise CheckpointError("its pickle is damaged: a string is not UTF-8") from None

    def _bytes(self, count: int) -> None:
        taken = self._take(count)
        self.charge(count)
        self._push(bytes(taken))

    def _bytearray(self) -> None:
        self._bytes(self._number(_LONG))
        self._push(bytearray(self._pop()))

    def _python_2_text(self, count: int) -> None:
        taken = self._take(count)
        self.charge(4 * count)
        self._push(str(taken, "utf-8", "replace"))  # what Python 2 called a string

    def _integer(self, count: int) -> None:
        if count > _INT_BYTES:
            raise CheckpointError("its pickle has an integer of more than 255 bytes")
        self._push(int.from_bytes(self._take(count), "little", signed=True))

    # ---- memo

    def _remember(self, index: int) -> None:
        self._memo[index] = self._top()

    # ---- containers

    def _tuple(self, count: int) -> None:
        stack, marks = self._stack, self._marks
        if len(stack) - count < (marks[-1] if marks else 0):
            raise CheckpointError("its pickle is damaged: its stack is empty")
        stack[-count:] = (tuple(stack[-count:]),)

    def _append(self, values: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise CheckpointError(f"its pickle appends to a {type(target).__name__}")
        target.extend(values)

    def _set_items(self, values: list[Any]) -> None:
        target = self._top()
        if not isinstance(target, dict) or len(values) % 2:
            raise CheckpointError(f"its pickle sets items of a {type(target).__name__}")
        self.charge(32 * len(values))
        for i in range(0, len(values), 2):
            target[key(values[i])] = values[i + 1]

    def _add_items(self) -> None:
        values = self._marked()
        target = self._top()
        if type(target) is not set:
            raise CheckpointError(f"its pickle adds to a {type(target).__name__}")
        self.charge(64 * len(values))
        target.update(map(key, values))

    def _empty_set(self) -> None:
        self.charge(200)
        self._push(set())

    # ---- names

    def _global(self) -> None:
        module = self._line()
        self._push(self._find(module, self._line()))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise CheckpointError("its pickle names something by what is no string")
        self._push(self._find(module, name))

    def _call(self) -> None:
        arguments, what = self._pop(), self._pop()
        if not isinstance(what, Name) or what.make is None or type(arguments) is not tuple:
            shown = what.text if isinstance(what, Name) else f"a {type(what).__name__}"
            raise CheckpointError(f"its pickle calls {shown}, which is not data that graphc reads")
        self.charge(4000 if what.text.startswith("torch._") else 400)  # a tensor is an array, a storage and a view of it
        for argument in arguments:
            if isinstance(argument, (str, bytes, bytearray)):
                self.charge(2 * len(argument))
            elif isinstance(argument, (list, tuple, dict)):
                self.charge(160 * len(argument))
        self._push(what.make(*arguments))

    def _new(self) -> None:
        """An object of a class that the user allowed, without its ``__init__``; other names as when they are called."""
        arguments, what = self._pop(), self._pop()
        kind = what.value if isinstance(what, Name) else None
        if isinstance(kind, type) and what.make is kind:
            what = Name(what.text, lambda *given: kind.__new__(kind, *given))
        self._stack += [what, arguments]
        self._call()

    def _build(self) -> None:
        state = self._pop()
        target = self._top()
        if isinstance(state, (tuple, dict)):
            self.charge(64 * len(state))
        if isinstance(target, OrderedDict) and type(state) is dict and all(type(name) is str for name in state):
            target.__dict__.update(state)  # ``_metadata`` of a state dict
        elif not self._fill(target, state):
            raise CheckpointError(f"its pickle gives a state to a {type(target).__name__}")

    def _persistent(self) -> None:
        self.charge(200)
        self._push(self._stored(self._pop()))

    def _protocol(self) -> None:
        if self._number(_BYTE) > 5:
            raise CheckpointError("its pickle has a protocol that is newer than 5")


def key(value: Any) -> Any:
    """`value`, if hashing it is cheap and its hash cannot be chosen.  Raises CheckpointError for other keys of dicts and sets."""
    parts = [value]
    for count, part in enumerate(parts):
        kind = type(part)
        if kind is tuple and count < _KEY_PARTS and len(part) < _KEY_PARTS:
            parts.extend(part)
        elif count >= _KEY_PARTS or kind is int and part.bit_length() > 64 or kind in (tuple, complex):
            raise CheckpointError("its pickle has a key that is too large, or a complex number")
        elif kind not in (str, int, float, bool, bytes, type(None)) and (not _is_value(part)):
            raise CheckpointError(f"its pickle has a key that is a {kind.__name__}")
    return value


def _is_value(part: Any) -> bool:
    """Whether a key is one of graphc's values (a dtype, a device), or of a class that the user allowed."""
    return type(part).__hash__ is not None and type(part).__module__ != "builtins" and not isinstance(part, tuple)


_BYTE, _SHORT, _INT = struct.Struct("<B"), struct.Struct("<H"), struct.Struct("<i")
_UINT, _LONG, _FLOAT = struct.Struct("<I"), struct.Struct("<Q"), struct.Struct(">d")

_RUN: dict[int, Callable[[Unpickler], None]] = {
    ord(code): action
    for code, action in {
        "\x80": Unpickler._protocol,
        "\x95": lambda u: u._number(_LONG),  # a frame's length
        "N": lambda u: u._stack.append(None),
        "\x88": lambda u: u._stack.append(True),
        "\x89": lambda u: u._stack.append(False),
        "K": lambda u: u._stack.append(u._number(_BYTE)),
        "M": lambda u: u._stack.append(u._number(_SHORT)),
        "J": lambda u: u._stack.append(u._number(_INT)),
        "G": lambda u: u._stack.append(u._number(_FLOAT)),
        "\x8a": lambda u: u._integer(u._number(_BYTE)),
        "\x8b": lambda u: u._integer(u._number(_UINT)),
        "X": lambda u: u._text(u._number(_UINT)),
        "\x8c": lambda u: u._text(u._number(_BYTE)),
        "\x8d": lambda u: u._text(u._number(_LONG)),
        "U": lambda u: u._python_2_text(u._number(_BYTE)),
        "T": lambda u: u._python_2_text(u._number(_UINT)),
        "C": lambda u: u._bytes(u._number(_BYTE)),
        "B": lambda u: u._bytes(u._number(_UINT)),
        "\x8e": lambda u: u._bytes(u._number(_LONG)),
        "\x96": Unpickler._bytearray,
        "(": lambda u: u._marks.append(len(u._stack)),
        "0": Unpickler._drop,
        "1": Unpickler._drop_marked,
        "2": lambda u: u._push(u._top()),
        "]": lambda u: u._stack.append([]),
        "}": lambda u: u._stack.append({}),
        ")": lambda u: u._stack.append(()),
        "\x8f": Unpickler._empty_set,
        "\x85": lambda u: u._tuple(1),
        "\x86": lambda u: u._tuple(2),
        "\x87": lambda u: u._tuple(3),
        "t": lambda u: u._push(tuple(u._marked())),
        "l": lambda u: u._push(u._marked()),
        "a": lambda u: u._append([u._pop()]),
        "e": lambda u: u._append(u._marked()),
        "s": lambda u: u._set_items([u._pop(), u._pop()][::-1]),
        "u": lambda u: u._set_items(u._marked()),
        "\x90": Unpickler._add_items,
        "q": lambda u: u._remember(u._number(_BYTE)),
        "r": lambda u: u._remember(u._number(_UINT)),
        "\x94": lambda u: u._remember(len(u._memo)),
        "h": lambda u: u._stack.append(u._memo[u._number(_BYTE)]),
        "j": lambda u: u._stack.append(u._memo[u._number(_UINT)]),
        "c": Unpickler._global,
        "\x93": Unpickler._stack_global,
        "R": Unpickler._call,
        "\x81": Unpickler._new,
        "b": Unpickler._build,
        "Q": Unpickler._persistent,
    }.items()
}
