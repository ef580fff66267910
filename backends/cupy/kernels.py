"""The linear recurrence in CUDA C++, as `scans` launches it.

A thread walks along a block of time of one column, and loads 64 bytes of every array before it uses them, so that
there is always enough under way to keep memory busy. Neighboring threads have neighboring columns: memory is read in
full lines where they are neighbors there too.
"""

SCANS = r"""
#include <cupy/complex.cuh>

typedef long long i64;

// A product of gates that overflowed meets no state of zero.
template <typename T>
__device__ T stepped(T gate, T state, T drive) {
    return state == T(0) ? drive : gate * state + drive;
}

// Blocks of `steps` steps. With `states` x_k = a_k x_{k-1} + b_k from the state before the block, which is `first` or
// in row block - 1 of `x`, into `out`; without, into x the last state from zero, and the product of gates into `out`.
template <typename T, bool states>
__global__ void scan(
    const T* a, const T* b, const T* first, T* x, T* out,
    i64 length, i64 steps, i64 width, i64 middle, i64 inner,
    i64 a_time, i64 a_outer, i64 a_middle, i64 a_inner,
    i64 b_time, i64 b_outer, i64 b_middle, i64 b_inner,
    i64 out_time, i64 out_outer, i64 out_middle, i64 out_inner
) {
    const int ahead = 64 / sizeof(T);
    i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    i64 column = thread % width, block = thread / width;
    i64 begin = block * steps, end = begin + steps < length ? begin + steps : length;
    if (begin >= length) return;
    i64 i = column % inner, m = column / inner % middle, o = column / inner / middle;
    a += o * a_outer + m * a_middle + i * a_inner;
    b += o * b_outer + m * b_middle + i * b_inner;
    T state = T(0), product = T(1);
    if (states) {
        state = block == 0 ? first[column] : x[(block - 1) * width + column];
        out += o * out_outer + m * out_middle + i * out_inner;
    }
    T gates[ahead], drives[ahead];
    #pragma unroll
    for (int j = 0; j < ahead; j++) gates[j] = a[0];
    for (i64 k = begin; k < end; k += ahead) {
        #pragma unroll
        for (int j = 0; j < ahead; j++) {
            i64 here = k + j < end ? k + j : end - 1;
            drives[j] = b[here * b_time];
            if (a_time != 0) gates[j] = a[here * a_time];
        }
        #pragma unroll
        for (int j = 0; j < ahead; j++) {
            if (k + j < end) {
                state = stepped(gates[j], state, drives[j]);
                if (states) out[(k + j) * out_time] = state;
                else product = product * gates[j];
            }
        }
    }
    if (!states) {
        x[block * width + column] = state;
        out[block * width + column] = product;
    }
}
"""
