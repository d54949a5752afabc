//! Every operation of [`hbt::backend::Backend`] against its f64 reference: forward as it is, backward by central
//! differences. One body for every backend; outputs start as NaN, sums start from something other than zero.
//!
//! Inputs are values that the working type holds exactly. A result in it may be as far off as the exact one, rounded, and
//! where an operation reads what another has stored rounded, so does the reference: see [`crate::tolerance`].

mod adamw;
mod adamw_rows;
mod attention;
mod embedding;
mod gelu;
mod gemm;
mod info_nce;
mod layer_norm;
mod pooling;
mod rows;
pub mod support;
pub mod threads;
mod transfer;

/// Runs every check on backends, each check as a test of its own.
macro_rules! check_backend {
    ($module:ident: $backends:expr; $($family:ident: $($check:ident)+;)+) => {
        mod $module {
            $($(
                #[test]
                fn $check() {
                    for backend in $backends {
                        super::$family::$check(&backend);
                    }
                }
            )+)+
        }
    };
    ($module:ident: $backends:expr) => {
        check_backend! {
            $module: $backends;
            transfer: upload feed read_later;
            rows: zero_all cast copy_rows paste_rows gather_rows gather_cast scatter_rows copy_columns add_columns
                segment_sum segment_sum_by_itself;
            gemm: gemm gemm_f32;
            embedding: embedding;
            layer_norm: residual_layer_norm residual_layer_norm_of_nearly_constant_rows;
            gelu: bias_gelu bias_gelu_of_extreme_values;
            attention: attention attention_of_many_short_sequences attention_with_extreme_scores;
            pooling: pool pool_is_the_same_in_any_company bias_tanh l2_normalize l2_normalize_of_short_vectors;
            info_nce: info_nce_rows info_nce_rows_at_the_extremes info_nce_masks info_nce_both_directions info_nce_exps
                info_nce_with_a_teacher;
            adamw: sum_of_squares adamw adamw_of_many_parameters adamw_does_not_clip_small_gradients;
            adamw_rows: adamw_rows_equal_dense_adamw adamw_of_all_rows_has_the_bits_of_adamw adamw_catch_up_at_any_time;
        }
    };
}

/// What takes long, in one order of a device's threads.
macro_rules! check_once {
    ($module:ident: $backend:expr) => {
        check_backend! {
            $module: $backend;
            embedding: embedding_of_a_huge_batch;
            layer_norm: residual_layer_norm_of_a_huge_batch;
            gelu: bias_gelu_of_a_huge_batch;
            attention: attention_at_seams attention_of_a_huge_batch;
            pooling: pool_of_a_huge_batch;
        }
    };
}

/// The CPU's results must not depend on the number of threads.
macro_rules! check_threads {
    ($module:ident: $backend:expr) => {
        check_backend! {
            $module: [$backend];
            threads: gemm_on_threads layers_on_threads heads_on_threads optimizer_on_threads;
        }
    };
}

/// The optimizer does the same on every device.
macro_rules! check_bits_of_the_cpu {
    ($module:ident: $backends:expr) => {
        check_backend! {
            $module: $backends;
            adamw: adamw_has_the_bits_of_the_cpu;
            adamw_rows: adamw_rows_has_the_bits_of_the_cpu;
        }
    };
}

check_backend!(cpu_f32: [hbt::backend::Cpu::<f32>::new()]);
check_backend!(cpu_bf16: [hbt::backend::Cpu::<half::bf16>::new()]);
check_once!(cpu_f32_once: [hbt::backend::Cpu::<f32>::new()]);
check_once!(cpu_bf16_once: [hbt::backend::Cpu::<half::bf16>::new()]);
check_once!(cuda_f32_once: crate::device::cuda::<f32>().take(1));
check_once!(cuda_bf16_once: crate::device::cuda::<half::bf16>().take(1));
check_threads!(cpu_f32_threads: hbt::backend::Cpu::<f32>::new());
check_threads!(cpu_bf16_threads: hbt::backend::Cpu::<half::bf16>::new());
check_backend!(cuda_f32: crate::device::cuda::<f32>());
check_backend!(cuda_bf16: crate::device::cuda::<half::bf16>());
check_bits_of_the_cpu!(cuda_f32_bits: crate::device::cuda::<f32>());
check_bits_of_the_cpu!(cuda_bf16_bits: crate::device::cuda::<half::bf16>());
