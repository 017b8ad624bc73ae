// few_wide_codes.cuh - the codes of a chunk of many rows in shared memory, as four warps copy them there and others read them.
//
// A plane is a box of every row's bytes, at most 128 of them.  In boxes of 128 a row's pieces of 16 bytes are turned by its number, and
// lanes have rows in the order of wide_place(): so those that read at once read from all banks.
#ifndef FM_KERNELS_CUDA_FEW_WIDE_CODES_CUH
#define FM_KERNELS_CUDA_FEW_WIDE_CODES_CUH

#include "kernels/cuda/few_quant.cuh"

// How a stage lies: box after box of so many rows.
template <int T> struct wide_codes {
    using P = fm_planes<T>;
    static constexpr int LO = P::LO < 128 ? P::LO : 128, SC = P::SC < 16 ? 16 : P::SC, D = P::D ? 16 : 0;
    static constexpr int ROW = P::LO + P::HI + SC + D; // bytes in a stage

    // Asks for BYTES of each of ROWS rows, which lie PITCH apart: what of them one of 128 threads has.  Rows beyond the last repeat it.
    template <int ROWS, int BYTES, int PITCH>
    __device__ static inline void ask_plane(unsigned to, const few_args &p, size_t at, unsigned row)
    {
        constexpr int EACH = BYTES < 16 ? BYTES : 16, PIECES = BYTES / EACH, STEP = 128 / PIECES;
        const unsigned piece = threadIdx.x % PIECES, first = threadIdx.x % 128 / PIECES;
        const unsigned place = PITCH == 128 ? piece ^ first % 8 : piece;
        at += piece * EACH;
#pragma unroll 4
        for (unsigned r = 0; r < ROWS; r += STEP)
            if (STEP <= ROWS || first < ROWS)
                copy_async<EACH>(to + (first + r) * PITCH + place * EACH,
                                 p.w + (size_t)min(row + first + r, p.rows - 1) * p.w_stride + at);
    }
    template <int ROWS> __device__ static inline void ask(unsigned to, const few_args &p, unsigned chunk, unsigned row)
    {
        const size_t n = p.chunks;
#pragma unroll
        for (int i = 0; i < P::LO / LO; i++) ask_plane<ROWS, LO, LO>(to + i * ROWS * LO, p, chunk * P::LO + i * LO, row);
        to += ROWS * P::LO;
        if constexpr (P::HI != 0) ask_plane<ROWS, P::HI, P::HI>(to, p, P::hi(n) + chunk * P::HI, row);
        to += ROWS * P::HI;
        ask_plane<ROWS, P::SC, SC>(to, p, P::sc(n) + chunk * P::SC, row);
        if constexpr (P::D != 0) ask_plane<ROWS, P::D, D>(to + ROWS * SC, p, P::d(n) + chunk * P::D, row);
    }

    // What a lane multiplies of two rows, eight apart.
    struct held {
        few_codes<T> r[2];

        template <class R> __device__ inline void read(const uint8_t *stage, const few_lane &l)
        {
#pragma unroll
            for (unsigned i = 0; i < 2; i++) {
                const unsigned row = row_of(l) + 8 * i;
#pragma unroll
                for (int k = 0; k < P::LO / 64; k++)
                    *(uint4 *)(r[i].lo + 4 * k) = *(const uint4 *)(stage + lo_at<R>(row, k, l));
                read_rest<R::ROWS>(r[i], stage + R::ROWS * P::LO, row, l);
            }
        }
        // Reads the second half of codes of four bits again, here: what is unpacked from it cannot move to before this point.
        template <class R> __device__ inline void read_again(const uint8_t *stage, const few_lane &l)
        {
#pragma unroll
            for (int i = 0; i < 2; i++)
                asm volatile("ld.volatile.shared.v4.u32 {%0,%1,%2,%3}, [%4];"
                             : "=r"(r[i].lo[4]), "=r"(r[i].lo[5]), "=r"(r[i].lo[6]), "=r"(r[i].lo[7])
                             : "r"(shared_address(stage) + lo_at<R>(row_of(l) + 8 * i, 1, l))
                             : "memory");
        }
    };

    __device__ static inline unsigned row_of(const few_lane &l)
    {
        return threadIdx.x / 32 * 16 + l.g;
    }

    // Where a lane's 16 bytes of 64 are.
    template <class R> __device__ static inline unsigned lo_at(unsigned row, int k, const few_lane &l)
    {
        if constexpr (LO < 128) return row * LO + l.t * 16;
        return (k / 2 * R::ROWS + row) * 128 + ((k % 2 * 4 + l.t) ^ l.g) * 16;
    }

    template <int ROWS>
    __device__ static inline void read_rest(few_codes<T> &r, const uint8_t *from, unsigned row, const few_lane &l)
    {
        if constexpr (P::HI == 64)
            *(uint4 *)r.hi = *(const uint4 *)(from + row * 64 + l.t * 16);
        else if constexpr (P::HI == 32)
            *(uint2 *)r.hi = *(const uint2 *)(from + row * 32 + l.t * 8);
        else
            r.hi[0] = 0;
        r.read_scales(from + ROWS * P::HI + row * SC);
        if constexpr (P::D != 0) r.d = *(const uint32_t *)(from + ROWS * (P::HI + SC) + row * 16);
    }
};

#endif
