// AdamW of some rows of a table, and the updates that the other rows have missed. A warp has a row.
#include "adamw.cuh"

constexpr int THREADS = 256;
constexpr int ROWS = THREADS / WARP;

// x^exponent in f64, by the multiplications of Rust's f64::powi; exponent is at least 0.
__device__ inline double power(double x, i32 exponent) {
    double out = 1.0;
    for (; exponent > 0; exponent /= 2, x *= x) {
        if (exponent % 2 == 1) out *= x;
    }
    return out;
}

// Pointers to one row of a table (V, width) and to its gradient.
struct AdamWRow {
    float* w;
    bf16* copy;
    float* m;
    float* v;
    const float* grad;
};

template <int N> __device__ inline void update_row(const AdamWRow& row, const AdamWScalars& scalars, i64 width) {
    for (i64 at = threadIdx.x % WARP * N; at < width; at += WARP * N) {
        AdamWElements<N> elements;
        elements.load(row.w + at, row.grad + at, row.m + at, row.v + at);
        elements.update(scalars);
        store_global(row.m + at, elements.m);
        store_global(row.v + at, elements.v);
        store_weights(row.w + at, row.copy == nullptr ? nullptr : row.copy + at, elements.w);
    }
}

// One update of the rows `rows` (n,) of `w`, `m`, `v` (V, width) and of the copy of `w` (null where weights are f32), from
// `grad` (n, width). The moments are as of `touched` (V,), which becomes `update`, as does `current` (V,).
// Launched with ROWS rows a block.
KERNEL(adamw_rows, THREADS, float* w, NULLABLE bf16* copy, float* m, float* v, i32* touched, i32* current, const float* grad,
       const i32* rows, const float* squares, float beta1, float beta2, float eps, float keep, float rate, float inv_sqrt_c2,
       float max_grad_norm, i32 update, i64 n, i64 width, i64 n_squares) {
    const float scale = grad_scale(squares, max_grad_norm, n_squares);
    const i64 i = i64(blockIdx.x) * ROWS + threadIdx.x / WARP;
    if (i >= n) return;
    const i64 row = rows[i], at = row * width;
    // The decays of the updates without a gradient and of this one.
    const i32 since = update - touched[row];
    const float m_decay = float(power(beta1, since)), v_decay = float(power(beta2, since));
    const AdamWScalars scalars{m_decay, v_decay, beta1, beta2, eps, keep, rate, inv_sqrt_c2, scale};
    const AdamWRow parts{w + at, copy == nullptr ? nullptr : copy + at, m + at, v + at, grad + i * width};
    if (width % 4 == 0) {
        update_row<4>(parts, scalars, width);
    } else {
        update_row<1>(parts, scalars, width);
    }
    // Every lane has read it.
    __syncwarp();
    if (threadIdx.x % WARP == 0) {
        touched[row] = update;
        current[row] = update;
    }
}

// The updates of a row without a gradient.
struct Replay {
    // (N, 3) keep, rate, inv_sqrt_c2 of the updates from `first` on
    const float* history;
    // (K + 1, 2) what is left of m and of sqrt(v) after 0 to K updates without a gradient
    const float* decays;
    float eps;
    i32 first;
    // The row's last update with a gradient, the last that is in its weight, the last that its momentum moves it in
    // (`current` or later), and the one to catch up to
    i32 touched;
    i32 current;
    i32 moved;
    i32 update;

    // Carries out the updates current + 1 ..= moved. Each lane fetches what one of the next 32 updates multiplies by.
    template <int N>
    __device__ inline void move(Vector<float, N>& w, const Vector<float, N>& m, const Vector<float, N>& root) const {
        for (i32 next = current + 1; next <= moved; next += WARP) {
            const i32 mine = next + i32(threadIdx.x % WARP);
            float keep = 0.0f, rate = 0.0f, root_scale = 0.0f;
            if (mine <= moved) {
                const float* scalars = history + i64(mine - first) * 3;
                const float* left = decays + i64(mine - touched) * 2;
                keep = scalars[0];
                rate = scalars[1] * left[0];
                root_scale = left[1] * scalars[2];
            }
            const int count = moved - next < WARP ? moved - next + 1 : WARP;
            for (int j = 0; j < count; ++j) {
                const float keep_j = __shfl_sync(ALL_LANES, keep, j);
                const float rate_j = __shfl_sync(ALL_LANES, rate, j);
                const float root_scale_j = __shfl_sync(ALL_LANES, root_scale, j);
#pragma unroll
                for (int l = 0; l < N; ++l) {
                    w.v[l] = w.v[l] * keep_j - rate_j * m.v[l] / (root.v[l] * root_scale_j + eps);
                }
            }
        }
    }

    // Carries out the updates moved + 1 ..= update, in which the weight only decays.
    template <int N> __device__ inline void decay(Vector<float, N>& w) const {
        for (i32 next = moved + 1; next <= update; next += WARP) {
            const i32 mine = next + i32(threadIdx.x % WARP);
            const float keep = mine <= update ? history[i64(mine - first) * 3] : 1.0f;
            const int count = update - next < WARP ? update - next + 1 : WARP;
            for (int j = 0; j < count; ++j) {
                const float keep_j = __shfl_sync(ALL_LANES, keep, j);
#pragma unroll
                for (int l = 0; l < N; ++l) w.v[l] *= keep_j;
            }
        }
    }

    template <int N> __device__ inline void row(float* w_row, bf16* copy, const float* m_row, const float* v_row,
                                                int width) const {
        // All lanes stay, as each has a share of the updates.
        for (int first_column = 0; first_column < width; first_column += WARP * N) {
            const int at = first_column + int(threadIdx.x % WARP) * N;
            const bool inside = at < width;
            Vector<float, N> w{}, m{}, root{};
            if (inside) w = load_vector<N>(w_row + at);
            if (moved > current) {
                if (inside) {
                    m = load_vector<N>(m_row + at);
                    root = load_vector<N>(v_row + at);
                }
#pragma unroll
                for (int l = 0; l < N; ++l) root.v[l] = sqrtf(root.v[l]);
                move<N>(w, m, root);
            }
            decay<N>(w);
            if (inside) store_weights(w_row + at, copy == nullptr ? nullptr : copy + at, w);
        }
    }
};

// Brings the rows `rows` (n,) (null: 0 .. n - 1) of `w` (V, width) and of its copy (null where weights are f32) from the
// update `current` (V,) to `update`, given the moments (V, width) as of `touched` (V,); see Replay for history
// (n_history, 3), which ends with `update`, and decays (n_decays, 2). Launched with ROWS rows a block.
KERNEL_MIN_BLOCKS(adamw_catch_up, THREADS, 4, float* w, NULLABLE bf16* copy, i32* current, const float* m, const float* v,
                  const i32* touched, NULLABLE const i32* rows, const float* history, const float* decays, float eps,
                  i32 update, i64 n, i64 width, i64 n_history, i64 n_decays) {
    const i64 i = i64(blockIdx.x) * ROWS + threadIdx.x / WARP;
    if (i >= n) return;
    const i64 row = rows == nullptr ? i : rows[i], at = row * width;
    Replay replay{history, decays, eps, update - i32(n_history) + 1, touched[row], current[row], 0, update};
    if (replay.current == update) return;
    const i32 reach = replay.touched == 0 ? 0 : replay.touched + i32(n_decays) - 1;
    replay.moved = reach < replay.current ? replay.current : reach < update ? reach : update;
    bf16* const copy_row = copy == nullptr ? nullptr : copy + at;
    if (width % 4 == 0) {
        replay.row<4>(w + at, copy_row, m + at, v + at, int(width));
    } else {
        replay.row<1>(w + at, copy_row, m + at, v + at, int(width));
    }
    // Every lane has read it.
    __syncwarp();
    if (threadIdx.x % WARP == 0) current[row] = update;
}
