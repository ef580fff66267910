"""The linear recurrence and the selective scan in CUDA C++, as `scans` and `selective` launch them.

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

SELECTIVE = r"""
typedef long long i64;

// Blocks of `steps` steps of x_k = exp(dt_k A) x_{k-1} + dt_k u_k B_k; a thread has one channel of one sequence, with
// all of its N states in registers. With `read` from the state before the block, which is `first` or in row block - 1
// of `before`, the outputs C_k x_k and the last state; without, from zero, the last state of every block into `last`
// and the product of its gates into `through`.
template <typename T, int N, bool read>
__global__ void __launch_bounds__(128, N > 16 ? 2 : 3) selective(
    const T* u, const T* dt, const T* A, const T* B, const T* C, const T* first, const T* before,
    const unsigned char* reset, T* y, T* last, T* through,
    i64 length, i64 steps, i64 batch, i64 channels, i64 states, i64 B_share, i64 C_share,
    i64 u_batch, i64 u_channel, i64 u_time, i64 dt_batch, i64 dt_channel, i64 dt_time,
    i64 y_batch, i64 y_channel, i64 y_time,
    i64 B_batch, i64 B_group, i64 B_state, i64 B_time, i64 C_batch, i64 C_group, i64 C_state, i64 C_time
) {
    const int ahead = 32 / sizeof(T);
    i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x, width = batch * channels;
    i64 column = thread % width, block = thread / width;
    i64 begin = block * steps, end = begin + steps < length ? begin + steps : length;
    if (begin >= length) return;
    i64 i = column / channels, h = column % channels;
    u += i * u_batch + h * u_channel;
    dt += i * dt_batch + h * dt_channel;
    y += i * y_batch + h * y_channel;
    B += i * B_batch + h / B_share * B_group;
    C += i * C_batch + h / C_share * C_group;
    if (reset) reset += i * length;
    const T* entering = block == 0 ? first : before + (block - 1) * width * states;
    T x[N], rates[N], total = T(0);  // exp(dt a) = 2^(dt rate)
    bool anew = false;
    #pragma unroll
    for (int n = 0; n < N; n++) {
        x[n] = read && n < states ? entering[column * states + n] : T(0);
        rates[n] = n < states ? A[h * states + n] * T(1.4426950408889634) : T(0);
    }
    T inputs[ahead], durations[ahead];
    for (i64 k = begin; k < end; k += ahead) {
        #pragma unroll
        for (int j = 0; j < ahead; j++) {
            i64 here = k + j < end ? k + j : end - 1;
            inputs[j] = u[here * u_time];
            durations[j] = dt[here * dt_time];
        }
        #pragma unroll
        for (int j = 0; j < ahead; j++) {
            if (k + j < end) {
                bool cut = reset && reset[k + j];
                const T *rows = B + (k + j) * B_time, *reads = C + (k + j) * C_time;
                T drive = durations[j] * inputs[j], sum = T(0);
                #pragma unroll
                for (int n = 0; n < N; n++) {
                    T kept = cut ? T(0) : exp2(durations[j] * rates[n]) * x[n];
                    x[n] = kept + drive * (n < states ? rows[n * B_state] : T(0));
                    if (read) sum += x[n] * (n < states ? reads[n * C_state] : T(0));
                }
                if (read) y[(k + j) * y_time] = sum;
                total += durations[j];
                anew = anew || cut;
            }
        }
    }
    i64 row = read ? column : block * width + column;
    if (read && end < length) return;
    #pragma unroll
    for (int n = 0; n < N; n++) {
        if (n < states) last[row * states + n] = x[n];
        if (n < states && !read) through[row * states + n] = anew ? T(0) : exp2(total * rates[n]);
    }
}
"""
