//! Which documents are relevant to which queries (`query-id`, `corpus-id`, `score`), and which are to be ranked.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::cell::{Cell, Column, Parsed, needed};
use super::table::{Row, Table};
use crate::data::formats::files::{DataFile, Kind};
use crate::data::formats::{Note, Notes};
use crate::{Error, Result};

const COLUMNS: [&str; 3] = ["query-id", "corpus-id", "score"];
const JUDGEMENTS: [Column; 3] = [needed(&["query-id"]), needed(&["corpus-id"]), needed(&["score"])];
const CANDIDATES: [Column; 2] = [needed(&["query-id"]), needed(&["corpus-ids"])];

/// The judged documents of each query with their grades, in the order of the files; of several grades of one document the
/// last holds, as in mteb.
pub(super) type Judgements = HashMap<String, Vec<(String, i32)>>;

/// Documents of each query.
pub(super) type Candidates = HashMap<String, Vec<String>>;

/// Reads files of judgements: named columns, or text with a header or, as in TREC's files, none.
///
/// # Errors
/// What cannot be read; a score that is no whole number; no judgement at all.
pub(super) fn judgements(files: &[Arc<DataFile>], notes: &mut Notes) -> Result<Judgements> {
    let mut judged: HashMap<String, Vec<(String, i32)>> = HashMap::new();
    for file in files {
        let mut table = Table::open(file, &JUDGEMENTS)?;
        let mut order = None;
        while let Some(Row { number, cells }) = table.next_row()? {
            let cells = match file.kind {
                Kind::Delimited(b'\t') => in_text(cells, number, &mut order).map_err(|e| table.error(number, e))?,
                _ => Some(cells),
            };
            let Some(cells) = cells else { continue };
            let (query, document, grade) = judgement(cells).map_err(|e| table.error(number, e))?;
            judged.entry(query).or_default().push((document, grade));
        }
    }
    if judged.is_empty() {
        let path = files.first().map_or_else(Default::default, |file| file.path.clone());
        return Err(Error::file(path, "no judgement here; expected rows of query-id, corpus-id and score"));
    }
    let n_repeated: u64 = judged.values_mut().map(keep_last).sum();
    notes.add(Note::RepeatedJudgements, n_repeated);
    Ok(judged)
}

/// Of rows that judge one document, keeps the last grade at the first one's place; returns how many went.
fn keep_last(judged: &mut Vec<(String, i32)>) -> u64 {
    let mut places: HashMap<String, usize> = HashMap::with_capacity(judged.len());
    let mut kept: Vec<(String, i32)> = Vec::with_capacity(judged.len());
    let n = judged.len();
    for (document, grade) in judged.drain(..) {
        match places.entry(document) {
            Entry::Occupied(place) => kept[*place.get()].1 = grade,
            Entry::Vacant(place) => {
                kept.push((place.key().clone(), grade));
                place.insert(kept.len() - 1);
            }
        }
    }
    *judged = kept;
    (n - judged.len()) as u64
}

fn judgement(cells: Vec<Cell>) -> Parsed<(String, String, i32)> {
    let [query, document, grade]: [Cell; 3] = cells.try_into().map_err(|_| "not three cells".to_owned())?;
    let [of_query, of_document, of_score] = COLUMNS;
    Ok((query.into_id(of_query)?, document.into_id(of_document)?, grade.to_grade(of_score)?))
}

/// Query, document and score of a line of text: by the header's names if it has one, else by their places in three columns,
/// or in TREC's four, whose second says nothing. `None` for the header.
fn in_text(mut cells: Vec<Cell>, number: u64, order: &mut Option<[usize; 3]>) -> Parsed<Option<Vec<Cell>>> {
    let n = cells.len();
    let by_places = match n {
        3 => Some([0, 1, 2]),
        4 => Some([0, 2, 3]),
        _ => None,
    };
    if number == 1 {
        let place = |name: &&str| cells.iter().position(|cell| matches!(cell, Cell::Text(text) if text == name));
        let named: Vec<usize> = COLUMNS.iter().filter_map(place).collect();
        let is_header = cells.last().is_some_and(|cell| cell.to_grade("").is_err());
        *order = <[usize; 3]>::try_from(named).ok();
        if order.is_some() || (is_header && by_places.is_some()) {
            return Ok(None);
        }
    }
    let Some(order) = order.or(by_places) else {
        return Err(format!("{n} columns; expected query-id, corpus-id and score"));
    };
    let take = |place: usize| cells.get_mut(place).map(|cell| std::mem::replace(cell, Cell::Null));
    let taken: Option<Vec<Cell>> = order.into_iter().map(take).collect();
    taken.map(Some).ok_or_else(|| format!("{n} columns, fewer than the header has"))
}

/// Reads files of candidates: the documents to rank for each query, or others of its own. Of several rows of one query the
/// last holds.
///
/// # Errors
/// What cannot be read.
pub(super) fn candidates(files: &[Arc<DataFile>]) -> Result<Candidates> {
    let mut found = HashMap::new();
    for file in files {
        let mut table = Table::open(file, &CANDIDATES)?;
        while let Some(Row { number, cells }) = table.next_row()? {
            let (query, ids) = candidate_row(cells).map_err(|e| table.error(number, e))?;
            found.insert(query, ids);
        }
    }
    Ok(found)
}

fn candidate_row(cells: Vec<Cell>) -> Parsed<(String, Vec<String>)> {
    let [query, ids]: [Cell; 2] = cells.try_into().map_err(|_| "not two cells".to_owned())?;
    let ids = match ids {
        Cell::List(ids) => ids.into_iter().map(|id| id.into_id("corpus-ids")).collect::<Parsed<_>>()?,
        other => return Err(format!("corpus-ids has to be a list of ids, not {}", other.kind())),
    };
    Ok((query.into_id("query-id")?, ids))
}
