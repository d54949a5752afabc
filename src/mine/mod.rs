//! Mining hard negatives: for every row of the data, passages of other rows that a model takes for the answer.
//!
//! **Candidates** are all passages of the data, positives and negatives, without those that answer the row's question:
//! its own positives and those of all rows that ask in the same words, their versions in every language, and every
//! passage with an equal text (`answers.rs`).
//!
//! **Scores.** A passage's score is its cosine with the query. If a row holds several versions of its question, it is
//! the mean of their cosines, for in training any of them may meet any passage. A candidate is compared with the row's
//! positive in the candidate's own language, so that a model's preference for a language does not hide the negatives in
//! it; if the row has none in it, with all of its positives; of several positives, with the one of the lowest score.
//!
//! **Ranks** are counted among candidates, without those that hold the answer: with [`Languages::Same`] among the
//! passages of one language, for each language that the row has a positive in; otherwise among those of all languages
//! that are asked for. Of equal scores the passage that comes first in the data, language by language, ranks higher.
//! Ranks come first, margins after: a passage that a margin excludes keeps its rank.
//!
//! All passages are embedded once and stay on the device in the working type; rows are scored in blocks, and of a block
//! only the ranks up to `range_max` are kept. The result depends neither on the number of threads nor on the blocks, of which
//! each of several processes takes every so many.

mod answers;
mod corpus;
mod input;
mod report;
mod rules;
mod select;

pub use corpus::{Corpus, CorpusRow, Passage};
pub use input::Input;
pub use report::MineReport;
pub use rules::{Languages, Rules, Sampling};
pub use select::Excluded;
use select::Selected;

use std::ops::Range;

use rayon::prelude::*;

use crate::backend::{Backend, Element, Tensor};
use crate::dist::Peers;
use crate::eval::search::{Pool, require_finite};
use crate::retriever::{Embeddings, Retriever};
use crate::{Error, Result, trace};

/// Result of mining.
#[derive(Clone, Debug, PartialEq)]
pub struct Mined {
    /// Mined passages by row, in the order of languages, the best of each first.
    pub negatives: Vec<Vec<u32>>,
    /// Statistics.
    pub report: MineReport,
}

/// Passages that are ranked together, and the rows that search among them.
struct Search {
    passages: Range<usize>,
    rows: Vec<usize>,
    /// For each language, whether its passages are searched.
    allowed: Vec<bool>,
}

/// Finds the negatives of all rows with a model; each of `peers` embeds a part of the texts and searches for a part of the rows,
/// and all get everything. `progress` is called with the number of texts and rows done, and their total.
///
/// # Errors
/// Rules that nothing can satisfy, or that nothing satisfies; data without rows; a text that cannot be encoded;
/// embeddings that are not finite; a device without memory.
pub fn mine<B: Backend>(
    retriever: &Retriever<B>,
    peers: &Peers,
    corpus: &Corpus,
    rules: &Rules,
    progress: &mut (dyn FnMut(usize, usize) + Send),
) -> Result<Mined> {
    let searches = searches(corpus, rules)?;
    let (n_queries, n_passages) = (corpus.queries.len(), corpus.passages.len());
    let total = n_queries + n_passages + searches.iter().map(|search| search.rows.len()).sum::<usize>();
    let (query, passage) = (&retriever.settings.query, &retriever.settings.passage);
    let (queries, _) = retriever.encode_among(peers, query, &texts(&corpus.queries), &mut |n| progress(n, total))?;
    let queries = row_means(corpus, &queries)?;
    let mut done = n_queries;
    let mut mining = Mining::new(&retriever.backend, peers, corpus, rules, &queries);
    for search in searches {
        let range = search.passages.clone();
        let mut values: Vec<B::E> = Vec::with_capacity(range.len() * queries.dim());
        retriever.encode_windows_among(
            peers,
            passage,
            &texts(&corpus.texts[range.clone()]),
            &mut |n| progress(done + n, total),
            &mut |window| working_values(corpus, range.start, &window, &mut values),
        )?;
        done += range.len();
        mining.search(&search, values, &mut |n| progress(done + n, total))?;
        done += search.rows.len();
    }
    mining.finish()
}

fn texts(of: &[String]) -> Vec<&str> {
    of.iter().map(String::as_str).collect()
}

/// [`mine()`] with given embeddings of [`Corpus::queries`] and [`Corpus::texts`].
///
/// # Errors
/// Those of [`mine()`].
pub fn mine_embedded<B: Backend>(
    backend: &B,
    corpus: &Corpus,
    rules: &Rules,
    queries: &Embeddings,
    passages: &Embeddings,
) -> Result<Mined> {
    assert_eq!(passages.n_rows(), corpus.passages.len(), "one embedding a passage");
    assert_eq!(queries.dim(), passages.dim(), "queries and passages share a space");
    let (peers, queries) = (Peers::alone(), row_means(corpus, queries)?);
    let mut mining = Mining::new(backend, &peers, corpus, rules, &queries);
    for search in searches(corpus, rules)? {
        let Range { start, end } = search.passages;
        let window =
            Embeddings::new(queries.dim(), passages.values()[start * queries.dim()..end * queries.dim()].to_vec());
        let mut values = Vec::new();
        working_values(corpus, start, &window, &mut values)?;
        mining.search(&search, values, &mut |_| {})?;
    }
    mining.finish()
}

/// Appends embeddings of passages in the working type. `first` is the first passage of `out`.
fn working_values<E: Element>(corpus: &Corpus, first: usize, window: &Embeddings, out: &mut Vec<E>) -> Result<()> {
    let first = first + out.len() / window.dim();
    require_finite("passage", window, first, |passage| &corpus.texts[passage])?;
    out.extend(window.values().iter().map(|&x| E::from_f32(x)));
    Ok(())
}

/// The searches: passages that are ranked together, and their rows.
fn searches(corpus: &Corpus, rules: &Rules) -> Result<Vec<Search>> {
    rules.check()?;
    if corpus.rows.is_empty() {
        return Err(Error::other("no row in this data, so there is nothing to mine; check --data and the split"));
    }
    let n_langs = corpus.languages.len();
    let whole =
        |allowed| vec![Search { passages: 0..corpus.passages.len(), rows: (0..corpus.rows.len()).collect(), allowed }];
    match &rules.languages {
        Languages::All => Ok(whole(vec![true; n_langs])),
        Languages::Only(only) => {
            if let Some(lang) = only.iter().find(|lang| !corpus.languages.contains(lang)) {
                let message = format!("no passage is in {lang}; the data has {}", corpus.languages.join(", "));
                return Err(Error::config("--languages", message));
            }
            Ok(whole(corpus.languages.iter().map(|lang| only.contains(lang)).collect()))
        }
        Languages::Same => {
            let mut rows = vec![Vec::new(); n_langs];
            for (number, row) in corpus.rows.iter().enumerate() {
                let mut langs: Vec<usize> =
                    row.positives.iter().map(|&passage| corpus.passages[passage as usize].lang.into()).collect();
                langs.sort_unstable();
                langs.dedup();
                langs.into_iter().for_each(|lang| rows[lang].push(number));
            }
            let search =
                |(rows, lang)| Search { passages: corpus.passage_range(lang), rows, allowed: vec![true; n_langs] };
            Ok(rows.into_iter().zip(0..).map(search).filter(|search| !search.rows.is_empty()).collect())
        }
    }
}

/// The mean of each row's query embeddings: its dot product with a passage is the mean of theirs.
fn row_means(corpus: &Corpus, queries: &Embeddings) -> Result<Embeddings> {
    assert_eq!(queries.n_rows(), corpus.queries.len(), "one embedding a query");
    require_finite("query", queries, 0, |query| &corpus.queries[query])?;
    let dim = queries.dim();
    let mut means = vec![0.0; corpus.rows.len() * dim];
    means.par_chunks_mut(dim).zip(&corpus.rows).for_each(|(mean, row)| {
        let scale = 1.0 / row.queries.len() as f32;
        for query in queries.values()[row.queries.start * dim..row.queries.end * dim].chunks(dim) {
            mean.iter_mut().zip(query).for_each(|(mean, x)| *mean += scale * x);
        }
    });
    Ok(Embeddings::new(dim, means))
}

/// State of mining.
struct Mining<'a, B: Backend> {
    backend: &'a B,
    peers: &'a Peers,
    corpus: &'a Corpus,
    rules: &'a Rules,
    /// Mean query embedding of each row.
    queries: &'a Embeddings,
    mined: Mined,
}

impl<'a, B: Backend> Mining<'a, B> {
    fn new(backend: &'a B, peers: &'a Peers, corpus: &'a Corpus, rules: &'a Rules, queries: &'a Embeddings) -> Self {
        let mined = Mined { negatives: vec![vec![]; corpus.rows.len()], report: MineReport::new(corpus, rules) };
        Mining { backend, peers, corpus, rules, queries, mined }
    }

    /// Searches for the rows of `search` among its passages; `values` are the passages' embeddings.
    fn search(&mut self, search: &Search, values: Vec<B::E>, progress: &mut dyn FnMut(usize)) -> Result<()> {
        let _range = trace::phase("search");
        let (dim, n_passages) = (self.queries.dim(), search.passages.len());
        let mut pool = Pool::new(self.backend, Tensor::from_slice(self.backend, &values, &[n_passages, dim])?)?;
        drop(values);
        let mut scores = vec![0.0; pool.block_rows().min(search.rows.len()) * n_passages];
        let blocks: Vec<&[usize]> = search.rows.chunks(pool.block_rows()).collect();
        let (n_rows, mut done) = (search.rows.len(), 0);
        let of_blocks = self.peers.dealt(blocks.len(), |number| {
            let rows = blocks[number];
            let queries: Vec<f32> =
                rows.iter().flat_map(|&row| &self.queries.values()[row * dim..(row + 1) * dim]).copied().collect();
            let scores = &mut scores[..rows.len() * n_passages];
            pool.score(self.backend, &queries, scores)?;
            let select = |(scores, &row): (&[f32], &usize)| {
                let row = &self.corpus.rows[row];
                select::select(scores, search.passages.start, row, self.corpus, self.rules, &search.allowed)
            };
            let selected: Vec<Selected> = scores.par_chunks(n_passages).zip(rows).map(select).collect();
            done += rows.len();
            progress((done * self.peers.size()).min(n_rows));
            Ok(selected.iter().flat_map(Selected::numbers).collect())
        })?;
        for (rows, numbers) in blocks.into_iter().zip(of_blocks) {
            let mut numbers = numbers.into_iter();
            for &row in rows {
                let found = Selected::of_numbers(&mut numbers);
                self.mined.report.add(row, &found);
                self.mined.negatives[row].extend(&found.negatives);
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Mined> {
        let report = &self.mined.report;
        if report.n_negatives == 0 {
            return Err(Error::other(format!(
                "no negative was found among {} passages, so nothing was written: {}; {}",
                self.corpus.passages.len(),
                report.excluded_in_words(),
                report.remedy(),
            )));
        }
        Ok(self.mined)
    }
}
