"""Launches written down as data: many of them cost no more text than one.

Enters: launches of known extents.  Leaves: constants, and the functions that run what is in them.  Never here: kernels.

A record is the kernel's address, the extent, the grain, the count of arguments and the arguments, eight bytes each: the number of a
slot of the table, or ``-1 - n`` for a number n.  Before the records of launches that run together stands their count.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.ir.loops import THREADS_SLOT

TOGETHER_WORDS = 5  # of an entry of launches that run together: kernel, arguments, extent, grain, the chunk after its last

FILL = """
define internal void @graphc_fill(ptr %table, ptr %words, i64 %count, ptr %args) nounwind {
entry:
  br label %word
word:
  %i = phi i64 [ 0, %entry ], [ %i.more, %filled ]
  %wordp = getelementptr i64, ptr %words, i64 %i
  %word.i = load i64, ptr %wordp
  %is.number = icmp slt i64 %word.i, 0
  br i1 %is.number, label %number, label %slot
number:
  %n = xor i64 %word.i, -1
  br label %filled
slot:
  %slotp = getelementptr i64, ptr %table, i64 %word.i
  %held = load i64, ptr %slotp
  br label %filled
filled:
  %value = phi i64 [ %n, %number ], [ %held, %slot ]
  %argp = getelementptr i64, ptr %args, i64 %i
  store i64 %value, ptr %argp
  %i.more = add i64 %i, 1
  %more = icmp slt i64 %i.more, %count
  br i1 %more, label %word, label %done
done:
  ret void
}
"""

RECORDS = f"""
define internal void @graphc_run(ptr %table, ptr %records, i64 %count, ptr %args, ptr %entries,
                                 ptr %pool_run, ptr %pool) nounwind {{
entry:
  %threadsp = getelementptr i64, ptr %table, i64 {THREADS_SLOT}
  %threads = load i64, ptr %threadsp
  br label %group
group:
  %g = phi i64 [ 0, %entry ], [ %g.more, %ran ]
  %from = phi ptr [ %records, %entry ], [ %after, %ran ]
  %members = load i64, ptr %from
  %start = getelementptr i64, ptr %from, i64 1
  br label %next
next:
  %i = phi i64 [ 0, %group ], [ %i.more, %next ]
  %at = phi ptr [ %start, %group ], [ %after, %next ]
  %to = phi ptr [ %entries, %group ], [ %to.more, %next ]
  %mine = phi ptr [ %args, %group ], [ %mine.more, %next ]
  %extentp = getelementptr i64, ptr %at, i64 1
  %grainp = getelementptr i64, ptr %at, i64 2
  %wordsp = getelementptr i64, ptr %at, i64 3
  %first = getelementptr i64, ptr %at, i64 4
  %kernel = load ptr, ptr %at
  %extent = load i64, ptr %extentp
  %grain = load i64, ptr %grainp
  %words = load i64, ptr %wordsp
  call void @graphc_fill(ptr %table, ptr %first, i64 %words, ptr %mine)
  %to.args = getelementptr i64, ptr %to, i64 1
  %to.extent = getelementptr i64, ptr %to, i64 2
  %to.grain = getelementptr i64, ptr %to, i64 3
  store ptr %kernel, ptr %to
  store ptr %mine, ptr %to.args
  store i64 %extent, ptr %to.extent
  store i64 %grain, ptr %to.grain
  %after = getelementptr i64, ptr %first, i64 %words
  %mine.more = getelementptr i64, ptr %mine, i64 %words
  %to.more = getelementptr i64, ptr %to, i64 {TOGETHER_WORDS}
  %i.more = add i64 %i, 1
  %more = icmp slt i64 %i.more, %members
  br i1 %more, label %next, label %filled
filled:
  %alone = icmp eq i64 %members, 1
  br i1 %alone, label %single, label %several
single:
  call void @graphc_launch(ptr %kernel, ptr %args, i64 %extent, i64 %grain, i64 %threads, ptr %pool_run, ptr %pool)
  br label %ran
several:
  call void @graphc_launch_several(ptr %entries, i64 %members, i64 %threads, ptr %pool_run, ptr %pool)
  br label %ran
ran:
  %g.more = add i64 %g, 1
  %again = icmp slt i64 %g.more, %count
  br i1 %again, label %group, label %done
done:
  ret void
}}
"""


def record(kernel: str, extent: int, grain: int, arguments: Sequence[int]) -> list[str]:
    """The words of one launch, typed.   arguments: slots, or -1 - n for a number n."""
    return [f"ptr @{kernel}", *(f"i64 {n}" for n in (extent, grain, len(arguments), *arguments))]


def constant(name: str, runs: Iterable[Sequence[Sequence[str]]]) -> str:
    """A global of that name that holds the records of runs of launches."""
    words = [word for run in runs for word in (f"i64 {len(run)}", *(word for each in run for word in each))]
    types = ", ".join([word.split()[0] for word in words])
    return f"@{name} = internal constant {{ {types} }} {{ {', '.join(words)} }}, align 8"
