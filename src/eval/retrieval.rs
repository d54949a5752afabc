//! Retrieval over a corpus of any size: one subset of a task, from its texts to what each query found.

use super::mteb::numbers::Outcome;
use super::top::{Found, TopSearch};
use crate::ahead::Ahead;
use crate::backend::Backend;
use crate::data::collection::{Collection, Document, Documents, JudgedQuery};
use crate::data::formats::Notes;
use crate::dist::Peers;
use crate::retriever::encode::{Collapse, normalize};
use crate::retriever::{Embeddings, TextKind};
use crate::{Error, Result};
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::Path;

/// Documents that are read, embedded and searched together, while the next ones are read.
const WINDOW: usize = 8192;
/// Documents that a ranking holds, as mteb's.
pub const KEEP: usize = 1000;

/// How the texts of a task are embedded: queries, documents, and texts that are on no side of a search.
#[derive(Clone, Debug)]
pub struct TaskKinds {
    /// Queries.
    pub query: TextKind,
    /// Documents.
    pub document: TextKind,
    /// Texts of pairs.
    pub text: TextKind,
}

/// Where embeddings come from.
pub trait Vectors {
    /// Called before a task whose texts are embedded like this; what is embedded already stays as it is.
    fn begin(&mut self, _: &TaskKinds) {}

    /// One embedding for each query of a collection, in its order. Its documents are asked for next. In files, embeddings are
    /// in `folder`, a path below the directory of all.
    ///
    /// # Errors
    /// If they cannot be made or read.
    fn queries(&mut self, collection: &Collection, folder: &Path) -> Result<Embeddings>;

    /// One embedding for each document of some windows, given with their rows in the corpus, ascending from call to call.
    ///
    /// # Errors
    /// If they cannot be made or read.
    fn documents(&mut self, windows: &[&[(u64, Document)]]) -> Result<Vec<Embeddings>>;

    /// One embedding for each of some texts that are on no side of a search.
    ///
    /// # Errors
    /// If they cannot be made or read.
    fn texts(&mut self, texts: &[&str]) -> Result<Embeddings>;

    /// Called when all documents of a corpus of `n_rows` rows have been asked for.
    ///
    /// # Errors
    /// If there were others, or what was made of them cannot be written.
    fn finish(&mut self, n_rows: u64) -> Result<()>;
}

/// What a search came to.
pub struct Searched {
    /// The best documents of each query.
    pub found: Found,
    /// What there is to say of the documents.
    pub notes: Notes,
    /// Whether documents that differ all have the same embedding, see [`COLLAPSED`](crate::retriever::COLLAPSED).
    pub is_collapsed: bool,
}

/// Ranks the corpus of a collection for each of its queries by the cosines of embeddings, in f32; `folder` is that of
/// [`Vectors::queries`]. All `peers` do it together, and all get everything. `progress` is called with the share of the corpus
/// that is done.
///
/// # Errors
/// Texts that cannot be read, embeddings that are not finite, a device without memory, a process that is gone.
pub fn search<B: Backend<E = f32>>(
    backend: &B,
    peers: &Peers,
    collection: &Collection,
    folder: &Path,
    vectors: &mut dyn Vectors,
    progress: &mut dyn FnMut(f64),
) -> Result<Searched> {
    let queries = unit(vectors.queries(collection, folder)?, |query| &collection.queries[query].id, "query")?;
    let lists = collection.queries.iter().map(|query| query.candidates.as_deref());
    // A query without candidates, where others have some, finds nothing.
    let has_candidates = lists.clone().any(|list| list.is_some());
    let lists: Option<Vec<&[String]>> = has_candidates.then(|| lists.map(Option::unwrap_or_default).collect());
    let mut search = TopSearch::new(backend, peers, queries, KEEP, lists.as_deref())?;
    let n_bytes = collection.n_bytes()?.max(1) as f64;
    let windows = Windows { documents: collection.documents(), has_ended: false };
    let (mut n_rows, mut notes, mut collapse) = (0, Notes::default(), Collapse::default());
    let mut windows = Ahead::start("documents", peers.size(), windows)?;
    loop {
        // Several processes have something to do for as many windows.
        let mut group = windows.by_ref().take(peers.size()).collect::<Result<Vec<Window>>>()?;
        group.iter_mut().for_each(|window| window.documents.retain(|(_, document)| search.wants(&document.id)));
        let asked: Vec<_> =
            group.iter().map(|of| &of.documents[..]).filter(|documents| !documents.is_empty()).collect();
        let embeddings = if asked.is_empty() { Vec::new() } else { vectors.documents(&asked)? };
        for (documents, embeddings) in asked.into_iter().zip(embeddings) {
            let embeddings = unit(embeddings, |document| &documents[document].1.id, "document")?;
            collapse.look(documents.iter().map(|(_, document)| document.text.as_str()), &embeddings);
            search.add(documents.iter().map(|(_, document)| document.id.as_str()), &embeddings)?;
        }
        let Some(last) = group.pop() else { break };
        progress(last.n_bytes_done as f64 / n_bytes);
        (n_rows, notes) = (last.n_rows, last.notes);
    }
    vectors.finish(n_rows)?;
    Ok(Searched { found: search.finish()?, notes, is_collapsed: collapse.is_found() })
}

/// Documents that are embedded and searched together.
struct Window {
    /// With their rows in the corpus.
    documents: Vec<(u64, Document)>,
    /// What has been read of the corpus, these included.
    n_rows: u64,
    n_bytes_done: u64,
    /// Complete in the last window.
    notes: Notes,
}

/// A corpus, window by window.
struct Windows {
    documents: Documents,
    has_ended: bool,
}

impl Windows {
    fn read(&mut self) -> Result<Window> {
        let mut documents = Vec::with_capacity(WINDOW);
        while documents.len() < WINDOW {
            match self.documents.next().transpose()? {
                Some(document) => documents.push((self.documents.n_rows() - 1, document)),
                None => {
                    self.has_ended = true;
                    break;
                }
            }
        }
        let (n_rows, n_bytes_done) = (self.documents.n_rows(), self.documents.n_bytes_done());
        Ok(Window { documents, n_rows, n_bytes_done, notes: self.documents.notes().clone() })
    }
}

impl Iterator for Windows {
    type Item = Result<Window>;

    fn next(&mut self) -> Option<Result<Window>> {
        (!self.has_ended).then(|| self.read().inspect_err(|_| self.has_ended = true))
    }
}

/// Embeddings at unit length, computed in f32; the smallest length that is divided by is mteb's.
///
/// # Errors
/// One that is not finite, named by what it is of.
pub fn unit<'a>(embeddings: Embeddings, id: impl Fn(usize) -> &'a String, what: &str) -> Result<Embeddings> {
    let dim = embeddings.dim();
    let mut values = embeddings.into_values();
    values.par_chunks_exact_mut(dim).for_each(normalize);
    match values.par_chunks_exact(dim).position_first(|row| !row.iter().all(|x| x.is_finite())) {
        None => Ok(Embeddings::new(dim, values)),
        Some(row) => Err(Error::other(format!(
            "the embedding of {what} {:?} is not finite, so nothing can be ranked: the model's weights are broken, or the file \
             of embeddings is",
            id(row)
        ))),
    }
}

/// What each query of a collection found, for metrics.
pub fn outcomes(collection: &Collection, found: &Found, ignores_identical_ids: bool) -> Vec<Outcome> {
    let of = |(number, query)| outcome(query, ranking(query, found, number, ignores_identical_ids));
    collection.queries.par_iter().enumerate().map(of).collect()
}

/// What a ranking found of the documents that were judged for a query.
pub(super) fn outcome<'a>(query: &JudgedQuery, ranking: impl Iterator<Item = (&'a str, f32)>) -> Outcome {
    let positive = |grade: i32| u32::try_from(grade).ok().filter(|grade| *grade > 0);
    let grades = query.judgements.iter().filter_map(|(id, grade)| Some((id.as_str(), positive(*grade)?)));
    let grades: HashMap<&str, u32> = grades.collect();
    let (ids, scores): (Vec<&str>, Vec<f32>) = ranking.unzip();
    let found = ids.iter().zip(1..).filter_map(|(id, rank)| Some((rank, *grades.get(id)?))).collect();
    Outcome { scores, found, relevant: grades.into_values().collect() }
}

/// Ids and scores of the documents that query `number` of a collection ranks, best first. A document with the query's own id
/// is left out after the cut, as mteb does, where a task says so.
pub fn ranking<'a>(
    query: &'a JudgedQuery,
    found: &'a Found,
    number: usize,
    ignores_identical_ids: bool,
) -> impl Iterator<Item = (&'a str, f32)> {
    found.of(number).filter(move |(id, _)| !(ignores_identical_ids && *id == query.id))
}
