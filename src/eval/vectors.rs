//! Where the embeddings of an evaluation come from: a model, with those that were kept of it, or files.

use super::retrieval::{TaskKinds, Vectors};
use crate::backend::Backend;
use crate::data::collection::{Collection, Document};
use crate::dist::Peers;
use crate::npy::{NpyReader, NpyWriter};
use crate::progress::say;
use crate::retriever::among::require_same_texts;
use crate::retriever::encode::{Collapse, windows};
use crate::retriever::kept::{KeptEmbeddings, key};
use crate::retriever::{COLLAPSED, Embeddings, Retriever, RetrieverSettings, TextKind};
use crate::{Error, Result};
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

/// The embeddings of a model. A text that occurs again is embedded once, as long as embeddings are kept.
///
/// Of several processes each embeds a part of the texts, and all get everything. Only the first keeps and saves embeddings; from
/// it all get those that were kept.
pub struct ModelVectors<'a, B: Backend> {
    retriever: &'a Retriever<B>,
    peers: &'a Peers,
    kept: Option<KeptEmbeddings>,
    /// Where they are saved, if they are.
    directory: Option<PathBuf>,
    /// The file of the corpus that is being written.
    saving: Option<Rows>,
    counts: Counts,
    kinds: TaskKinds,
}

/// Numbers of texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that were asked for.
    pub n_texts: u64,
    /// Those that were embedded: the others were kept, or the same as another one.
    pub n_embedded: u64,
    /// Those among the embedded that were longer than the model reads.
    pub n_cut: u64,
}

impl<'a, B: Backend> ModelVectors<'a, B> {
    /// Of `retriever`, as all `peers` have it; `directory` is where they are also saved. What is kept and saved is the first
    /// process': others are given `None`.
    pub fn new(
        retriever: &'a Retriever<B>,
        peers: &'a Peers,
        kept: Option<KeptEmbeddings>,
        directory: Option<PathBuf>,
    ) -> Self {
        let RetrieverSettings { query, passage, .. } = &retriever.settings;
        let text = TextKind { prefix: String::new(), ..passage.clone() };
        let kinds = TaskKinds { query: query.clone(), document: passage.clone(), text };
        ModelVectors { retriever, peers, kept, directory, saving: None, counts: Counts::default(), kinds }
    }

    /// What was asked for so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The embeddings of each list of texts. A text that stands in an earlier list, too, is embedded again only where none is
    /// kept, as if each list came by itself.
    fn embed(&mut self, kind: &TextKind, lists: &[Vec<&str>]) -> Result<Vec<Embeddings>> {
        let dim = self.retriever.embedding_size();
        let texts = lists.concat();
        let keys: Vec<u128> = texts.iter().map(|text| key(kind, text)).collect();
        let mut values = vec![0.0; texts.len() * dim];
        let (missing, is_keeping) = self.missing(&keys, &mut values)?;
        // The place at which each text comes first.
        let mut firsts: HashMap<u128, usize> = HashMap::with_capacity(missing.len());
        let (mut new, mut again, mut of_new) = (Vec::new(), Vec::new(), Vec::new());
        let (mut missing, mut end) = (missing.into_iter().peekable(), 0);
        for list in lists {
            end += list.len();
            if !is_keeping {
                firsts.clear();
            }
            let n_before = new.len();
            while let Some(place) = missing.next_if(|place| *place < end) {
                match *firsts.entry(keys[place]).or_insert(place) {
                    first if first == place => new.push(place),
                    first => again.push((place, first)),
                }
            }
            of_new.extend(windows(n_before..new.len()));
        }
        self.embed_new(kind, &texts, &keys, (&new, &of_new), &mut values)?;
        for (place, first) in again {
            values.copy_within(first * dim..(first + 1) * dim, place * dim);
        }
        self.counts.n_texts += texts.len() as u64;
        let of_list = |list: &Vec<&str>| {
            let rest = values.split_off(list.len() * dim);
            Embeddings::new(dim, std::mem::replace(&mut values, rest))
        };
        Ok(lists.iter().map(of_list).collect())
    }

    /// Fills the rows of `values` whose texts have been embedded before, and returns the places of the others, and whether those
    /// will be kept. The first process knows, and tells all.
    fn missing(&mut self, keys: &[u128], values: &mut [f32]) -> Result<(Vec<usize>, bool)> {
        let (peers, dim) = (self.peers, self.retriever.embedding_size());
        let mut missing = match &mut self.kept {
            Some(kept) => kept.get(keys, values)?,
            None => (0..keys.len()).collect(),
        };
        let mut is_keeping = self.kept.as_ref().is_some_and(KeptEmbeddings::grows);
        if peers.size() == 1 {
            return Ok((missing, is_keeping));
        }
        require_same_texts(peers, xxh3_128(bytemuck::cast_slice(keys)))?;
        let told = [usize::from(is_keeping)].into_iter().chain(missing).map(|number| number as u64);
        let mut told: Vec<u8> = told.flat_map(u64::to_le_bytes).collect();
        peers.broadcast_bytes(0, &mut told)?;
        let mut numbers = told.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes) as usize);
        is_keeping = numbers.next() == Some(1);
        missing = numbers.collect();
        let others: HashSet<usize> = missing.iter().copied().collect();
        let known: Vec<usize> = (0..keys.len()).filter(|place| !others.contains(place)).collect();
        let rows = |place: &usize| place * dim..(place + 1) * dim;
        let mut rows_known: Vec<f32> = known.iter().flat_map(|place| &values[rows(place)]).copied().collect();
        peers.broadcast(0, &mut rows_known)?;
        for (place, row) in known.iter().zip(rows_known.chunks_exact(dim)) {
            values[rows(place)].copy_from_slice(row);
        }
        Ok((missing, is_keeping))
    }

    /// Embeds the texts at the places `new`, divided into windows, into their rows of `values`, and keeps them as they come.
    fn embed_new(
        &mut self,
        kind: &TextKind,
        texts: &[&str],
        keys: &[u128],
        (new, of_new): (&[usize], &[Range<usize>]),
        values: &mut [f32],
    ) -> Result<()> {
        let dim = self.retriever.embedding_size();
        let to_embed: Vec<&str> = new.iter().map(|&place| texts[place]).collect();
        let (mut n_done, kept) = (0, &mut self.kept);
        let sink = &mut |embeddings: Embeddings| {
            let places = &new[n_done..n_done + embeddings.n_rows()];
            for (&place, row) in places.iter().zip(embeddings.values().chunks_exact(dim)) {
                values[place * dim..(place + 1) * dim].copy_from_slice(row);
            }
            let keys: Vec<u128> = places.iter().map(|&place| keys[place]).collect();
            if let Some(why) = kept.as_mut().and_then(|kept| kept.add(&keys, embeddings.values())) {
                say(&format!("warning: {why}"));
            }
            n_done += embeddings.n_rows();
            Ok(())
        };
        let retriever = self.retriever;
        let summary = retriever.encode_these_among(self.peers, kind, &to_embed, of_new, &mut |_| {}, sink)?;
        self.counts.n_embedded += summary.n_texts;
        self.counts.n_cut += summary.n_cut;
        Ok(())
    }

    /// The embeddings of one list of texts.
    fn embed_one(&mut self, kind: &TextKind, texts: Vec<&str>) -> Result<Embeddings> {
        Ok(self.embed(kind, &[texts])?.remove(0))
    }
}

impl<B: Backend> Vectors for ModelVectors<'_, B> {
    fn begin(&mut self, kinds: &TaskKinds) {
        self.kinds = kinds.clone();
    }

    fn queries(&mut self, collection: &Collection, folder: &Path) -> Result<Embeddings> {
        let texts: Vec<&str> = collection.queries.iter().map(|query| query.text.as_str()).collect();
        let kind = self.kinds.query.clone();
        let embeddings = self.embed_one(&kind, texts)?;
        if let Some(directory) = &self.directory {
            let directory = directory.join(folder);
            std::fs::create_dir_all(&directory).map_err(|e| Error::io("create", &directory, e))?;
            let [of_queries, of_corpus] = file_names(&directory, &collection.subset);
            let mut queries = Rows::create(&of_queries, embeddings.dim())?;
            queries.write(collection.queries.iter().map(|query| query.row as u64), &embeddings)?;
            queries.finish(collection.n_query_rows as u64)?;
            self.saving = Some(Rows::create(&of_corpus, embeddings.dim())?);
        }
        Ok(embeddings)
    }

    fn documents(&mut self, windows: &[&[(u64, Document)]]) -> Result<Vec<Embeddings>> {
        let texts = windows.iter().map(|documents| documents.iter().map(|(_, document)| document.text.as_str()));
        let lists: Vec<Vec<&str>> = texts.map(Iterator::collect).collect();
        let kind = self.kinds.document.clone();
        let embeddings = self.embed(&kind, &lists)?;
        if let Some(saving) = &mut self.saving {
            for (documents, embeddings) in windows.iter().zip(&embeddings) {
                saving.write(documents.iter().map(|(row, _)| *row), embeddings)?;
            }
        }
        Ok(embeddings)
    }

    fn texts(&mut self, texts: &[&str]) -> Result<Embeddings> {
        let kind = self.kinds.text.clone();
        let embeddings = self.embed_one(&kind, texts.to_vec())?;
        let mut collapse = Collapse::default();
        collapse.look(texts.iter().copied(), &embeddings);
        if collapse.is_found() {
            say(&format!("warning: {COLLAPSED}"));
        }
        Ok(embeddings)
    }

    fn finish(&mut self, n_rows: u64) -> Result<()> {
        self.saving.take().map_or(Ok(()), |saving| saving.finish(n_rows))
    }
}

/// Names of a subset's files below a directory of embeddings: queries, corpus.
pub fn file_names(directory: &Path, subset: &str) -> [PathBuf; 2] {
    ["queries", "corpus"].map(|side| directory.join(format!("{subset}.{side}.npy")))
}

/// A file with a row for each row of the data; those that nobody asked for are NaN.
struct Rows {
    file: NpyWriter,
    dim: usize,
    n_rows: u64,
}

impl Rows {
    fn create(path: &Path, dim: usize) -> Result<Self> {
        Ok(Rows { file: NpyWriter::create(path, dim)?, dim, n_rows: 0 })
    }

    fn write(&mut self, rows: impl Iterator<Item = u64>, embeddings: &Embeddings) -> Result<()> {
        for (row, values) in rows.zip(embeddings.values().chunks_exact(self.dim)) {
            self.skip_to(row)?;
            self.file.write_rows(values)?;
            self.n_rows += 1;
        }
        Ok(())
    }

    fn skip_to(&mut self, row: u64) -> Result<()> {
        while self.n_rows < row {
            self.file.write_rows(&vec![f32::NAN; self.dim])?;
            self.n_rows += 1;
        }
        Ok(())
    }

    fn finish(mut self, n_rows: u64) -> Result<()> {
        self.skip_to(n_rows)?;
        self.file.finish()
    }
}

/// Embeddings in files, made by whomever.
pub struct FileVectors {
    directory: PathBuf,
    corpus: Option<(PathBuf, NpyReader)>,
}

impl FileVectors {
    /// Of `directory`, which has `SUBSET.queries.npy` and `SUBSET.corpus.npy`, a row for each row of the data.
    pub fn new(directory: &Path) -> Self {
        FileVectors { directory: directory.to_owned(), corpus: None }
    }
}

impl Vectors for FileVectors {
    fn queries(&mut self, collection: &Collection, folder: &Path) -> Result<Embeddings> {
        let [of_queries, of_corpus] = file_names(&self.directory.join(folder), &collection.subset);
        let mut queries = NpyReader::open(&of_queries)?;
        require_rows(&of_queries, &queries, collection.n_query_rows as u64, "query")?;
        let corpus = NpyReader::open(&of_corpus)?;
        if corpus.dim() != queries.dim() {
            let message = format!("has rows of {}, and those of the queries have {}", corpus.dim(), queries.dim());
            return Err(Error::file(of_corpus, message));
        }
        let rows = collection.queries.iter().map(|query| query.row as u64);
        let embeddings = read(&mut queries, rows)?;
        self.corpus = Some((of_corpus, corpus));
        Ok(embeddings)
    }

    fn documents(&mut self, windows: &[&[(u64, Document)]]) -> Result<Vec<Embeddings>> {
        let (_, corpus) = self.corpus.as_mut().expect("the queries of a collection come first");
        windows.iter().map(|documents| read(corpus, documents.iter().map(|(row, _)| *row))).collect()
    }

    fn texts(&mut self, _: &[&str]) -> Result<Embeddings> {
        let message =
            "has embeddings of queries and documents, and this task is of pairs of texts; take it from --task";
        Err(Error::file(&self.directory, message))
    }

    fn finish(&mut self, n_rows: u64) -> Result<()> {
        let Some((path, corpus)) = self.corpus.take() else { return Ok(()) };
        require_rows(&path, &corpus, n_rows, "document")
    }
}

fn require_rows(path: &Path, file: &NpyReader, n_rows: u64, what: &str) -> Result<()> {
    if file.n_rows() == n_rows {
        return Ok(());
    }
    let message = format!("has {} rows; the data has {n_rows}, and each {what} has its row", file.n_rows());
    Err(Error::file(path, message))
}

/// Rows of a file, ascending; those that follow one another are read at once.
fn read(file: &mut NpyReader, rows: impl Iterator<Item = u64>) -> Result<Embeddings> {
    let rows: Vec<u64> = rows.collect();
    let mut values = Vec::with_capacity(rows.len() * file.dim());
    for run in rows.chunk_by(|a, b| *b == *a + 1) {
        file.read_rows(run[0], run.len(), &mut values)?;
    }
    Ok(Embeddings::new(file.dim(), values))
}
