//! Rows that name their texts by ids, beside the tables that have these: tevatron's `positive_document_ids` with a `corpus`,
//! and MS MARCO's `qidpidtriples.*.tsv` with `queries.*.tsv` and `collection.tsv`.
//!
//! The tables are kept in memory while rows are read.

use std::collections::HashMap;
use std::io::BufRead;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::columns::{self, find, take};
use super::files::{DataFile, Kind, file_name, stem};
use super::flat::{self, as_id};
use super::open::Text;
use super::row::Layout;
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
    documents: HashMap<String, String>,
    queries: HashMap<String, String>,
    /// What messages call the documents.
    name: String,
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
    /// A file that cannot be read, or a row without id or text, or an id that stands twice.
    pub(super) fn read(&self) -> Result<Tables> {
        let (mut documents, mut queries) = (HashMap::new(), HashMap::new());
        read_table(&self.documents, &mut documents)?;
        self.queries.iter().try_for_each(|file| read_table(file, &mut queries))?;
        Ok(Tables { documents, queries, name: self.documents.name.clone() })
    }
}

/// Whether the rows of a file name texts by ids.
fn names_ids(file: &DataFile) -> bool {
    let first = || read_file(&Arc::new(file.clone()), &Arc::default()).next()?.ok()?.columns().ok();
    file.name.contains(TRIPLES) || first().is_some_and(|row| row.contains_key(POSITIVE_IDS))
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

fn read_table(file: &Arc<DataFile>, table: &mut HashMap<String, String>) -> Result<()> {
    let mut add = |id: String, text: String| match table.insert(id.clone(), text) {
        Some(_) => Err(format!("the id {id:?} stands twice; remove one")),
        None => Ok(()),
    };
    if file.kind == Kind::Delimited(b'\t') {
        let lines = Text::open(&file.path)?.reader.lines();
        for (line, number) in lines.zip(1..) {
            let line = line.map_err(|e| Error::io("read", &file.path, e))?;
            let cells = line.trim_end_matches('\r').split_once('\t').ok_or("expected an id, a tab and a text");
            let added = cells.map_err(str::to_owned).and_then(|(id, text)| add(id.to_owned(), text.to_owned()));
            added.map_err(|message| Error::line(&file.path, number, message))?;
        }
        return Ok(());
    }
    for row in read_file(file, &Arc::new(Layout::default())) {
        let row = row?;
        let mut columns = row.columns()?;
        let id = take(&mut columns, &ID).and_then(|(_, id)| as_id(&id)).ok_or_else(|| "no docid".to_owned());
        let added = id.and_then(|id| {
            let text = flat::passage(format_args!("{id}"), columns)?;
            add(id, text)
        });
        added.map_err(|message| row.error(message))?;
    }
    Ok(())
}

impl Tables {
    /// Puts texts into a row in the place of their ids.
    ///
    /// # Errors
    /// An id that the tables do not have; a message without file and line.
    pub(super) fn fill(&self, row: &mut Map<String, Value>) -> std::result::Result<(), String> {
        for (ids, texts) in [(POSITIVE_IDS, "positive"), (NEGATIVE_IDS, "negatives")] {
            let ids = match row.remove(ids) {
                None | Some(Value::Null) => continue,
                Some(Value::Array(ids)) => ids,
                Some(one) => vec![one],
            };
            let found: std::result::Result<Vec<Value>, String> = ids.iter().map(|id| self.document(id)).collect();
            row.insert(texts.to_owned(), Value::Array(found?));
        }
        if find(row, &columns::Columns::default().query()).is_some() {
            return Ok(());
        }
        let text = match (row.remove(QUERY_TEXT), find(row, &columns::ID).and_then(|key| as_id(&row[key]))) {
            (Some(text), _) => text,
            (None, Some(id)) => {
                let text = self.queries.get(&id).ok_or_else(|| format!("no file of queries has the query {id:?}"))?;
                Value::String(text.clone())
            }
            (None, None) => return Ok(()),
        };
        row.insert("query".to_owned(), text);
        Ok(())
    }

    fn document(&self, id: &Value) -> std::result::Result<Value, String> {
        let text = as_id(id).and_then(|id| self.documents.get(&id));
        let text =
            text.ok_or_else(|| format!("names the document {id}, which {} does not have; remove it", self.name))?;
        Ok(Value::String(text.clone()))
    }
}
