//! The data, which is read twice: to collect what there is to mine, and to write it again with its negatives.

use super::{Corpus, Mined, Rules};
use crate::data::formats::{DataFormat, DataSource, Group, Resolved, Text, add_negatives, parallel_row};
use crate::{Error, Result};

/// Data to mine from. JSONL is read again for writing; SQuAD, whose groups lie scattered over its files, is kept.
pub struct Input {
    data: Resolved,
    squad: Option<Vec<Group>>,
}

impl Input {
    /// Finds the data, and reads it if it is SQuAD.
    ///
    /// # Errors
    /// Those of [`DataSource::resolve`] and [`DataSource::read_groups`].
    pub fn open(source: &DataSource) -> Result<Self> {
        let data = source.resolve()?;
        let squad = if data.format() == DataFormat::Squad { Some(source.read_groups()?) } else { None };
        Ok(Input { data, squad })
    }

    /// Files that the data is read from.
    pub fn files(&self) -> impl Iterator<Item = &std::path::Path> {
        self.data.files().map(|(_, path)| path)
    }

    /// Rows and candidates.
    ///
    /// # Errors
    /// A row that cannot be read, or to which no negatives can be added.
    pub fn corpus(&self) -> Result<Corpus> {
        if let Some(groups) = &self.squad {
            return Corpus::read(groups.iter().cloned().map(Ok));
        }
        Corpus::read(self.data.rows()?.map(|row| {
            let row = row?;
            // Checked now, not after an hour of work.
            self.written(row.line().unwrap_or_default(), &[], false).map_err(|message| row.error(message))?;
            row.parse()
        }))
    }

    /// Hands every row with its negatives to `write`, as one line of JSON; `corpus` must be this input's.
    ///
    /// # Errors
    /// Those of `write`, and if something cannot be read or the data has changed since it was read.
    pub fn write(
        &self,
        corpus: &Corpus,
        mined: &Mined,
        rules: &Rules,
        write: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        let mut rows = mined.negatives.iter().map(|row| row.iter().map(|&p| corpus.text(p)).collect::<Vec<Text>>());
        let has_changed = || Error::file(self.data.path(), "changed while it was mined; run the command again");
        if let Some(groups) = &self.squad {
            for (group, negatives) in groups.iter().zip(rows) {
                write(&parallel_row(&Group { negatives, ..group.clone() }))?;
            }
            return Ok(());
        }
        for row in self.data.rows()? {
            let row = row?;
            let negatives = rows.next().ok_or_else(has_changed)?;
            let line = self.written(row.line().unwrap_or_default(), &negatives, rules.replace);
            write(&line.map_err(|message| row.error(message))?)?;
        }
        if rows.next().is_some() { Err(has_changed()) } else { Ok(()) }
    }

    fn written(&self, line: &[u8], negatives: &[Text], replace: bool) -> std::result::Result<String, String> {
        add_negatives(line, self.data.format() == DataFormat::Parallel, negatives, replace)
    }
}
