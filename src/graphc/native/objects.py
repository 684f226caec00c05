"""New arrays, tensors and nodes of the tape, in the subset of Python of `calls`.

Enters: OUTPUT and TAPE records.  Leaves: objects as `graphc.eager` makes them, slot by slot.

A function that says it takes a reference owns it from then on, also where it fails.
"""

# ruff: noqa: F821  names are constants, C functions and other functions of the subset
# mypy: ignore-errors
from __future__ import annotations


def put(address, value):
    """Replace a reference; `value` is a reference of one's own."""
    old = load(address)
    store(address, value)
    if old:
        Py_DecRef(old)
    return 0


def put_new(address, value):
    """Replace a reference by one that is made for this."""
    Py_IncRef(value)
    return put(address, value)


def filled(type, slots):
    """A new object of a type with ``__slots__``; `slots`: (offset, object) pairs, ended by a 0."""
    made = PyType_GenericAlloc(type, 0)
    if made:
        while load(slots):
            value = load(slots + 8)
            Py_IncRef(value)
            store(made + load(slots), value)
            slots = slots + 16
    return made


def new_array(output):
    """An array that is nobody's: aligned and recycled if it is large."""
    if load(output + OUTPUT_STACK):
        return new_array_on_block(output, load(output + OUTPUT_STACK))
    descr = load(output + OUTPUT_DESCR)
    Py_IncRef(descr)
    return call(
        state.new_array, state.array_type, descr, load(output + OUTPUT_RANK), load(output + OUTPUT_SIZES), 0, 0, 0, 0
    )  # fmt: skip


def new_array_on_block(output, stack):
    """An array on the block used last, as `graphc.runtime.memory.aligned_empty` gives; that makes one where none is idle."""
    count = load(stack + LIST_SIZE)
    descr = load(output + OUTPUT_DESCR)
    if not count:
        given = words(2)
        store(given, load(output + OUTPUT_SHAPE))
        store(given + 8, descr)
        pair = PyObject_Vectorcall(state.aligned_empty, given, 2, 0)
        if not pair:
            return 0
        array = load(pair + TUPLE_ITEMS)
        Py_IncRef(array)
        Py_DecRef(pair)
        return array
    item = load(load(stack + LIST_ITEMS) + 8 * (count - 1))
    store(stack + LIST_SIZE, count - 1)
    start = PyLong_AsLongLong(item)
    Py_DecRef(item)
    lease = PyCapsule_New(start, 0, address(give_back))
    if not lease:
        return 0
    PyCapsule_SetContext(lease, stack)
    Py_IncRef(descr)
    array = call(
        state.new_array, state.array_type, descr, load(output + OUTPUT_RANK), load(output + OUTPUT_SIZES),
        load(output + OUTPUT_STRIDES), start, ALIGNED | WRITEABLE, 0,
    )  # fmt: skip
    if not array:
        Py_DecRef(lease)
        return 0
    if call(state.set_base, array, lease) & 4294967295:
        Py_DecRef(array)
        return 0
    return array


def give_back(lease):
    """The end of a capsule that stood for the use of a block: its address goes back on the stack."""
    item = PyLong_FromLongLong(PyCapsule_GetPointer(lease, 0))
    if item:
        if PyList_Append(PyCapsule_GetContext(lease), item):
            PyErr_Clear()
        Py_DecRef(item)
    return 0


def new_tensor(array, slots):
    """A tensor that is the root of its storage.  Takes the reference to `array`, also where it fails."""
    storage = filled(state.storage_type, state.storage_slots)
    if not storage:
        Py_DecRef(array)
        return 0
    Py_IncRef(array)
    store(storage + STORAGE_ARRAY, array)
    return new_tensor_on(array, storage, slots)


def new_tensor_on(array, storage, slots):
    """A tensor.  Takes the references to `array` and `storage`, also where it fails."""
    y = filled(state.tensor_type, slots)
    if not y:
        Py_DecRef(array)
        Py_DecRef(storage)
        return 0
    store(y + TENSOR_ARRAY, array)
    store(y + TENSOR_STORAGE, storage)
    return y


def new_output(step, values):
    """A step's one output, put among the values; gives its array, or 0."""
    output = load(step + STEP_OUTPUTS)
    array = new_array(output)
    if not array:
        return 0
    y = new_tensor(array, load(output + OUTPUT_SLOTS))
    if not y:
        return 0
    store(values + 8 * load(output + OUTPUT_SLOT), y)
    return array


# ---- the tape


def record(step, values):
    """Put a step on the tape, as `graphc.eager.tape.record` does."""
    recipe = load(step + STEP_NODE)
    inputs = load(recipe + TAPE_INPUTS)
    outputs = load(step + STEP_OUTPUTS)
    count = load(recipe + TAPE_INPUT_COUNT)
    output_count = load(step + STEP_OUTPUT_COUNT)
    node = filled(state.node_type, load(recipe + TAPE_SLOTS))
    if not node:
        return 0
    store(node + NODE_SEQUENCE, PyIter_Next(state.sequence))
    edges = PyTuple_New(count)
    store(node + NODE_EDGES, edges)
    saved = PyTuple_New(count)
    store(node + NODE_SAVED, saved)
    saved_outputs = PyTuple_New(output_count)
    store(node + NODE_SAVED_OUTPUTS, saved_outputs)
    if not (edges and saved and saved_outputs):
        Py_DecRef(node)
        return 0
    for i in range(count):
        x = load(values + 8 * load(inputs + 8 * i))
        store(edges + TUPLE_ITEMS + 8 * i, edge(x) if load(load(recipe + TAPE_WANTED) + 8 * i) else new_none())
        store(saved + TUPLE_ITEMS + 8 * i, with_version(x) if load(load(recipe + TAPE_SAVED_INPUTS) + 8 * i) else new_none())
    for i in range(output_count):
        y = load(values + 8 * load(outputs + OUTPUT_SLOT))
        slots = load(load(recipe + TAPE_KEPT_OUTPUTS) + 8 * i)
        store(saved_outputs + TUPLE_ITEMS + 8 * i, detached(y, slots) if slots else new_none())
        if load(load(recipe + TAPE_FLOATING) + 8 * i):
            put_new(y + TENSOR_REQUIRES_GRAD, state.true)
            put_new(y + TENSOR_GRAD_FN, node)
            put_new(y + TENSOR_INDEX, load(state.indices + 8 * i))
        outputs = outputs + OUTPUT_NBYTES
    Py_DecRef(node)
    return 1


def new_none():
    """A reference to None."""
    Py_IncRef(state.none)
    return state.none


def pair(a, b):
    """A tuple; takes the reference to `b`."""
    made = PyTuple_New(2)
    if not made:
        Py_DecRef(b)
        return new_none()
    Py_IncRef(a)
    store(made + TUPLE_ITEMS, a)
    store(made + TUPLE_ITEMS + 8, b)
    return made


def edge(x):
    """Where the gradient of a tensor goes."""
    node = load(x + TENSOR_GRAD_FN)
    if node == state.none:
        index = load(state.indices)
        Py_IncRef(index)
        return pair(x, index)
    index = load(x + TENSOR_INDEX)
    Py_IncRef(index)
    return pair(node, index)


def with_version(x):
    """A saved tensor with how often its memory was written to."""
    version = load(load(x + TENSOR_STORAGE) + STORAGE_VERSION)
    Py_IncRef(version)
    return pair(x, version)


def detached(y, slots):
    """A saved output: off the tape, so that its node does not hold itself."""
    array = load(y + TENSOR_ARRAY)
    storage = load(y + TENSOR_STORAGE)
    Py_IncRef(array)
    Py_IncRef(storage)
    copy_of = new_tensor_on(array, storage, slots)
    if not copy_of:
        return new_none()
    put_new(copy_of + TENSOR_CHAIN, load(y + TENSOR_CHAIN))
    saved = with_version(copy_of)
    Py_DecRef(copy_of)
    return saved
