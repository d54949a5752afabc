//! Retrieval evaluation: the paper's three settings and the language bias, from the embeddings of a model.
//!
//! A task ([`tasks`]) lists passages and queries, and what is measured on them. [`search`] ranks all passages for every
//! query, exactly, and keeps the ranks of the relevant ones; [`metrics`] and [`bias`] turn the ranks of one query into
//! numbers; [`settings`] averages them into [`figures`]; [`report`] is the result, as JSON and on the terminal, and
//! [`compare`] sets several side by side.

pub mod bias;
pub mod compare;
pub mod encode;
pub mod figures;
pub mod metrics;
pub mod npy;
pub mod report;
pub mod search;
pub mod settings;
mod table;
pub mod tasks;

pub use figures::{Figure, FigureKey};
pub use report::EvalReport;
pub use table::SideBySide;

use crate::Result;
use crate::backend::Backend;

/// Vectors of texts on the host, one row a text, in the order of the texts.
#[derive(Clone, Debug, PartialEq)]
pub struct Embeddings {
    dim: usize,
    values: Vec<f32>,
}

impl Embeddings {
    /// Takes `values (n, dim)`, row-major.
    pub fn new(dim: usize, values: Vec<f32>) -> Self {
        assert!(dim > 0 && values.len().is_multiple_of(dim), "{} values are no rows of {dim}", values.len());
        Self { dim, values }
    }

    /// Length of a vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Number of texts.
    pub fn n_rows(&self) -> usize {
        self.values.len() / self.dim
    }

    /// All values, `(n_rows, dim)` row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
}

/// Searches `set` with normalized embeddings of its queries and passages, and reports the figures of its task.
///
/// `model` is the name the report gives to what made the embeddings.
///
/// # Errors
/// As [`search::relevant_ranks`].
pub fn evaluate<B: Backend>(
    backend: &B,
    model: &str,
    set: &tasks::EvalSet,
    queries: &Embeddings,
    passages: &Embeddings,
) -> Result<EvalReport> {
    let ranks = search::relevant_ranks(backend, set, queries, passages)?;
    Ok(settings::report(model, set, &ranks))
}
