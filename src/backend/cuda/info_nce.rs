//! Softmax cross-entropy of a block of scores, and its gradient.

use super::kernels::distillation_cuh::DISTILL_STATS as OF_TEACHER;
use super::kernels::info_nce::{HELD, InfoNceInstance, STATS, WORD_BITS};
use super::kernels::info_nce_exps::{COLUMNS, ROWS, ROWS_A_BLOCK, STAGE_BYTES, STAGES, Sums};
use super::kernels::info_nce_taught::InfoNceTaughtInstance;
use super::kernels::reduce_cuh::WARP;
use super::launch::{Grid, launch};
use super::pointers::{In, Out, in_bf16, out_bf16};
use super::{Cuda, CudaElement};
use crate::Result;
use crate::backend::{
    self, DISTILL_STATS, Distillation, InfoNceColumns, InfoNceExps, InfoNceRows, Operations, ROW_STATS,
};

const _: () = assert!(WORD_BITS == backend::WORD_BITS, "bits in a word");
const _: () =
    assert!(OF_TEACHER == DISTILL_STATS, "values told of what a row learns, here and in kernels/distillation.cuh");
const _: () = assert!(STATS == ROW_STATS, "values told of a row, here and in kernels/info_nce.cuh");

/// `launch!` of a kernel that has `MASKS` of kernels/info_nce.cuh among its parameters, from Candidates and the margin.
macro_rules! launch_masked {
    (
        $cuda:expr, $($kernel:ident)::+ { $($field:ident $(: $value:expr)?),* $(,)? },
        $c:expr, $margin:expr, $($how:expr),+ $(,)?
    ) => {
        launch!(
            $cuda,
            $($kernel)::+ {
                $($field $(: $value)?,)*
                row_labels: $c.row_labels,
                column_labels: $c.column_labels,
                rejected: $c.rejected,
                left_out: $c.left_out,
                false_negative_margin: $c.false_negative_margin,
                margin: $margin,
                first_positive: $c.first_positive,
                first_passage: $c.first_passage,
                skipped_from: $c.skipped.start,
                skipped_to: $c.skipped.end,
                words_a_row: $c.words_a_row(),
            },
            $($how),+
        )
    };
}

/// [`launch_masked!`] of rows of scores, with what a teacher adds.
macro_rules! launch_rows {
    (
        $cuda:expr, $module:ident::$kernel:ident, $instance:ident, $args:expr,
        { $($field:ident: $value:expr),* $(,)? }
    ) => {{
        let first_stats = $args.first_stats;
        let InfoNceRows { scores, inv_temperature, weight, columns, stats, d_scores, .. } = $args;
        let n = scores.row_len();
        // Few enough threads that several blocks share a multiprocessor, enough to hold a row. One that is longer than any
        // block holds is read twice.
        let instance = match (n <= HELD::<256>() * 256, columns.is_some()) {
            (true, false) => $instance::Rows256,
            (true, true) => $instance::Both256,
            (false, false) => $instance::Rows1024,
            (false, true) => $instance::Both1024,
        };
        launch_masked!(
            $cuda,
            $module::$kernel {
                stats: Out::rows(stats, first_stats),
                d_scores,
                scores,
                column_state: columns,
                inv_temperature,
                weight,
                n,
                m: columns.map_or(0, |columns| columns.row_len()),
                $($field: $value,)*
            },
            $args.candidates,
            $args.margin,
            instance,
            scores.rows()
        )
    }};
}

pub(super) fn rows<E: CudaElement>(cuda: &Cuda<E>, mut args: InfoNceRows<Cuda<E>>) -> Result<()> {
    args.check();
    let Some(distill) = args.distill.take() else {
        return launch_rows!(cuda, info_nce::InfoNce, InfoNceInstance, args, {});
    };
    launch_rows!(
        cuda,
        info_nce_taught::InfoNceTaught,
        InfoNceTaughtInstance,
        args,
        {
            teacher_stats: Out::rows(distill.stats, args.first_stats),
            own: distill.teacher.own,
            teacher_scores: distill.teacher.scores,
            distill_inv_temperature: distill.inv_temperature,
            inv_teacher_temperature: distill.inv_teacher_temperature,
            distill_weight: distill.weight,
            is_margin_mse: distill.kind == Distillation::MarginMse,
        }
    )
}

pub(super) fn exps<E: CudaElement>(cuda: &Cuda<E>, args: InfoNceExps<Cuda<E>>) -> Result<()> {
    let (n_rows, n, d) = args.check();
    assert!(cuda.score_blocks().are_fused(d), "info_nce_exps: {d} dimensions in {}", E::NAME);
    let InfoNceExps { rows, columns, candidates, inv_temperature, margin, weight, stats, first_stats, scale, exps } =
        args;
    let tiles = n.div_ceil(COLUMNS);
    let mut sums = cuda.scratch(n_rows * tiles * Sums::N)?;
    let (by_rows, by_tiles) = (n_rows.div_ceil(ROWS_A_BLOCK), n_rows.div_ceil(ROWS) * tiles);
    launch_masked!(
        cuda,
        info_nce_exps::InfoNceShift {
            stats: Out::rows(stats, first_stats),
            queries: in_bf16(rows),
            candidates: in_bf16(columns),
            inv_temperature,
            rows: n_rows,
            n,
            d,
        },
        candidates,
        margin,
        by_rows
    )?;
    launch_masked!(
        cuda,
        info_nce_exps::InfoNceExps {
            exps: out_bf16(exps),
            sums: &mut sums,
            queries: in_bf16(rows),
            candidates: in_bf16(columns),
            stats: In::rows(stats, first_stats),
            inv_temperature,
            rows: n_rows,
            n,
            d,
        },
        candidates,
        margin,
        Grid::from(by_tiles).with_shared(STAGES * STAGE_BYTES)
    )?;
    launch!(
        cuda,
        info_nce_exps::InfoNceFinish {
            stats: Out::rows(stats, first_stats),
            scale,
            exps: out_bf16(exps),
            sums: &sums,
            margin,
            first_positive: candidates.first_positive,
            inv_temperature,
            weight,
            rows: n_rows,
            n,
            tiles,
        },
        by_rows,
    )
}

pub(super) fn columns<E: CudaElement>(cuda: &Cuda<E>, args: InfoNceColumns<Cuda<E>>) -> Result<()> {
    args.check();
    let InfoNceColumns { scores, candidates, inv_temperature, margin, is_first, is_last, state, loss } = args;
    let m = state.row_len();
    launch_masked!(
        cuda,
        info_nce::InfoNceColumns {
            state,
            loss,
            scores,
            inv_temperature,
            rows: scores.rows(),
            n: scores.row_len(),
            m,
            is_first,
            is_last,
        },
        candidates,
        margin,
        m.div_ceil(WARP)
    )
}
