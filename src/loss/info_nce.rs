//! InfoNCE (van den Oord et al., arXiv 1807.03748) in row chunks: the matrix of all scores is never held.
//!
//! With unit embeddings q_i and p_j and temperature t:
//! `loss = mean_i [ logsumexp_j(q_i . p_j / t) - q_i . p_i / t ]`, j over every passage of the batch: the other
//! queries' positives and all hard negatives. The symmetric form averages that with the same thing turned round: each
//! positive finds its query among the batch's queries.

use crate::backend::{Backend, Gemm, InfoNceRows, Ints, Tensor};
use crate::{Result, trace};

/// Rows of scores held at once.
const ROWS_PER_CHUNK: usize = 1024;

/// The loss and its buffers; `B` queries, `N` passages, embedding size `D`, `c` rows of a chunk.
pub struct InfoNce<B: Backend> {
    /// Divides the cosines.
    pub temperature: f32,
    /// Train passage to query as well.
    pub symmetric: bool,
    /// `(B, D)` and `(N, D)`
    queries: Side<B>,
    passages: Side<B>,
    chunk: RowChunk<B>,
    /// 0, 1, 2, ... of which a chunk's rows have a part each
    positives: Tensor<B, i32>,
    rows_per_chunk: usize,
}

/// The queries or the passages of a batch.
struct Side<B: Backend> {
    /// Unit vectors.
    embeddings: Tensor<B, f32>,
    /// The same in the working type, as GEMMs want them.
    working: Tensor<B, B::E>,
    /// Gradient.
    d: Tensor<B, f32>,
}

/// Some rows of scores.
struct RowChunk<B: Backend> {
    /// `(c, D)`
    rows: Tensor<B, f32>,
    working: Tensor<B, B::E>,
    /// `(c, N)`
    scores: Tensor<B, f32>,
    d_scores: Tensor<B, B::E>,
    /// `(c,)`, `(c, 2)`
    loss: Tensor<B, f32>,
    cosines: Tensor<B, f32>,
}

/// What a step's loss was. Sums of f32 values in f64.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossReport {
    /// Mean over the queries (and over both directions, if symmetric).
    pub loss: f64,
    /// Mean cosine of the queries with their positives.
    pub positive_cosine: f64,
    /// Mean cosine of the queries with all other passages.
    pub negative_cosine: f64,
}

impl<B: Backend> Side<B> {
    fn new(backend: &B, embedding_size: usize) -> Result<Self> {
        let shape = [0, embedding_size];
        Ok(Self {
            embeddings: Tensor::zeros(backend, &shape)?,
            working: Tensor::zeros(backend, &shape)?,
            d: Tensor::zeros(backend, &shape)?,
        })
    }

    /// Takes `n` rows of `all` from `start` on.
    fn load(&mut self, backend: &B, all: &Tensor<B, f32>, start: usize, n: usize) -> Result<()> {
        self.resize_to(backend, n)?;
        backend.copy_rows(all, start, &mut self.embeddings)?;
        backend.cast(&self.embeddings, &mut self.working)?;
        backend.zero(&mut self.d)
    }

    /// Uses only the first `n` rows; a later call may use all of them again.
    fn resize_to(&mut self, backend: &B, n: usize) -> Result<()> {
        self.embeddings.resize_rows(backend, n)?;
        self.working.resize_rows(backend, n)?;
        self.d.resize_rows(backend, n)
    }
}

impl<B: Backend> RowChunk<B> {
    fn new(backend: &B, embedding_size: usize) -> Result<Self> {
        Ok(Self {
            rows: Tensor::zeros(backend, &[0, embedding_size])?,
            working: Tensor::zeros(backend, &[0, embedding_size])?,
            scores: Tensor::zeros(backend, &[0, 0])?,
            d_scores: Tensor::zeros(backend, &[0, 0])?,
            loss: Tensor::zeros(backend, &[0])?,
            cosines: Tensor::zeros(backend, &[0, 2])?,
        })
    }

    /// `c` rows against `n_columns` candidates.
    fn resize(&mut self, backend: &B, c: usize, n_columns: usize) -> Result<()> {
        self.scores.resize_matrix(backend, c, n_columns)?;
        self.d_scores.resize_matrix(backend, c, n_columns)?;
        for t in [&mut self.rows, &mut self.loss, &mut self.cosines] {
            t.resize_rows(backend, c)?;
        }
        self.working.resize_rows(backend, c)
    }
}

impl<B: Backend> InfoNce<B> {
    /// A loss for embeddings of size `embedding_size`.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn new(backend: &B, embedding_size: usize, temperature: f32, symmetric: bool) -> Result<Self> {
        Ok(Self {
            temperature,
            symmetric,
            queries: Side::new(backend, embedding_size)?,
            passages: Side::new(backend, embedding_size)?,
            chunk: RowChunk::new(backend, embedding_size)?,
            positives: Tensor::zeros(backend, &[0])?,
            rows_per_chunk: ROWS_PER_CHUNK,
        })
    }

    /// As [`InfoNce::new`], with at most `rows` rows of scores held at once.
    pub fn with_rows_per_chunk(mut self, rows: usize) -> Self {
        self.rows_per_chunk = rows;
        self
    }

    /// Room for a batch of `n_queries` queries and `n_passages` passages.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn reserve(&mut self, backend: &B, n_queries: usize, n_passages: usize) -> Result<()> {
        self.queries.resize_to(backend, n_queries)?;
        self.passages.resize_to(backend, n_passages)?;
        self.chunk.resize(backend, self.rows_per_chunk.min(n_queries), n_passages)?;
        self.number_rows(backend, n_queries)
    }

    /// Positives of `n_rows` rows.
    fn number_rows(&mut self, backend: &B, n_rows: usize) -> Result<()> {
        if self.positives.len() < n_rows {
            self.positives.assign(backend, &(0..n_rows as i32).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Gradient of a batch's loss, and its [results](InfoNce::report). `embeddings` `(S, D)` holds `n_queries` queries,
    /// then the passages, of which passage `i` is the positive of query `i`; `d_embeddings` `(S, D)` is overwritten.
    ///
    /// # Errors
    /// When the device has no memory left.
    pub fn forward_backward(
        &mut self,
        backend: &B,
        embeddings: &Tensor<B, f32>,
        n_queries: usize,
        d_embeddings: &mut Tensor<B, f32>,
        results: &mut B::Readback,
    ) -> Result<()> {
        let _range = trace::phase("loss");
        let n_passages = embeddings.rows() - n_queries;
        assert!(n_passages >= n_queries, "every query has a positive");
        self.queries.load(backend, embeddings, 0, n_queries)?;
        self.passages.load(backend, embeddings, n_queries, n_passages)?;
        self.number_rows(backend, n_queries)?;
        let weight = if self.symmetric { 0.5 } else { 1.0 } / n_queries as f32;
        self.direction(backend, false, n_queries, weight, results)?;
        if self.symmetric {
            // Each positive looks for its query; hard negatives have none, so they are left out.
            self.passages.resize_to(backend, n_queries)?;
            self.direction(backend, true, n_queries, weight, results)?;
            self.passages.resize_to(backend, n_passages)?;
        }
        backend.paste_rows(&self.queries.d, d_embeddings, 0)?;
        backend.paste_rows(&self.passages.d, d_embeddings, n_queries)
    }

    /// How many results a batch of `n_queries` queries has.
    pub fn n_results(&self, n_queries: usize) -> usize {
        // A loss and two cosines a row.
        3 * n_queries * if self.symmetric { 2 } else { 1 }
    }

    /// What the results of a batch of `n_queries` queries say.
    ///
    /// # Panics
    /// When there are more or fewer than [`InfoNce::n_results`].
    pub fn report(&self, n_queries: usize, results: &[f32]) -> LossReport {
        assert_eq!(results.len(), self.n_results(n_queries), "info_nce: number of results");
        let (forth, back) = results.split_at(3 * n_queries);
        let mut report = self.direction_report(n_queries, forth);
        if self.symmetric {
            report.loss = (report.loss + self.direction_report(n_queries, back).loss) / 2.0;
        }
        report
    }

    fn direction_report(&self, n_rows: usize, results: &[f32]) -> LossReport {
        let mut sums = [0.0f64; 3];
        // Row chunk by row chunk, as `direction` asked for them.
        for chunk in results.chunks(3 * self.rows_per_chunk) {
            let (losses, cosines) = chunk.split_at(chunk.len() / 3);
            sums[0] += losses.iter().map(|&l| f64::from(l)).sum::<f64>();
            for pair in cosines.chunks_exact(2) {
                sums[1] += f64::from(pair[0]);
                sums[2] += f64::from(pair[1]);
            }
        }
        let [loss, positive_cosine, negative_cosine] = sums.map(|s| s / n_rows as f64);
        LossReport { loss, positive_cosine, negative_cosine }
    }

    /// One direction: queries find passages, or, `turned`, passages find queries. Row i's positive is column i.
    fn direction(
        &mut self,
        backend: &B,
        turned: bool,
        n_rows: usize,
        weight: f32,
        results: &mut B::Readback,
    ) -> Result<()> {
        let (rows, columns) =
            if turned { (&mut self.passages, &mut self.queries) } else { (&mut self.queries, &mut self.passages) };
        let n_columns = columns.embeddings.rows();
        let chunk = &mut self.chunk;
        for first in (0..n_rows).step_by(self.rows_per_chunk) {
            let c = self.rows_per_chunk.min(n_rows - first);
            chunk.resize(backend, c, n_columns)?;
            backend.copy_rows(&rows.embeddings, first, &mut chunk.rows)?;
            backend.cast(&chunk.rows, &mut chunk.working)?;
            backend.gemm_f32(Gemm {
                a: &chunk.working,
                trans_a: false,
                b: &columns.working,
                trans_b: true,
                bias: None,
                out: &mut chunk.scores,
                accumulate: false,
            })?;
            backend.info_nce_rows(InfoNceRows {
                scores: &chunk.scores,
                positives: Ints::new(&self.positives, first..first + c),
                inv_temperature: 1.0 / self.temperature,
                weight,
                loss: &mut chunk.loss,
                cosines: &mut chunk.cosines,
                d_scores: &mut chunk.d_scores,
            })?;
            // dP += dS^T Q
            backend.gemm_f32(Gemm {
                a: &chunk.d_scores,
                trans_a: true,
                b: &chunk.working,
                trans_b: false,
                bias: None,
                out: &mut columns.d,
                accumulate: true,
            })?;
            // dQ += dS P, for the rows of this chunk
            backend.copy_rows(&rows.d, first, &mut chunk.rows)?;
            backend.gemm_f32(Gemm {
                a: &chunk.d_scores,
                trans_a: false,
                b: &columns.working,
                trans_b: false,
                bias: None,
                out: &mut chunk.rows,
                accumulate: true,
            })?;
            backend.paste_rows(&chunk.rows, &mut rows.d, first)?;
            backend.read_later(&chunk.loss, results)?;
            backend.read_later(&chunk.cosines, results)?;
        }
        Ok(())
    }
}
