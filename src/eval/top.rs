//! Exact search of a corpus that comes in windows: the best documents of each query, whatever the size of the corpus.
//!
//! Of the corpus, memory holds one window's embeddings, a block of scores, and for each query the best documents so far; no
//! score is computed twice, and none is left out.
//!
//! **Ties** are broken as mteb and trec_eval do: of two documents with equal scores the one with the larger id ranks higher,
//! compared as UTF-8 bytes ("d9" before "d10"). [`super::search`], which needs no ids, goes by the order of the data.
//!
//! Embeddings and scores are f32, whatever the model computes in, as in mteb.
//!
//! Of several processes each searches for every so many blocks of queries, in the shapes of one process.

mod ids;

use crate::backend::{Backend, Gemm, Tensor};
use crate::dist::Peers;
use crate::retriever::Embeddings;
use crate::{Result, trace};
use ids::Ids;
use rayon::prelude::*;
use std::collections::HashMap;

/// Queries in one product: enough rows for what it costs to prepare the documents.
const BLOCK_QUERIES: usize = 512;
/// Documents in one product, so that a block of scores (2 MB) is still near when it is looked through.
const BLOCK_DOCUMENTS: usize = 1024;
/// Scores of which one comparison says that none is good enough.
const STRIDE: usize = 64;
/// Bytes of ids, above which those of documents that are out of the running are forgotten.
const MOST_IDS: usize = 64 << 20;

/// A document's score and its number: its place in the corpus.
type Scored = (f32, u32);

/// Queries that search a corpus as it comes.
pub struct TopSearch<'a, B: Backend<E = f32>> {
    backend: &'a B,
    peers: &'a Peers,
    n_queries: usize,
    /// Blocks of this process' own queries.
    queries: Vec<Tensor<B, f32>>,
    /// For each document that is a candidate of any query, the own queries that it is one of; without it every document is one of
    /// every query.
    candidates: Option<HashMap<String, Vec<u32>>>,
    /// Embeddings of the own queries.
    values: Embeddings,
    documents: Tensor<B, f32>,
    scores: Tensor<B, f32>,
    on_host: Vec<f32>,
    best: Vec<Best>,
    ids: Ids,
    /// [`MOST_IDS`], but in tests.
    most_ids: usize,
    n_documents: u32,
}

/// The best documents of each query.
pub struct Found {
    /// Best first.
    best: Vec<Vec<Scored>>,
    ids: Ids,
    /// Number of documents that were searched.
    pub n_documents: u32,
}

impl Found {
    /// Ids and scores of a query's documents, best first.
    pub fn of(&self, query: usize) -> impl Iterator<Item = (&str, f32)> {
        self.best[query].iter().map(|&(score, number)| (self.ids.get(number), score))
    }
}

impl<'a, B: Backend<E = f32>> TopSearch<'a, B> {
    /// Begins a search for the best `keep` documents of each of `queries`, which are to be finite; all `peers` begin the same.
    /// With `candidates`, the ids of documents by query, each query ranks its own candidates alone.
    ///
    /// # Errors
    /// A device without memory.
    pub fn new(
        backend: &'a B,
        peers: &'a Peers,
        queries: Embeddings,
        keep: usize,
        candidates: Option<&[&[String]]>,
    ) -> Result<Self> {
        let (dim, n_queries) = (queries.dim(), queries.n_rows());
        let values = own(peers, queries);
        let blocks = values
            .values()
            .chunks(BLOCK_QUERIES * dim)
            .map(|block| Tensor::from_slice(backend, block, &[block.len() / dim, dim]));
        let of_documents = candidates.map(|candidates| {
            let mut of_documents: HashMap<String, Vec<u32>> = HashMap::new();
            let mut own = 0..;
            for (number, block) in candidates.chunks(BLOCK_QUERIES).enumerate() {
                let is_own = number % peers.size() == peers.rank();
                for ids in block {
                    let query = is_own.then(|| own.next()).flatten();
                    ids.iter().for_each(|id| of_documents.entry(id.clone()).or_default().extend(query));
                }
            }
            of_documents
        });
        Ok(TopSearch {
            queries: blocks.collect::<Result<_>>()?,
            candidates: of_documents,
            documents: Tensor::zeros(backend, &[BLOCK_DOCUMENTS, dim])?,
            scores: Tensor::zeros(backend, &[0, BLOCK_DOCUMENTS])?,
            on_host: Vec::new(),
            best: (0..values.n_rows())
                .map(|_| Best { keep, threshold: f32::NEG_INFINITY, found: Vec::new() })
                .collect(),
            ids: Ids::default(),
            most_ids: MOST_IDS,
            n_documents: 0,
            values,
            n_queries,
            peers,
            backend,
        })
    }

    /// Whether a document can be in any ranking, so that it has to be embedded.
    pub fn wants(&self, id: &str) -> bool {
        self.candidates.as_ref().is_none_or(|of_documents| of_documents.contains_key(id))
    }

    /// Searches the next documents of the corpus, with one id and one finite embedding each.
    ///
    /// # Errors
    /// If the device fails.
    ///
    /// # Panics
    /// Above 4,294,967,295 documents.
    pub fn add<'b>(&mut self, ids: impl Iterator<Item = &'b str>, embeddings: &Embeddings) -> Result<()> {
        let _range = trace::phase("search");
        assert_eq!(embeddings.dim(), self.values.dim(), "queries and documents share a space");
        let n = u32::try_from(embeddings.n_rows()).ok().and_then(|n| self.n_documents.checked_add(n));
        let first = std::mem::replace(&mut self.n_documents, n.expect("documents are counted by u32"));
        ids.for_each(|id| self.ids.push(id));
        assert_eq!(self.ids.n(), self.n_documents, "one id a document");
        if let Some(candidates) = &self.candidates {
            for (document, number) in embeddings.values().chunks_exact(embeddings.dim()).zip(first..) {
                for &query in candidates.get(self.ids.get(number)).into_iter().flatten() {
                    let score = dot(self.values.row(query as usize), document);
                    self.best[query as usize].look(&[score], number, &self.ids);
                }
            }
        } else {
            let blocks = embeddings.values().chunks(BLOCK_DOCUMENTS * embeddings.dim());
            for (block, first) in blocks.zip((first..).step_by(BLOCK_DOCUMENTS)) {
                self.add_block(block, first)?;
            }
        }
        if self.ids.n_bytes() > self.most_ids {
            self.ids.keep(self.best.iter().flat_map(|best| &best.found).map(|(_, number)| *number).collect());
        }
        Ok(())
    }

    /// Searches some documents, of which the first is number `first`.
    fn add_block(&mut self, documents: &[f32], first: u32) -> Result<()> {
        self.documents.assign(self.backend, documents)?;
        let n = self.documents.rows();
        for (queries, best) in self.queries.iter().zip(self.best.chunks_mut(BLOCK_QUERIES)) {
            self.scores.resize_matrix(self.backend, queries.rows(), n)?;
            self.backend.gemm_f32(Gemm {
                a: queries,
                trans_a: false,
                b: &self.documents,
                trans_b: true,
                bias: None,
                out: &mut self.scores,
                accumulate: false,
            })?;
            let scores = match self.backend.in_place(self.scores.buffer()) {
                Some(scores) => &scores[..self.scores.len()],
                None => {
                    self.scores.read_into(self.backend, &mut self.on_host)?;
                    &self.on_host
                }
            };
            let rows = scores.par_chunks_exact(n).zip(best);
            rows.for_each(|(scores, best)| best.look(scores, first, &self.ids));
        }
        Ok(())
    }

    /// What all have found.
    ///
    /// # Errors
    /// A process that is gone.
    pub fn finish(self) -> Result<Found> {
        let TopSearch { mut best, ids, n_documents, n_queries, peers, .. } = self;
        best.par_iter_mut().for_each(|best| best.sort(&ids));
        let own: Vec<Vec<Scored>> = best.into_iter().map(|best| best.found).collect();
        if peers.size() == 1 {
            return Ok(Found { best: own, ids, n_documents });
        }
        let ids = ids.of_all(peers, own.iter().flatten().map(|(_, number)| *number).collect())?;
        let mut own = own.chunks(BLOCK_QUERIES);
        let of_blocks = peers.dealt(n_queries.div_ceil(BLOCK_QUERIES), |_| {
            let block = own.next().unwrap_or_default().iter();
            let numbers = |(score, number): &Scored| [score.to_bits(), *number];
            Ok(block.flat_map(|of| std::iter::once([of.len() as u32; 2]).chain(of.iter().map(numbers))).collect())
        })?;
        let mut numbers = of_blocks.into_iter().flatten();
        let mut of_query = || {
            let [n, _] = numbers.next().expect("numbers of every query");
            numbers.by_ref().take(n as usize).map(|[score, number]| (f32::from_bits(score), number)).collect()
        };
        Ok(Found { best: (0..n_queries).map(|_| of_query()).collect(), ids, n_documents })
    }
}

/// The blocks of queries that this process searches for, end to end.
fn own(peers: &Peers, queries: Embeddings) -> Embeddings {
    if peers.size() == 1 {
        return queries;
    }
    let blocks = queries.values().chunks(BLOCK_QUERIES * queries.dim()).skip(peers.rank()).step_by(peers.size());
    Embeddings::new(queries.dim(), blocks.flatten().copied().collect())
}

/// For each of `queries` the number of the document with the largest dot product; of several the last. All `peers` ask for the
/// same.
///
/// # Errors
/// A device without memory; a process that is gone.
pub fn nearest<B: Backend<E = f32>>(
    backend: &B,
    peers: &Peers,
    queries: Embeddings,
    documents: &Embeddings,
) -> Result<Vec<u32>> {
    let mut search = TopSearch::new(backend, peers, queries, 1, None)?;
    // Without ids, equal scores go by the number.
    search.add((0..documents.n_rows()).map(|_| ""), documents)?;
    let found = search.finish()?;
    Ok(found.best.iter().map(|best| best.first().map_or(0, |(_, number)| *number)).collect())
}

/// The best documents of one query so far, and some that are not among them any more.
struct Best {
    keep: usize,
    /// Score below which a document is not among the best.
    threshold: f32,
    found: Vec<Scored>,
}

impl Best {
    /// Looks at the scores of documents, of which the first is number `first`.
    fn look(&mut self, scores: &[f32], first: u32, ids: &Ids) {
        for (stride, start) in scores.chunks(STRIDE).zip((first..).step_by(STRIDE)) {
            let largest = stride.iter().fold(f32::NEG_INFINITY, |largest, &s| if s > largest { s } else { largest });
            if largest >= self.threshold {
                let good = stride.iter().zip(start..).filter(|(score, _)| **score >= self.threshold);
                self.found.extend(good.map(|(score, number)| (*score, number)));
            }
        }
        if self.found.len() > self.keep + self.keep / 2 {
            self.cut(ids);
        }
    }

    /// Forgets all but the best.
    fn cut(&mut self, ids: &Ids) {
        if let Some(last) = self.keep.checked_sub(1).filter(|last| *last < self.found.len()) {
            let (_, &mut (score, _), _) = self.found.select_nth_unstable_by(last, |a, b| ids.rank(a, b));
            self.threshold = score;
        }
        self.found.truncate(self.keep);
    }

    fn sort(&mut self, ids: &Ids) {
        self.cut(ids);
        self.found.sort_unstable_by(|a, b| ids.rank(a, b));
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Cpu;

    const DIM: usize = 5;

    /// Small integers, so that scores are exact and tie often.
    fn values(state: &mut u64, n: usize) -> Vec<f32> {
        let mut next = || {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*state >> 33) % 5
        };
        (0..n * DIM).map(|_| next() as f32 - 2.0).collect()
    }

    /// Each ranking from all scores, sorted.
    fn naive(queries: &[f32], documents: &[f32], ids: &[String], keep: usize) -> Vec<Vec<(String, f32)>> {
        let of = |query: &[f32]| {
            let score = |document: &[f32]| query.iter().zip(document).map(|(a, b)| a * b).sum::<f32>();
            let mut all: Vec<_> = ids.iter().cloned().zip(documents.chunks(DIM).map(score)).collect();
            all.sort_by(|(x, a), (y, b)| b.partial_cmp(a).unwrap().then(y.as_bytes().cmp(x.as_bytes())));
            all.truncate(keep);
            all
        };
        queries.chunks(DIM).map(of).collect()
    }

    fn rankings(found: &Found, n_queries: usize) -> Vec<Vec<(String, f32)>> {
        (0..n_queries).map(|query| found.of(query).map(|(id, score)| (id.to_owned(), score)).collect()).collect()
    }

    #[test]
    fn agrees_with_sorting_whatever_the_windows() {
        let mut state = 3;
        let (n_queries, n) = (BLOCK_QUERIES + 3, BLOCK_DOCUMENTS + 300);
        let (queries, documents) = (values(&mut state, n_queries), values(&mut state, n));
        let ids: Vec<String> = (0..n).map(|i| format!("d{}", i * 7919 % n)).collect();
        for keep in [1, 10, n + 5] {
            let expected = naive(&queries, &documents, &ids, keep);
            for (window, most_ids) in [(n, MOST_IDS), (700, MOST_IDS), (97, 200)] {
                let all = Embeddings::new(DIM, queries.clone());
                let (backend, peers) = (Cpu::<f32>::new(), Peers::alone());
                let mut search = TopSearch::new(&backend, &peers, all, keep, None).unwrap();
                search.most_ids = most_ids;
                for (ids, documents) in ids.chunks(window).zip(documents.chunks(window * DIM)) {
                    let window = Embeddings::new(DIM, documents.to_vec());
                    search.add(ids.iter().map(String::as_str), &window).unwrap();
                }
                let found = search.finish().unwrap();
                assert_eq!(found.n_documents as usize, n);
                assert!(rankings(&found, n_queries) == expected, "keep {keep}, windows of {window}");
            }
        }
    }

    #[test]
    fn candidates_alone_are_ranked() {
        let mut state = 5;
        let (queries, documents) = (values(&mut state, 3), values(&mut state, 40));
        let ids: Vec<String> = (0..40).map(|i| i.to_string()).collect();
        let of = |numbers: &[usize]| numbers.iter().map(usize::to_string).collect::<Vec<_>>();
        let candidates = [of(&[3, 17, 39, 99]), of(&[]), of(&[3, 4])];
        let lists: Vec<&[String]> = candidates.iter().map(Vec::as_slice).collect();
        let all = Embeddings::new(DIM, queries.clone());
        let (backend, peers) = (Cpu::<f32>::new(), Peers::alone());
        let mut search = TopSearch::new(&backend, &peers, all, 2, Some(&lists)).unwrap();
        assert!(search.wants("17") && !search.wants("5"));
        search.add(ids.iter().map(String::as_str), &Embeddings::new(DIM, documents.clone())).unwrap();
        let found = rankings(&search.finish().unwrap(), 3);
        for ((found, candidates), whole) in found.iter().zip(&candidates).zip(naive(&queries, &documents, &ids, 40)) {
            let mut expected: Vec<_> = whole.into_iter().filter(|(id, _)| candidates.contains(id)).collect();
            expected.truncate(2);
            assert_eq!(*found, expected);
        }
    }

    #[test]
    fn zeros_of_both_signs_tie() {
        let (backend, peers) = (Cpu::<f32>::new(), Peers::alone());
        let mut search = TopSearch::new(&backend, &peers, Embeddings::new(1, vec![1.0]), 3, None).unwrap();
        search.add(["b", "a", "c"].into_iter(), &Embeddings::new(1, vec![-0.0, 0.0, -0.0])).unwrap();
        let found = search.finish().unwrap();
        assert_eq!(found.of(0).map(|(id, _)| id).collect::<Vec<_>>(), ["c", "b", "a"]);
    }
}
