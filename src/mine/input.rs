//! The data, which is read twice: to collect what there is to mine, and to write it again with its negatives.

use super::{Corpus, Mined, Rules};
use crate::data::formats::{DataSource, Group, Note, Notes, Resolved, SharedIds, Text, parallel_row};
use crate::{Error, Result};

/// Data to mine from. Rows are read again for writing; of layouts whose groups lie scattered over their files, all
/// groups are kept.
pub struct Input {
    data: Resolved,
    groups: Option<Vec<Group>>,
    notes: Notes,
}

impl Input {
    /// Finds the data, and reads it if its groups are kept.
    ///
    /// # Errors
    /// Those of [`DataSource::resolve`] and [`DataSource::read_groups`].
    pub fn open(source: &DataSource) -> Result<Self> {
        let data = source.resolve()?;
        if !data.is_of_files() {
            let notes = data.notes().clone();
            return Ok(Input { data, groups: None, notes });
        }
        let (groups, notes) = source.read_groups()?;
        Ok(Input { data, groups: Some(groups), notes })
    }

    /// Files that the data is read from.
    pub fn files(&self) -> impl Iterator<Item = &std::path::Path> {
        self.data.files().map(|(_, path)| path)
    }

    /// What there is to say about the data that was read so far.
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Rows and candidates.
    ///
    /// # Errors
    /// A row that cannot be read, or to which no negatives can be added.
    pub fn corpus(&mut self) -> Result<Corpus> {
        if let Some(groups) = &self.groups {
            return Corpus::read(groups.iter().cloned().map(Ok));
        }
        let mut rows = self.data.rows()?;
        let (mut n_instructions, mut shared_ids) = (0, SharedIds::default());
        let corpus = Corpus::read(rows.by_ref().map(|row| {
            let row = row?;
            // Checked now, not after an hour of work.
            row.with_negatives(&[], false)?;
            let group = row.parse()?;
            shared_ids.add_group(&group);
            n_instructions += group.queries.iter().filter(|text| text.instruction.is_some()).count() as u64;
            Ok(group)
        }))?;
        self.notes.extend(&rows.notes());
        self.notes.add(Note::SharedIds, shared_ids.count());
        self.notes.add(Note::UnusedInstructions, n_instructions);
        Ok(corpus)
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
        if let Some(groups) = &self.groups {
            for (group, mined) in groups.iter().zip(rows) {
                let own = group.negatives.iter().filter(|_| !rules.replace).cloned();
                write(&parallel_row(&Group { negatives: own.chain(mined).collect(), ..group.clone() }))?;
            }
            return Ok(());
        }
        for row in self.data.rows()? {
            let row = row?;
            let negatives = rows.next().ok_or_else(has_changed)?;
            write(&row.with_negatives(&negatives, rules.replace)?)?;
        }
        if rows.next().is_some() { Err(has_changed()) } else { Ok(()) }
    }
}
