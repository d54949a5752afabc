//! InfoNCE (van den Oord et al., arXiv 1807.03748) in row chunks: the matrix of all scores is never held.
//!
//! With unit embeddings q_i and p_j and temperature t: `loss = mean_i [ logsumexp_j(q_i . p_j / t) - q_i . p_i / t ]`,
//! j over the passages of the batch: the other queries' positives and all hard negatives, without false negatives. The
//! symmetric form averages this with the loss of the other direction: each positive finds its query among the batch's
//! queries. A teacher's scores may add their own loss ([`DistillRows`](crate::backend::DistillRows)).

use super::pass::{Buffers, Pass};
use super::report::{LossReport, RowSums};
use crate::backend::{Backend, Distillation, Pairing, ScoreBlocks, Tensor};
use crate::{Result, trace};

/// Settings of the loss.
#[derive(Clone, Debug, PartialEq)]
pub struct LossConfig {
    /// Divisor of the cosines.
    pub temperature: f32,
    /// Whether passages are trained to find their queries, too.
    pub symmetric: bool,
    /// Subtracted from the positives' cosines (additive margin softmax, Yang et al., arXiv 1902.08564).
    pub margin: f32,
    /// Whether the other queries' positives are negatives. Without them a query has its own positive and all hard negatives
    /// of the batch, which is the loss as arXiv 2408.10536 writes it.
    pub in_batch_negatives: bool,
    /// Whether the other queries are negatives of a query (GTE, Li et al., arXiv 2308.03281).
    pub query_negatives: bool,
    /// Whether, in the direction from passages to queries, the other passages are negatives of a passage.
    pub passage_negatives: bool,
    /// A candidate is left out if its cosine is above the positive's by more than this.
    pub false_negative_margin: Option<f32>,
    /// Numbers of leading dimensions that serve as an embedding by themselves, with the weights of their losses
    /// (Matryoshka, Kusupati et al., arXiv 2205.13147), largest first; empty: all dimensions, with weight 1.
    pub dimensions: Vec<(usize, f32)>,
    /// Weight of InfoNCE itself, not below 0.
    pub weight: f32,
    /// What is learned from a teacher's scores beside it.
    pub distillation: Option<DistillationConfig>,
}

/// Settings of what is learned from a teacher's scores of a query's own candidates
/// ([`DistillRows`](crate::backend::DistillRows)).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DistillationConfig {
    /// What is compared.
    pub kind: Distillation,
    /// Weight of this loss in the total.
    pub weight: f32,
    /// Divisor of the cosines; `None`: that of InfoNCE.
    pub temperature: Option<f32>,
    /// Divisor of the teacher's scores.
    pub teacher_temperature: f32,
}

impl LossConfig {
    /// The usual loss: in-batch negatives, one direction.
    pub fn new(temperature: f32) -> Self {
        LossConfig {
            temperature,
            symmetric: false,
            margin: 0.0,
            in_batch_negatives: true,
            query_negatives: false,
            passage_negatives: false,
            false_negative_margin: None,
            dimensions: Vec::new(),
            weight: 1.0,
            distillation: None,
        }
    }

    /// Number of columns of the scores of a batch of `n_queries` queries in `n_seqs` sequences.
    pub(super) fn n_columns(&self, n_queries: usize, n_seqs: usize) -> usize {
        if self.has_both_sides() { n_seqs } else { n_seqs - n_queries }
    }

    /// Whether the softmax over the columns is trained beside that over the rows.
    pub(super) fn has_columns(&self) -> bool {
        self.symmetric && !self.has_both_sides()
    }

    /// Whether a pass over `d` dimensions needs only exponentials. Not if a score has two of them, its row's and its
    /// column's, nor if rows are candidates, too, nor if the gradient has a part that is none.
    fn is_fused(&self, blocks: &ScoreBlocks, d: usize) -> bool {
        blocks.are_fused(d) && !self.symmetric && !self.has_both_sides() && self.distillation.is_none()
    }

    /// Whether queries and passages are both candidates.
    pub(super) fn has_both_sides(&self) -> bool {
        self.query_negatives || self.passage_negatives
    }
}

/// The loss and its buffers; `B` queries, `N` passages, `S` of both, embedding size `D`.
pub struct InfoNce<B: Backend> {
    /// Settings. The temperature may change from step to step.
    pub config: LossConfig,
    embedding_size: usize,
    blocks: ScoreBlocks,
    most_rows: usize,
    buffers: Buffers<B>,
    narrow: Narrow<B>,
}

/// Buffers for embeddings of fewer dimensions.
struct Narrow<B: Backend> {
    /// `(S, d)` the leading dimensions, then normalized to unit vectors
    x: Tensor<B, f32>,
    unit: Tensor<B, f32>,
    /// `(S,)`
    inv_norm: Tensor<B, f32>,
}

impl<B: Backend> Narrow<B> {
    fn resize(&mut self, backend: &B, n_seqs: usize, d: usize) -> Result<()> {
        self.x.resize_matrix(backend, n_seqs, d)?;
        self.unit.resize_matrix(backend, n_seqs, d)?;
        self.inv_norm.resize_rows(backend, n_seqs)
    }
}

impl<B: Backend> InfoNce<B> {
    /// A loss for embeddings of size `embedding_size`.
    ///
    /// # Errors
    /// If the device has no memory left.
    ///
    /// # Panics
    /// If `config` has dimensions that an embedding does not have, or does not have the largest first: the reported
    /// cosines are those of the first.
    pub fn new(backend: &B, embedding_size: usize, mut config: LossConfig) -> Result<Self> {
        if config.dimensions.is_empty() {
            config.dimensions.push((embedding_size, 1.0));
        }
        assert!(config.dimensions.iter().all(|&(d, _)| (1..=embedding_size).contains(&d)), "info_nce: dimensions");
        assert!(config.dimensions.is_sorted_by(|a, b| a.0 > b.0), "info_nce: largest dimensions first");
        Ok(Self {
            config,
            embedding_size,
            blocks: backend.score_blocks(),
            most_rows: usize::MAX,
            buffers: Buffers::new(backend)?,
            narrow: Narrow {
                x: Tensor::zeros(backend, &[0, 0])?,
                unit: Tensor::zeros(backend, &[0, 0])?,
                inv_norm: Tensor::zeros(backend, &[0])?,
            },
        })
    }

    /// This loss with at most `rows` rows of scores held at once.
    pub fn with_rows_per_chunk(mut self, rows: usize) -> Self {
        self.most_rows = rows;
        self
    }

    /// Reserves memory for batches of up to `n_queries` queries and `n_passages` passages; from then on no chunk has
    /// more rows than those of such a batch.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn reserve(&mut self, backend: &B, n_queries: usize, n_passages: usize) -> Result<()> {
        let n_seqs = n_queries + n_passages;
        let rows = self.rows_per_chunk(n_queries, n_seqs);
        // Smaller batches could have larger chunks, but buffers whose size is a number of rows would have to grow.
        self.most_rows = rows;
        for &(d, _) in &self.config.dimensions {
            let is_fused = self.config.is_fused(&self.blocks, d);
            self.buffers.resize(backend, &self.config, n_queries, n_seqs, rows, d, is_fused)?;
            if d < self.embedding_size {
                self.narrow.resize(backend, n_seqs, d)?;
            }
        }
        Ok(())
    }

    /// Rows of scores held at once for a batch of `n_queries` queries in `n_seqs` sequences.
    fn rows_per_chunk(&self, n_queries: usize, n_seqs: usize) -> usize {
        let ScoreBlocks { bytes, rows, .. } = &self.blocks;
        // If scores are written, their gradient, which is at most as large, is not counted.
        let are_written = self.config.dimensions.iter().any(|&(d, _)| !self.config.is_fused(&self.blocks, d));
        let of_score = if are_written { size_of::<f32>() } else { size_of::<B::E>() };
        let fit = bytes / (of_score * self.config.n_columns(n_queries, n_seqs));
        fit.clamp(*rows.start(), *rows.end()).min(self.most_rows).min(n_queries)
    }

    /// Computes the gradient of a batch's loss, and its [results](InfoNce::report). `embeddings` `(S, D)` are unit
    /// vectors, in the order of the batch's tokens; `d_embeddings` `(S, D)` is overwritten.
    ///
    /// # Errors
    /// If the device has no memory left.
    pub fn forward_backward(
        &mut self,
        backend: &B,
        embeddings: &Tensor<B, f32>,
        pairing: Pairing<B>,
        d_embeddings: &mut Tensor<B, f32>,
        results: &mut B::Readback,
    ) -> Result<()> {
        let _range = trace::phase("loss");
        let (n_queries, n_seqs) = (pairing.n_queries, embeddings.rows());
        assert!(n_seqs >= 2 * n_queries, "every query has a positive");
        let rows_per_chunk = self.rows_per_chunk(n_queries, n_seqs);
        let InfoNce { config, blocks, buffers, narrow, .. } = self;
        if config.dimensions.iter().all(|&(d, _)| d < self.embedding_size) {
            backend.zero_all(&mut [d_embeddings])?;
        }
        for &(d, weight) in &config.dimensions {
            let is_fused = config.is_fused(blocks, d);
            buffers.resize(backend, config, n_queries, n_seqs, rows_per_chunk, d, is_fused)?;
            let pass = |embeddings| Pass { backend, config, embeddings, pairing, rows_per_chunk, is_fused, weight };
            if d == self.embedding_size {
                pass(embeddings).run(buffers, d_embeddings, results)?;
                continue;
            }
            narrow.resize(backend, n_seqs, d)?;
            backend.copy_columns(embeddings, &mut narrow.x)?;
            backend.l2_normalize_forward(&narrow.x, &mut narrow.unit, &mut narrow.inv_norm)?;
            pass(&narrow.unit).run(buffers, &mut narrow.x, results)?;
            backend.l2_normalize_backward(&narrow.unit, &narrow.inv_norm, &mut narrow.x)?;
            backend.add_columns(&narrow.x, d_embeddings)?;
        }
        Ok(())
    }

    /// Number of results of a batch of `n_queries` queries.
    pub fn n_results(&self, n_queries: usize) -> usize {
        self.config.dimensions.len() * self.config.n_results(n_queries)
    }

    /// The report that the results of a batch of `n_queries` queries in `n_seqs` sequences give.
    ///
    /// # Panics
    /// If there are more or fewer than [`InfoNce::n_results`].
    pub fn report(&self, n_queries: usize, n_seqs: usize, results: &[f32]) -> LossReport {
        assert_eq!(results.len(), self.n_results(n_queries), "info_nce: number of results");
        let mut report = LossReport::default();
        let passes = results.chunks_exact(self.config.n_results(n_queries));
        for (i, (results, &(_, weight))) in passes.zip(&self.config.dimensions).enumerate() {
            let of_pass = RowSums::of_pass(&self.config, n_queries, n_seqs, results);
            report.loss += f64::from(weight) * of_pass.loss;
            report.contrastive_loss += f64::from(weight) * of_pass.contrastive_loss;
            report.distillation_loss += f64::from(weight) * of_pass.distillation_loss;
            report.d_inv_temperature += f64::from(weight) * of_pass.d_inv_temperature;
            if i == 0 {
                let LossReport { loss, contrastive_loss, distillation_loss, d_inv_temperature, .. } = report;
                report = LossReport { loss, contrastive_loss, distillation_loss, d_inv_temperature, ..of_pass };
            }
        }
        report
    }
}
