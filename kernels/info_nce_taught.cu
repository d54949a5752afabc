// The rows of info_nce.cu that learn from a teacher, too. A file of its own: few runs need it.
#include "info_nce_row.cuh"

// As INFO_NCE has them, and min_blocks on a multiprocessor; teacher_stats (R, DISTILL_STATS), own (2 R,), teacher_scores as
// many as there are passages.
#define INFO_NCE_TAUGHT(suffix, E, directions, with_columns, threads, min_blocks)                                        \
    KERNEL_MIN_BLOCKS(info_nce_taught_##directions##_##threads##_##suffix, threads, min_blocks, float* stats,            \
                      float* teacher_stats, E* d_scores, const float* scores, NULLABLE const float* column_state, MASKS, \
                      TEACHER, float inv_temperature, float weight, i64 n, i64 m) {                                      \
        info_nce<E, threads, with_columns, true>(stats, d_scores, scores, column_state, MASKS_GIVEN, TEACHER_GIVEN,      \
                                                 inv_temperature, weight, n, m);                                         \
    }

#if WANTS_F32
INFO_NCE_TAUGHT(f32, float, rows, false, 256, 2)
INFO_NCE_TAUGHT(f32, float, rows, false, 1024, 1)
#endif
#if WANTS_BF16
INFO_NCE_TAUGHT(bf16, bf16, rows, false, 256, 2)
INFO_NCE_TAUGHT(bf16, bf16, rows, false, 1024, 1)
#endif
#if WANTS_F32
INFO_NCE_TAUGHT(f32, float, both, true, 256, 2)
INFO_NCE_TAUGHT(f32, float, both, true, 1024, 1)
#endif
#if WANTS_BF16
INFO_NCE_TAUGHT(bf16, bf16, both, true, 256, 2)
INFO_NCE_TAUGHT(bf16, bf16, both, true, 1024, 1)
#endif
