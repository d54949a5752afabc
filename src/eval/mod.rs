//! Retrieval evaluation: the paper's three settings and the language bias, from the embeddings of a model.
//!
//! A task ([`tasks`]) lists passages and queries, and what is measured on them. [`search`] ranks all passages for every
//! query, exactly, and keeps the ranks of the relevant ones; [`metrics`] and [`bias`] turn the ranks of one query into
//! numbers; [`settings`] averages them into [`figures`]; [`report`] is the result, as JSON and on the terminal, and
//! [`compare`] sets several side by side.

pub mod bias;
pub mod compare;
pub mod figures;
pub mod metrics;
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
use crate::retriever::{Embeddings, Retriever};

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

/// Embeds and searches a benchmark; `name` is what the report calls the model, `progress` is called with the number of texts
/// embedded so far.
///
/// # Errors
/// As [`Retriever::encode`] and [`search::relevant_ranks`].
pub fn evaluate_retriever<B: Backend>(
    retriever: &Retriever<B>,
    name: &str,
    set: &tasks::EvalSet,
    progress: &mut (dyn FnMut(usize) + Send),
) -> Result<EvalReport> {
    let queries: Vec<&str> = set.queries.iter().map(|q| q.text.as_str()).collect();
    let passages: Vec<&str> = set.passages.iter().map(|p| p.text.as_str()).collect();
    let queries = retriever.encode(&retriever.settings.query, &queries, progress)?;
    let n_queries = queries.n_rows();
    let passages = retriever.encode(&retriever.settings.passage, &passages, &mut |n| progress(n_queries + n))?;
    evaluate(&retriever.backend, name, set, &queries, &passages)
}
