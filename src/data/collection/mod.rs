//! Retrieval tasks on disk: queries, a corpus that is streamed, and judgements, in the layouts of BEIR, of the hub's data
//! sets and of MIRACL.
//!
//! [`open`] finds the subsets of a directory (languages, pairs of them) and their splits; [`Collections::load`] reads the
//! queries and judgements of one, and [`Collection::documents`] goes through its corpus. What is read is what mteb reads:
//!
//! - Queries are those with a row in the judgements, were it of grade 0. Of several grades of one document the last holds.
//! - A document is title, a space, text, stripped. A title that is missing or null is none; a text that is null is an error.
//! - Judgements may name documents that are not in the corpus: they count as relevant and never found. They may name queries
//!   that are not there, which do not count. Both are noted.
//! - Of documents with one id and the same text, one counts; with different texts they are an error.
//! - Of each config of the hub, the split that is asked for is taken, or else its only one, whatever its name.

mod belebele;
mod bible_nlp;
mod cell;
mod clsd;
mod cure;
mod documents;
mod judgements;
mod layout;
mod numpy;
mod pairs;
mod parquet;
mod public_health;
mod queries;
mod splits;
mod stratified;
mod table;
mod xnli;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::formats::files::{self, DataFile};
use super::formats::{Note, Notes};
use crate::error::listed;
use crate::{Error, Result};
use documents::Corpus;
use layout::{MIRACL, Part, Parts, Subsets, split_or_only};

pub use belebele::{Belebele, Question};
pub use bible_nlp::{bible_nlp, bible_nlp_config};
pub use clsd::{clsd, clsd_config};
pub use documents::{Document, Documents};
pub use pairs::{PairColumns, Pairs, Tables};
pub use public_health::public_health;
pub use queries::JudgedQuery;
pub use splits::splits_meant;
pub use xnli::xnli;

/// Name of the subset of a task that has no others.
pub const DEFAULT_SUBSET: &str = "default";

/// The subsets that a directory holds.
#[derive(Debug)]
pub struct Collections {
    root: PathBuf,
    subsets: Subsets,
    notes: Notes,
}

/// One subset of a retrieval task in one split.
#[derive(Debug)]
pub struct Collection {
    /// [`DEFAULT_SUBSET`] where there are no others.
    pub subset: String,
    /// The split as it was asked for.
    pub split: String,
    /// Those with a row in the judgements, in the order of the file; at least one.
    pub queries: Vec<JudgedQuery>,
    /// Rows of the file of queries, judged or not.
    pub n_query_rows: usize,
    /// Of tasks with changed instructions, the documents by query whose judgement the change turns; the config `qrel_diff`.
    pub changes: Option<HashMap<String, Vec<String>>>,
    /// What was left out or mended; what there is to say of documents, [`Documents::notes`] says.
    pub notes: Notes,
    corpus: Corpus,
}

/// Finds the subsets in a directory, and the splits of each.
///
/// # Errors
/// No directory, or none with corpus, queries and judgements of any subset.
pub fn open(path: &Path) -> Result<Collections> {
    let found = files::walk(path)?.files;
    // Its real name may tell the language, and "." does not.
    let real = path.canonicalize().map_err(|e| Error::io("read", path, e))?;
    let mut subsets = layout::subsets(&files::file_name(&real), found);
    if subsets.values().all(|parts| missing(parts).is_some()) {
        add_from_beside(&real, &mut subsets)?;
    }
    Collections::new(path, subsets)
}

/// MIRACL's corpus and its topics are two data sets, which lie beside one another once they are fetched: what the subsets
/// of one lack is taken from the other.
fn add_from_beside(root: &Path, subsets: &mut Subsets) -> Result<()> {
    for folder in root.ancestors().skip(1).take(2) {
        for beside in files::entries(folder)? {
            let name = files::file_name(&beside);
            if !name.starts_with(MIRACL) || root.starts_with(&beside) || !beside.is_dir() {
                continue;
            }
            for (subset, parts) in layout::subsets(&name, files::walk(&beside)?.files) {
                let Some(own) = subsets.get_mut(&subset) else { continue };
                parts.into_iter().for_each(|(part, splits)| _ = own.entry(part).or_insert(splits));
            }
        }
    }
    Ok(())
}

impl Collections {
    /// The subsets in files of these names below `root`, which need not be there before they are loaded.
    ///
    /// # Errors
    /// No subset has corpus, queries and judgements.
    pub fn of_names<'a>(root: &Path, names: impl IntoIterator<Item = &'a str>) -> Result<Collections> {
        Collections::new(root, layout::subsets(&files::file_name(root), layout::of_names(root, names)))
    }

    fn new(root: &Path, mut subsets: Subsets) -> Result<Collections> {
        let mut notes = Notes::default();
        let mut first = None;
        subsets.retain(|name, parts| match missing(parts) {
            None => true,
            Some(part) => {
                let why = format!("subset {} left out: it has no {}", shown(name), part.name());
                first.get_or_insert_with(|| why.clone());
                notes.add(Note::Part(why), 1);
                false
            }
        });
        if subsets.is_empty() {
            let why = first.map_or(String::new(), |why| format!(" ({why})"));
            return Err(Error::file(
                root,
                format!(
                    "no retrieval task here{why}; expected corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv, the folders \
                     of a data set of the hub (corpus, queries, qrels or SUBSET-corpus, ...), or MIRACL's files"
                ),
            ));
        }
        Ok(Collections { root: root.to_owned(), subsets, notes })
    }

    /// The names of the subsets that are complete, in alphabetical order.
    pub fn subsets(&self) -> impl Iterator<Item = &str> {
        self.subsets.keys().map(|name| shown(name))
    }

    /// The splits that a subset has judgements for; `test` if its files do not name any.
    ///
    /// # Errors
    /// No such subset.
    pub fn splits(&self, subset: &str) -> Result<Vec<&str>> {
        let parts = self.parts(subset)?;
        Ok(parts[&Part::Judgements].keys().map(String::as_str).collect())
    }

    /// Subsets that were left out.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// The names of the files that [`load`](Collections::load) and [`Collection::documents`] read, below the directory.
    ///
    /// # Errors
    /// No such subset or split.
    pub fn files(&self, subset: &str, split: &str) -> Result<Vec<&str>> {
        let parts = self.parts(subset)?;
        let mut names = Vec::new();
        for part in parts.keys() {
            names.extend(self.of_split(subset, *part, split)?.1.iter().map(|file| file.name.as_str()));
        }
        Ok(names)
    }

    /// Reads queries and judgements of a subset. The corpus is left alone.
    ///
    /// # Errors
    /// No such subset or split; a file that cannot be read or does not hold what it should; no query that is judged.
    pub fn load(&self, subset: &str, split: &str) -> Result<Collection> {
        let parts = self.parts(subset)?;
        let of = |part: Part| -> Result<Vec<Arc<DataFile>>> {
            Ok(self.of_split(subset, part, split)?.1.iter().cloned().map(Arc::new).collect())
        };
        let of_optional = |part: Part| parts.contains_key(&part).then(|| of(part)).transpose();
        let mut notes = Notes::default();
        let (judged_split, _) = self.of_split(subset, Part::Judgements, split)?;
        if judged_split != split {
            notes.add(Note::Part(format!("judgements of split {judged_split} for {split}: there are no others")), 1);
        }
        let mut judged = judgements::judgements(&of(Part::Judgements)?, &mut notes)?;
        let mut candidates = of_optional(Part::TopRanked)?.map(|files| judgements::candidates(&files)).transpose()?;
        let instructions = of_optional(Part::Instructions)?.map(|files| queries::instructions(&files)).transpose()?;
        let files = of(Part::Queries)?;
        let (queries, n_query_rows) =
            queries::queries(&files, &mut judged, &mut candidates, instructions.as_ref(), &mut notes)?;
        if queries.is_empty() {
            let path = files.first().map_or(&self.root, |file| &file.path);
            let message = format!(
                "none of its {n_query_rows} queries has a judgement in split {split} of subset {subset}; the ids have to be \
                 those of the judgements"
            );
            return Err(Error::file(path, message));
        }
        Ok(Collection {
            subset: subset.to_owned(),
            split: split.to_owned(),
            queries,
            n_query_rows,
            changes: of_optional(Part::Changes)?.map(|files| judgements::candidates(&files)).transpose()?,
            notes,
            corpus: Corpus::Files(of(Part::Corpus)?),
        })
    }

    fn parts(&self, subset: &str) -> Result<&Parts> {
        let name = if subset == DEFAULT_SUBSET && self.subsets.contains_key("") { "" } else { subset };
        self.subsets.get(name).ok_or_else(|| {
            let there: Vec<String> = self.subsets().map(str::to_owned).collect();
            Error::file(&self.root, format!("no subset {subset} here; there is {}", listed(&there)))
        })
    }

    /// The files of a part in a split, and the split's own name.
    fn of_split(&self, subset: &str, part: Part, split: &str) -> Result<(&str, &[DataFile])> {
        let splits = self.parts(subset)?.get(&part);
        splits.and_then(|splits| split_or_only(splits, split)).ok_or_else(|| {
            let there: Vec<String> = splits.into_iter().flat_map(|splits| splits.keys().cloned()).collect();
            let message =
                format!("subset {subset} has no split {split} of its {}; there is {}", part.name(), listed(&there));
            Error::file(&self.root, message)
        })
    }
}

impl Collection {
    /// The documents in the order of the files. It may be called again, and reads the corpus anew each time. The last item is
    /// an error where the corpus cannot be read, a row has no id or no text, or two documents with one id have different
    /// texts.
    pub fn documents(&self) -> Documents {
        let named = self.queries.iter().flat_map(|query| {
            let judged = query.judgements.iter().map(|(id, _)| id.as_str());
            judged.chain(query.candidates.iter().flatten().map(String::as_str))
        });
        Documents::new(&self.corpus, named)
    }

    /// The number of rows of the corpus, where the files say it: those of Parquet do.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn n_documents_hint(&self) -> Result<Option<u64>> {
        if let Corpus::Held(documents) = &self.corpus {
            return Ok(Some(documents.len() as u64));
        }
        let mut n = 0;
        for file in self.corpus.files() {
            match file.kind {
                files::Kind::Parquet => n += parquet::n_rows(&file.path)?,
                _ => return Ok(None),
            }
        }
        Ok(Some(n))
    }

    /// Size of the corpus' files, of which [`Documents::n_bytes_done`] are read.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn n_bytes(&self) -> Result<u64> {
        self.corpus.files().iter().map(|file| documents::size(file)).sum()
    }
}

/// Whether a file of this name holds rows.
pub fn is_table(name: &str) -> bool {
    files::kind_of(name).is_some()
}

/// The first part that a subset cannot do without and lacks.
fn missing(parts: &Parts) -> Option<Part> {
    [Part::Corpus, Part::Queries, Part::Judgements].into_iter().find(|part| !parts.contains_key(part))
}

fn shown(subset: &str) -> &str {
    if subset.is_empty() { DEFAULT_SUBSET } else { subset }
}
