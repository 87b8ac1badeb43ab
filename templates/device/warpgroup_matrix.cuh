// Matrix products of one warpgroup: wgmma (PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions"). Only sm_90a.
//
// All 128 threads of the warpgroup call each of these together. A product is asynchronous: from its issue until
// wait_for_products says that it has finished, nobody may touch the accumulator's registers, a's registers, or a's and
// b's shared memory. Products into the same accumulator follow each other without a wait. A group:
//
//     pin(d); fence_products(); multiply_...(d, ...); ...; commit_products(); ... wait_for_products<0>(); pin(d);
//
// The accumulator d of m64nNk16 has 64 rows and N columns in float32: thread i of the warpgroup holds, of each 8
// columns c, in d[4c] and d[4c + 1] row 16 (i / 32) + i % 32 / 4, columns 8c + 2 (i % 4) and the next, and in d[4c + 2]
// and d[4c + 3] the same columns of the row 8 further down.
#pragma once

#include "device/element.cuh"

namespace tilewright {

/// An operand in shared memory, in panels of rows of 128 bytes with the 128-byte swizzle (SharedTile): the
/// instruction's descriptor (PTX ISA, "Matrix Descriptor Format") without its upper half, which is the same for all.
class SharedMatrix {
public:
  /// The tile's rows are the operand's m or n, its columns k; one instruction reads 16 columns. start: of a panel.
  static TILEWRIGHT_DEVICE SharedMatrix k_in_columns(SharedAddress start) { return SharedMatrix(start, 16); }
  /// The tile's rows are the operand's k, its columns n: one instruction reads 16 rows of each panel that n spans; the
  /// panels stand panel_bytes apart.
  static TILEWRIGHT_DEVICE SharedMatrix k_in_rows(SharedAddress start, uint32_t panel_bytes) {
    return SharedMatrix(start, panel_bytes);
  }

  /// The operand that begins so many bytes further on: 32 are 16 columns, 2048 are 16 rows.
  TILEWRIGHT_DEVICE SharedMatrix operator+(uint32_t bytes) const {
    SharedMatrix moved = *this;
    moved.low_ += bytes / unit;
    return moved;
  }

  TILEWRIGHT_DEVICE uint64_t descriptor() const {
    constexpr uint32_t swizzle_128_bytes = 1u << 30;
    constexpr uint32_t eight_rows = 1024 / unit; // from 8 rows to the next 8
    return static_cast<uint64_t>(swizzle_128_bytes | eight_rows) << 32 | low_;
  }

private:
  static constexpr uint32_t unit = 16; // bytes

  TILEWRIGHT_DEVICE SharedMatrix(SharedAddress start, uint32_t leading_bytes)
      : low_((start & 0x3ffff) / unit | leading_bytes / unit << 16) {}

  uint32_t low_;
};

/// Before a group's first product: what ordinary instructions wrote to its registers is there.
TILEWRIGHT_DEVICE void fence_products() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

/// Closes a group of products.
TILEWRIGHT_DEVICE void commit_products() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

/// Waits until at most the `pending` newest groups are unfinished.
template <int pending> TILEWRIGHT_DEVICE void wait_for_products() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

/// The compiler may not move what it does with these registers across this place. (Eight at a time: each statement
/// costs time in the compiler.)
template <int count> TILEWRIGHT_DEVICE void pin(float (&r)[count]) {
  static_assert(count % 8 == 0, "registers are pinned in groups of 8");
#pragma unroll
  for (int i = 0; i < count; i += 8) {
    asm volatile(""
                 : "+f"(r[i]), "+f"(r[i + 1]), "+f"(r[i + 2]), "+f"(r[i + 3]), "+f"(r[i + 4]), "+f"(r[i + 5]),
                   "+f"(r[i + 6]), "+f"(r[i + 7])::"memory");
  }
}
template <int count> TILEWRIGHT_DEVICE void pin(uint32_t (&r)[count]) {
  static_assert(count % 8 == 0, "registers are pinned in groups of 8");
#pragma unroll
  for (int i = 0; i < count; i += 8) {
    asm volatile(""
                 : "+r"(r[i]), "+r"(r[i + 1]), "+r"(r[i + 2]), "+r"(r[i + 3]), "+r"(r[i + 4]), "+r"(r[i + 5]),
                   "+r"(r[i + 6]), "+r"(r[i + 7])::"memory");
  }
}

// The accumulators as the instruction's first operands, and as those of the asm statement.
#define TILEWRIGHT_LIST_32                                                                                             \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, "         \
  "%23, %24, %25, %26, %27, %28, %29, %30, %31}"
#define TILEWRIGHT_LIST_64                                                                                             \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, "         \
  "%23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, "          \
  "%44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
#define TILEWRIGHT_HOLD_8(i)                                                                                           \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]),          \
      "+f"(d[i + 7])
#define TILEWRIGHT_HOLD_32(i)                                                                                          \
  TILEWRIGHT_HOLD_8(i), TILEWRIGHT_HOLD_8(i + 8), TILEWRIGHT_HOLD_8(i + 16), TILEWRIGHT_HOLD_8(i + 24)

// The instruction with what follows the accumulators. add: whether d keeps its sum. The factors of a and b are 1; the
// last digits say that an operand's k is in its rows.
#define TILEWRIGHT_WGMMA(shape, list, type, add, operands)                                                             \
  "{\n.reg .pred add;\nsetp.ne.b32 add, " add ", 0;\n"                                                                 \
  "wgmma.mma_async.sync.aligned." shape ".f32." type "." type " " list ", " operands ";\n}"
#define TILEWRIGHT_WGMMA_64(type, add, operands) TILEWRIGHT_WGMMA("m64n64k16", TILEWRIGHT_LIST_32, type, add, operands)
#define TILEWRIGHT_WGMMA_128(type, add, operands)                                                                      \
  TILEWRIGHT_WGMMA("m64n128k16", TILEWRIGHT_LIST_64, type, add, operands)

#define TILEWRIGHT_SHARED_64(type) TILEWRIGHT_WGMMA_64(type, "%34", "%32, %33, add, 1, 1, 0, 0")
#define TILEWRIGHT_SHARED_128(type) TILEWRIGHT_WGMMA_128(type, "%66", "%64, %65, add, 1, 1, 0, 0")
#define TILEWRIGHT_REGISTERS_64(type) TILEWRIGHT_WGMMA_64(type, "%37", "{%32, %33, %34, %35}, %36, add, 1, 1, %38")
#define TILEWRIGHT_REGISTERS_128(type) TILEWRIGHT_WGMMA_128(type, "%69", "{%64, %65, %66, %67}, %68, add, 1, 1, %70")

template <class Element> constexpr bool is_bfloat16 = false;
template <> constexpr bool is_bfloat16<BFloat16> = true;

/// d = a b^T or d += a b^T: a has 64 rows, b as many as d has columns, both with k_in_columns.
template <class Element, bool accumulate>
TILEWRIGHT_DEVICE void multiply_shared(float (&d)[32], SharedMatrix a, SharedMatrix b) {
  if constexpr (is_bfloat16<Element>) {
    asm volatile(TILEWRIGHT_SHARED_64("bf16")
                 : TILEWRIGHT_HOLD_32(0)
                 : "l"(a.descriptor()), "l"(b.descriptor()), "n"(accumulate));
  } else {
    asm volatile(TILEWRIGHT_SHARED_64("f16")
                 : TILEWRIGHT_HOLD_32(0)
                 : "l"(a.descriptor()), "l"(b.descriptor()), "n"(accumulate));
  }
}
template <class Element, bool accumulate>
TILEWRIGHT_DEVICE void multiply_shared(float (&d)[64], SharedMatrix a, SharedMatrix b) {
  if constexpr (is_bfloat16<Element>) {
    asm volatile(TILEWRIGHT_SHARED_128("bf16")
                 : TILEWRIGHT_HOLD_32(0), TILEWRIGHT_HOLD_32(32)
                 : "l"(a.descriptor()), "l"(b.descriptor()), "n"(accumulate));
  } else {
    asm volatile(TILEWRIGHT_SHARED_128("f16")
                 : TILEWRIGHT_HOLD_32(0), TILEWRIGHT_HOLD_32(32)
                 : "l"(a.descriptor()), "l"(b.descriptor()), "n"(accumulate));
  }
}

/// d = a b or d += a b: b has 16 rows (k_in_rows) and d's columns. Transposed: d = a b^T or d += a b^T, b with
/// k_in_columns. a is 64 x 16: a[0] and a[1] hold columns 2 (i % 4) and the next of thread i's two rows, a[2] and a[3]
/// the columns 8 further: what two groups of 8 columns of an accumulator become when each pair is packed, and what
/// load_matrices makes of a SharedTile's rows.
template <class Element, bool accumulate, bool transposed = false>
TILEWRIGHT_DEVICE void multiply_registers(float (&d)[32], const uint32_t* a, SharedMatrix b) {
  if constexpr (is_bfloat16<Element>) {
    asm volatile(TILEWRIGHT_REGISTERS_64("bf16")
                 : TILEWRIGHT_HOLD_32(0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.descriptor()), "n"(accumulate), "n"(!transposed));
  } else {
    asm volatile(TILEWRIGHT_REGISTERS_64("f16")
                 : TILEWRIGHT_HOLD_32(0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.descriptor()), "n"(accumulate), "n"(!transposed));
  }
}
template <class Element, bool accumulate, bool transposed = false>
TILEWRIGHT_DEVICE void multiply_registers(float (&d)[64], const uint32_t* a, SharedMatrix b) {
  if constexpr (is_bfloat16<Element>) {
    asm volatile(TILEWRIGHT_REGISTERS_128("bf16")
                 : TILEWRIGHT_HOLD_32(0), TILEWRIGHT_HOLD_32(32)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.descriptor()), "n"(accumulate), "n"(!transposed));
  } else {
    asm volatile(TILEWRIGHT_REGISTERS_128("f16")
                 : TILEWRIGHT_HOLD_32(0), TILEWRIGHT_HOLD_32(32)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.descriptor()), "n"(accumulate), "n"(!transposed));
  }
}

/// Stores four 8x8 matrices of 16-bit elements; lane i gives the address of row i % 8 of matrix i / 8, and holds row i
/// / 4, columns 2 (i % 4) and the next, of each matrix: load_matrices backwards. All lanes of a warp.
TILEWRIGHT_DEVICE void store_matrices(SharedAddress row, uint32_t m0, uint32_t m1, uint32_t m2, uint32_t m3) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(m0), "r"(m1), "r"(m2),
               "r"(m3)
               : "memory");
}

} // namespace tilewright
