//! mteb's tasks to evaluate on while training.

use super::planned::{Planned, Selection};
use hbt::Result;
use hbt::config::Auto;
use hbt::data::formats::{Purpose, Split};
use hbt::eval::mteb::table::TaskRow;
use hbt::eval::tasks::{EvalSet, retrieval};
use std::path::Path;

/// A task's subsets in some languages, held in memory; its data is the hub's, or a copy.
///
/// # Errors
/// Data that cannot be read; a task that ranks otherwise than by a search of the whole corpus.
pub fn eval_set(
    row: &'static TaskRow,
    data: Option<&Path>,
    split: Auto<Split>,
    languages: Option<&str>,
) -> Result<EvalSet> {
    let planned = Planned::of_row(row, None, Selection { data, split, purpose: Purpose::Validation, languages })?;
    let collections = planned.parts.iter().map(|part| planned.data.collection(part)).collect::<Result<Vec<_>>>()?;
    retrieval::from_collections(collections, row.ignores_identical_ids)
}
