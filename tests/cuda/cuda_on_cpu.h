// Runs generated CUDA C++ on a CPU, for tests of code generation.
//
// Every thread of a block is a fiber of one operating-system thread; blocks run in turn.  A fiber leaves only at a barrier or
// shuffle, so which fiber goes next decides what a missing barrier breaks: a warp is run as far as it goes, lanes, warps and
// blocks either upwards (schedule 0) or downwards (schedule 1).  A test runs both.
//
// Found besides wrong results: a lane that leaves while others wait, differing collectives met by one warp, wild addresses,
// division faults, and (built with -fsanitize=... -fsanitize-undefined-trap-on-error) misaligned wide accesses, overflow of signed
// arithmetic and overrun of shared arrays.  Shared memory is filled with 0xff (NaN) before each block.
#pragma once
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <tuple>
#include <utility>

#define __global__
#define __device__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __shared__ static __attribute__((section("graphc_shared")))

extern "C" char __start_graphc_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_graphc_shared[] __attribute__((weak, visibility("hidden")));

namespace cuda_on_cpu {

struct Dim3 { unsigned x, y, z; };
enum State { RUNNABLE, WAITING, LEFT };
enum Meeting { NONE, WARP_BARRIER, SHUFFLE, BLOCK_BARRIER };
struct Fiber {
  ucontext_t context;
  Dim3 index;
  State state;
  Meeting meeting;
  uint64_t given, taken;  // a shuffle's operand and result
  int mask;
};

constexpr int WARP = 32, MOST_THREADS = 1024;
constexpr size_t STACK = 1024 * 1024, PAGE = 4096;  // a stack's lowest page faults
static Fiber fibers[MOST_THREADS];
static ucontext_t scheduler;
static int threads, running;
static Dim3 grid, block, block_index;
static char* stacks;
static void (*body)(void*);
static void* body_argument;
static sigjmp_buf failed;
static char message[256];

[[noreturn]] static void fail(const char* what) {
  snprintf(message, sizeof message, "%s (block %u,%u thread %u,%u)", what, block_index.x, block_index.y, fibers[running].index.x,
           fibers[running].index.y);
  siglongjmp(failed, 1);
}

static void on_signal(int number) {
  fail(number == SIGILL   ? "trap: undefined behaviour (misaligned or out-of-range access, overflow)"
       : number == SIGFPE ? "integer division fault"
                          : "wild address");
}

static void run_fiber() {
  body(body_argument);
  fibers[running].state = LEFT;  // returns to the scheduler through uc_link
}

// Waits until every thread of the warp (or block) has come to a meeting of the same kind.  The last to come lets all go on.
static void meet(Meeting meeting) {
  Fiber& me = fibers[running];
  const int first = meeting == BLOCK_BARRIER ? 0 : running / WARP * WARP;
  const int end = meeting == BLOCK_BARRIER || first + WARP > threads ? threads : first + WARP;
  me.state = WAITING;
  me.meeting = meeting;
  bool complete = true;
  for (int i = first; i < end; i++) {
    if (fibers[i].state == LEFT) fail("a thread left the kernel while others wait for it");
    if (fibers[i].state != WAITING) complete = false;
    else if (fibers[i].meeting != meeting) fail("threads of one warp wait at different collectives");
  }
  if (complete) {
    for (int i = first; i < end; i++) {
      if (meeting == SHUFFLE) {
        if (fibers[i].mask != me.mask) fail("lanes shuffle by different masks");
        fibers[i].taken = fibers[first + ((i - first) ^ me.mask)].given;
      }
      fibers[i].state = RUNNABLE;
      fibers[i].meeting = NONE;
    }
  }
  swapcontext(&me.context, &scheduler);
}

inline void warp_barrier() { meet(WARP_BARRIER); }
inline void block_barrier() { meet(BLOCK_BARRIER); }
inline uint64_t shuffle_xor(uint64_t value, int mask) {
  fibers[running].given = value;
  fibers[running].mask = mask;
  meet(SHUFFLE);
  return fibers[running].taken;
}

static void run_block(bool downwards) {
  for (int i = 0; i < threads; i++) {
    Fiber& fiber = fibers[i];
    fiber.index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
    fiber.state = RUNNABLE;
    fiber.meeting = NONE;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = stacks + i * STACK;
    fiber.context.uc_stack.ss_size = STACK;
    fiber.context.uc_link = &scheduler;
    makecontext(&fiber.context, run_fiber, 0);
  }
  const int warps = (threads + WARP - 1) / WARP;
  for (bool moved = true; moved;) {
    moved = false;
    for (int w = 0; w < warps; w++) {
      const int first = (downwards ? warps - 1 - w : w) * WARP, lanes = threads - first < WARP ? threads - first : WARP;
      for (bool again = true; again;) {  // one warp as far as it goes
        again = false;
        for (int l = 0; l < lanes; l++) {
          running = first + (downwards ? lanes - 1 - l : l);
          if (fibers[running].state != RUNNABLE) continue;
          swapcontext(&scheduler, &fibers[running].context);
          again = moved = true;
        }
      }
    }
  }
  for (running = 0; running < threads; running++)
    if (fibers[running].state != LEFT) fail("deadlock: a thread waits for others that never come");
}

static void run_grid(bool downwards) {
  const size_t blocks = (size_t)grid.x * grid.y;
  for (size_t n = 0; n < blocks; n++) {
    const size_t i = downwards ? blocks - 1 - n : n;
    block_index = {(unsigned)(i % grid.x), (unsigned)(i / grid.x), 0};
    if (__start_graphc_shared) memset(__start_graphc_shared, 0xff, __stop_graphc_shared - __start_graphc_shared);
    run_block(downwards);
  }
}

// One stack for each fiber.  Pages that are never touched cost nothing.
static bool make_stacks() {
  void* memory = mmap(nullptr, MOST_THREADS * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return false;
  stacks = (char*)memory;
  for (int i = 0; i < MOST_THREADS; i++)
    if (mprotect(stacks + i * STACK, PAGE, PROT_NONE)) return false;
  return true;
}

// Null when all went well, else what was found.
static const char* launch(void (*kernel)(void*), void* argument, const unsigned* grid_size, const unsigned* block_size, int schedule) {
  static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
  static char signal_stack[64 * 1024];
  if (!stacks && !make_stacks()) return "no memory for stacks";
  grid = {grid_size[0], grid_size[1], 1};
  block = {block_size[0], block_size[1], 1};
  threads = (int)(block.x * block.y);
  if (threads < 1 || threads > MOST_THREADS) return "bad block size";
  body = kernel;
  body_argument = argument;
  struct sigaction old[4], action = {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_NODEFER | SA_ONSTACK;
  stack_t signals_here = {}, old_stack;
  signals_here.ss_sp = signal_stack;
  signals_here.ss_size = sizeof signal_stack;
  sigaltstack(&signals_here, &old_stack);
  for (int i = 0; i < 4; i++) sigaction(signals[i], &action, &old[i]);
  const char* volatile found = nullptr;
  if (sigsetjmp(failed, 1)) found = message;
  else run_grid(schedule == 1);
  for (int i = 0; i < 4; i++) sigaction(signals[i], &old[i], nullptr);
  sigaltstack(&old_stack, nullptr);
  return found;
}

// Turns an array of pointers to arguments (as cuLaunchKernel takes them) into a call.
template <class... A> struct Call {
  void (*kernel)(A...);
  std::tuple<A...> arguments;
  static void run(void* self) { std::apply(((Call*)self)->kernel, ((Call*)self)->arguments); }
};
template <class... A, size_t... I> static Call<A...> bind(void (*kernel)(A...), void** values, std::index_sequence<I...>) {
  return {kernel, std::tuple<A...>(*(A*)values[I]...)};
}
template <class... A>
static const char* launch_kernel(void (*kernel)(A...), void** values, const unsigned* grid, const unsigned* block, int schedule) {
  Call<A...> call = bind(kernel, values, std::index_sequence_for<A...>());
  return launch(&Call<A...>::run, &call, grid, block, schedule);
}
}  // namespace cuda_on_cpu

#define threadIdx (cuda_on_cpu::fibers[cuda_on_cpu::running].index)
#define blockIdx (cuda_on_cpu::block_index)
#define blockDim (cuda_on_cpu::block)
#define gridDim (cuda_on_cpu::grid)
#define __syncthreads() cuda_on_cpu::block_barrier()

#define CUDA_ON_CPU_ENTRY(name)                                                                                     \
  extern "C" const char* launch_##name(void** values, const unsigned* grid, const unsigned* block, int schedule) { \
    return cuda_on_cpu::launch_kernel(name, values, grid, block, schedule);                                        \
  }
