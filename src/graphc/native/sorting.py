"""Places in order, in the subset of Python of `calls`: what `graphc.ops.sorting` does on the host, for elements of four bytes.

Enters: a STEP record.  Leaves: the places of each row's elements.  An element becomes a word: its rank above, its place below, so
no two words are equal and every way of sorting them gives the same.  A few of many are picked by insertion, short rows are sorted
by it, long rows by radix (least byte first)."""

# ruff: noqa: F821  names are constants, C functions and other functions of the subset
# mypy: ignore-errors
from __future__ import annotations


def run_sort(step, values):
    """The places of each row's least (greatest) elements in order: `sort_places` and `top_places` of four-byte elements."""
    array = new_output(step, values)
    if not array:
        return 0
    x = load(load(values + 8 * load(load(step + STEP_INPUTS))) + TENSOR_ARRAY)
    if state.scratch_busy:
        return 0
    state.scratch_busy = 1
    Py_IncRef(x)
    thread = 0
    if load(step + STEP_LONG):
        thread = PyEval_SaveThread()
    work = words(8)
    store(work, load(x + ARRAY_DATA))
    store(work + 8, load(step + STEP_TABLE_NBYTES))
    store(work + 16, load(step + STEP_OFFSET))
    store(work + 24, load(step + STEP_FLAGS))
    store(work + 32, load(step + STEP_LINK))
    store(work + 40, load(step + STEP_TARGET))
    store(work + 48, load(array + ARRAY_DATA))
    store(work + 56, state.scratch)
    if thread:
        call(state.pool_run, state.pool, address(sort_chunk), work, SORT_CHUNKS)
    else:
        sort_chunk(work, 0, 1)
    if thread:
        PyEval_RestoreThread(thread)
    state.scratch_busy = 0
    Py_DecRef(x)
    return 1


def sort_chunk(work, chunk, chunks):
    """One of `chunks` parts of the rows, with room of its own for keys."""
    rows = load(work + 8)
    size = load(work + 16)
    count = load(work + 24)
    begin = rows * chunk // chunks
    end = rows * (chunk + 1) // chunks
    data = load(work) + 4 * size * begin
    out = load(work + 48) + 8 * count * begin
    return sort_rows(data, end - begin, size, count, load(work + 32), load(work + 40), out, load(work + 56) + 16 * size * chunk)


def sort_rows(data, rows, size, count, floating, descending, out, keys):
    """Write the places of the first `count` of each row's `size` elements in order; `keys`: room for two rows of words."""
    for _ in range(rows):
        if count < size and count <= 64:
            few = 0
            for i in range(size):
                key = sort_key(load32(data + 4 * i), floating, descending) << 32 | i
                if few < count or key < load(keys + 8 * (count - 1)):
                    if few < count:
                        few = few + 1
                    put_in_order(keys, few - 1, key)
            found = keys
        else:
            for i in range(size):
                store(keys + 8 * i, sort_key(load32(data + 4 * i), floating, descending) << 32 | i)
            found = keys
            if size <= 32:
                at = 1
                while at < size:
                    put_in_order(keys, at, load(keys + 8 * at))
                    at = at + 1
            else:
                radix_sort(keys, keys + 8 * size, size)
        for i in range(count):
            store(out + 8 * i, load(found + 8 * i) & 4294967295)
        out = out + 8 * count
        data = data + 4 * size
    return 0


def sort_key(bits, floating, descending):
    """A number, signed in its low 32 bits, with the order of an element: NaN is greatest, the zeros are equal."""
    if floating:
        if (bits & 2147483647) > 2139095040:
            bits = 2147483647
        elif (bits & 2147483647) == 0:
            bits = 0
        elif bits < 0:
            bits = bits ^ 2147483647
    if descending:
        bits = bits ^ -1
    return bits


def put_in_order(keys, last, key):
    """Put a key among the `last` ones before it, which are in order; what stands at `last` is overwritten."""
    at = last
    while at > 0 and load(keys + 8 * (at - 1)) > key:
        store(keys + 8 * at, load(keys + 8 * (at - 1)))
        at = at - 1
    store(keys + 8 * at, key)
    return 0


def radix_sort(keys, spare, size):
    """Sort words by their upper four bytes, byte by byte, the lowest first; equal ones keep their order."""
    counts = words(1024)
    for i in range(1024):
        store(counts + 8 * i, 0)
    for i in range(size):
        key = load(keys + 8 * i) ^ -9223372036854775808
        shift = 32
        table = counts
        while shift < 64:
            slot = table + 8 * ((key >> shift) & 255)
            store(slot, load(slot) + 1)
            shift = shift + 8
            table = table + 2048
    shift = 32
    table = counts
    source = keys
    target = spare
    while shift < 64:
        total = 0
        for digit in range(256):
            slot = table + 8 * digit
            before = total
            total = total + load(slot)
            store(slot, before)
        for i in range(size):
            key = load(source + 8 * i)
            slot = table + 8 * (((key ^ -9223372036854775808) >> shift) & 255)
            place = load(slot)
            store(slot, place + 1)
            store(target + 8 * place, key)
        other = source
        source = target
        target = other
        shift = shift + 8
        table = table + 2048
    return 0
