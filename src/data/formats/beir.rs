//! BEIR's layout: a directory with `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`) and judgements
//! in `qrels/train.tsv` and so on, or a directory of such directories, one a language. Judgements may also be TREC's.
//!
//! A query with its judged documents is a group: those with a grade above 0 are positives, the others negatives. Only
//! judged documents are kept in memory.

use std::collections::{HashMap, HashSet};
use std::io::BufRead;
use std::sync::Arc;

use super::files::{DataFile, stem};
use super::lines::Lines;
use super::open;
use super::row::{Body, Layout, Place, Row};
use super::{Group, Text, UNKNOWN_LANG, check_text, flat, language};
use crate::{Error, Result};

/// One corpus with its queries and judgements.
#[derive(Clone, Debug)]
pub(super) struct Collection {
    lang: String,
    corpus: Arc<DataFile>,
    queries: Arc<DataFile>,
    pub(super) judgements: Vec<Arc<DataFile>>,
}

impl Collection {
    /// Its files, in the order of reading.
    pub(super) fn files(&self) -> impl Iterator<Item = &Arc<DataFile>> {
        self.judgements.iter().chain([&self.queries, &self.corpus])
    }
}

/// The collections that some files make up; the other files stay in `files`. `root_name` is the directory's.
pub(super) fn collections(root_name: &str, files: &mut Vec<DataFile>) -> Vec<Collection> {
    let folder_of = |file: &DataFile, name: &str| {
        let inner = stem(&file.name);
        inner.strip_suffix(name).filter(|folder| folder.is_empty() || folder.ends_with('/')).map(str::to_owned)
    };
    let take = |files: &mut Vec<DataFile>, is_meant: &dyn Fn(&DataFile) -> bool| {
        let (taken, rest) = std::mem::take(files).into_iter().partition::<Vec<_>, _>(|file| is_meant(file));
        *files = rest;
        taken.into_iter().map(Arc::new).collect::<Vec<_>>()
    };
    let folders: Vec<String> = files.iter().filter_map(|file| folder_of(file, "corpus")).collect();
    let mut found = Vec::new();
    for folder in folders {
        let is = |file: &DataFile, name: &str| folder_of(file, name).as_ref() == Some(&folder);
        let is_judgement = |file: &DataFile| file.name.to_lowercase().starts_with(&format!("{folder}qrels/"));
        let has_all = files.iter().any(|file| is(file, "queries")) && files.iter().any(is_judgement);
        if !has_all {
            continue;
        }
        let name = folder.trim_end_matches('/').rsplit('/').next().filter(|name| !name.is_empty());
        // A folder among others is named by its language; that of a single corpus could have any short name.
        let own = || language(root_name).ok().filter(|lang| lang.split('-').next().is_some_and(|code| code.len() == 2));
        let lang = name.map_or_else(own, |name| language(name).ok()).unwrap_or_else(|| UNKNOWN_LANG.to_owned());
        let corpus = take(files, &|file| is(file, "corpus")).swap_remove(0);
        let queries = take(files, &|file| is(file, "queries")).swap_remove(0);
        found.push(Collection { lang, corpus, queries, judgements: take(files, &is_judgement) });
    }
    found
}

/// A document that was judged for a query.
struct Judgement {
    query: String,
    document: String,
    grade: i64,
    line: u64,
}

/// The groups of collections, one collection after the other.
pub(super) struct Queries {
    pub(super) collections: std::vec::IntoIter<Collection>,
    pub(super) rows: std::vec::IntoIter<Row>,
    pub(super) layout: Arc<Layout>,
}

impl Queries {
    pub(super) fn new(collections: Vec<Collection>, layout: Arc<Layout>) -> Self {
        Queries { collections: collections.into_iter(), rows: vec![].into_iter(), layout }
    }

    fn read(&self, collection: &Collection) -> Result<Vec<Row>> {
        let mut groups: Vec<Group> = Vec::new();
        let mut by_query: HashMap<String, usize> = HashMap::new();
        let mut judged: Vec<(Arc<DataFile>, Judgement)> = Vec::new();
        for file in &collection.judgements {
            judged.extend(judgements(file)?.into_iter().map(|one| (Arc::clone(file), one)));
        }
        let queries = texts(&collection.queries, judged.iter().map(|(_, one)| one.query.as_str()).collect())?;
        let documents = texts(&collection.corpus, judged.iter().map(|(_, one)| one.document.as_str()).collect())?;
        for (file, Judgement { query, document, grade, line }) in &judged {
            let missing = |what: &str, id: &str, of: &DataFile| {
                let message = format!("judges {what} {id:?}, which {} does not have; remove the line", of.name);
                Error::line(&file.path, *line, message)
            };
            let text = queries.get(query).ok_or_else(|| missing("query", query, &collection.queries))?;
            let passage = documents.get(document).ok_or_else(|| missing("document", document, &collection.corpus))?;
            let at = *by_query.entry(query.clone()).or_insert(groups.len());
            if at == groups.len() {
                let queries = vec![Text::new(&collection.lang, text)];
                // Queries of two collections may have one id.
                let identity =
                    (!self.layout.columns.join_by_id).then(|| format!("{}\n{query}", collection.queries.name));
                groups.push(Group { id: query.clone(), identity, queries, ..Group::default() });
            }
            let role = if *grade > 0 { &mut groups[at].positives } else { &mut groups[at].negatives };
            role.push(Text::new(&collection.lang, passage));
        }
        let mut n_bytes = 0;
        for file in collection.files() {
            n_bytes += std::fs::metadata(&file.path).map_err(|e| Error::io("read", &file.path, e))?.len();
        }
        let n_bytes = n_bytes / groups.len().max(1) as u64;
        let file = &collection.queries;
        let row = |(group, number)| Row::new(file, &self.layout, Place::Row(number), n_bytes, Body::Group(group));
        Ok(groups.into_iter().zip(1..).map(row).collect())
    }
}

impl Iterator for Queries {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.rows.next() {
                return Some(Ok(row));
            }
            let collection = self.collections.next()?;
            match self.read(&collection) {
                Ok(rows) => self.rows = rows.into_iter(),
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

/// Judgements of a file: `query document grade` under a header, or TREC's `query 0 document grade`.
fn judgements(file: &DataFile) -> Result<Vec<Judgement>> {
    let text = open::Text::open(&file.path)?;
    let mut found = Vec::new();
    for (line, number) in text.reader.lines().zip(1..) {
        let line = line.map_err(|e| Error::io("read", &file.path, e))?;
        let cells: Vec<&str> = line.split_whitespace().collect();
        let grade = cells.last().and_then(|cell| cell.parse().ok());
        let (query, document) = match cells[..] {
            [] => continue,
            [query, document, _] | [query, _, document, _] => (query, document),
            _ => {
                let message = format!("{} columns; expected query-id, corpus-id and score", cells.len());
                return Err(Error::line(&file.path, number, message));
            }
        };
        match grade {
            Some(grade) => {
                found.push(Judgement { query: query.into(), document: document.into(), grade, line: number })
            }
            None if number == 1 => {}
            None => {
                let message = format!("the score {:?} is no whole number", cells[cells.len() - 1]);
                return Err(Error::line(&file.path, number, message));
            }
        }
    }
    Ok(found)
}

/// The texts of a file of `_id`, `title` and `text` that have one of these ids.
fn texts(file: &Arc<DataFile>, wanted: HashSet<&str>) -> Result<HashMap<String, String>> {
    let mut texts = HashMap::new();
    for row in Lines::open(file, &Arc::new(Layout::default()))? {
        let row = row?;
        let mut columns = row.columns()?;
        let id = flat::id(&mut columns).and_then(|id| id.ok_or_else(|| "no _id".to_owned()));
        let id = id.map_err(|message| row.error(message))?;
        if wanted.contains(id.as_str()) {
            let text = flat::passage(format_args!("{id}"), columns);
            let text = text.and_then(|text| check_text(format_args!("{id}"), &text).map(|()| text));
            let text = text.map_err(|message| row.error(message))?;
            if texts.insert(id.clone(), text).is_some() {
                return Err(row.error(format!("_id {id:?} stands twice; remove one")));
            }
        }
    }
    Ok(texts)
}
