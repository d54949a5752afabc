//! A dataset before it is tokenized: all of it where it is small, else a part.

use crate::data::formats::{DataFormat, DataSource, Group};
use crate::{Error, Result};
use std::collections::HashMap;

/// Bytes that are read of a format that is read file by file; of the others the caller says it.
const MOST_BYTES_OF_FILES: u64 = 64 << 20;

/// What was read.
pub(super) struct Part {
    /// In the order of their first rows.
    pub groups: Vec<Group>,
    /// Whether that is everything.
    pub is_all: bool,
    /// How many groups of the data each of these stands for; 1 where that is everything.
    pub copies: f64,
    /// Positives and negatives that a teacher has scored.
    pub n_scores: [u64; 2],
}

impl Part {
    /// Reads all of `source`, or about `most_bytes` bytes of it.
    ///
    /// # Errors
    /// Data that is not there, cannot be read, or has no row.
    pub fn read(source: &DataSource, most_bytes: u64) -> Result<Part> {
        let data = source.resolve()?;
        let most = if data.format() == DataFormat::Squad { MOST_BYTES_OF_FILES } else { most_bytes };
        let mut part = Part { groups: Vec::new(), is_all: false, copies: 1.0, n_scores: [0; 2] };
        let mut by_id = HashMap::new();
        let (mut rows, mut n_bytes) = (data.rows()?, 0);
        while n_bytes < most {
            let Some(row) = rows.next().transpose()? else {
                part.is_all = true;
                break;
            };
            n_bytes += row.n_bytes();
            part.add(row.parse()?, &mut by_id);
        }
        if part.groups.is_empty() {
            return Err(Error::file(data.path(), "no training row in this data; check the path and the split"));
        }
        if !part.is_all {
            part.copies = (data.n_bytes() as f64 / n_bytes as f64).max(1.0);
        }
        Ok(part)
    }

    fn add(&mut self, row: Group, by_id: &mut HashMap<String, usize>) {
        for (n, scores) in self.n_scores.iter_mut().zip([&row.positive_scores, &row.negative_scores]) {
            *n += scores.len() as u64;
        }
        let Some(&at) = by_id.get(&row.id) else {
            by_id.insert(row.id.clone(), self.groups.len());
            self.groups.push(row);
            return;
        };
        let group = &mut self.groups[at];
        group.queries.extend(row.queries);
        group.positives.extend(row.positives);
        group.negatives.extend(row.negatives);
    }
}
