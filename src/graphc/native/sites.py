"""Public functions and methods of tensors as machine code that falls back to Python, put in place once a program calls enough of
them.

Enters: the functions that `graphc.eager.replay` lists.  Leaves: built-in functions and methods under the same names.
Never here: what a call does (`calls`), what a recipe holds (`recipes`).

A *site* is one of those functions, by number.  Its machine code looks for a recipe for the call; without one it calls the Python
function.  A call that comes again and again is run by `recipes.learned` once, which may give it a recipe.  Everything is switched
off where `layout` finds an interpreter that it does not know.  GRAPHC_NATIVE_CALLS sets after how many calls; 0 switches it off.

Which thread the block `state` speaks of is in its field ``owner``: another thread that comes along, or a change of what a thread
is doing (`graphc.ir.op.note_change`), has it written anew.  Recipes serve only a thread that does nothing unusual.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

from graphc import dtypes
from graphc.codegen import subset
from graphc.eager import replay, tape
from graphc.eager.gradients import Program
from graphc.eager.modes import Modes, modes
from graphc.eager.storage import Storage
from graphc.eager.tensor import Size, Tensor, wrap
from graphc.errors import IRError, warn
from graphc.ir import op as ir_op
from graphc.native import calls, keys, layout, objects, programs, recipes, sorting, steps
from graphc.runtime import threads
from graphc.runtime.cache import default_cache
from graphc.runtime.link import assemble, link, machine_signature
from graphc.runtime.memory import HUGE_PAGE, Arena, Need, aligned_empty, borrow_arena, told

THRESHOLD = 24  # calls of one kind before a recipe is tried
MOST_COUNTED = 255
MOST_SITES = 4096
_TABLE = 1 << 13  # places for entries; twice as many as there may be
_FASTCALL_WITH_KEYWORDS = 0x80 | 0x02
_WORD = ctypes.sizeof(ctypes.c_int64)


class _MethodDef(ctypes.Structure):
    """CPython's PyMethodDef."""

    _fields_ = [("name", ctypes.c_char_p), ("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p)]


class _Number(int):
    """A site's number.  Built-in functions are pickled as names of what they are bound to, so this is pickled as a module."""

    home: str

    def __reduce__(self) -> tuple[Any, ...]:
        return importlib.import_module, (self.home,)


class _State(ctypes.Structure):
    """The block that the machine code reads."""

    _fields_ = [(name, ctypes.c_int64) for name in calls.FIELDS]


def machine_code(offsets: dict[str, int]) -> bytes:
    """The object code of the functions of `calls`, from the disk cache where it is there."""
    constants = dict(offsets)
    for name in (*calls.SIZES, *calls.STEP_KINDS, *calls.RESULT_KINDS):
        constants[name] = getattr(calls, name)
    for name in (*programs.WANTED_KINDS, *programs.PART_KINDS, "MOST_OUTPUTS", "LONG_WAY"):
        constants[name] = getattr(programs, name)
    for record in ("RECIPE", "STEP", "OUTPUT", "TAPE", "PROGRAM", "WANTED", "PART"):
        names = getattr(programs if hasattr(programs, record) else calls, record)
        constants |= {f"{record}_{name}".upper(): _WORD * i for i, name in enumerate(names)}
        constants[f"{record}_NBYTES"] = _WORD * len(names)
    source = "\n".join(map(inspect.getsource, (calls, steps, objects, sorting, programs)))
    parts = (machine_signature(), source, inspect.getsource(subset), repr(constants))
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    found = default_cache().get(key)
    if found is None:
        found = assemble(subset.render_module(source, constants, calls.FIELDS, calls.EXTERNAL, ["serve", "enter"]), optimise=2)
        default_cache().put(key, found)
    return found


class Sites:
    """The machine code, its state, and every recipe."""

    def __init__(self, offsets: dict[str, int]) -> None:
        self.offsets = offsets
        linked = link(machine_code(offsets), ["state", "serve", "enter"])
        self.state = _State.from_address(linked["state"])
        self.address, self.enter_address = linked["serve"], linked["enter"]
        self.fallbacks = (ctypes.c_int64 * MOST_SITES)()
        self.functions: list[Callable[..., Any]] = []
        self.standing: dict[Callable[..., Any], Any] = {}
        self.kept: list[Any] = []
        self.table = (ctypes.c_int64 * _TABLE)()
        self.seen = (ctypes.c_int64 * 4096)()
        self.entries: list[tuple[Any, recipes.Recipe | None, list[Any]]] = []
        self.arena = Arena()
        self.fill()
        self.state.getitem = -1  # its number, when it has one

    def fill(self) -> None:
        """Write the state: types, singletons, functions, memory."""
        state, kept = self.state, self.kept
        known = {
            "none": None, "true": True, "false": False, "tensor_type": Tensor, "storage_type": Storage,
            "node_type": tape.Node, "array_type": recipes.np.ndarray, "bool_type": bool, "int_type": int,
            "float_type": float, "str_type": str, "none_type": type(None), "ellipsis_type": type(...),
            "dtype_type": dtypes.DType, "tuple_type": tuple, "size_type": Size, "list_type": list,
            "program_type": Program, "slice_type": slice, "default": dtypes._default, "adopt": self.adopt,
            "learn": self.learn, "sequence": tape._sequence, "aligned_empty": aligned_empty, "parameter_type": Tensor,
        }  # fmt: skip
        for name, value in known.items():
            kept.append(value)
            setattr(state, name, id(value))
        for name, address in layout.array_functions().items():
            setattr(state, name, address)
        pool = threads.pool()
        state.pool, state.pool_run, state.pool_limit = pool.address, pool.run_address, pool.address
        state.table, state.mask, state.seen = ctypes.addressof(self.table), _TABLE - 1, ctypes.addressof(self.seen)
        state.threshold, state.fallbacks = THRESHOLD, ctypes.addressof(self.fallbacks)
        shared = recipes.Recipe(self.offsets)
        state.storage_slots = shared.slots(Storage, wrap(recipes.np.empty(0, recipes.np.float32), dtypes.float32)._storage)
        state.indices = shared.words([shared.reference(i) for i in range(calls.MOST_VALUES)])
        kept.append(shared)
        self.thread_id = ctypes.pythonapi.PyThreadState_GetID
        self.thread_id.restype, self.thread_id.argtypes = ctypes.c_uint64, [ctypes.c_void_p]
        self.thread = ctypes.pythonapi.PyThreadState_Get
        self.thread.restype, self.thread.argtypes = ctypes.c_void_p, []

    # ---- called by the machine code

    def adopt(self) -> None:
        """Write down what this thread is doing."""
        plain = len(ir_op._runners.stack) == 1
        for name, usual in _USUAL_MODES.items():
            plain = plain and getattr(modes, name) is usual
        parameters = sys.modules.get("graphc.nn.parameter")
        kind, grad = id(Tensor if parameters is None else parameters.Parameter), id(modes.grad)
        thread, is_plain, state = self.thread_id(self.thread()), int(plain), self.state
        # From here on nothing is called, so no other thread gets between.
        state.parameter_type, state.grad, state.plain, state.owner = kind, grad, is_plain, thread

    def learn(self, key: int, nbytes: int, site: int, *args: Any, **kwargs: Any) -> Any:
        """Run a call that came often, and keep a recipe for it."""
        words = (ctypes.c_int64 * (nbytes // _WORD)).from_buffer_copy(ctypes.string_at(key, nbytes))
        result, recipe = recipes.learned(self.functions[site], args, kwargs, self.offsets)
        if recipe is not None:
            if not self.reserve_scratch(recipe.scratch_nbytes):
                return result
            recipe.kept.append(Need(recipe.scratch_nbytes))
        self.insert(words, recipe, keys.identities((*args, *kwargs.values(), *kwargs)))
        return result

    def reserve_scratch(self, nbytes: int) -> bool:
        """Whether there are now `nbytes` bytes of scratch memory; where someone may be using it, it does not grow."""
        if nbytes <= self.arena.nbytes:
            return True
        if self.state.running:
            return False
        borrowed = borrow_arena()  # Python's programs hardly need it any more
        if borrowed.nbytes > self.arena.nbytes:
            self.arena = borrowed
        self.state.scratch, self.state.scratch_nbytes = self.arena.reserve(nbytes), self.arena.nbytes
        return True

    def shrink_scratch(self, nbytes: int) -> None:
        """Give scratch memory back that is much more than `nbytes`; where someone may be using it, it stays."""
        if self.arena.nbytes > nbytes + HUGE_PAGE and not self.state.running:
            self.arena = Arena()
            self.state.scratch, self.state.scratch_nbytes = self.arena.reserve(nbytes), self.arena.nbytes

    def enter_through(self, kind: type, long_way: Callable[..., Any]) -> None:
        """Have machine code serve the calls of instances of `kind`, an `Entered`; `long_way` is what it falls back on."""
        self.state.long_way = id(long_way)
        definition = _MethodDef(b"__call__", self.enter_address, _FASTCALL_WITH_KEYWORDS, (long_way.__doc__ or "").encode())
        self.kept += [definition, long_way]
        kind.__call__ = _new_descriptor(kind, ctypes.addressof(definition))  # type: ignore[method-assign]

    def insert(self, words: Any, recipe: recipes.Recipe | None, kept: list[Any]) -> None:
        """Put an entry into the table, emptied first if it is half full and nobody is following a recipe."""
        if len(self.entries) >= _TABLE // 2:
            if self.state.running:
                return
            ctypes.memset(self.table, 0, ctypes.sizeof(self.table))
            self.entries.clear()
        hash = _hash_of(words)
        entry = (ctypes.c_int64 * (3 + len(words)))(hash, _WORD * len(words), recipe.address if recipe else 0, *words)
        index = hash & (_TABLE - 1)
        while self.table[index]:
            index = (index + 1) & (_TABLE - 1)
        self.entries.append((entry, recipe, kept))
        self.table[index] = ctypes.addressof(entry)

    # ---- putting sites in place

    def site(self, function: Callable[..., Any], name: str, home: str = "graphc") -> Any:
        """A built-in function that stands for `function`, called `name` in the module `home`: its ``__self__`` is its number."""
        number = _Number(len(self.functions))
        if number >= MOST_SITES:
            return function
        number.home = home
        self.functions.append(function)
        if function.__name__ == "__getitem__":
            self.state.getitem = number
        self.fallbacks[number] = id(function)
        definition = _MethodDef(name.encode(), self.address, _FASTCALL_WITH_KEYWORDS, (function.__doc__ or "").encode())
        self.kept.append(definition)
        return _new_function(ctypes.addressof(definition), number, function.__module__)

    def standing_for(self, function: Callable[..., Any], home: str = "graphc") -> Any:
        """The one site of a function."""
        if function not in self.standing:
            self.standing[function] = self.site(function, function.__name__, home)
        return self.standing[function]

    def replace(self, module: dict[str, Any]) -> None:
        """Put sites in the place of a module's replayable functions."""
        for name, value in list(module.items()):
            if isinstance(value, FunctionType) and value in replay.functions:
                module[name] = self.standing_for(value, module["__name__"])


_immortal = ctypes.pythonapi.Py_IncRef
_immortal.restype, _immortal.argtypes = None, [ctypes.py_object]
_new_function = ctypes.pythonapi.PyCFunction_NewEx
_new_function.restype, _new_function.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.py_object, ctypes.py_object]
_new_method = ctypes.pythonapi.PyInstanceMethod_New  # binds a built-in function to the object it is looked up on
_new_method.restype, _new_method.argtypes = ctypes.py_object, [ctypes.py_object]
_new_descriptor = ctypes.pythonapi.PyDescr_NewMethod
_new_descriptor.restype, _new_descriptor.argtypes = ctypes.py_object, [ctypes.py_object, ctypes.c_void_p]
# What recipes take for granted.  The grad mode is in their keys; inference mode is that mode by another name.
_USUAL_MODES = {
    name: value
    for name, value in vars(Modes).items()
    if not name.startswith("_") and name not in ("grad", "inference") and not callable(value)
}


def _hash_of(words: Sequence[int]) -> int:
    """As `calls.hash_of`."""
    mask, hash = (1 << 64) - 1, 1469598103934665603
    for word in words:
        hash = (hash ^ (word & mask)) * 1099511628211 & mask
        hash ^= hash >> 32
    return hash - (1 << 64) if hash >> 63 else hash


_made: list[Sites | None] = []
_installed: list[Sites] = []
# Methods of tensors, written by hand, that a recipe may stand for as well.
_WRITTEN = (
    "H", "T", "__getitem__", "__invert__", "bfloat16", "bool", "byte", "char", "clone", "contiguous", "copy_",
    "double", "float", "half", "int", "long", "mH", "mT", "short", "to", "type_as", "view", "view_as", "where",
)  # fmt: skip


def _threshold() -> int:
    """After how many calls of a kind a recipe is tried.  Raises ValueError for a bad GRAPHC_NATIVE_CALLS."""
    asked = os.environ.get("GRAPHC_NATIVE_CALLS", "").strip()
    if not asked:
        return THRESHOLD
    if not asked.isdecimal() or int(asked) > MOST_COUNTED:
        raise ValueError(f"GRAPHC_NATIVE_CALLS must be a number of calls up to {MOST_COUNTED}, or 0 for none, got {asked!r}")
    return int(asked)


def made() -> Sites | None:
    """The machine code and its state, made when first asked for; None where there is none."""
    if not _made:
        _made.append(_new_sites())
    return _made[0]


def _new_sites() -> Sites | None:
    threshold = _threshold()
    offsets = layout.measured() if threshold else None
    if offsets is None:
        return None
    try:
        sites = Sites(offsets)
    except (IRError, RuntimeError) as error:  # no such C function, or a machine that LLVM makes no code for
        warn(f"calls stay in Python: {error}")
        return None
    _immortal(sites)  # machine code and what it reads must outlive the last array, built-in function and call of the process
    sites.state.threshold = threshold
    told.append(sites.shrink_scratch)
    ir_op.on_change.append(lambda: setattr(sites.state, "owner", 0))
    return sites


def install() -> None:
    """Put a site in the place of every function listed by `methods`, as a method of `Tensor` and in graphc's modules."""
    if _installed:
        return
    sites = made()
    if sites is None:
        return
    _installed.append(sites)
    for name in _WRITTEN:
        if name in vars(Tensor):
            function = vars(Tensor)[name]
            replay.replayable(function.fget if isinstance(function, property) and function.fget else function)
    for name, function in list(vars(Tensor).items()):
        if isinstance(function, property) and function.fset is None and function.fget in replay.functions:
            setattr(Tensor, name, property(sites.standing_for(function.fget), doc=function.__doc__))
        elif isinstance(function, FunctionType) and function in replay.functions:
            setattr(Tensor, name, _new_method(sites.standing_for(function)))
    for module in [m for name, m in sys.modules.items() if name == "graphc" or name.startswith("graphc.")]:
        sites.replace(vars(module))
    replay.told.append(sites.replace)
