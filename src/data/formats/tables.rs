//! Rows that name their texts by ids, beside the tables that have these: tevatron's `positive_document_ids` with a `corpus`,
//! and MS MARCO's `qidpidtriples.*.tsv` with `queries.*.tsv` and `collection.tsv`.
//!
//! The tables are kept in memory while rows are read.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::BufRead;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::columns::{self, find, take};
use super::files::{DataFile, Kind, file_name, stem};
use super::flat::{self, as_id};
use super::notes::{Note, Notes};
use super::open::Text;
use super::row::{Layout, Place, Row};
use super::source::read_file;
use crate::{Error, Result};

const POSITIVE_IDS: &str = "positive_document_ids";
const NEGATIVE_IDS: &str = "negative_document_ids";
/// tevatron's name of a query beside such ids.
const QUERY_TEXT: &str = "query_text";
/// Columns of [`TRIPLES`], which have no header.
pub(super) const TRIPLE: [&str; 3] = ["query_id", POSITIVE_IDS, NEGATIVE_IDS];
/// Part of the name of MS MARCO's files of triples.
const TRIPLES: &str = "qidpidtriples";
/// Names of the id in a table.
const ID: [&str; 5] = ["docid", "doc_id", "pid", "_id", "id"];

/// Files of tables.
#[derive(Clone, Debug)]
pub(super) struct TableFiles {
    documents: Arc<DataFile>,
    queries: Vec<Arc<DataFile>>,
}

/// Texts by their ids.
pub(super) struct Tables {
    documents: Table,
    queries: Vec<Table>,
}

/// The texts of one file.
struct Table {
    file: Arc<DataFile>,
    texts: HashMap<String, String>,
    /// Where those of `texts` stand that are empty or blank: an error only if a row names them.
    blank: HashMap<String, Place>,
}

impl TableFiles {
    /// The tables among some files, which are taken out of them, if others of the files name texts by ids.
    pub(super) fn take(files: &mut Vec<DataFile>) -> Option<Self> {
        let last = |file: &DataFile| file_name(std::path::Path::new(&stem(&file.name)));
        let is_documents = |file: &&DataFile| matches!(&*last(file), "corpus" | "collection");
        let is_queries = |file: &DataFile| last(file).split('.').next() == Some("queries");
        let documents = files.iter().find(is_documents).cloned()?;
        if !files.iter().any(|file| *file != documents && !is_queries(file) && names_ids(file)) {
            return None;
        }
        files.retain(|file| *file != documents);
        let (queries, rest) = std::mem::take(files).into_iter().partition(is_queries);
        *files = rest;
        let queries: Vec<DataFile> = queries;
        Some(TableFiles { documents: Arc::new(documents), queries: queries.into_iter().map(Arc::new).collect() })
    }

    /// All of them.
    pub(super) fn files(&self) -> impl Iterator<Item = &Arc<DataFile>> {
        std::iter::once(&self.documents).chain(&self.queries)
    }

    /// Reads them.
    ///
    /// # Errors
    /// A file that cannot be read, or a row without id or text, or an id that stands twice, with different texts.
    pub(super) fn read(&self, notes: &mut Notes) -> Result<Tables> {
        let (documents, n_repeated) = Table::read(&self.documents, &[])?;
        notes.add(Note::RepeatedDocuments, n_repeated);
        let mut queries = Vec::with_capacity(self.queries.len());
        for file in &self.queries {
            let (table, n_repeated) = Table::read(file, &queries)?;
            notes.add(Note::RepeatedQueries, n_repeated);
            queries.push(table);
        }
        Ok(Tables { documents, queries })
    }
}

/// Whether the rows of a file name texts by ids.
fn names_ids(file: &DataFile) -> bool {
    let first = || read_file(&Arc::new(file.clone()), &Arc::default()).next()?.ok()?.columns().ok();
    file.name.contains(TRIPLES) || first().is_some_and(|row| row.contains_key(POSITIVE_IDS))
}

/// Fails on a row that names its passages by ids where there is no table; a message without file and line.
pub(super) fn refuse_row(row: &Map<String, Value>) -> std::result::Result<(), String> {
    match row.contains_key(POSITIVE_IDS) {
        true => Err(format!(
            "names its passages by ids ({POSITIVE_IDS}); put the file that has their texts beside it as corpus.jsonl (docid, \
             text), and give the directory of both"
        )),
        false => Ok(()),
    }
}

/// Fails on MS MARCO's triples of ids without the tables: read as texts, they would be trained on as such.
pub(super) fn refuse_ids(files: &[DataFile]) -> Result<()> {
    match files.iter().find(|file| file.name.contains(TRIPLES)) {
        Some(file) => Err(Error::file(
            &file.path,
            "names its texts by ids; give the directory that holds it with the texts, collection.tsv and queries.*.tsv",
        )),
        None => Ok(()),
    }
}

impl Table {
    /// Reads a file, after others of the same kind. Returns also how many rows have the id and the text of one above.
    fn read(file: &Arc<DataFile>, others: &[Table]) -> Result<(Self, u64)> {
        let mut table = Table { file: Arc::clone(file), texts: HashMap::new(), blank: HashMap::new() };
        let mut n_repeated = 0;
        if file.kind == Kind::Delimited(b'\t') {
            let lines = Text::open(&file.path)?.reader.lines();
            for (line, number) in lines.zip(1..) {
                let line = line.map_err(|e| Error::io("read", &file.path, e))?;
                let cells = line.trim_end_matches('\r').split_once('\t').ok_or("expected an id, a tab and a text");
                let is_new = cells
                    .map_err(str::to_owned)
                    .and_then(|(id, text)| table.add(id.to_owned(), text.to_owned(), Place::Line(number), others));
                n_repeated += u64::from(!is_new.map_err(|message| Error::line(&file.path, number, message))?);
            }
            return Ok((table, n_repeated));
        }
        for row in read_file(file, &Arc::new(Layout::default())) {
            let row = row?;
            let mut columns = row.columns()?;
            let id = take(&mut columns, &ID).and_then(|(_, id)| as_id(&id)).ok_or_else(|| "no docid".to_owned());
            let is_new = id.and_then(|id| {
                let text = flat::passage(format_args!("{id}"), columns)?;
                table.add(id, text, row.place(), others)
            });
            n_repeated += u64::from(!is_new.map_err(|message| row.error(message))?);
        }
        Ok((table, n_repeated))
    }

    /// Adds a text and returns whether it was not there yet.
    ///
    /// # Errors
    /// An id that has another text, here or in another table; a message without file and line.
    fn add(&mut self, id: String, text: String, place: Place, others: &[Table]) -> std::result::Result<bool, String> {
        for table in others {
            match table.texts.get(&id) {
                Some(known) if *known != text => {
                    return Err(format!("the id {id:?} has another text in {}; remove one", table.file.name));
                }
                Some(_) => return Ok(false),
                None => {}
            }
        }
        match self.texts.entry(id) {
            Entry::Occupied(known) if *known.get() == text => Ok(false),
            Entry::Occupied(known) => {
                Err(format!("the id {:?} stands twice, with different texts; remove one", known.key()))
            }
            Entry::Vacant(new) => {
                if text.trim().is_empty() {
                    self.blank.insert(new.key().clone(), place);
                }
                new.insert(text);
                Ok(true)
            }
        }
    }

    /// The text of an id that a row names, if the table has it.
    fn text(&self, id: &str, row: &Row) -> Result<Option<Value>> {
        if let Some(place) = self.blank.get(id) {
            let message = format!(
                "the text of {id:?} is empty, and {} names it; give it a text, or take it out there",
                row.place_name()
            );
            return Err(place.error(&self.file.path, message));
        }
        Ok(self.texts.get(id).map(|text| Value::String(text.clone())))
    }
}

impl Tables {
    /// Puts texts into the columns of a row in the place of their ids.
    ///
    /// # Errors
    /// An id that the tables do not have, or whose text is empty.
    pub(super) fn fill(&self, columns: &mut Map<String, Value>, row: &Row) -> Result<()> {
        for (ids, texts) in [(POSITIVE_IDS, "positive"), (NEGATIVE_IDS, "negatives")] {
            let ids = match columns.remove(ids) {
                None | Some(Value::Null) => continue,
                Some(Value::Array(ids)) => ids,
                Some(one) => vec![one],
            };
            let found: Result<Vec<Value>> = ids.iter().map(|id| self.document(id, row)).collect();
            columns.insert(texts.to_owned(), Value::Array(found?));
        }
        if find(columns, &columns::Columns::default().query()).is_some() {
            return Ok(());
        }
        let id = find(columns, &columns::ID).and_then(|key| as_id(&columns[key]));
        let text = match (columns.remove(QUERY_TEXT), id) {
            (Some(text), _) => text,
            (None, Some(id)) => self.query(&id, row)?,
            (None, None) => return Ok(()),
        };
        columns.insert("query".to_owned(), text);
        Ok(())
    }

    fn query(&self, id: &str, row: &Row) -> Result<Value> {
        for table in &self.queries {
            if let Some(text) = table.text(id, row)? {
                return Ok(text);
            }
        }
        Err(row.error(format!("no file of queries has the query {id:?}")))
    }

    fn document(&self, id: &Value, row: &Row) -> Result<Value> {
        let text = as_id(id).map(|id| self.documents.text(&id, row)).transpose()?.flatten();
        let name = &self.documents.file.name;
        text.ok_or_else(|| row.error(format!("names the document {id}, which {name} does not have; remove it")))
    }
}
