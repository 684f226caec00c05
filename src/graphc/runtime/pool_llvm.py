"""The fork-join thread pool as LLVM text.

Enters: the architecture's name.  Leaves: a module that defines
``void pool_run(ptr pool, ptr fn, ptr data, i64 chunks)`` and ``void pool_limit(ptr pool, i32 threads)``.
Never here: compiling or linking it, reserving the pool's memory.

How it works.  A region is published as a ticket word ``generation << 32 | next chunk``; the caller and the workers
claim chunks by compare-and-swap on it, so a worker that comes late finds a foreign generation or no chunk and
touches nothing.  The caller therefore never waits for a worker that has not started.  Fields are written between
closing the old ticket and opening the new one, released and acquired, so whoever read a newer field cannot win a
chunk of the older generation.  Idle workers spin, then sleep on the epoch word; workers beyond the thread limit
sleep on the limit word.
"""

from __future__ import annotations

from dataclasses import dataclass

# Settings survive a fork; the state behind them is wiped in the child, where it reads as a pool without workers.
LIMIT, SPIN = 0, 4
STATE = 65536  # the largest page size of the supported machines, so the two never share a page
STATE_NBYTES = 65536

# Offsets within the state.  Words that different threads write sit 128 bytes apart (cache lines are fetched in pairs).
LOCK, TICKET, DONE, EPOCH, SLEEPERS, CALLER_SLEEPS, STARTED = 0, 128, 256, 384, 512, 640, 768
FUNCTION, DATA, CHUNKS, FLOAT_MODE, WORKERS, CALLER_CPU = 896, 904, 912, 920, 928, 932

MAX_CHUNKS = 2**31 - 1
_MASK_NBYTES = 1024  # 8192 CPUs
_FUTEX_WAIT_PRIVATE, _FUTEX_WAKE_PRIVATE = 128, 129
_SIG_SETMASK = 2
# Workers block every signal but those a fault raises in the thread itself: ILL TRAP ABRT BUS FPE SEGV.
_BLOCKED_SIGNALS = ~sum(1 << number - 1 for number in (4, 5, 6, 7, 8, 11))


@dataclass(frozen=True)
class _Machine:
    """What differs between architectures: the futex call's number, a spin hint, the floating-point control register."""

    futex: int
    relax: str
    declarations: str
    read_float_mode: str
    write_float_mode: str


_X86_64 = _Machine(
    futex=202,
    relax="call void @llvm.x86.sse2.pause()",
    declarations="""\
declare void @llvm.x86.sse2.pause()
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)""",
    read_float_mode="""\
  %slot = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %slot)
  %narrow = load i32, ptr %slot
  %mode = zext i32 %narrow to i64""",
    write_float_mode="""\
  %slot = alloca i32
  %narrow = trunc i64 %mode to i32
  store i32 %narrow, ptr %slot
  call void @llvm.x86.sse.ldmxcsr(ptr %slot)""",
)
_AARCH64 = _Machine(
    futex=98,
    relax="call void @llvm.aarch64.isb(i32 15)",
    declarations="""\
declare void @llvm.aarch64.isb(i32)
declare i64 @llvm.aarch64.get.fpcr()
declare void @llvm.aarch64.set.fpcr(i64)""",
    read_float_mode="  %mode = call i64 @llvm.aarch64.get.fpcr()",
    write_float_mode="  call void @llvm.aarch64.set.fpcr(i64 %mode)",
)
_LINUX_MACHINES = {"x86_64": _X86_64, "AMD64": _X86_64, "aarch64": _AARCH64, "arm64": _AARCH64}


def text(system: str, architecture: str) -> str:
    """The module for a machine (`platform.system()`, `platform.machine()`): serial where no threaded form is known."""
    machine = _LINUX_MACHINES.get(architecture) if system == "Linux" else None
    if machine is None:
        return _RUN_SERIALLY + _SERIAL_ENTRY
    waiting = _worker(machine.relax) + _await_chunks(machine.relax)
    return _RUN_SERIALLY + _primitives(machine) + _CLAIM + _PLACEMENT + _GROW + _OPEN_REGION + waiting + _ENTRY


_RUN_SERIALLY = """
define internal void @run_serially(ptr %fn, ptr %data, i64 %chunks) nounwind {
entry:
  %some = icmp sgt i64 %chunks, 0
  br i1 %some, label %loop, label %out
loop:
  %chunk = phi i64 [ 0, %entry ], [ %next, %loop ]
  call void %fn(ptr %data, i64 %chunk, i64 %chunks)
  %next = add i64 %chunk, 1
  %more = icmp slt i64 %next, %chunks
  br i1 %more, label %loop, label %out
out:
  ret void
}
"""

_SERIAL_ENTRY = f"""
define void @pool_run(ptr %pool, ptr %fn, ptr %data, i64 %chunks) nounwind {{
  call void @run_serially(ptr %fn, ptr %data, i64 %chunks)
  ret void
}}
define void @pool_limit(ptr %pool, i32 %threads) nounwind {{
  %limit = getelementptr i8, ptr %pool, i64 {LIMIT}
  store atomic i32 %threads, ptr %limit seq_cst, align 4
  ret void
}}
"""


def _primitives(machine: _Machine) -> str:
    return f"""
declare i64 @syscall(i64, ...)
{machine.declarations}

define internal void @futex_wait(ptr %word, i32 %seen) nounwind noinline {{
  call i64 (i64, ...) @syscall(i64 {machine.futex}, ptr %word, i32 {_FUTEX_WAIT_PRIVATE}, i32 %seen, ptr null)
  ret void
}}
define internal void @futex_wake(ptr %word, i32 %threads) nounwind noinline {{
  call i64 (i64, ...) @syscall(i64 {machine.futex}, ptr %word, i32 {_FUTEX_WAKE_PRIVATE}, i32 %threads)
  ret void
}}
define internal i64 @read_float_mode() nounwind {{
{machine.read_float_mode}
  ret i64 %mode
}}
define internal void @write_float_mode(i64 %mode) nounwind {{
{machine.write_float_mode}
  ret void
}}
"""


# Runs chunks of the open region until none is left to claim; counts them into DONE once.
_CLAIM = f"""
define internal void @claim(ptr %state) nounwind noinline {{
entry:
  %ticket.at = getelementptr i8, ptr %state, i64 {TICKET}
  %done.at = getelementptr i8, ptr %state, i64 {DONE}
  %fn.at = getelementptr i8, ptr %state, i64 {FUNCTION}
  %data.at = getelementptr i8, ptr %state, i64 {DATA}
  %chunks.at = getelementptr i8, ptr %state, i64 {CHUNKS}
  %mode.at = getelementptr i8, ptr %state, i64 {FLOAT_MODE}
  %opened = load atomic i64, ptr %ticket.at acquire, align 8
  %generation = lshr i64 %opened, 32
  %fn = load atomic ptr, ptr %fn.at acquire, align 8
  %data = load atomic ptr, ptr %data.at acquire, align 8
  %chunks = load atomic i64, ptr %chunks.at acquire, align 8
  %mode = load atomic i64, ptr %mode.at acquire, align 8
  br label %look
look:
  %mine = phi i64 [ 0, %entry ], [ %mine, %take ], [ %mine.more, %run ]
  %ticket = load atomic i64, ptr %ticket.at acquire, align 8
  %ticket.generation = lshr i64 %ticket, 32
  %chunk = and i64 %ticket, 4294967295
  %same = icmp eq i64 %ticket.generation, %generation
  %left = icmp ult i64 %chunk, %chunks
  %claimable = and i1 %same, %left
  br i1 %claimable, label %take, label %leave
take:
  %ticket.next = add i64 %ticket, 1
  %swap = cmpxchg ptr %ticket.at, i64 %ticket, i64 %ticket.next acq_rel acquire
  %won = extractvalue {{ i64, i1 }} %swap, 1
  br i1 %won, label %prepare, label %look
prepare:
  %first = icmp eq i64 %mine, 0
  br i1 %first, label %adopt, label %run
adopt:
  call void @write_float_mode(i64 %mode)
  br label %run
run:
  call void %fn(ptr %data, i64 %chunk, i64 %chunks)
  %mine.more = add i64 %mine, 1
  br label %look
leave:
  %idle = icmp eq i64 %mine, 0
  br i1 %idle, label %out, label %count
count:
  %mine.narrow = trunc i64 %mine to i32
  %before = atomicrmw add ptr %done.at, i32 %mine.narrow seq_cst
  %done = add i32 %before, %mine.narrow
  %chunks.narrow = trunc i64 %chunks to i32
  %last = icmp eq i32 %done, %chunks.narrow
  br i1 %last, label %notify, label %out
notify:
  %sleeps.at = getelementptr i8, ptr %state, i64 {CALLER_SLEEPS}
  %sleeps = load atomic i32, ptr %sleeps.at seq_cst, align 4
  %asleep = icmp ne i32 %sleeps, 0
  br i1 %asleep, label %wake, label %out
wake:
  call void @futex_wake(ptr %done.at, i32 1)
  br label %out
out:
  ret void
}}
"""

# A worker woken by a futex tends to be put on its waker's core, so workers may not run where the caller was when it
# made them (unless that is the only core).
_PLACEMENT = f"""
declare i32 @sched_getaffinity(i32, i64, ptr)
declare i32 @sched_setaffinity(i32, i64, ptr)
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)

define internal void @leave_the_callers_cpu(ptr %state) nounwind noinline {{
entry:
  %mask = alloca [{_MASK_NBYTES} x i8], align 8
  call void @llvm.memset.p0.i64(ptr %mask, i8 0, i64 {_MASK_NBYTES}, i1 false)
  %failed = call i32 @sched_getaffinity(i32 0, i64 {_MASK_NBYTES}, ptr %mask)
  %cpu.at = getelementptr i8, ptr %state, i64 {CALLER_CPU}
  %cpu = load atomic i32, ptr %cpu.at acquire, align 4
  %known = icmp ult i32 %cpu, {8 * _MASK_NBYTES}
  %got = icmp eq i32 %failed, 0
  %usable = and i1 %known, %got
  br i1 %usable, label %narrow, label %out
narrow:
  %byte.index = lshr i32 %cpu, 3
  %byte.at = getelementptr i8, ptr %mask, i32 %byte.index
  %byte = load i8, ptr %byte.at
  %position = trunc i32 %cpu to i8
  %shift = and i8 %position, 7
  %bit = shl i8 1, %shift
  %keep = xor i8 %bit, -1
  %others = and i8 %byte, %keep
  store i8 %others, ptr %byte.at
  call i32 @sched_setaffinity(i32 0, i64 {_MASK_NBYTES}, ptr %mask)
  br label %out
out:
  ret void
}}
"""

_GROW = f"""
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(i64)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @sched_getcpu()

define internal void @grow(ptr %pool, i32 %helpers) nounwind noinline {{
entry:
  %state = getelementptr i8, ptr %pool, i64 {STATE}
  %limit.at = getelementptr i8, ptr %pool, i64 {LIMIT}
  %workers.at = getelementptr i8, ptr %state, i64 {WORKERS}
  %cpu.at = getelementptr i8, ptr %state, i64 {CALLER_CPU}
  %thread = alloca i64
  %blocked = alloca [16 x i64], align 8
  %previous = alloca [16 x i64], align 8
  %cpu = call i32 @sched_getcpu()
  store atomic i32 %cpu, ptr %cpu.at release, align 4
  call void @llvm.memset.p0.i64(ptr %blocked, i8 -1, i64 128, i1 false)
  store i64 {_BLOCKED_SIGNALS}, ptr %blocked
  call i32 @pthread_sigmask(i32 {_SIG_SETMASK}, ptr %blocked, ptr %previous)
  br label %next
next:
  %workers = load i32, ptr %workers.at
  %short = icmp slt i32 %workers, %helpers
  br i1 %short, label %create, label %out
create:
  %failed = call i32 @pthread_create(ptr %thread, ptr null, ptr @worker, ptr %pool)
  %more = add i32 %workers, 1
  %ok = icmp eq i32 %failed, 0
  br i1 %ok, label %created, label %refused
created:
  %handle = load i64, ptr %thread
  call i32 @pthread_detach(i64 %handle)
  store i32 %more, ptr %workers.at
  br label %next
refused:                                          ; go on with the threads there are, and do not ask again
  store atomic i32 %more, ptr %limit.at seq_cst, align 4
  br label %out
out:
  call i32 @pthread_sigmask(i32 {_SIG_SETMASK}, ptr %previous, ptr null)
  ret void
}}
"""

_OPEN_REGION = f"""
define internal void @open_region(ptr %state, ptr %fn, ptr %data, i64 %chunks) nounwind {{
  %ticket.at = getelementptr i8, ptr %state, i64 {TICKET}
  %done.at = getelementptr i8, ptr %state, i64 {DONE}
  %fn.at = getelementptr i8, ptr %state, i64 {FUNCTION}
  %data.at = getelementptr i8, ptr %state, i64 {DATA}
  %chunks.at = getelementptr i8, ptr %state, i64 {CHUNKS}
  %mode.at = getelementptr i8, ptr %state, i64 {FLOAT_MODE}
  %ticket = load atomic i64, ptr %ticket.at monotonic, align 8
  %closed = or i64 %ticket, 4294967295
  store atomic i64 %closed, ptr %ticket.at seq_cst, align 8
  %mode = call i64 @read_float_mode()
  store atomic i32 0, ptr %done.at release, align 4
  store atomic ptr %fn, ptr %fn.at release, align 8
  store atomic ptr %data, ptr %data.at release, align 8
  store atomic i64 %chunks, ptr %chunks.at release, align 8
  store atomic i64 %mode, ptr %mode.at release, align 8
  %opened = add i64 %closed, 1                    ; the carry out of the chunk field is the next generation
  store atomic i64 %opened, ptr %ticket.at release, align 8
  ret void
}}
"""


def _worker(relax: str) -> str:
    """The worker thread.  It claims before it first waits, so one that starts late still helps."""
    return f"""
define internal ptr @worker(ptr %pool) nounwind {{
entry:
  %state = getelementptr i8, ptr %pool, i64 {STATE}
  %limit.at = getelementptr i8, ptr %pool, i64 {LIMIT}
  %spin.at = getelementptr i8, ptr %pool, i64 {SPIN}
  %epoch.at = getelementptr i8, ptr %state, i64 {EPOCH}
  %sleepers.at = getelementptr i8, ptr %state, i64 {SLEEPERS}
  %started.at = getelementptr i8, ptr %state, i64 {STARTED}
  %index = atomicrmw add ptr %started.at, i32 1 monotonic
  call void @leave_the_callers_cpu(ptr %state)
  br label %top
top:
  %limit = load atomic i32, ptr %limit.at seq_cst, align 4
  %rank = add i32 %index, 1
  %surplus = icmp sge i32 %rank, %limit
  br i1 %surplus, label %park, label %help
park:
  call void @futex_wait(ptr %limit.at, i32 %limit)
  br label %top
help:
  %seen = load atomic i32, ptr %epoch.at seq_cst, align 4
  call void @claim(ptr %state)
  %spins = load atomic i32, ptr %spin.at monotonic, align 4
  br label %spin
spin:
  %spun = phi i32 [ 0, %help ], [ %spun.more, %again ]
  %epoch = load atomic i32, ptr %epoch.at acquire, align 4
  %changed = icmp ne i32 %epoch, %seen
  br i1 %changed, label %top, label %again
again:
  {relax}
  %spun.more = add i32 %spun, 1
  %patient = icmp slt i32 %spun.more, %spins
  br i1 %patient, label %spin, label %doze
doze:
  %sleepers.before = atomicrmw add ptr %sleepers.at, i32 1 seq_cst
  br label %check
check:
  %epoch.now = load atomic i32, ptr %epoch.at seq_cst, align 4
  %awake = icmp ne i32 %epoch.now, %seen
  br i1 %awake, label %rise, label %sleep
sleep:
  call void @futex_wait(ptr %epoch.at, i32 %seen)
  br label %check
rise:
  %sleepers.after = atomicrmw sub ptr %sleepers.at, i32 1 seq_cst
  br label %top
}}
"""


def _await_chunks(relax: str) -> str:
    """The caller's wait until all chunks of its region are counted."""
    return f"""
define internal void @await_chunks(ptr %pool, i32 %chunks) nounwind {{
entry:
  %state = getelementptr i8, ptr %pool, i64 {STATE}
  %done.at = getelementptr i8, ptr %state, i64 {DONE}
  %sleeps.at = getelementptr i8, ptr %state, i64 {CALLER_SLEEPS}
  %spin.at = getelementptr i8, ptr %pool, i64 {SPIN}
  %spins = load atomic i32, ptr %spin.at monotonic, align 4
  br label %spin
spin:
  %spun = phi i32 [ 0, %entry ], [ %spun.more, %again ]
  %done = load atomic i32, ptr %done.at acquire, align 4
  %all = icmp eq i32 %done, %chunks
  br i1 %all, label %out, label %again
again:
  {relax}
  %spun.more = add i32 %spun, 1
  %patient = icmp slt i32 %spun.more, %spins
  br i1 %patient, label %spin, label %doze
doze:
  store atomic i32 1, ptr %sleeps.at seq_cst, align 4
  br label %check
check:
  %done.now = load atomic i32, ptr %done.at seq_cst, align 4
  %all.now = icmp eq i32 %done.now, %chunks
  br i1 %all.now, label %rise, label %sleep
sleep:
  call void @futex_wait(ptr %done.at, i32 %done.now)
  br label %check
rise:
  store atomic i32 0, ptr %sleeps.at monotonic, align 4
  br label %out
out:
  ret void
}}
"""


_ENTRY = f"""
declare i64 @llvm.smin.i64(i64, i64)

define void @pool_run(ptr %pool, ptr %fn, ptr %data, i64 %chunks) nounwind {{
entry:
  %state = getelementptr i8, ptr %pool, i64 {STATE}
  %lock.at = getelementptr i8, ptr %state, i64 {LOCK}
  %limit.at = getelementptr i8, ptr %pool, i64 {LIMIT}
  %limit.narrow = load atomic i32, ptr %limit.at monotonic, align 4
  %limit = sext i32 %limit.narrow to i64
  %team = call i64 @llvm.smin.i64(i64 %limit, i64 %chunks)
  %several = icmp sgt i64 %team, 1
  %countable = icmp sle i64 %chunks, {MAX_CHUNKS}
  %parallel = and i1 %several, %countable
  br i1 %parallel, label %enter, label %serial
enter:
  %swap = cmpxchg ptr %lock.at, i32 0, i32 1 acquire monotonic
  %entered = extractvalue {{ i32, i1 }} %swap, 1
  br i1 %entered, label %staff, label %serial
staff:
  %team.narrow = trunc i64 %team to i32
  %helpers = sub i32 %team.narrow, 1
  %workers.at = getelementptr i8, ptr %state, i64 {WORKERS}
  %workers = load i32, ptr %workers.at
  %short = icmp slt i32 %workers, %helpers
  br i1 %short, label %hire, label %open
hire:
  call void @grow(ptr %pool, i32 %helpers)
  br label %open
open:
  call void @open_region(ptr %state, ptr %fn, ptr %data, i64 %chunks)
  %epoch.at = getelementptr i8, ptr %state, i64 {EPOCH}
  %epoch = atomicrmw add ptr %epoch.at, i32 1 seq_cst
  %sleepers.at = getelementptr i8, ptr %state, i64 {SLEEPERS}
  %sleepers = load atomic i32, ptr %sleepers.at seq_cst, align 4
  %drowsy = icmp ne i32 %sleepers, 0
  br i1 %drowsy, label %wake, label %work
wake:
  call void @futex_wake(ptr %epoch.at, i32 %helpers)
  br label %work
work:
  call void @claim(ptr %state)
  %chunks.narrow = trunc i64 %chunks to i32
  call void @await_chunks(ptr %pool, i32 %chunks.narrow)
  store atomic i32 0, ptr %lock.at release, align 4
  ret void
serial:
  call void @run_serially(ptr %fn, ptr %data, i64 %chunks)
  ret void
}}

define void @pool_limit(ptr %pool, i32 %threads) nounwind {{
  %state = getelementptr i8, ptr %pool, i64 {STATE}
  %limit.at = getelementptr i8, ptr %pool, i64 {LIMIT}
  %epoch.at = getelementptr i8, ptr %state, i64 {EPOCH}
  store atomic i32 %threads, ptr %limit.at seq_cst, align 4
  call void @futex_wake(ptr %limit.at, i32 2147483647)
  %epoch = atomicrmw add ptr %epoch.at, i32 1 seq_cst
  call void @futex_wake(ptr %epoch.at, i32 2147483647)
  ret void
}}
"""
