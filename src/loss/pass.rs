//! One loss over a batch's embeddings: chunks of rows of scores, their softmax and its gradient, and the gradient of
//! the embeddings. Three matrix products a chunk, and a fourth if both directions are trained: the columns' softmax
//! needs all rows, so if a batch has several chunks, their scores are computed twice instead of being kept.
//!
//! If a device's product computes the exponentials of its scores, a chunk's scores are not even written. The remaining
//! factor of the softmax, one per row, then scales the rows before the one product and after the other.

use super::LossConfig;
use crate::Result;
use crate::backend::{
    Backend, Candidates, DISTILL_STATS, DistillRows, Gemm, InfoNceColumns, InfoNceExps, InfoNceRows, Pairing,
    ROW_STATS, TeacherScores, Tensor,
};
use std::ops::Range;

/// Buffers of a pass, kept from step to step; `n` candidates, `c` rows of a chunk, `d` dimensions.
pub struct Buffers<B: Backend> {
    /// `(n, d)` candidates in the working type, for matrix products, and their gradient
    candidates: Tensor<B, B::E>,
    d_candidates: Tensor<B, f32>,
    /// `(c, d)`
    rows: Tensor<B, B::E>,
    d_rows: Tensor<B, f32>,
    /// `(c, n)` scores and their gradient; a fused pass has exponentials, and factors `scale` `(c,)`, instead
    scores: Tensor<B, f32>,
    d_scores: Tensor<B, B::E>,
    scale: Tensor<B, f32>,
    /// `(B, ROW_STATS)`
    stats: Tensor<B, f32>,
    /// `(3, B)` and `(B,)`: state and losses of the columns' softmax
    column_state: Tensor<B, f32>,
    column_loss: Tensor<B, f32>,
    /// `(B, DISTILL_STATS)` if there is a teacher
    teacher_stats: Tensor<B, f32>,
}

impl<B: Backend> Buffers<B> {
    pub fn new(backend: &B) -> Result<Self> {
        Ok(Buffers {
            candidates: Tensor::zeros(backend, &[0, 0])?,
            d_candidates: Tensor::zeros(backend, &[0, 0])?,
            rows: Tensor::zeros(backend, &[0, 0])?,
            d_rows: Tensor::zeros(backend, &[0, 0])?,
            scores: Tensor::zeros(backend, &[0, 0])?,
            d_scores: Tensor::zeros(backend, &[0, 0])?,
            scale: Tensor::zeros(backend, &[0])?,
            stats: Tensor::zeros(backend, &[0, ROW_STATS])?,
            column_state: Tensor::zeros(backend, &[3, 0])?,
            column_loss: Tensor::zeros(backend, &[0])?,
            teacher_stats: Tensor::zeros(backend, &[0, DISTILL_STATS])?,
        })
    }

    /// Sizes the buffers for a batch of `n_queries` queries in `n_seqs` sequences, `rows` rows a chunk and `d`
    /// dimensions.
    #[allow(clippy::too_many_arguments)]
    pub fn resize(
        &mut self,
        backend: &B,
        config: &LossConfig,
        n_queries: usize,
        n_seqs: usize,
        rows: usize,
        d: usize,
        is_fused: bool,
    ) -> Result<()> {
        let n = config.n_columns(n_queries, n_seqs);
        self.candidates.resize_matrix(backend, n, d)?;
        self.d_candidates.resize_matrix(backend, n, d)?;
        self.resize_chunk(backend, rows, is_fused)?;
        self.stats.resize_rows(backend, n_queries)?;
        if config.has_columns() {
            self.column_state.resize_matrix(backend, 3, n_queries)?;
            self.column_loss.resize_rows(backend, n_queries)?;
        }
        if config.distillation.is_some() {
            self.teacher_stats.resize_rows(backend, n_queries)?;
        }
        Ok(())
    }

    /// Sizes the buffers for a chunk of `rows` rows.
    fn resize_chunk(&mut self, backend: &B, rows: usize, is_fused: bool) -> Result<()> {
        let (n, d) = (self.candidates.rows(), self.candidates.row_len());
        self.rows.resize_matrix(backend, rows, d)?;
        self.d_rows.resize_matrix(backend, rows, d)?;
        self.d_scores.resize_matrix(backend, rows, n)?;
        match is_fused {
            true => self.scale.resize_rows(backend, rows),
            false => self.scores.resize_matrix(backend, rows, n),
        }
    }
}

/// A batch and the settings of its loss.
pub struct Pass<'a, B: Backend> {
    pub backend: &'a B,
    pub config: &'a LossConfig,
    /// `(S, d)` unit vectors in the order of the batch's tokens
    pub embeddings: &'a Tensor<B, f32>,
    pub pairing: Pairing<'a, B>,
    pub rows_per_chunk: usize,
    /// Whether the exponentials come straight out of a product.
    pub is_fused: bool,
    /// Weight of this loss in the total
    pub weight: f32,
}

/// One direction: `B` sequences look for their partners among the candidates.
struct Direction {
    /// Number of the first row's sequence.
    first_seq: usize,
    /// Its partner's number among the candidates.
    first_positive: usize,
    /// Candidates that are nobody's, except as a row's positive.
    skipped: Range<usize>,
    /// Whether this direction is the first to write the candidates' gradient.
    is_first: bool,
}

/// Rows of a direction.
type Chunk = Range<usize>;

impl<B: Backend> Pass<'_, B> {
    /// Writes the gradient of every embedding to `d_embeddings`, and starts to read the results.
    pub fn run(
        &self,
        buffers: &mut Buffers<B>,
        d_embeddings: &mut Tensor<B, f32>,
        results: &mut B::Readback,
    ) -> Result<()> {
        let Pass { backend, config, pairing, .. } = self;
        let (n_queries, n_seqs) = (pairing.n_queries, self.embeddings.rows());
        let candidates = pairing.places.part(self.first_candidate()..n_seqs);
        backend.gather_cast(self.embeddings, candidates, None, &mut buffers.candidates)?;
        let unless = |counts: bool, range: Range<usize>| if counts { 0..0 } else { range };
        if config.has_both_sides() {
            let queries = unless(config.query_negatives, 0..n_queries);
            let forth = Direction { first_seq: 0, first_positive: n_queries, skipped: queries, is_first: true };
            self.direction(&forth, buffers, d_embeddings, results)?;
            if config.symmetric {
                let passages = unless(config.passage_negatives, n_queries..n_seqs);
                let back = Direction { first_seq: n_queries, first_positive: 0, skipped: passages, is_first: false };
                self.direction(&back, buffers, d_embeddings, results)?;
            }
        } else {
            let positives = unless(config.in_batch_negatives, 0..n_queries);
            let forth = Direction { first_seq: 0, first_positive: 0, skipped: positives, is_first: true };
            if config.symmetric {
                self.columns(&forth, buffers)?;
            }
            self.direction(&forth, buffers, d_embeddings, results)?;
            if config.symmetric {
                backend.read_later(&buffers.column_loss, results)?;
            }
        }
        if config.distillation.is_some() {
            backend.read_later(&buffers.teacher_stats, results)?;
        }
        backend.scatter_rows(&buffers.d_candidates, None, candidates, d_embeddings)
    }

    /// Number of the first sequence that is a candidate.
    fn first_candidate(&self) -> usize {
        if self.config.has_both_sides() { 0 } else { self.pairing.n_queries }
    }

    fn chunks(&self) -> impl Iterator<Item = Chunk> + use<B> {
        let (n, rows) = (self.pairing.n_queries, self.rows_per_chunk);
        (0..n).step_by(rows).map(move |first| first..n.min(first + rows))
    }

    /// Computes the columns' softmax over all rows, which the gradient needs.
    fn columns(&self, direction: &Direction, buffers: &mut Buffers<B>) -> Result<()> {
        for chunk in self.chunks() {
            self.scores(direction, &chunk, buffers)?;
            self.backend.info_nce_columns(InfoNceColumns {
                scores: &buffers.scores,
                candidates: self.candidates(direction, &chunk),
                inv_temperature: 1.0 / self.config.temperature,
                margin: self.config.margin,
                is_first: chunk.start == 0,
                is_last: chunk.end == self.pairing.n_queries,
                state: &mut buffers.column_state,
                loss: &mut buffers.column_loss,
            })?;
        }
        Ok(())
    }

    /// The embeddings of a chunk's rows.
    fn rows(&self, direction: &Direction, chunk: &Chunk, buffers: &mut Buffers<B>) -> Result<()> {
        buffers.resize_chunk(self.backend, chunk.len(), self.is_fused)?;
        let places = self.pairing.places.part(self.seqs(direction, chunk));
        self.backend.gather_cast(self.embeddings, places, None, &mut buffers.rows)
    }

    /// Scores of a chunk against all candidates.
    fn scores(&self, direction: &Direction, chunk: &Chunk, buffers: &mut Buffers<B>) -> Result<()> {
        self.rows(direction, chunk, buffers)?;
        self.backend.gemm_f32(Gemm {
            a: &buffers.rows,
            trans_a: false,
            b: &buffers.candidates,
            trans_b: true,
            bias: None,
            out: &mut buffers.scores,
            accumulate: false,
        })
    }

    /// The sequences of a chunk.
    fn seqs(&self, direction: &Direction, chunk: &Chunk) -> Range<usize> {
        direction.first_seq + chunk.start..direction.first_seq + chunk.end
    }

    fn candidates(&self, direction: &Direction, chunk: &Chunk) -> Candidates<'_, B> {
        let Pairing { n_queries, labels, rejected, left_out, .. } = self.pairing;
        Candidates {
            first_positive: direction.first_positive + chunk.start,
            row_labels: labels.part(self.seqs(direction, chunk)),
            column_labels: labels.part(self.first_candidate()..labels.len()),
            // A passage that a teacher rejects is no negative of the query nor of its positive.
            rejected: Some(rejected.part(2 * chunk.start..2 * chunk.end)),
            left_out: left_out.map(|bits| {
                let words = bits.len() / n_queries;
                bits.part(words * chunk.start..words * chunk.end)
            }),
            first_passage: n_queries - self.first_candidate(),
            skipped: direction.skipped.clone(),
            false_negative_margin: self.config.false_negative_margin.unwrap_or(f32::INFINITY),
        }
    }

    /// Computes the gradient of one direction, or of both if the columns' softmax is trained.
    fn direction(
        &self,
        direction: &Direction,
        buffers: &mut Buffers<B>,
        d_embeddings: &mut Tensor<B, f32>,
        results: &mut B::Readback,
    ) -> Result<()> {
        for chunk in self.chunks() {
            match self.is_fused {
                true => self.exps(direction, &chunk, buffers)?,
                false => self.d_scores(direction, &chunk, buffers)?,
            }
            // dP += dS^T Q
            self.backend.gemm_f32(Gemm {
                a: &buffers.d_scores,
                trans_a: true,
                b: &buffers.rows,
                trans_b: false,
                bias: None,
                out: &mut buffers.d_candidates,
                accumulate: !direction.is_first || chunk.start > 0,
            })?;
            self.d_rows(direction, &chunk, buffers, d_embeddings)?;
        }
        self.backend.read_later(&buffers.stats, results)
    }

    /// Computes the gradient of a chunk's scores, and its statistics.
    fn d_scores(&self, direction: &Direction, chunk: &Chunk, buffers: &mut Buffers<B>) -> Result<()> {
        let with_columns = self.config.has_columns();
        // If there is only one chunk, the columns' softmax has left its scores in memory.
        if !with_columns || chunk.len() < self.pairing.n_queries {
            self.scores(direction, chunk, buffers)?;
        }
        self.backend.info_nce_rows(InfoNceRows {
            scores: &buffers.scores,
            candidates: self.candidates(direction, chunk),
            inv_temperature: 1.0 / self.config.temperature,
            margin: self.config.margin,
            weight: self.row_weight(),
            columns: with_columns.then_some(&buffers.column_state),
            distill: self.distill(direction, chunk, &mut buffers.teacher_stats),
            stats: &mut buffers.stats,
            first_stats: chunk.start,
            d_scores: &mut buffers.d_scores,
        })
    }

    /// What the rows of a chunk learn from a teacher, if they are queries.
    fn distill<'a>(
        &'a self,
        direction: &Direction,
        chunk: &Chunk,
        stats: &'a mut Tensor<B, f32>,
    ) -> Option<DistillRows<'a, B>> {
        let config = self.config.distillation.filter(|_| direction.first_seq == 0)?;
        let TeacherScores { own, scores } = self.pairing.teacher.expect("batches have the teacher's scores");
        Some(DistillRows {
            kind: config.kind,
            teacher: TeacherScores { own: own.part(2 * chunk.start..2 * chunk.end), scores },
            inv_temperature: 1.0 / config.temperature.unwrap_or(self.config.temperature),
            inv_teacher_temperature: 1.0 / config.teacher_temperature,
            // The other direction has no teacher, so that no half is left to it.
            weight: self.weight * config.weight / self.pairing.n_queries as f32,
            stats,
        })
    }

    /// Computes that gradient up to a factor a row, by which the rows are then scaled.
    fn exps(&self, direction: &Direction, chunk: &Chunk, buffers: &mut Buffers<B>) -> Result<()> {
        self.rows(direction, chunk, buffers)?;
        self.backend.info_nce_exps(InfoNceExps {
            rows: &buffers.rows,
            columns: &buffers.candidates,
            candidates: self.candidates(direction, chunk),
            inv_temperature: 1.0 / self.config.temperature,
            margin: self.config.margin,
            weight: self.row_weight(),
            stats: &mut buffers.stats,
            first_stats: chunk.start,
            scale: &mut buffers.scale,
            exps: &mut buffers.d_scores,
        })?;
        let places = self.pairing.places.part(self.seqs(direction, chunk));
        self.backend.gather_cast(self.embeddings, places, Some(&buffers.scale), &mut buffers.rows)
    }

    /// A row's weight in the total.
    fn row_weight(&self) -> f32 {
        let half = if self.config.symmetric { 0.5 } else { 1.0 };
        self.weight * half * self.config.weight / self.pairing.n_queries as f32
    }

    /// dQ = dS P, for the rows of a chunk.
    fn d_rows(
        &self,
        direction: &Direction,
        chunk: &Chunk,
        buffers: &mut Buffers<B>,
        d_embeddings: &mut Tensor<B, f32>,
    ) -> Result<()> {
        let (backend, seqs) = (self.backend, self.seqs(direction, chunk));
        // Rows that are candidates, too, already have a gradient as such.
        let accumulate = self.config.has_both_sides();
        if accumulate {
            backend.copy_rows(&buffers.d_candidates, seqs.start, &mut buffers.d_rows)?;
        }
        backend.gemm_f32(Gemm {
            a: &buffers.d_scores,
            trans_a: false,
            b: &buffers.candidates,
            trans_b: false,
            bias: None,
            out: &mut buffers.d_rows,
            accumulate,
        })?;
        let places = self.pairing.places.part(seqs.clone());
        if accumulate {
            backend.paste_rows(&buffers.d_rows, &mut buffers.d_candidates, seqs.start)
        } else {
            let scale = self.is_fused.then_some(&buffers.scale);
            backend.scatter_rows(&buffers.d_rows, scale, places, d_embeddings)
        }
    }
}
