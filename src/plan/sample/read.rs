//! Reads a dataset before it is tokenized: all of it if it is small, else pieces spread over it.

use crate::data::formats::{DataFormat, DataSource, Group, Resolved, Row, Rows};
use crate::{Error, Result};
use rayon::prelude::*;
use std::collections::HashMap;

/// Most bytes that are read of data that can only be read from its beginning; for other data the caller sets it.
const MOST_BYTES_OF_FILES: u64 = 64 << 20;
/// Number of pieces if not everything is read, and the factor by which they are less than `most_bytes`.
const PIECES: u64 = 64;
const SHARE_IN_PIECES: u64 = 8;

/// The part of a dataset that was read.
pub(super) struct DatasetSample {
    /// Groups, in the order of their first rows.
    pub groups: Vec<Group>,
    /// Whether this is the whole dataset.
    pub is_all: bool,
    /// Number of groups in the data per group read; 1 if everything was read.
    pub copies: f64,
    /// Whether `copies` is an upper bound: unread rows may be other versions of groups that were read.
    pub is_at_most: bool,
    /// Numbers of positives and negatives with a teacher's score.
    pub n_scores: [u64; 2],
}

/// Consecutive rows.
struct Piece {
    rows: Vec<Row>,
    n_bytes: u64,
    is_last: bool,
}

impl DatasetSample {
    /// Reads all of `source` if it has at most `most_bytes` bytes, else pieces of it.
    ///
    /// # Errors
    /// If the data does not exist, cannot be read, or has no row.
    pub fn read(source: &DataSource, most_bytes: u64) -> Result<DatasetSample> {
        let data = source.resolve()?;
        let is_seekable = data.is_seekable()?;
        let most_bytes = if is_seekable { most_bytes } else { MOST_BYTES_OF_FILES };
        let mut sample =
            DatasetSample { groups: Vec::new(), is_all: true, copies: 1.0, is_at_most: false, n_scores: [0; 2] };
        let mut by_id = HashMap::new();
        if !is_seekable || data.n_bytes() <= most_bytes {
            let piece = Piece::read(data.rows()?, most_bytes)?;
            sample.is_all = piece.is_last;
            sample.add(&piece.rows, data.format() == DataFormat::Parallel, &mut by_id).map_or(Ok(()), Err)?;
            sample.copies = data.n_bytes() as f64 / piece.n_bytes.max(1) as f64;
        } else {
            sample.add_pieces(&data, most_bytes / SHARE_IN_PIECES, &mut by_id)?;
        }
        // Of labelled rows, a piece of the data may have only negatives.
        sample.groups.retain(|group| !group.positives.is_empty());
        if sample.groups.is_empty() {
            return Err(Error::file(data.path(), "no training row in this data; check the path and the split"));
        }
        match sample.is_all {
            true => (sample.copies, sample.is_at_most) = (1.0, false),
            false => sample.copies = sample.copies.max(1.0),
        }
        Ok(sample)
    }

    /// Whether two of the groups have a text in common, as query or positive.
    pub fn shares_texts(&self) -> bool {
        let mut first_with = HashMap::new();
        let texts = |(number, group): (usize, &'_ Group)| {
            group
                .queries
                .iter()
                .chain(&group.positives)
                .any(|of| *first_with.entry(of.text.clone()).or_insert(number) != number)
        };
        self.groups.iter().enumerate().any(texts)
    }

    /// Reads about `n_bytes` bytes, spread over the data: it may be sorted, by language for example.
    fn add_pieces(&mut self, data: &Resolved, n_bytes: u64, by_id: &mut HashMap<String, usize>) -> Result<()> {
        self.is_all = false;
        let mut n_read = 0;
        for i in 0..PIECES {
            let rows = if i == 0 { data.rows()? } else { data.rows_behind(data.n_bytes() / PIECES * i)? };
            let piece = Piece::read(rows, n_bytes / PIECES)?;
            n_read += piece.n_bytes;
            // Line numbers are known in the first piece only; the run will report errors in the others.
            let refused = self.add(&piece.rows, data.format() == DataFormat::Parallel, by_id);
            refused.filter(|_| i == 0).map_or(Ok(()), Err)?;
        }
        self.copies = data.n_bytes() as f64 / n_read.max(1) as f64;
        Ok(())
    }

    /// Adds rows; returns the error of the first invalid one.
    fn add(&mut self, rows: &[Row], has_all_versions: bool, by_id: &mut HashMap<String, usize>) -> Option<Error> {
        let groups: Vec<Result<Group>> = rows.par_iter().map(Row::parse).collect();
        let mut refused = None;
        for (row, group) in rows.iter().zip(groups) {
            match group {
                Ok(group) => {
                    let is_named = row.is_named(&group);
                    let is_new = self.add_group(group, by_id);
                    // A row with all versions is a whole group, as long as no other has the same id.
                    self.is_at_most |= is_named && (!has_all_versions || !is_new);
                }
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        refused
    }

    /// Adds a row to its group; returns whether the group is new.
    fn add_group(&mut self, row: Group, by_id: &mut HashMap<String, usize>) -> bool {
        for (n, scores) in self.n_scores.iter_mut().zip([&row.positive_scores, &row.negative_scores]) {
            *n += scores.len() as u64;
        }
        let Some(&at) = by_id.get(row.identity()) else {
            by_id.insert(row.identity().to_owned(), self.groups.len());
            self.groups.push(row);
            return true;
        };
        let group = &mut self.groups[at];
        group.queries.extend(row.queries);
        group.positives.extend(row.positives);
        group.negatives.extend(row.negatives);
        false
    }
}

impl Piece {
    /// Reads rows of about `most_bytes` bytes.
    fn read(mut rows: Rows, most_bytes: u64) -> Result<Piece> {
        let mut piece = Piece { rows: Vec::new(), n_bytes: 0, is_last: false };
        while piece.n_bytes < most_bytes || piece.rows.is_empty() {
            let Some(row) = rows.next().transpose()? else {
                piece.is_last = true;
                break;
            };
            piece.n_bytes += row.n_bytes();
            piece.rows.push(row);
        }
        Ok(piece)
    }
}
