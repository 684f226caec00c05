"""The text every CUDA source starts with: types, exact arithmetic, conversions, warp operations.

Enters: nothing.  Leaves: `PRELUDE`, which includes no header (so NVRTC starts in milliseconds), and the options it
must be compiled with.  Never here: anything of one kernel.

Types carry the IR's short names (``f32``, ``bf16``, ``i64``).  Every instruction that C++ has no operator for sits
behind one function with two bodies, chosen by ``GPU_OR_CPU``: the device's intrinsic, and what it means on a CPU, used
when ``GRAPHC_CPU_SHIM`` is defined and the same text runs under a test's ``cuda_on_cpu.h``.
"""

from __future__ import annotations

# Arithmetic is IEEE-754 as written: nothing is contracted, flushed to zero or approximated.  177: a value that is never
# used.
NVRTC_OPTIONS: tuple[str, ...] = (
    "--std=c++17", "--fmad=false", "--ftz=false", "--prec-div=true", "--prec-sqrt=true", "--diag-suppress=177",
)  # fmt: skip

PRELUDE = r"""// ---- graphc prelude ----
#ifdef GRAPHC_CPU_SHIM
#include "cuda_on_cpu.h"
#define GPU_OR_CPU(gpu, cpu) cpu
#else
#define GPU_OR_CPU(gpu, cpu) gpu
#endif
#define DEVICE static __device__ __forceinline__

typedef signed char i8;
typedef short i16;
typedef int i32;
typedef long long i64;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef float f32;
typedef double f64;
struct f16 { u16 bits; };   // storage only: arithmetic on 16-bit floats is done in f32
struct bf16 { u16 bits; };

template <class A, class B> struct Same { static constexpr bool value = false; };
template <class A> struct Same<A, A> { static constexpr bool value = true; };
template <class T> struct Traits {
  static constexpr bool negative = T(-1) < T(0);
  static constexpr bool floating = Same<T, f32>::value || Same<T, f64>::value;
};

template <class To, class From> DEVICE To bitcast(From value) {
  static_assert(sizeof(To) == sizeof(From), "bitcast keeps the width");
  To result;
  memcpy(&result, &value, sizeof result);
  return result;
}

// ---- floating point, one instruction each ----
DEVICE f32 divide(f32 a, f32 b) { return GPU_OR_CPU(__fdiv_rn(a, b), a / b); }
DEVICE f64 divide(f64 a, f64 b) { return GPU_OR_CPU(__ddiv_rn(a, b), a / b); }
DEVICE f32 square_root(f32 a) { return GPU_OR_CPU(__fsqrt_rn(a), __builtin_sqrtf(a)); }
DEVICE f64 square_root(f64 a) { return GPU_OR_CPU(__dsqrt_rn(a), __builtin_sqrt(a)); }
DEVICE f32 multiply_add(f32 a, f32 b, f32 c) { return GPU_OR_CPU(__fmaf_rn(a, b, c), __builtin_fmaf(a, b, c)); }
DEVICE f64 multiply_add(f64 a, f64 b, f64 c) { return GPU_OR_CPU(__fma_rn(a, b, c), __builtin_fma(a, b, c)); }
DEVICE f32 round_down(f32 a) { return GPU_OR_CPU(floorf(a), __builtin_floorf(a)); }
DEVICE f64 round_down(f64 a) { return GPU_OR_CPU(floor(a), __builtin_floor(a)); }
DEVICE f32 round_up(f32 a) { return GPU_OR_CPU(ceilf(a), __builtin_ceilf(a)); }
DEVICE f64 round_up(f64 a) { return GPU_OR_CPU(ceil(a), __builtin_ceil(a)); }
DEVICE f32 round_to_zero(f32 a) { return GPU_OR_CPU(truncf(a), __builtin_truncf(a)); }
DEVICE f64 round_to_zero(f64 a) { return GPU_OR_CPU(trunc(a), __builtin_trunc(a)); }
DEVICE f32 round_to_even(f32 a) { return GPU_OR_CPU(rintf(a), __builtin_rintf(a)); }
DEVICE f64 round_to_even(f64 a) { return GPU_OR_CPU(rint(a), __builtin_rint(a)); }
DEVICE f32 copy_sign(f32 a, f32 b) {
  return bitcast<f32>((bitcast<u32>(a) & 0x7fffffffu) | (bitcast<u32>(b) & 0x80000000u));
}
DEVICE f64 copy_sign(f64 a, f64 b) {
  return bitcast<f64>((bitcast<u64>(a) & ~(1ull << 63)) | (bitcast<u64>(b) & 1ull << 63));
}
DEVICE f32 scale(f32 a, f32 n) {  // by two factors that are normal numbers, of which the second rounds
  const u32 biased = bitcast<u32>(n + 12583166.0f), half = biased >> 1;  // the low bits are n + 2 * 127
  return a * bitcast<f32>(half << 23) * bitcast<f32>((biased - half) << 23);
}
DEVICE f64 scale(f64 a, f64 n) {
  const u64 biased = bitcast<u64>(n + 6755399441057790.0), half = biased >> 1;
  return a * bitcast<f64>(half << 52) * bitcast<f64>((biased - half) << 52);
}
DEVICE f32 absolute(f32 a) { return copy_sign(a, 0.0f); }
DEVICE f64 absolute(f64 a) { return copy_sign(a, 0.0); }

// ---- integers wrap: computed unsigned, then cut to size ----
template <class T> DEVICE T wrapping_add(T a, T b) { return (T)((u64)a + (u64)b); }
template <class T> DEVICE T wrapping_sub(T a, T b) { return (T)((u64)a - (u64)b); }
template <class T> DEVICE T wrapping_mul(T a, T b) { return (T)((u64)a * (u64)b); }
template <class T> DEVICE T wrapping_neg(T a) { return (T)(0 - (u64)a); }
template <class T> DEVICE T wrapping_abs(T a) {
  if constexpr (Traits<T>::negative) return a < T(0) ? wrapping_neg(a) : a;
  else return a;
}
template <class T> DEVICE T shift_left(T a, T b) { return (T)((u64)a << b); }
template <class T> DEVICE T truncated_quotient(T a, T b) {  // a / 0 is a: the callers select it away
  if constexpr (Traits<T>::negative) return b == T(-1) ? wrapping_neg(a) : b == T(0) ? a : (T)(a / b);
  else return b == T(0) ? a : (T)(a / b);
}
DEVICE i64 at_least_one(i64 a) { return a > 1 ? a : 1; }
DEVICE i64 floor_divide(i64 a, i64 b) { return a / b - (a % b < 0); }
DEVICE i64 floor_modulo(i64 a, i64 b) { return a % b + (a % b < 0 ? b : 0); }

// ---- the NaN operand if there is one, the first if both are; a second operand wins a tie of zeros ----
template <class T> DEVICE T maximum(T a, T b) { return a > b || a != a ? a : b; }
template <class T> DEVICE T minimum(T a, T b) { return a < b || a != a ? a : b; }

// ---- 16-bit floats, by integer arithmetic: nearest, ties to even ----
DEVICE f32 widen(bf16 value) { return bitcast<f32>((u32)value.bits << 16); }
DEVICE f32 widen(f16 value) {
  const u32 sign = (u32)(value.bits & 0x8000u) << 16, exponent = value.bits >> 10 & 31u, fraction = value.bits & 0x3ffu;
  if (exponent == 31) return bitcast<f32>(sign | 0x7f800000u | fraction << 13);
  if (exponent == 0) return copy_sign((f32)fraction * 0x1p-24f, bitcast<f32>(sign));
  return bitcast<f32>(sign | (exponent + 112) << 23 | fraction << 13);
}
DEVICE bf16 narrow_bf16(f32 value) {
  const u32 bits = bitcast<u32>(value);
  return bf16{(u16)(value != value ? bits >> 16 | 0x40u : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}
DEVICE f16 narrow_f16(f32 value) {
  const u32 sign = bitcast<u32>(value) >> 16 & 0x8000u, bits = bitcast<u32>(value) & 0x7fffffffu;
  if (bits > 0x7f800000u) return f16{(u16)(sign | 0x7e00u)};
  if (bits >= 0x477ff000u) return f16{(u16)(sign | 0x7c00u)};  // rounds past the largest finite
  if (bits < 0x38800000u)  // subnormal: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits
    return f16{(u16)(sign | (bitcast<u32>(bitcast<f32>(bits) + 0.5f) - 0x3f000000u))};
  return f16{(u16)(sign | (bits - 0x38000000u + 0xfffu + (bits >> 13 & 1u)) >> 13)};
}

// ---- conversion of values: to and from 16-bit floats through f32, where it rounds once more ----
template <class To, class From> DEVICE To saturate(From value) {
  constexpr int bits = 8 * (int)sizeof(To) - (Traits<To>::negative ? 1 : 0);
  constexpr From limit = (From)(1ull << (bits - 1)) * (From)2;
  constexpr To high = (To)(~0ull >> (64 - bits)), low = Traits<To>::negative ? (To)(-1 - (i64)high) : (To)0;
  if (value != value) return (To)0;
  if (value >= limit) return high;
  if (value <= (Traits<To>::negative ? -limit : (From)0)) return low;
  return (To)value;
}
template <class To, class From> DEVICE To cast(From value) {
  if constexpr (Same<To, From>::value) return value;
  else if constexpr (Same<From, f16>::value || Same<From, bf16>::value) return cast<To>(widen(value));
  else if constexpr (Same<To, f16>::value) return narrow_f16((f32)value);
  else if constexpr (Same<To, bf16>::value) return narrow_bf16((f32)value);
  else if constexpr (Same<To, bool>::value) return value != (From)0;
  else if constexpr (Traits<From>::floating && !Traits<To>::floating) return saturate<To>(value);
  else return (To)value;
}

// ---- a warp ----
DEVICE void warp_barrier() { GPU_OR_CPU(__syncwarp(), cuda_on_cpu::warp_barrier()); }
DEVICE u32 shuffle_xor(u32 value, int mask) {
  return GPU_OR_CPU(__shfl_xor_sync(0xffffffffu, value, mask), (u32)cuda_on_cpu::shuffle_xor(value, mask));
}
DEVICE u64 shuffle_xor(u64 value, int mask) {
  return GPU_OR_CPU(__shfl_xor_sync(0xffffffffu, value, mask), cuda_on_cpu::shuffle_xor(value, mask));
}
template <class T> DEVICE T from_lane_xor(T value, int mask) {
  if constexpr (sizeof(T) == 8) return bitcast<T>(shuffle_xor(bitcast<u64>(value), mask));
  else if constexpr (sizeof(T) == 4) return bitcast<T>(shuffle_xor(bitcast<u32>(value), mask));
  else return (T)shuffle_xor((u32)value, mask);
}
DEVICE void record_failure(i64* status, i64 code) {  // the largest code stays
  GPU_OR_CPU(atomicMax(status, code), *status = code > *status ? code : *status);
}

// ---- folds of accumulators ----
struct fold_add {
  template <class T> DEVICE T of(T a, T b) {
    if constexpr (Traits<T>::floating) return a + b;
    else return wrapping_add(a, b);
  }
};
struct fold_mul {
  template <class T> DEVICE T of(T a, T b) {
    if constexpr (Traits<T>::floating) return a * b;
    else return wrapping_mul(a, b);
  }
};
struct fold_max { template <class T> DEVICE T of(T a, T b) { return maximum(a, b); } };
struct fold_min { template <class T> DEVICE T of(T a, T b) { return minimum(a, b); } };
struct fold_and { template <class T> DEVICE T of(T a, T b) { return (T)(a & b); } };
struct fold_or { template <class T> DEVICE T of(T a, T b) { return (T)(a | b); } };

// Lane l with lane l+16, then +8, +4, +2, +1, the lower lane's value first; every lane leaves with the same bits.
template <class Fold, class T> DEVICE T fold_lanes(T value) {
#pragma unroll
  for (int half = 16; half > 0; half /= 2) {
    const T other = from_lane_xor(value, half);
    value = threadIdx.x & half ? Fold::of(other, value) : Fold::of(value, other);
  }
  return value;
}

// ---- N neighbours at once, in loads and stores of at most 16 bytes ----
template <int BYTES> struct Raw;
template <> struct Raw<2> { typedef u16 type; };
template <> struct Raw<4> { typedef u32 type; };
template <> struct Raw<8> { typedef u64 type; };
struct alignas(16) Quad { u32 word[4]; };
template <> struct Raw<16> { typedef Quad type; };
template <class T, int N> struct alignas(sizeof(T) * N) Wide { T at[N]; };
template <int N, class T> DEVICE Wide<T, N> load_wide(const T* from) {
  return bitcast<Wide<T, N>>(*(const typename Raw<sizeof(T) * N>::type*)from);
}
template <int N, class T> DEVICE bool is_aligned(const T* address) { return (u64)address % (sizeof(T) * N) == 0; }
template <class T, int N> DEVICE void store_wide(T* to, Wide<T, N> value) {
  typedef typename Raw<sizeof(T) * N>::type raw;
  *(raw*)to = bitcast<raw>(value);
}
// ---- end of prelude ----
"""
