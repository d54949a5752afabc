//! The queries that are judged, with what belongs to them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::cell::{Cell, Column, Parsed, needed, optional};
use super::judgements::{Candidates, Judgements};
use super::table::{Row, Table};
use crate::Result;
use crate::data::formats::files::{DataFile, Kind};
use crate::data::formats::{Note, Notes};

const COLUMNS: [Column; 3] = [needed(&["_id", "id"]), needed(&["text"]), optional(&["instruction"])];
const INSTRUCTIONS: [Column; 2] = [needed(&["query-id"]), needed(&["instruction"])];

/// A query with the documents that were judged for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JudgedQuery {
    /// Its row in the file of queries, from 0; of several files, in all of them together.
    pub row: usize,
    /// What judgements call it.
    pub id: String,
    /// The text as the file has it, not stripped; with an instruction: text, a space, instruction.
    pub text: String,
    /// Documents and their grades, at least one; a document is relevant if its grade is above 0. Of several grades of one
    /// document the last holds. A document may be missing from the corpus.
    pub judgements: Vec<(String, i32)>,
    /// The documents to rank, where the task does not rank all of them.
    pub candidates: Option<Vec<String>>,
}

/// Instructions of queries by their ids. `None` in the place of one that is null: then the text stands alone.
///
/// # Errors
/// What cannot be read.
pub(super) fn instructions(files: &[Arc<DataFile>]) -> Result<HashMap<String, Option<String>>> {
    let mut found = HashMap::new();
    for file in files {
        let mut table = Table::open(file, &INSTRUCTIONS)?;
        while let Some(Row { number, mut cells }) = table.next_row()? {
            let (instruction, id) = (cells.pop().unwrap_or(Cell::Null), cells.pop().unwrap_or(Cell::Null));
            let row = id.into_id("query-id").and_then(|id| Ok((id, optional_text(instruction)?)));
            let (id, instruction) = row.map_err(|e| table.error(number, e))?;
            found.insert(id, instruction);
        }
    }
    Ok(found)
}

fn optional_text(cell: Cell) -> Parsed<Option<String>> {
    match cell {
        Cell::Null => Ok(None),
        cell => cell.into_text("instruction").map(Some),
    }
}

/// Reads the files of queries; takes the judgements of those that are there out of `judged`. Returns the queries in the order
/// of the files, and the number of rows.
///
/// # Errors
/// What cannot be read; a row without id or text; an id that stands twice, with different texts; a query without
/// instruction, where the task has some; a query without candidates, where it has some.
pub(super) fn queries(
    files: &[Arc<DataFile>],
    judged: &mut Judgements,
    candidates: &mut Option<Candidates>,
    instructions: Option<&HashMap<String, Option<String>>>,
    notes: &mut Notes,
) -> Result<(Vec<JudgedQuery>, usize)> {
    let mut queries: Vec<JudgedQuery> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut n_rows = 0;
    for file in files {
        let mut table = Table::open(file, &COLUMNS)?;
        while let Some(Row { number, cells }) = table.next_row()? {
            let row = n_rows;
            n_rows += 1;
            let fail = |message: String| table.error(number, message);
            let is_text = matches!(file.kind, Kind::Delimited(b'\t'));
            let [id, text, instruction] = if is_text { topic(cells) } else { named(cells) }.map_err(fail)?;
            let id = id.into_id("the id").map_err(fail)?;
            if !judged.contains_key(&id) && !places.contains_key(&id) {
                continue;
            }
            let instruction = match instructions {
                None => optional_text(instruction).map_err(fail)?,
                Some(all) => all.get(&id).cloned().ok_or_else(|| fail(format!("no instruction for query {id:?}")))?,
            };
            let text = query_text(text, instruction).map_err(fail)?;
            let place = match places.entry(id) {
                Entry::Occupied(place) if queries[*place.get()].text == text => {
                    notes.add(Note::RepeatedQueries, 1);
                    continue;
                }
                Entry::Occupied(place) => {
                    let id = place.key();
                    return Err(fail(format!("the id {id:?} stands twice, with different texts; remove one")));
                }
                Entry::Vacant(place) => place,
            };
            let id = place.key().clone();
            let candidates = match candidates {
                None => None,
                Some(all) => Some(all.remove(&id).ok_or_else(|| fail(format!("no candidates for query {id:?}")))?),
            };
            place.insert(queries.len());
            let judgements = judged.remove(&id).unwrap_or_default();
            queries.push(JudgedQuery { row, id, text, judgements, candidates });
        }
    }
    notes.add(Note::UnknownQueries, judged.len() as u64);
    Ok((queries, n_rows))
}

fn named(cells: Vec<Cell>) -> Parsed<[Cell; 3]> {
    cells.try_into().map_err(|_| "not three cells".to_owned())
}

/// `id TAB text`.
fn topic(mut cells: Vec<Cell>) -> Parsed<[Cell; 3]> {
    match cells.len() {
        2 => Ok([cells.swap_remove(0), cells.swap_remove(0), Cell::Null]),
        n => Err(format!("{n} columns; expected the id of a query, a tab, and its text")),
    }
}

/// Text, a space, instruction. A conversation is its turns, joined; there the instruction stands in front.
fn query_text(text: Cell, instruction: Option<String>) -> Parsed<String> {
    let is_conversation = matches!(text, Cell::List(_));
    let text = match text {
        Cell::List(turns) => {
            let turn = |turn| match turn {
                Cell::Turn(role, content) => Ok(format!("{role}: {content}")),
                turn => turn.into_text("text"),
            };
            turns.into_iter().map(turn).collect::<Parsed<Vec<_>>>()?.join("; ")
        }
        text => text.into_text("text")?,
    };
    Ok(match instruction {
        None => text,
        Some(instruction) if is_conversation => format!("{instruction} {text}"),
        Some(instruction) => format!("{text} {instruction}"),
    })
}
