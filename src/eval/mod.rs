//! Retrieval evaluation: the paper's three settings and the language bias, from the embeddings of a model.
//!
//! A task ([`tasks`]) lists passages and queries, and what is measured on them. [`search`] ranks all passages for every
//! query, exactly, and keeps the ranks of the relevant ones; [`metrics`] and [`bias`] turn the ranks of one query into
//! numbers; [`settings`] averages them into [`figures`]; [`report`] is the result, as JSON and on the terminal, and
//! [`compare`] sets several side by side. [`mteb`] has the numbers that mteb writes.

pub mod bias;
pub mod compare;
pub mod figures;
pub mod metrics;
pub mod mteb;
mod per_query;
pub mod report;
pub mod rerank;
pub mod retrieval;
pub mod search;
pub mod settings;
mod table;
pub mod tasks;
pub mod top;
pub mod vectors;

pub use figures::{Figure, FigureKey};
pub use report::EvalReport;
pub use table::SideBySide;

use crate::Result;
use crate::backend::Backend;
use crate::dist::Peers;
use crate::retriever::{COLLAPSED, Embeddings, Retriever, TextKind};

/// Searches `set` with normalized embeddings of its queries and passages, as all `peers` do, and reports the figures of its task.
///
/// `model` is the name the report gives to what made the embeddings, `more` a figure besides the task's.
///
/// # Errors
/// As [`search::relevant_ranks`].
pub fn evaluate<B: Backend>(
    backend: &B,
    peers: &Peers,
    model: &str,
    set: &tasks::EvalSet,
    more: Option<FigureKey>,
    queries: &Embeddings,
    passages: &Embeddings,
) -> Result<EvalReport> {
    let ranks = search::relevant_ranks(backend, peers, set, queries, passages)?;
    Ok(settings::report_with(more, model, set, &ranks))
}

/// What an evaluation found.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// The figures.
    pub report: EvalReport,
    /// How many texts were cut, one line for queries and passages each, if any.
    pub cut: Vec<String>,
    /// The warning about a model that has the same embedding for all texts.
    pub warning: Option<String>,
}

/// Embeds and searches a benchmark with queries and passages of these `kinds`, as all `peers` do; `name` is what the report
/// calls the model, `more` a figure besides the task's, `progress` is called with the number of texts embedded so far.
///
/// # Errors
/// As [`Retriever::encode`] and [`search::relevant_ranks`].
pub fn evaluate_retriever<B: Backend>(
    retriever: &Retriever<B>,
    peers: &Peers,
    kinds: [&TextKind; 2],
    name: &str,
    set: &tasks::EvalSet,
    more: Option<FigureKey>,
    progress: &mut (dyn FnMut(usize) + Send),
) -> Result<Evaluated> {
    let queries: Vec<&str> = set.queries.iter().map(|q| q.text.as_str()).collect();
    let passages: Vec<&str> = set.passages.iter().map(|p| p.text.as_str()).collect();
    let (queries, of_queries) = retriever.encode_among(peers, kinds[0], &queries, progress)?;
    let n_queries = queries.n_rows();
    let (passages, of_passages) =
        retriever.encode_among(peers, kinds[1], &passages, &mut |n| progress(n_queries + n))?;
    let report = evaluate(&retriever.backend, peers, name, set, more, &queries, &passages)?;
    let summaries = [(of_queries, "queries"), (of_passages, "passages")];
    let cut = kinds.iter().zip(summaries).filter_map(|(kind, (of, what))| kind.cut_note(of.n_cut, of.n_texts, what));
    let warning = of_passages.is_collapsed.then(|| COLLAPSED.to_owned());
    Ok(Evaluated { report, cut: cut.collect(), warning })
}
