//! Exact search: the rank of every relevant passage among all passages, by blocked matrix products.
//!
//! A block of queries is scored against the whole pool in one product with f32 result, and each relevant passage's
//! rank is then a matter of counting better scores. Nothing is sorted and no ranking is cut off, because average
//! precision over the whole ranking and rank distances need ranks far down the list.
//!
//! **Ties.** Of two passages with equal scores the one with the lower index ranks higher. Indices follow the order of
//! the data, so a ranking does not depend on names or hashes. trec_eval orders equal scores by document name,
//! descending as a string; numbers differ from it only where scores tie exactly.
//!
//! With a bf16 backend the embeddings are rounded to bf16 before they are multiplied; scores are f32 either way.
//!
//! Of several processes each takes every so many blocks of queries, in the shapes of one process, so that scores are the same to
//! the bit.

use super::tasks::{EvalSet, Query, Relevant};
use crate::backend::{Backend, Gemm, Tensor};
use crate::data::catalog::LangId;
use crate::dist::Peers;
use crate::retriever::Embeddings;
use crate::{Error, Result, trace};
use rayon::prelude::*;
use std::ops::Range;

/// Queries in one block at most: enough rows to keep a GEMM busy.
const MAX_BLOCK_ROWS: usize = 256;
/// Scores in one block at most (64 MB), so that a large pool makes blocks lower, not memory larger.
const MAX_BLOCK_SCORES: usize = 16 << 20;

/// Where one relevant passage of a query came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelevantRank {
    /// Language of the passage.
    pub lang: LangId,
    /// 1-based rank among the passages of its own language.
    pub in_language: u32,
    /// 1-based rank among the passages of all languages.
    pub pooled: u32,
}

/// Ranks of each query's relevant passages, in the order of [`Query::relevant`], for all queries in order.
pub type RelevantRanks = Vec<Vec<RelevantRank>>;

/// Scores all queries against all passages (dot product: the cosine of normalized embeddings) and ranks the relevant ones. Each
/// of `peers` scores a part of the queries, and all get everything.
///
/// `queries` and `passages` have one row for each query and passage of `set`, in its order.
///
/// # Errors
/// An embedding that holds NaN or infinity, which no ranking can be made of; a device without memory; a process that is gone.
pub fn relevant_ranks<B: Backend>(
    backend: &B,
    peers: &Peers,
    set: &EvalSet,
    queries: &Embeddings,
    passages: &Embeddings,
) -> Result<RelevantRanks> {
    let _range = trace::phase("search");
    assert_eq!(queries.n_rows(), set.queries.len(), "one embedding a query");
    assert_eq!(passages.n_rows(), set.passages.len(), "one embedding a passage");
    assert_eq!(queries.dim(), passages.dim(), "queries and passages share a space");
    require_finite("query", queries, 0, |i| &set.queries[i].text)?;
    require_finite("passage", passages, 0, |i| &set.passages[i].text)?;

    let dim = queries.dim();
    let mut pool = Pool::new(backend, in_working_type(backend, passages.values(), dim)?)?;
    rank_blocks(peers, set, |rows, out| pool.score(backend, &queries.values()[rows.start * dim..rows.end * dim], out))
}

/// Passages on the device, to be scored against one block of queries after the other.
pub struct Pool<B: Backend> {
    passages: Tensor<B, B::E>,
    scores: Tensor<B, f32>,
}

impl<B: Backend> Pool<B> {
    /// Of `passages (n_passages, dim)`.
    ///
    /// # Errors
    /// A device without memory.
    pub fn new(backend: &B, passages: Tensor<B, B::E>) -> Result<Self> {
        let scores = Tensor::zeros(backend, &[block_rows(passages.rows()), passages.rows()])?;
        Ok(Pool { passages, scores })
    }

    /// Queries in one block at most.
    pub fn block_rows(&self) -> usize {
        block_rows(self.passages.rows())
    }

    /// Dot products `out (n_queries, n_passages)` of all passages with a block of `queries (n_queries, dim)`.
    ///
    /// # Errors
    /// A device without memory.
    pub fn score(&mut self, backend: &B, queries: &[f32], out: &mut [f32]) -> Result<()> {
        let queries = in_working_type(backend, queries, self.passages.row_len())?;
        self.scores.resize_rows(backend, queries.rows())?;
        backend.gemm_f32(Gemm {
            a: &queries,
            trans_a: false,
            b: &self.passages,
            trans_b: true,
            bias: None,
            out: &mut self.scores,
            accumulate: false,
        })?;
        backend.download(self.scores.buffer(), 0, out)
    }
}

fn in_working_type<B: Backend>(backend: &B, values: &[f32], dim: usize) -> Result<Tensor<B, B::E>> {
    let shape = [values.len() / dim, dim];
    let mut out = Tensor::zeros(backend, &shape)?;
    backend.cast(&Tensor::from_slice(backend, values, &shape)?, &mut out)?;
    Ok(out)
}

/// A NaN compares as worse than everything, so without this check a broken model would look perfect. The embeddings are
/// those of the texts from number `first` on.
pub(crate) fn require_finite<'a>(
    what: &str,
    embeddings: &Embeddings,
    first: usize,
    text: impl Fn(usize) -> &'a String,
) -> Result<()> {
    let rows = embeddings.values().par_chunks(embeddings.dim());
    match rows.position_first(|row| !row.iter().all(|x| x.is_finite())).map(|i| first + i) {
        None => Ok(()),
        Some(i) => Err(Error::other(format!(
            "the embedding of {what} {i} ({:?}) is not finite, so nothing can be ranked: the model's weights are \
             broken or training diverged; use an earlier checkpoint or a lower learning_rate",
            text(i).chars().take(40).collect::<String>()
        ))),
    }
}

/// Rows of one block of scores.
fn block_rows(n_passages: usize) -> usize {
    (MAX_BLOCK_SCORES / n_passages.max(1)).clamp(1, MAX_BLOCK_ROWS)
}

/// Walks the queries in blocks: `score(rows, out)` fills `out (rows, n passages)`, then the rows are ranked in parallel.
fn rank_blocks(
    peers: &Peers,
    set: &EvalSet,
    mut score: impl FnMut(Range<usize>, &mut [f32]) -> Result<()>,
) -> Result<RelevantRanks> {
    let (n_queries, n_passages) = (set.queries.len(), set.passages.len());
    let ranges: Vec<Range<usize>> = (0..set.languages.len() as LangId).map(|lang| set.passage_range(lang)).collect();
    let rows = block_rows(n_passages);
    let mut scores = vec![0.0; rows.min(n_queries) * n_passages];
    let of_blocks = peers.dealt(n_queries.div_ceil(rows), |number| {
        let block = number * rows..n_queries.min((number + 1) * rows);
        let scores = &mut scores[..block.len() * n_passages];
        score(block.clone(), scores)?;
        let of_row = |(row, query): (&[f32], &Query)| rank_row(row, query, set, &ranges);
        Ok(scores.par_chunks(n_passages.max(1)).zip(&set.queries[block]).flat_map_iter(of_row).collect())
    })?;
    let mut ranks = of_blocks.into_iter().flatten();
    let mut of_passage = |of: &Relevant| {
        let [in_language, pooled] = ranks.next().expect("ranks for every relevant passage");
        RelevantRank { lang: set.passages[of.passage as usize].lang, in_language, pooled }
    };
    Ok(set.queries.iter().map(|query| query.relevant.iter().map(&mut of_passage).collect()).collect())
}

/// Ranks of one query's relevant passages, in their language and pooled, from its scores against all passages.
///
/// A passage is behind every lower index with at least its score and every higher index with more, hence the two
/// comparisons; the stretch within its own language is counted once and serves both ranks.
fn rank_row(scores: &[f32], query: &Query, set: &EvalSet, ranges: &[Range<usize>]) -> Vec<[u32; 2]> {
    let at_least = |range: Range<usize>, s: f32| scores[range].iter().map(|&x| u32::from(x >= s)).sum::<u32>();
    let above = |range: Range<usize>, s: f32| scores[range].iter().map(|&x| u32::from(x > s)).sum::<u32>();
    let rank = |relevant: &Relevant| {
        let p = relevant.passage as usize;
        let lang = set.passages[p].lang;
        let Range { start, end } = ranges[usize::from(lang)];
        let s = scores[p];
        let in_language = 1 + at_least(start..p, s) + above(p + 1..end, s);
        let pooled = in_language + at_least(0..start, s) + above(end..scores.len(), s);
        // What is left out has been counted if it comes before.
        let comes_before = |other: &usize| scores[*other] > s || (scores[*other] == s && *other < p);
        let left_out = query.left_out.map(|passage| passage as usize).filter(comes_before);
        let n_of = |range: Range<usize>| u32::from(left_out.is_some_and(|passage| range.contains(&passage)));
        [in_language - n_of(start..end), pooled - n_of(0..scores.len())]
    };
    query.relevant.iter().map(rank).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::tasks::{Passage, parallel};

    /// Small integers, so that dot products tie often, and exactly.
    fn noise(state: &mut u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    /// Passages of three languages, the second without any, and queries with up to four relevant passages, some of which leave
    /// out another one.
    fn random_set(state: &mut u64, n_queries: usize, sizes: [usize; 3]) -> EvalSet {
        let n_passages: usize = sizes.iter().sum();
        let lang_of = |p: usize| if p < sizes[0] { 0 } else { 2 };
        let query = |q: usize, state: &mut u64| {
            let mut relevant: Vec<u32> = (0..4).map(|_| (noise(state) % n_passages as u64) as u32).collect();
            relevant.sort_unstable();
            relevant.dedup();
            let left_out = Some((noise(state) % n_passages as u64) as u32).filter(|of| !relevant.contains(of));
            let relevant = relevant.into_iter().map(Relevant::binary).collect();
            Query { group: q as u32, relevant, left_out, ..Query::default() }
        };
        EvalSet {
            notes: Default::default(),
            task: &parallel::TASK,
            split: "all".into(),
            languages: ["aa", "bb", "cc"].map(String::from).to_vec(),
            passages: (0..n_passages).map(|p| Passage { lang: lang_of(p), text: String::new() }).collect(),
            queries: (0..n_queries).map(|q| query(q, state)).collect(),
        }
    }

    /// 1-based position of `passage` among `candidates` sorted by score; the sort is stable, so ties keep their order.
    fn rank_by_sorting(scores: &[f32], mut candidates: Vec<usize>, passage: usize) -> u32 {
        candidates.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        1 + candidates.iter().position(|&p| p == passage).unwrap() as u32
    }

    #[test]
    fn counting_agrees_with_sorting_ties_included() {
        let mut state = 7;
        for sizes in [[1, 0, 1], [37, 0, 20], [64, 0, 65]] {
            let set = random_set(&mut state, 300, sizes);
            let n = set.passages.len();
            let all: Vec<f32> = (0..300 * n).map(|_| (noise(&mut state) % 9) as f32 - 4.0).collect();
            let mut blocks = Vec::new();
            let ranks = rank_blocks(&Peers::alone(), &set, |rows, out| {
                out.copy_from_slice(&all[rows.start * n..rows.end * n]);
                blocks.push(rows.len());
                Ok(())
            });
            assert_eq!(blocks, [256, 44]);
            for ((query, ranks), scores) in set.queries.iter().zip(ranks.unwrap()).zip(all.chunks(n)) {
                assert_eq!(ranks.len(), query.relevant.len());
                let candidates = || (0..n).filter(|&p| query.left_out != Some(p as u32));
                for (relevant, rank) in query.relevant.iter().zip(ranks) {
                    let p = relevant.passage as usize;
                    let lang = set.passages[p].lang;
                    let same_language = candidates().filter(|&p| set.passages[p].lang == lang).collect();
                    assert_eq!(rank.lang, lang);
                    assert_eq!(rank.in_language, rank_by_sorting(scores, same_language, p));
                    assert_eq!(rank.pooled, rank_by_sorting(scores, candidates().collect(), p));
                }
            }
        }
    }

    #[test]
    fn a_large_pool_makes_low_blocks() {
        assert_eq!(block_rows(6), 256);
        assert_eq!(block_rows(1 << 20), 16);
    }

    #[test]
    fn a_broken_embedding_is_an_error_that_names_its_text() {
        let embeddings = Embeddings::new(2, vec![1.0, 0.0, 0.5, f32::NAN]);
        let texts = ["fine".to_owned(), "broken".to_owned()];
        let message = require_finite("query", &embeddings, 0, |i| &texts[i]).unwrap_err().to_string();
        assert!(message.starts_with("the embedding of query 1 (\"broken\") is not finite"), "{message}");
        assert!(require_finite("query", &Embeddings::new(1, vec![1.0]), 0, |i| &texts[i]).is_ok());
    }
}
