"""What an eager call does when a recipe serves it, in the subset of Python that `graphc.codegen.subset` turns into machine code.

Enters: the arguments of a call, as CPython passes them (METH_FASTCALL with keywords).  Leaves: what the Python function would
give. Never here: making recipes (`recipes`), which is Python; anything on a call that no recipe serves but handing it to Python.

None of these functions is ever run as Python.  Names in capitals are offsets measured by `layout` (of fields in objects) or
numbers of words in the records below, times 8.  ``state`` is a block of words filled in by `sites`.  Everything runs with the
interpreter lock, except a long kernel.  Objects are touched only through CPython's and NumPy's C functions, but for reading
fields, filling new objects' empty slots, and `put`.

A recipe's steps are in `steps`, the objects they make in `objects`, sorting in `sorting`.

    entry    hash, bytes of the key, recipe's address (0: this call always goes to Python), then the key
    recipe   see RECIPE_...: constants, steps, which values are the result
    step     see STEP_...: a kernel's launch or a view, and what the tape records of it
    output   see OUTPUT_...: what a new array and its tensor look like

A call is followed with a list of values: its tensors in order, then the recipe's constants, then what the steps make.  Where
anything is out of the ordinary (a kernel's check fails, no memory), what was made is dropped and the call starts again in Python.
"""

# ruff: noqa: F821  names are constants, C functions and other functions of the subset
# mypy: ignore-errors
from __future__ import annotations

SIZES = ("KEY_WORDS", "MOST_TENSORS", "INDEX", "MOST_VALUES", "VALUE_WORDS", "MOST_SLOTS", "SORT_CHUNKS")
KEY_WORDS = 160
MOST_TENSORS = 24
INDEX = 23  # where the number of a row is kept behind the tensors, and behind the values
MOST_VALUES = 64
VALUE_WORDS = 65  # and the number of a row
MOST_SLOTS = 48  # of a kernel's table
SORT_CHUNKS = 8  # parts that a long sort is cut into

FIELDS = (
    "owner", "plain", "grad", "default", "none", "true", "false", "tensor_type", "parameter_type", "storage_type",
    "node_type", "array_type", "bool_type", "int_type", "float_type", "str_type", "none_type", "ellipsis_type",
    "dtype_type", "tuple_type", "program_type", "size_type", "list_type", "slice_type", "table", "mask", "seen",
    "threshold", "adopt", "learn", "fallbacks", "sequence", "tensor_slots", "storage_slots", "pool", "pool_run",
    "pool_limit", "scratch", "scratch_busy", "running", "new_array", "new_copy", "set_base", "aligned_empty",
    "indices", "served", "getitem", "scratch_nbytes", "long_way", "entered",
)  # fmt: skip

RECIPE = (
    "tensors", "constants", "constant_count", "steps", "step_count", "values", "result_kind", "result_type",
    "results", "result_count",
)  # fmt: skip
STEP = (
    "kind", "inputs", "input_count", "copied", "outputs", "output_count", "entry", "table", "table_nbytes", "long",
    "arena", "arena_count", "arena_slot", "node", "offset", "flags", "link", "target",
)  # fmt: skip
OUTPUT = ("slot", "slots", "descr", "rank", "sizes", "strides", "stack", "shape")  # stack: of the blocks of a large one, or 0
TAPE = ("slots", "inputs", "input_count", "wanted", "saved_inputs", "kept_outputs", "floating")  # of a step that is recorded
STEP_KINDS = ("KERNEL", "VIEW", "ASSIGN", "HOST", "SORT", "JOIN", "ROW")
KERNEL, VIEW, ASSIGN, HOST, SORT, JOIN, ROW = range(7)
RESULT_KINDS = ("ONE", "TUPLE", "LIST", "CALLED")
ONE, TUPLE, LIST, CALLED = range(4)

EXTERNAL = {
    "Py_IncRef": "void", "Py_DecRef": "void", "PyErr_Occurred": "i64", "PyErr_Clear": "void",
    "PyObject_Vectorcall": "i64", "PyLong_AsLongLong": "i64", "PyLong_FromLongLong": "i64",
    "PyType_GenericAlloc": "i64", "PyTuple_New": "i64", "PyList_New": "i64", "PyIter_Next": "i64",
    "PySequence_Concat": "i64", "PyThreadState_Get": "i64", "PyThreadState_GetID": "i64", "PyEval_SaveThread": "i64",
    "PyEval_RestoreThread": "void", "memmove": "i64", "PyDict_GetItem": "i64", "PyDict_New": "i64",
    "PyDict_SetItem": "i32", "PyList_Append": "i32", "PyCapsule_New": "i64", "PyCapsule_GetPointer": "i64",
    "PyCapsule_SetContext": "i32", "PyCapsule_GetContext": "i64",
}  # fmt: skip


def serve(self, args, nargs, kwnames):
    """The public call of site number `self`, a Python int, with ``args[:nargs]`` and the keywords whose values follow them."""
    site = PyLong_AsLongLong(self)
    key = words(KEY_WORDS)
    tensors = words(MOST_TENSORS)
    if PyThreadState_GetID(PyThreadState_Get()) != state.owner:
        adopted = PyObject_Vectorcall(state.adopt, 0, 0, 0)
        if not adopted:
            return 0
        Py_DecRef(adopted)
    if state.plain:
        store(tensors, 0)
        end = describe_call(site, args, nargs, kwnames, key, tensors)
        if end:
            hash = hash_of(key, end)
            entry = find(key, end, hash)
            if entry:
                recipe = load(entry + 16)
                if recipe:
                    result = follow(recipe, tensors)
                    if result:
                        return result
                    if PyErr_Occurred():
                        PyErr_Clear()
            elif seen_often(hash):
                return learned(key, end, site, args, nargs, kwnames)
    return PyObject_Vectorcall(load(state.fallbacks + 8 * site), args, nargs, kwnames)


def learned(key, end, site, args, nargs, kwnames):
    """Let Python run the call, and make a recipe of it: ``learn(key, nbytes, site, *args, **keywords)``."""
    given = words(64)
    count = nargs
    if kwnames:
        count = nargs + load(kwnames + TUPLE_SIZE)
    if count > 60:
        return PyObject_Vectorcall(load(state.fallbacks + 8 * site), args, nargs, kwnames)
    store(given, PyLong_FromLongLong(key))
    store(given + 8, PyLong_FromLongLong(end - key))
    store(given + 16, PyLong_FromLongLong(site))
    copy(given + 24, args, 8 * count)
    result = PyObject_Vectorcall(state.learn, given, nargs + 3, kwnames)
    Py_DecRef(load(given))
    Py_DecRef(load(given + 8))
    Py_DecRef(load(given + 16))
    return result


# ---- keys


def describe_call(site, args, nargs, kwnames, key, tensors):
    """Write the key of a call; gives its end, or 0 where no recipe can serve the call."""
    end = key + 8 * KEY_WORDS
    store(key, site)
    store(key + 8, state.grad)
    store(key + 16, load(load(state.default + LIST_ITEMS)))
    store(key + 24, nargs)
    at = key + 32
    count = nargs
    if kwnames:
        named = load(kwnames + TUPLE_SIZE)
        count = nargs + named
        if count > 16:
            return 0
        copy(at, kwnames + TUPLE_ITEMS, 8 * named)
        at = at + 8 * named
    if count > 16:
        return 0
    if site == state.getitem and count == 2 and is_row(load(args), load(args + 8)):
        index = PyLong_AsLongLong(load(args + 8))
        if index == -1 and PyErr_Occurred():
            PyErr_Clear()
            return 0
        store(tensors + 8 * INDEX, index)
        store(at, state.int_type)
        return describe(load(args), at + 8, end, tensors)
    for i in range(count):
        at = describe(load(args + 8 * i), at, end, tensors)
        if not at:
            return 0
    return at


def is_row(x, index):
    """Whether a call of ``__getitem__`` is one for a row of a tensor that nothing is recorded of: its key leaves the number out."""
    if load(x + OBJECT_TYPE) != state.tensor_type or load(index + OBJECT_TYPE) != state.int_type:
        return 0
    if state.grad == state.false:
        return 1
    return load(x + TENSOR_REQUIRES_GRAD) == state.false


def describe(x, at, end, tensors):
    """Append what a recipe may depend on of an argument; gives the new end, or 0."""
    if at + 192 > end:
        return 0
    kind = load(x + OBJECT_TYPE)
    if kind == state.tensor_type or kind == state.parameter_type:
        return describe_tensor(x, kind, at, tensors)
    store(at, kind)
    if kind == state.int_type:
        value = PyLong_AsLongLong(x)
        if value == -1 and PyErr_Occurred():
            PyErr_Clear()
            return 0
        store(at + 8, value)
        return at + 16
    if kind == state.float_type:
        store(at + 8, load(x + FLOAT_VALUE))
        return at + 16
    if kind == state.bool_type or kind == state.none_type or kind == state.dtype_type:
        store(at + 8, x)
        return at + 16
    if kind == state.str_type or kind == state.program_type:
        store(at + 8, x)
        return at + 16
    if kind == state.ellipsis_type:
        return at + 8
    if kind == state.tuple_type or kind == state.size_type:
        return describe_items(x + TUPLE_ITEMS, load(x + TUPLE_SIZE), at + 8, end, tensors)
    if kind == state.list_type:
        return describe_items(load(x + LIST_ITEMS), load(x + LIST_SIZE), at + 8, end, tensors)
    if kind == state.slice_type:
        return describe_items(x + SLICE_START, 3, at + 8, end, tensors)
    return 0


def describe_items(items, count, at, end, tensors):
    """Append a sequence's length and items."""
    store(at, count)
    at = at + 8
    if count > 16:
        return 0
    for i in range(count):
        at = describe(load(items + 8 * i), at, end, tensors)
        if not at:
            return 0
    return at


def describe_tensor(x, kind, at, tensors):
    """Append dtype, layout, whether it requires grad, and the first tensor that it is; note it in `tensors`."""
    array = load(x + TENSOR_ARRAY)
    base = load(x + TENSOR_BASE)
    count = load(tensors) + 1
    if load(array + OBJECT_TYPE) != state.array_type or count >= MOST_TENSORS:
        return 0
    if base != state.none and load(base + TENSOR_EPOCH) != load(x + TENSOR_EPOCH):
        return 0
    store(tensors, count)
    store(tensors + 8 * count, x)
    same = 1
    while load(tensors + 8 * same) != x:
        same = same + 1
    rank = load32(array + ARRAY_RANK)
    flags = load32(array + ARRAY_FLAGS) & (CONTIGUOUS | ALIGNED | WRITEABLE)
    if rank > 8:
        return 0
    store(at, kind)
    store(at + 8, load(x + TENSOR_DTYPE))
    store(at + 16, load(array + ARRAY_DESCR))
    store(at + 24, load(x + TENSOR_REQUIRES_GRAD))
    store(at + 32, rank | (same << 8) | (flags << 16))
    at = at + 40
    sizes = load(array + ARRAY_SIZES)
    for i in range(rank):
        store(at + 8 * i, load(sizes + 8 * i))
    at = at + 8 * rank
    if not flags & CONTIGUOUS:
        strides = load(array + ARRAY_STRIDES)
        for i in range(rank):
            store(at + 8 * i, load(strides + 8 * i))
        at = at + 8 * rank
    return at


def hash_of(at, end):
    """A number from a key's words."""
    hash = 1469598103934665603
    while at < end:
        hash = (hash ^ load(at)) * 1099511628211
        hash = hash ^ (hash >> 32)
        at = at + 8
    return hash


def find(key, end, hash):
    """The entry with this key, or 0."""
    index = hash & state.mask
    nbytes = end - key
    while 1:
        entry = load(state.table + 8 * index)
        if not entry:
            return 0
        if load(entry) == hash and load(entry + 8) == nbytes:
            at = 0
            while at < nbytes and load(entry + 24 + at) == load(key + at):
                at = at + 8
            if at == nbytes:
                return entry
        index = (index + 1) & state.mask
    return 0


def seen_often(hash):
    """Count a call that has no entry; whether it is worth a recipe now.  The counts of two calls may replace each other."""
    slot = state.seen + 8 * ((hash >> 16) & 4095)
    seen = load(slot)
    if seen >> 8 != hash >> 8:
        seen = (hash >> 8) << 8
    store(slot, seen + 1)
    if (seen & 255) + 1 >= state.threshold:
        store(slot, 0)
        return 1
    return 0


# ---- following a recipe


def follow(recipe, tensors):
    """The result of a recipe on a call's tensors, or 0."""
    values = words(VALUE_WORDS)
    given = load(recipe + RECIPE_TENSORS)
    constants = load(recipe + RECIPE_CONSTANT_COUNT)
    first = given + constants
    end = load(recipe + RECIPE_VALUES)
    copy(values, tensors + 8, 8 * given)
    store(values + 8 * MOST_VALUES, load(tensors + 8 * INDEX))
    copy(values + 8 * given, load(recipe + RECIPE_CONSTANTS), 8 * constants)
    at = first
    while at < end:
        store(values + 8 * at, 0)
        at = at + 1
    for i in range(given):  # a list that they came in may change while a kernel runs without the lock
        Py_IncRef(load(values + 8 * i))
    state.running = state.running + 1
    step = load(recipe + RECIPE_STEPS)
    result = 1
    for _ in range(load(recipe + RECIPE_STEP_COUNT)):
        result = run_step(step, values)
        if not result:
            break
        step = step + STEP_NBYTES
    if result:
        result = collect(recipe, values)
        state.served = state.served + 1
    at = first
    while at < end:
        made = load(values + 8 * at)
        if made:
            Py_DecRef(made)
        at = at + 1
    for i in range(given):
        Py_DecRef(load(values + 8 * i))
    state.running = state.running - 1
    return result


def run_step(step, values):
    """Do one step; 0 where it failed."""
    kind = load(step + STEP_KIND)
    if kind == KERNEL:
        return run_kernel(step, values)
    if kind == VIEW:
        return make_view(step, values, load(step + STEP_OFFSET), load(step + STEP_LINK))
    if kind == ROW:
        return make_row(step, values)
    if kind == ASSIGN:
        return assign(step, values)
    if kind == HOST:
        return run_on_host(step, values)
    if kind == SORT:
        return run_sort(step, values)
    return join(step, values)


def collect(recipe, values):
    """The values that are the result, as the call gives them: alone, in a tuple or list, or through a type."""
    kind = load(recipe + RECIPE_RESULT_KIND)
    slots = load(recipe + RECIPE_RESULTS)
    count = load(recipe + RECIPE_RESULT_COUNT)
    if kind == ONE:
        result = load(values + 8 * load(slots))
        Py_IncRef(result)
        return result
    if kind == CALLED:
        given = words(MOST_VALUES)
        for i in range(count):
            store(given + 8 * i, load(values + 8 * load(slots + 8 * i)))
        return PyObject_Vectorcall(load(recipe + RECIPE_RESULT_TYPE), given, count, 0)
    if kind == LIST:
        result = PyList_New(count)
        if not result:
            return 0
        items = load(result + LIST_ITEMS)
    else:
        result = PyTuple_New(count)
        if not result:
            return 0
        items = result + TUPLE_ITEMS
    for i in range(count):
        item = load(values + 8 * load(slots + 8 * i))
        Py_IncRef(item)
        store(items + 8 * i, item)
    return result
