"""Calls of compiled functions, in the subset of Python of `calls`: checked, run and delivered without Python.

Enters: a call of a `Compiled`, PROGRAM records.  Leaves: what the function gives; whatever no record is for goes to Python.

    program   see PROGRAM: what must hold, the entry's table, what to do with the results
    wanted    see WANTED: what an argument must be (the words a tensor must have, one object, the items of a list or tuple)
    guards    pairs (where a word is, what it must be): the epoch, memory of outside tensors, versions, closure cells
    part      see PART: how the result is put together
"""

# ruff: noqa: F821  names are constants, C functions and other functions of the subset
# mypy: ignore-errors
from __future__ import annotations

PROGRAM = (
    "next", "busy", "last", "grad", "positional", "names", "name_count", "wanted", "guards", "guards_end", "differing",
    "differing_end", "items", "items_end", "table", "held", "tensor_count", "entry", "long", "status", "arena",
    "arena_count", "arena_slot", "arena_nbytes", "arena_at", "outputs", "output_count", "output_slot", "fill", "spans",
    "spans_end", "written", "written_end", "grads", "grads_end", "result", "deferred", "deferred_end", "ask", "finish",
    "given",
)  # fmt: skip
WANTED = ("kind", "type", "dtype", "descr", "requires_grad", "rank", "sizes", "span", "items", "count")
PART = ("kind", "value", "parts", "count")
WANTED_KINDS = ("A_TENSOR", "SAME", "ITEMS_OF_TUPLE", "ITEMS_OF_LIST")
A_TENSOR, SAME, ITEMS_OF_TUPLE, ITEMS_OF_LIST = range(4)
PART_KINDS = ("MADE", "FIXED", "A_TUPLE", "A_LIST", "A_DICT", "CALLED_WITH")
MADE, FIXED, A_TUPLE, A_LIST, A_DICT, CALLED_WITH = range(6)
MOST_OUTPUTS = 1024
LONG_WAY = 1  # what `run_program` gives where the call must start again in Python


def enter(self, args, nargs, kwnames):
    """``Compiled.__call__``.  A method descriptor hands on its arguments with `self` in front of them."""
    holder = load(self + ENTERED_ENTRY)
    if holder != state.none:
        if PyThreadState_GetID(PyThreadState_Get()) != state.owner:
            adopted = PyObject_Vectorcall(state.adopt, 0, 0, 0)
            if not adopted:
                return 0
            Py_DecRef(adopted)
        if state.plain:
            Py_IncRef(holder)  # another thread may give this function other records meanwhile
            record = PyLong_AsLongLong(load(holder + TUPLE_ITEMS))
            result = LONG_WAY
            while record:
                if holds(record, args, nargs, kwnames):
                    result = run_program(record)
                    break
                record = load(record + PROGRAM_NEXT)
            Py_DecRef(holder)
            if result != LONG_WAY:
                state.entered = state.entered + 1
                return result
            if PyErr_Occurred():
                PyErr_Clear()
    return PyObject_Vectorcall(state.long_way, args - 8, nargs + 1, kwnames)


# ---- what must hold


def holds(record, args, nargs, kwnames):
    """Whether a record serves a call; writes the addresses of its tensors into the table."""
    if load(record + PROGRAM_BUSY) or load(record + PROGRAM_GRAD) != state.grad:
        return 0
    if nargs != load(record + PROGRAM_POSITIONAL):
        return 0
    named = load(record + PROGRAM_NAME_COUNT)
    if kwnames:
        if load(kwnames + TUPLE_SIZE) != named:
            return 0
        names = load(record + PROGRAM_NAMES)
        for i in range(named):
            if load(names + 8 * i) != load(kwnames + TUPLE_ITEMS + 8 * i):
                return 0
    elif named:
        return 0
    if not items_match(load(record + PROGRAM_WANTED), args, nargs + named, load(record + PROGRAM_TABLE) + 16, record):
        return 0
    at = load(record + PROGRAM_GUARDS)
    end = load(record + PROGRAM_GUARDS_END)
    while at < end:
        if load(load(at)) != load(at + 8):
            return 0
        at = at + 16
    at = load(record + PROGRAM_DIFFERING)
    end = load(record + PROGRAM_DIFFERING_END)
    while at < end:
        if load(load(at)) == load(at + 8):
            return 0
        at = at + 16
    at = load(record + PROGRAM_ITEMS)
    end = load(record + PROGRAM_ITEMS_END)
    while at < end:
        if PyDict_GetItem(load(at), load(at + 8)) != load(at + 16):
            return 0
        at = at + 24
    if load(record + PROGRAM_ASK):
        if not says_yes(load(record + PROGRAM_ASK)) or load(record + PROGRAM_BUSY):
            return 0
        if not items_match(load(record + PROGRAM_WANTED), args, nargs + named, load(record + PROGRAM_TABLE) + 16, record):
            return 0  # again: another thread may have been here meanwhile
    return 1


def says_yes(function):
    """Whether a Python function gives True."""
    said = PyObject_Vectorcall(function, 0, 0, 0)
    if not said:
        PyErr_Clear()
        return 0
    Py_DecRef(said)
    if said == state.true:
        return 1
    return 0


def items_match(wanted, items, count, slot, record):
    """Match `count` items; gives the table's next free slot, or 0."""
    for i in range(count):
        slot = matches(wanted, load(items + 8 * i), slot, record)
        if not slot:
            return 0
        wanted = wanted + WANTED_NBYTES
    return slot


def matches(wanted, x, slot, record):
    """Match one argument; gives the table's next free slot, or 0."""
    kind = load(wanted + WANTED_KIND)
    if kind == SAME:
        return slot if x == load(wanted + WANTED_TYPE) else 0
    if load(x + OBJECT_TYPE) != load(wanted + WANTED_TYPE):
        return 0
    if kind == A_TENSOR:
        return tensor_matches(wanted, x, slot, record)
    count = load(wanted + WANTED_COUNT)
    if kind == ITEMS_OF_TUPLE:
        if load(x + TUPLE_SIZE) != count:
            return 0
        return items_match(load(wanted + WANTED_ITEMS), x + TUPLE_ITEMS, count, slot, record)
    if load(x + LIST_SIZE) != count:
        return 0
    return items_match(load(wanted + WANTED_ITEMS), load(x + LIST_ITEMS), count, slot, record)


def tensor_matches(wanted, x, slot, record):
    """Match a tensor: type, layout, and no memory that the program writes."""
    array = load(x + TENSOR_ARRAY)
    base = load(x + TENSOR_BASE)
    if load(x + TENSOR_DTYPE) != load(wanted + WANTED_DTYPE) or load(x + TENSOR_REQUIRES_GRAD) != load(
        wanted + WANTED_REQUIRES_GRAD
    ):
        return 0
    if base != state.none and load(base + TENSOR_EPOCH) != load(x + TENSOR_EPOCH):
        return 0
    if load(array + OBJECT_TYPE) != state.array_type or load(array + ARRAY_DESCR) != load(wanted + WANTED_DESCR):
        return 0
    rank = load(wanted + WANTED_RANK)
    if load32(array + ARRAY_RANK) != rank or load32(array + ARRAY_FLAGS) & (CONTIGUOUS | ALIGNED) != CONTIGUOUS | ALIGNED:
        return 0
    sizes = load(array + ARRAY_SIZES)
    wanted_sizes = load(wanted + WANTED_SIZES)
    for i in range(rank):
        if load(sizes + 8 * i) != load(wanted_sizes + 8 * i):
            return 0
    data = load(array + ARRAY_DATA)
    at = load(record + PROGRAM_SPANS)
    end = load(record + PROGRAM_SPANS_END)
    if at < end:
        after = data + load(wanted + WANTED_SPAN)
        while at < end:
            if data < load(at + 8) and load(at) < after:
                return 0
            at = at + 16
    store(slot, data)
    store(slot + load(record + PROGRAM_HELD), array)
    if load(record + PROGRAM_GIVEN):
        store(slot + load(record + PROGRAM_GIVEN), x)
    return slot + 8


# ---- running


def run_program(record):
    """Run the program on what its table holds and deliver; 0 where an error is set, or LONG_WAY."""
    values = words(MOST_OUTPUTS)
    store(record + PROGRAM_BUSY, 1)
    state.running = state.running + 1
    count = load(record + PROGRAM_OUTPUT_COUNT)
    made = make_results(record, values, count)
    result = LONG_WAY
    given = 0
    if load(record + PROGRAM_FINISH):
        given = tuple_of(load(record + PROGRAM_TABLE) + 16 + load(record + PROGRAM_GIVEN), load(record + PROGRAM_TENSOR_COUNT))
        if not given:
            count = made + 1  # no memory: nothing is run
    if made == count:
        filled_in = 1
        fill = load(record + PROGRAM_FILL)
        if fill:
            filled_in = PyObject_Vectorcall(fill, 0, 0, 0)
            if filled_in:
                Py_DecRef(filled_in)
        if not filled_in:
            result = 0
        elif launch_program(record):
            result = delivered(record, values, given)
    for i in range(made):
        Py_DecRef(load(values + 8 * i))
    if given:
        Py_DecRef(given)
    state.running = state.running - 1
    store(record + PROGRAM_BUSY, 0)
    store(load(record + PROGRAM_LAST), record)
    return result


def make_results(record, values, count):
    """Make tensors for the outputs and write down their addresses; gives how many there was memory for."""
    output = load(record + PROGRAM_OUTPUTS)
    slot = load(record + PROGRAM_OUTPUT_SLOT)
    for i in range(count):
        array = new_array(output)
        if not array:
            return i
        store(slot + 8 * i, load(array + ARRAY_DATA))
        made = new_tensor(array, load(output + OUTPUT_SLOTS))
        if not made:
            return i
        store(values + 8 * i, made)
        output = output + OUTPUT_NBYTES
    return count


def launch_program(record):
    """Call the entry: a short one with the interpreter lock, a long one without it.  0 where it failed or has no arena."""
    table = load(record + PROGRAM_TABLE)
    nbytes = load(record + PROGRAM_ARENA_NBYTES)
    if nbytes:
        if state.scratch_busy or nbytes > state.scratch_nbytes:
            return 0
        if load(record + PROGRAM_ARENA_AT) != state.scratch:
            lay_over(record, state.scratch)
    store(table + 8, load32(state.pool_limit))
    if load(record + PROGRAM_LONG):
        held = table + 16 + load(record + PROGRAM_HELD)
        count = load(record + PROGRAM_TENSOR_COUNT)
        for i in range(count):
            Py_IncRef(load(held + 8 * i))
        if nbytes:
            state.scratch_busy = 1
        thread = PyEval_SaveThread()
        call(load(record + PROGRAM_ENTRY), table, state.pool_run, state.pool)
        PyEval_RestoreThread(thread)
        if nbytes:
            state.scratch_busy = 0
        for i in range(count):
            Py_DecRef(load(held + 8 * i))
    else:
        call(load(record + PROGRAM_ENTRY), table, state.pool_run, state.pool)
    status = load(record + PROGRAM_STATUS)
    if load(status):
        store(status, 0)
        return 0
    return 1


def lay_over(record, start):
    """Put the arena's values at `start`."""
    offsets = load(record + PROGRAM_ARENA)
    slot = load(record + PROGRAM_ARENA_SLOT)
    for i in range(load(record + PROGRAM_ARENA_COUNT)):
        store(slot + 8 * i, start + load(offsets + 8 * i))
    store(record + PROGRAM_ARENA_AT, start)
    return 0


# ---- delivering


def tuple_of(items, count):
    """A new tuple of objects, or 0."""
    made = PyTuple_New(count)
    if made:
        for i in range(count):
            Py_IncRef(load(items + 8 * i))
            store(made + TUPLE_ITEMS + 8 * i, load(items + 8 * i))
    return made


def finished(record, values, given):
    """The function's result as Python gives it, from all that the program made and the tensors of the call; or 0."""
    both = words(2)
    store(both, tuple_of(values, load(record + PROGRAM_OUTPUT_COUNT)))
    store(both + 8, given)
    if not load(both):
        return 0
    result = PyObject_Vectorcall(load(record + PROGRAM_FINISH), both, 2, 0)
    Py_DecRef(load(both))
    return result


def delivered(record, values, given):
    """Count what was written, set gradients, do what was deferred; gives the function's result, or 0."""
    at = load(record + PROGRAM_WRITTEN)
    end = load(record + PROGRAM_WRITTEN_END)
    while at < end:
        storage = load(at)
        put(storage + STORAGE_VERSION, PyLong_FromLongLong(PyLong_AsLongLong(load(storage + STORAGE_VERSION)) + 1))
        at = at + 8
    at = load(record + PROGRAM_GRADS)
    end = load(record + PROGRAM_GRADS_END)
    while at < end:
        place = load(at + 8)
        put_new(load(at) + TENSOR_GRAD, load(values + 8 * place) if place >= 0 else state.none)
        at = at + 16
    at = load(record + PROGRAM_DEFERRED)
    end = load(record + PROGRAM_DEFERRED_END)
    while at < end:
        done = PyObject_Vectorcall(load(at), 0, 0, 0)
        if not done:
            return 0
        Py_DecRef(done)
        at = at + 8
    if given:
        return finished(record, values, given)
    return put_together(load(record + PROGRAM_RESULT), values)


def put_together(part, values):
    """A new reference to (a part of) the result, or 0."""
    kind = load(part + PART_KIND)
    value = load(part + PART_VALUE)
    if kind == MADE:
        value = load(values + 8 * value)
    if kind <= FIXED:
        Py_IncRef(value)
        return value
    count = load(part + PART_COUNT)
    if kind == A_LIST:
        made = PyList_New(count)
    elif kind == A_DICT:
        made = PyDict_New()
    else:
        made = PyTuple_New(count)
    if not made:
        return 0
    items = load(made + LIST_ITEMS) if kind == A_LIST else made + TUPLE_ITEMS
    parts = load(part + PART_PARTS)
    for i in range(count):
        item = put_together(parts, values)
        if not item:
            Py_DecRef(made)
            return 0
        if kind == A_DICT:
            failed = PyDict_SetItem(made, load(value + TUPLE_ITEMS + 8 * i), item)
            Py_DecRef(item)
            if failed:
                Py_DecRef(made)
                return 0
        else:
            store(items + 8 * i, item)
        parts = parts + PART_NBYTES
    if kind == CALLED_WITH:
        whole = PyObject_Vectorcall(value, items, count, 0)
        Py_DecRef(made)
        return whole
    return made
