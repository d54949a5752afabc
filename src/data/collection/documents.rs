//! The corpus: documents one after the other, never all of them in memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::cell::{Cell, Column, Parsed, needed, optional};
use super::table::{Row, Table, error_at};
use crate::data::formats::files::{DataFile, Kind};
use crate::data::formats::{Note, Notes};
use crate::{Error, Result};

const COLUMNS: [Column; 3] = [needed(&["_id", "id", "docid"]), needed(&["text"]), optional(&["title"])];

/// Bits of an id's hash that choose the set it is kept in.
const ID_BITS: u32 = 6;

/// A document as it is embedded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What judgements call it.
    pub id: String,
    /// Title, a space, text, without white space at both ends; without a title the text alone. It may be empty.
    pub text: String,
}

/// The documents of a corpus in the order of its files, each id once: of rows with one id and the same text the first
/// counts. That they do have the same text is looked up in the files behind the last document, so that nothing but a hash
/// is kept of those that went by: 10 to 21 bytes a document.
///
/// Once it has ended, or failed, it gives nothing more.
pub struct Documents {
    files: Vec<Arc<DataFile>>,
    /// Those of a corpus that is no file of its own, and the place of the next.
    held: Arc<Vec<Document>>,
    n_held: usize,
    /// The file that is read, and the number of the next one.
    table: Option<Table<'static>>,
    next: usize,
    n_bytes_before: u64,
    n_rows: u64,
    /// Hashes of the ids so far, by their first bits: a set that grows is there twice, and so is but one of many.
    ids: Vec<HashSet<u64>>,
    /// Rows whose id was there already, by its hash.
    repeated: HashMap<u64, Vec<Repeated>>,
    /// Documents of judgements and candidates that have not come yet, by the hashes of their ids.
    awaited: HashSet<u64>,
    notes: Notes,
    has_ended: bool,
}

/// Where a collection's documents are.
#[derive(Clone, Debug)]
pub(super) enum Corpus {
    Files(Vec<Arc<DataFile>>),
    /// Few, and made of rows that are not documents; each id once.
    Held(Arc<Vec<Document>>),
}

impl Corpus {
    pub(super) fn files(&self) -> &[Arc<DataFile>] {
        match self {
            Corpus::Files(files) => files,
            Corpus::Held(_) => &[],
        }
    }
}

struct Repeated {
    id: String,
    text: u64,
    file: Arc<DataFile>,
    number: u64,
}

impl Documents {
    /// `named` has the ids of judgements and candidates.
    pub(super) fn new<'a>(corpus: &Corpus, named: impl Iterator<Item = &'a str>) -> Documents {
        let (files, held) = match corpus {
            Corpus::Files(files) => (files.clone(), Arc::default()),
            Corpus::Held(documents) => (Vec::new(), Arc::clone(documents)),
        };
        Documents {
            files,
            held,
            n_held: 0,
            table: None,
            next: 0,
            n_bytes_before: 0,
            n_rows: 0,
            ids: vec![HashSet::new(); 1 << ID_BITS],
            repeated: HashMap::new(),
            awaited: named.map(hash).collect(),
            notes: Notes::default(),
            has_ended: false,
        }
    }

    /// Bytes of the corpus' files that have been read; those of [`n_bytes`](super::Collection::n_bytes) are all.
    pub fn n_bytes_done(&self) -> u64 {
        self.n_bytes_before + self.table.as_ref().map_or(0, Table::n_bytes_done)
    }

    /// Rows of the files that have been read: the last document's place is one less.
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// What was left out, and which judgements name documents that are not there; complete behind the last document.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    fn next_document(&mut self) -> Result<Option<Document>> {
        if let Some(document) = self.held.get(self.n_held) {
            self.n_held += 1;
            self.n_rows += 1;
            self.awaited.remove(&hash(&document.id));
            return Ok(Some(document.clone()));
        }
        while let Some((number, document)) = self.next_row()? {
            let hash = hash(&document.id);
            self.awaited.remove(&hash);
            if self.ids[(hash >> (u64::BITS - ID_BITS)) as usize].insert(hash) {
                return Ok(Some(document));
            }
            let file = Arc::clone(&self.files[self.next - 1]);
            let repeated = Repeated { text: xxh3_64(document.text.as_bytes()), id: document.id, file, number };
            self.repeated.entry(hash).or_default().push(repeated);
        }
        self.check_repeated()?;
        self.notes.add(Note::UnknownDocuments, self.awaited.len() as u64);
        Ok(None)
    }

    /// The next row of all files.
    fn next_row(&mut self) -> Result<Option<(u64, Document)>> {
        loop {
            if let Some(table) = &mut self.table {
                if let Some(row) = table.next_row()? {
                    let number = row.number;
                    self.n_rows += 1;
                    return document(row).map(|document| Some((number, document))).map_err(|e| table.error(number, e));
                }
                let file = &self.files[self.next - 1];
                self.n_bytes_before += size(file)?;
                self.table = None;
            }
            let Some(file) = self.files.get(self.next) else { return Ok(None) };
            self.table = Some(Table::open(file, &COLUMNS)?);
            self.next += 1;
        }
    }

    /// Reads the files again, as far as it takes to compare the rows with one id.
    fn check_repeated(&mut self) -> Result<()> {
        let n: usize = self.repeated.values().map(Vec::len).sum();
        let mut repeated = std::mem::take(&mut self.repeated);
        let files = self.files.iter().take_while(|_| n > 0);
        for file in files {
            let mut table = Table::open(file, &COLUMNS)?;
            while let Some(row) = table.next_row()? {
                let number = row.number;
                let first = document(row).map_err(|e| table.error(number, e))?;
                for other in repeated.remove(&hash(&first.id)).unwrap_or_default() {
                    if other.id != first.id || other.text != xxh3_64(first.text.as_bytes()) {
                        let Repeated { id, file: of, number: at, .. } = other;
                        let place = if file.kind == Kind::Parquet { "row" } else { "line" };
                        let message = format!(
                            "the id {id:?} is that of another document, in {place} {number} of {}, with another text; give \
                             one of them another id, or remove it",
                            file.name
                        );
                        return Err(error_at(&of, at, message));
                    }
                }
                if repeated.is_empty() {
                    self.notes.add(Note::RepeatedDocuments, n as u64);
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl Iterator for Documents {
    type Item = Result<Document>;

    fn next(&mut self) -> Option<Result<Document>> {
        if self.has_ended {
            return None;
        }
        let next = self.next_document().transpose();
        self.has_ended = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Size of a file.
pub(super) fn size(file: &DataFile) -> Result<u64> {
    Ok(std::fs::metadata(&file.path).map_err(|e| Error::io("read", &file.path, e))?.len())
}

fn hash(id: &str) -> u64 {
    xxh3_64(id.as_bytes())
}

fn document(row: Row) -> Parsed<Document> {
    let [id, text, title]: [Cell; 3] = row.cells.try_into().map_err(|_| "not three cells".to_owned())?;
    let id = id.into_id("the id")?;
    let text = text.into_text("text")?;
    // mteb fails on a title that is null; here it is none.
    let title = match title {
        Cell::Null => String::new(),
        title => title.into_text("title")?,
    };
    Ok(Document { id, text: with_title(&title, text) })
}

/// A document's text as mteb gives it to the encoder.
fn with_title(title: &str, text: String) -> String {
    let whole = if title.is_empty() { text } else { format!("{title} {text}") };
    match strip(&whole) {
        // The usual case needs no copy.
        stripped if stripped.len() == whole.len() => whole,
        stripped => stripped.to_owned(),
    }
}

/// Without what Python takes for white space, at both ends: Unicode's, and the four separators of ASCII.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn title_and_text_are_those_of_mteb() {
        for (title, text, expected) in [
            ("T", "a b", "T a b"),
            ("", " a \n", "a"),
            (" ", " a", "a"),
            ("T", "", "T"),
            ("", "", ""),
            ("\u{1f} T", "a\u{a0}\u{3000}\u{1c}", "T a"),
            // No white space to Python, nor to Unicode.
            ("", "\u{200b}a\u{feff}", "\u{200b}a\u{feff}"),
        ] {
            assert_eq!(with_title(title, text.to_owned()), expected, "{title:?} {text:?}");
        }
    }
}
