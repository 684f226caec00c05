"""The steps of a recipe, in the subset of Python of `calls`: kernels, views, writes, joins, and what Python runs.

Enters: a STEP record and the list of values.  Leaves: new values in the list, 1; or 0 where the call must start again in Python.
"""

# ruff: noqa: F821  names are constants, C functions and other functions of the subset
# mypy: ignore-errors
from __future__ import annotations


def run_kernel(step, values):
    """Make a one-node program's outputs and run it; 0 where it failed."""
    table = words(MOST_SLOTS)
    kept = words(MOST_VALUES)
    status = words(1)
    store(status, 0)
    store(kept, 0)
    copy(table, load(step + STEP_TABLE), load(step + STEP_TABLE_NBYTES))
    store(table, status)
    store(table + 8, load32(state.pool_limit))
    target = load(step + STEP_TARGET)
    fine = take_inputs(step, values, table + 16, kept)
    at = table + 16 + 8 * load(step + STEP_INPUT_COUNT)
    if fine:
        fine = take_target(step, values, at, kept) if target >= 0 else make_outputs(step, values, at)
    if fine:
        fine = launch(step, table)
    for i in range(load(kept)):
        Py_DecRef(load(kept + 8 + 8 * i))
    if load(status) or not fine:
        return 0
    if target >= 0:
        return written(load(values + 8 * target))
    if load(step + STEP_NODE):
        return record(step, values)
    return 1


def keep(kept, array):
    """Note a reference that is dropped when the kernel has run.   kept: how many, then the references."""
    count = load(kept)
    store(kept + 8 + 8 * count, array)
    store(kept, count + 1)
    return 0


def take_inputs(step, values, at, kept):
    """Write the addresses of a kernel's inputs, of copies where they are not row-major."""
    inputs = load(step + STEP_INPUTS)
    copied = load(step + STEP_COPIED)
    for i in range(load(step + STEP_INPUT_COUNT)):
        array = load(load(values + 8 * load(inputs + 8 * i)) + TENSOR_ARRAY)
        if copied and load(copied + 8 * i):
            array = call(state.new_copy, array, 0)
            if not array:
                return 0
            keep(kept, array)
        elif load(step + STEP_LONG):  # another thread may give the tensor another array meanwhile
            Py_IncRef(array)
            keep(kept, array)
        store(at + 8 * i, load(array + ARRAY_DATA))
    return 1


def take_target(step, values, at, kept):
    """Write the address of the tensor that the result replaces; 0 where a kernel may not write there."""
    array = load(load(values + 8 * load(step + STEP_TARGET)) + TENSOR_ARRAY)
    Py_IncRef(array)
    keep(kept, array)
    store(at, load(array + ARRAY_DATA))
    return may_overwrite(step, values, array)


def make_outputs(step, values, at):
    """Make a kernel's outputs and write their addresses."""
    output = load(step + STEP_OUTPUTS)
    for i in range(load(step + STEP_OUTPUT_COUNT)):
        array = new_array(output)
        if not array:
            return 0
        store(at + 8 * i, load(array + ARRAY_DATA))
        tensor = new_tensor(array, load(output + OUTPUT_SLOTS))
        if not tensor:
            return 0
        store(values + 8 * load(output + OUTPUT_SLOT), tensor)
        output = output + OUTPUT_NBYTES
    return 1


def launch(step, table):
    """Run the program: a short one with the interpreter lock, a long one without it."""
    arena = load(step + STEP_ARENA)
    count = load(step + STEP_ARENA_COUNT)
    if count:
        if state.scratch_busy:
            return 0
        slot = table + load(step + STEP_ARENA_SLOT)
        for i in range(count):
            store(slot + 8 * i, state.scratch + load(arena + 8 * i))
    if load(step + STEP_LONG):
        if count:
            state.scratch_busy = 1
        thread = PyEval_SaveThread()
        call(load(step + STEP_ENTRY), table, state.pool_run, state.pool)
        PyEval_RestoreThread(thread)
        if count:
            state.scratch_busy = 0
    else:
        call(load(step + STEP_ENTRY), table, state.pool_run, state.pool)
    return 1


def may_overwrite(step, values, array):
    """Whether a kernel may write over `array` while it reads its inputs: each is that very memory, or none of it."""
    inputs = load(step + STEP_INPUTS)
    low = load(array + ARRAY_DATA)
    high = low + load(step + STEP_OFFSET)
    for i in range(load(step + STEP_INPUT_COUNT)):
        other = load(load(values + 8 * load(inputs + 8 * i)) + TENSOR_ARRAY)
        begin = load(other + ARRAY_DATA)
        end = begin + 16
        if load32(other + ARRAY_RANK):
            end = begin + load(load(other + ARRAY_STRIDES)) * load(load(other + ARRAY_SIZES))
        if (begin != low or end != high) and begin < high and low < end:
            return 0
    return 1


def written(x):
    """Count a write to a tensor's memory."""
    storage = load(x + TENSOR_STORAGE)
    version = PyLong_AsLongLong(load(storage + STORAGE_VERSION))
    put(storage + STORAGE_VERSION, PyLong_FromLongLong(version + 1))
    return 1


def assign(step, values):
    """Copy a result over the tensor it replaces: both are whole, contiguous and of one type."""
    inputs = load(step + STEP_INPUTS)
    target = load(values + 8 * load(inputs))
    source = load(values + 8 * load(inputs + 8))
    to = load(load(target + TENSOR_ARRAY) + ARRAY_DATA)
    memmove(to, load(load(source + TENSOR_ARRAY) + ARRAY_DATA), load(step + STEP_OFFSET))
    return written(target)


def make_view(step, values, offset, link):
    """A tensor on the memory of another."""
    output = load(step + STEP_OUTPUTS)
    x = load(values + 8 * load(load(step + STEP_INPUTS)))
    whole = load(x + TENSOR_ARRAY)
    descr = load(output + OUTPUT_DESCR)
    Py_IncRef(descr)
    array = call(
        state.new_array, state.array_type, descr, load(output + OUTPUT_RANK), load(output + OUTPUT_SIZES),
        load(output + OUTPUT_STRIDES), load(whole + ARRAY_DATA) + offset, load(step + STEP_FLAGS), 0,
    )  # fmt: skip
    if not array:
        return 0
    Py_IncRef(whole)
    if call(state.set_base, array, whole) & 4294967295:
        Py_DecRef(array)
        return 0
    storage = load(x + TENSOR_STORAGE)
    Py_IncRef(storage)
    y = new_tensor_on(array, storage, load(output + OUTPUT_SLOTS))
    if not y:
        return 0
    store(values + 8 * load(output + OUTPUT_SLOT), y)
    chain = load(x + TENSOR_CHAIN)
    if not link:  # detached: the same chain, no base
        put_new(y + TENSOR_CHAIN, chain)
        return 1
    if load(chain + TUPLE_SIZE):
        joined = PySequence_Concat(chain, link)
        if not joined:
            return 0
        put(y + TENSOR_CHAIN, joined)
    else:
        put_new(y + TENSOR_CHAIN, link)
    base = load(x + TENSOR_BASE)
    if base == state.none:
        base = x
    put_new(y + TENSOR_BASE, base)
    put_new(y + TENSOR_EPOCH, load(base + TENSOR_EPOCH))
    if load(step + STEP_NODE):
        return record(step, values)
    return 1


def make_row(step, values):
    """``x[i]``: the view of a row, whose number is behind the values.  Its link is made by Python when it is first needed."""
    index = load(values + 8 * MOST_VALUES)
    size = load(step + STEP_OFFSET)
    if index < 0:
        index = index + size
    if index < 0 or index >= size:
        return 0
    links = load(step + STEP_LINK)
    place = load(links + LIST_ITEMS) + 8 * index
    if load(place) == state.none:
        given = words(1)
        store(given, PyLong_FromLongLong(index))
        made = PyObject_Vectorcall(load(step + STEP_ENTRY), given, 1, 0)
        Py_DecRef(load(given))
        if not made:
            return 0
        put(load(links + LIST_ITEMS) + 8 * index, made)
    return make_view(step, values, index * load(step + STEP_TABLE_NBYTES), load(load(links + LIST_ITEMS) + 8 * index))


def run_on_host(step, values):
    """Let Python run an operator that no kernel is written for: ``entry(*tensors)`` gives a tuple of new tensors."""
    given = words(MOST_TENSORS)
    inputs = load(step + STEP_INPUTS)
    count = load(step + STEP_INPUT_COUNT)
    for i in range(count):
        store(given + 8 * i, load(values + 8 * load(inputs + 8 * i)))
    results = PyObject_Vectorcall(load(step + STEP_ENTRY), given, count, 0)
    if not results:
        return 0
    output = load(step + STEP_OUTPUTS)
    for i in range(load(step + STEP_OUTPUT_COUNT)):
        made = load(results + TUPLE_ITEMS + 8 * i)
        Py_IncRef(made)
        store(values + 8 * load(output + OUTPUT_SLOT), made)
        output = output + OUTPUT_NBYTES
    Py_DecRef(results)
    if load(step + STEP_NODE):
        return record(step, values)
    return 1


def join(step, values):
    """Row-major tensors one after the other along a dim: for each index before it, a block of each in turn."""
    array = new_output(step, values)
    if not array:
        return 0
    sources = words(MOST_TENSORS)
    arrays = words(MOST_TENSORS)
    inputs = load(step + STEP_INPUTS)
    nbytes = load(step + STEP_TABLE)
    count = load(step + STEP_INPUT_COUNT)
    for i in range(count):
        source = load(load(values + 8 * load(inputs + 8 * i)) + TENSOR_ARRAY)
        Py_IncRef(source)
        store(arrays + 8 * i, source)
        store(sources + 8 * i, load(source + ARRAY_DATA))
    at = load(array + ARRAY_DATA)
    thread = 0
    if load(step + STEP_LONG):
        thread = PyEval_SaveThread()
    for _ in range(load(step + STEP_OFFSET)):
        for i in range(count):
            length = load(nbytes + 8 * i)
            copy(at, load(sources + 8 * i), length)
            store(sources + 8 * i, load(sources + 8 * i) + length)
            at = at + length
    if thread:
        PyEval_RestoreThread(thread)
    for i in range(count):
        Py_DecRef(load(arrays + 8 * i))
    if load(step + STEP_NODE):
        return record(step, values)
    return 1
