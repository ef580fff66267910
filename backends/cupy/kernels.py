"""The linear recurrence and the selective scan in CUDA C++, as `scans` and `selective` launch them.

A thread walks along a block of time of one column, and loads 64 bytes of every array before it uses them, so that
there is always enough under way to keep memory busy. Neighboring threads have neighboring columns: memory is read in
full lines where they are neighbors there too. Where it is the steps that are neighbors in memory, the threads of a
block bring a tile of 128 bytes of every column into shared memory, neighbors a step apart, and then each walks its row.
"""

TILES = r"""
typedef long long i64;

// A tile has a row of `span` steps for every thread of the block, one number apart from the next: no two threads that
// walk side by side meet in a bank. Row r is `left[r]` steps long, and begins at `begins[r]` in memory.
template <typename T> constexpr int span = 128 / sizeof(T);

struct Rows {
    const i64 *begins, *left;
    i64 time;
};

// `some` of the steps of a tile that a thread moves, of all that `span` threads side by side have of one row.
template <typename T, int some>
__device__ void fetched(T* held, const T* array, Rows rows, i64 done, int first) {
    #pragma unroll
    for (int i = 0; i < some; i++) {
        int place = (first + i) * blockDim.x + threadIdx.x, row = place / span<T>, step = place % span<T>;
        held[i] = done + step < rows.left[row] ? array[rows.begins[row] + (done + step) * rows.time] : T(0);
    }
}

template <typename T, int some>
__device__ void put(T* tile, const T* held, int first) {
    #pragma unroll
    for (int i = 0; i < some; i++) {
        int place = (first + i) * blockDim.x + threadIdx.x;
        tile[place / span<T> * (span<T> + 1) + place % span<T>] = held[i];
    }
}

template <typename T>
__device__ void stored(T* array, const T* tile, Rows rows, i64 done) {
    #pragma unroll
    for (int i = 0; i < span<T>; i++) {
        int place = i * blockDim.x + threadIdx.x, row = place / span<T>, step = place % span<T>;
        if (done + step < rows.left[row])
            array[rows.begins[row] + (done + step) * rows.time] = tile[row * (span<T> + 1) + step];
    }
}
"""

SCANS = (
    "#include <cupy/complex.cuh>"
    + TILES
    + r"""
// A product of gates that overflowed meets no state of zero.
template <typename T>
__device__ T stepped(T gate, T state, T drive) {
    return state == T(0) ? drive : gate * state + drive;
}

// Blocks of `steps` steps. With `states` x_k = a_k x_{k-1} + b_k from the state before the block, which is `first` or
// in row block - 1 of `x`, into `out`; without, into x the last state from zero, and the product of gates into `out`.
// Staged, by tiles, of one warp.
template <typename T, bool states, bool staged>
__global__ void scan(
    const T* a, const T* b, const T* first, T* x, T* out,
    i64 length, i64 steps, i64 width, i64 middle, i64 inner,
    i64 a_time, i64 a_outer, i64 a_middle, i64 a_inner,
    i64 b_time, i64 b_outer, i64 b_middle, i64 b_inner,
    i64 out_time, i64 out_outer, i64 out_middle, i64 out_inner
) {
    const int ahead = staged ? span<T> : 64 / sizeof(T), pitch = span<T> + 1, rows = staged ? 32 : 1;
    __shared__ __align__(16) char room[2 * rows * pitch * sizeof(T)];
    __shared__ i64 begins[3][rows], left[rows];
    T *gates_of = (T*)room, *drives_of = gates_of + rows * pitch, *own = drives_of + threadIdx.x * pitch;
    i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x;
    i64 column = thread % width, block = thread / width, begin = block * steps;
    bool idle = begin >= length;
    i64 count = idle ? 0 : steps < length - begin ? steps : length - begin;
    i64 i = column % inner, m = column / inner % middle, o = column / inner / middle;
    i64 a_at = o * a_outer + m * a_middle + i * a_inner + begin * a_time;
    i64 b_at = o * b_outer + m * b_middle + i * b_inner + begin * b_time;
    i64 out_at = o * out_outer + m * out_middle + i * out_inner + begin * out_time;
    if (staged) {
        begins[0][threadIdx.x] = a_at;
        begins[1][threadIdx.x] = b_at;
        begins[2][threadIdx.x] = out_at;
        left[threadIdx.x] = count;
        __syncthreads();
    } else if (idle) return;
    T state = T(0), product = T(1);
    if (states && !idle) state = block == 0 ? first[column] : x[(block - 1) * width + column];
    T gates[ahead], drives[ahead];
    #pragma unroll
    for (int j = 0; j < ahead; j++) gates[j] = a[idle ? 0 : a_at];
    for (i64 k = 0; k < (staged ? steps : count); k += ahead) {
        if (staged) {
            T some[ahead];
            if (a_time != 0) fetched<T, ahead>(some, a, Rows{begins[0], left, a_time}, k, 0);
            fetched<T, ahead>(drives, b, Rows{begins[1], left, b_time}, k, 0);
            __syncthreads();  // what was stored of the tile before
            if (a_time != 0) put<T, ahead>(gates_of, some, 0);
            put<T, ahead>(drives_of, drives, 0);
            __syncthreads();
        }
        #pragma unroll
        for (int j = 0; j < ahead; j++) {
            if (staged) {
                drives[j] = own[j];
                if (a_time != 0) gates[j] = gates_of[threadIdx.x * pitch + j];
            } else {
                i64 here = k + j < count ? k + j : count - 1;
                drives[j] = b[b_at + here * b_time];
                if (a_time != 0) gates[j] = a[a_at + here * a_time];
            }
        }
        #pragma unroll
        for (int j = 0; j < ahead; j++) {
            if (k + j < count) {
                state = stepped(gates[j], state, drives[j]);
                if (!states) product = product * gates[j];
                else if (staged) own[j] = state;
                else out[out_at + (k + j) * out_time] = state;
            }
        }
        if (staged && states) {
            __syncthreads();
            stored<T>(out, drives_of, Rows{begins[2], left, out_time}, k);
        }
    }
    if (!states && !idle) {
        x[block * width + column] = state;
        out[block * width + column] = product;
    }
}
"""
)

SELECTIVE = (
    TILES
    + r"""
// Blocks of `steps` steps of x_k = exp(dt_k A) x_{k-1} + dt_k u_k B_k; a thread has one channel of one sequence, with
// all of its N states in registers. With `read` from the state before the block, which is `first` or in row block - 1
// of `before`, the outputs C_k x_k and the last state; without, from zero, the last state of every block into `last`
// and the product of its gates into `through`. Staged, u, dt and y by tiles.
template <typename T, int N, bool read, bool staged>
__global__ void __launch_bounds__(128, N > 16 ? 2 : 3) selective(
    const T* u, const T* dt, const T* A, const T* B, const T* C, const T* first, const T* before,
    const unsigned char* reset, T* y, T* last, T* through,
    i64 length, i64 steps, i64 batch, i64 channels, i64 states, i64 B_share, i64 C_share,
    i64 u_batch, i64 u_channel, i64 u_time, i64 dt_batch, i64 dt_channel, i64 dt_time,
    i64 y_batch, i64 y_channel, i64 y_time,
    i64 B_batch, i64 B_group, i64 B_state, i64 B_time, i64 C_batch, i64 C_group, i64 C_state, i64 C_time
) {
    const int ahead = 32 / sizeof(T), rows = staged ? 128 : 1, pitch = span<T> + 1;
    __shared__ T inputs_of[rows * pitch], durations_of[rows * pitch];
    __shared__ i64 begins[3][rows], left[rows];
    T *own_inputs = inputs_of + threadIdx.x * pitch, *own_durations = durations_of + threadIdx.x * pitch;
    i64 thread = (i64)blockIdx.x * blockDim.x + threadIdx.x, width = batch * channels;
    i64 column = thread % width, block = thread / width, begin = block * steps;
    bool idle = begin >= length;
    i64 count = idle ? 0 : steps < length - begin ? steps : length - begin;
    i64 i = column / channels, h = column % channels;
    i64 u_at = i * u_batch + h * u_channel + begin * u_time;
    i64 dt_at = i * dt_batch + h * dt_channel + begin * dt_time;
    i64 y_at = i * y_batch + h * y_channel + begin * y_time;
    if (staged) {
        begins[0][threadIdx.x] = u_at;
        begins[1][threadIdx.x] = dt_at;
        begins[2][threadIdx.x] = y_at;
        left[threadIdx.x] = count;
        __syncthreads();
    } else if (idle) return;
    B += i * B_batch + h / B_share * B_group + begin * B_time;
    C += i * C_batch + h / C_share * C_group + begin * C_time;
    if (reset) reset += i * length + begin;
    const T* entering = block == 0 ? first : before + (block - 1) * width * states;
    T x[N], rates[N], total = T(0);  // exp(dt a) = 2^(dt rate)
    bool anew = false;
    #pragma unroll
    for (int n = 0; n < N; n++) {
        x[n] = read && !idle && n < states ? entering[column * states + n] : T(0);
        rates[n] = n < states ? A[h * states + n] * T(1.4426950408889634) : T(0);
    }
    T inputs[ahead], durations[ahead];
    const i64 tile = staged ? span<T> : count;
    for (i64 done = 0; done < (staged ? steps : count); done += tile) {
        if (staged) {
            __syncthreads();  // what was stored of the tile before
            #pragma unroll 1
            for (int part = 0; part < span<T>; part += ahead) {
                fetched<T, ahead>(inputs, u, Rows{begins[0], left, u_time}, done, part);
                fetched<T, ahead>(durations, dt, Rows{begins[1], left, dt_time}, done, part);
                put<T, ahead>(inputs_of, inputs, part);
                put<T, ahead>(durations_of, durations, part);
            }
            __syncthreads();
        }
        #pragma unroll 1
        for (i64 k = done; k < done + tile && k < count; k += ahead) {
            #pragma unroll
            for (int j = 0; j < ahead; j++) {
                i64 here = k + j < count ? k + j : count - 1;
                inputs[j] = staged ? own_inputs[k - done + j] : u[u_at + here * u_time];
                durations[j] = staged ? own_durations[k - done + j] : dt[dt_at + here * dt_time];
            }
            #pragma unroll
            for (int j = 0; j < ahead; j++) {
                if (k + j < count) {
                    bool cut = reset && reset[k + j];
                    const T *rows = B + (k + j) * B_time, *reads = C + (k + j) * C_time;
                    T drive = durations[j] * inputs[j], sum = T(0);
                    #pragma unroll
                    for (int n = 0; n < N; n++) {
                        T kept = cut ? T(0) : exp2(durations[j] * rates[n]) * x[n];
                        x[n] = kept + drive * (n < states ? rows[n * B_state] : T(0));
                        if (read) sum += x[n] * (n < states ? reads[n * C_state] : T(0));
                    }
                    if (read && staged) own_inputs[k - done + j] = sum;
                    else if (read) y[y_at + (k + j) * y_time] = sum;
                    total += durations[j];
                    anew = anew || cut;
                }
            }
        }
        if (staged && read) {
            __syncthreads();
            stored<T>(y, inputs_of, Rows{begins[2], left, y_time}, done);
        }
    }
    if (idle) return;
    i64 row = read ? column : block * width + column;
    if (read && begin + count < length) return;
    #pragma unroll
    for (int n = 0; n < N; n++) {
        if (n < states) last[row * states + n] = x[n];
        if (n < states && !read) through[row * states + n] = anew ? T(0) : exp2(total * rates[n]);
    }
}
"""
)
