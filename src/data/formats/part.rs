//! Parts of divided data: `train.jsonl` beside `test.jsonl`, `train/a.jsonl`, `train-00000-of-00004.parquet`,
//! `de_train.csv`.

use std::fmt;

use super::Split;
use super::files::DataFile;
use crate::choices::Auto;

/// What a part is wanted for, which decides where the user has not named it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// The training part.
    #[default]
    Training,
    /// The part to choose a model by: for validation, else the one for tests.
    Validation,
    /// The part to measure a model on: for tests, else the one for validation.
    Test,
}

/// Parts in the order in which [`Purpose`] wants them.
pub(in crate::data) fn wanted(purpose: Purpose) -> &'static [Split] {
    match purpose {
        Purpose::Training => &[Split::Train],
        Purpose::Validation => &[Split::Validation, Split::Test],
        Purpose::Test => &[Split::Test, Split::Validation],
    }
}

/// Words that name a part, the usual ones first.
pub(in crate::data) fn words(split: Split) -> &'static [&'static str] {
    match split {
        Split::All => &[],
        Split::Train => &["train"],
        Split::Validation => &["validation", "dev", "val", "valid"],
        Split::Test => &["test"],
    }
}

const PARTS: [Split; 3] = [Split::Train, Split::Validation, Split::Test];

/// The part that a file belongs to by its name or the names of its folders.
fn part_of(file: &DataFile) -> Option<Split> {
    let name = file.name.to_lowercase();
    let mut names = name.split(['/', '.', '-', '_']);
    names.find_map(|name| PARTS.into_iter().find(|part| words(*part).contains(&name)))
}

/// The part of the data that is meant: the one that was asked for; else, of data with a training part and another, the
/// one for this purpose; else everything.
pub(super) fn meant(asked: Auto<Split>, purpose: Purpose, files: &[DataFile]) -> Split {
    if let Auto::Of(split) = asked {
        return split;
    }
    let has = |part: Split| files.iter().any(|file| part_of(file) == Some(part));
    match has(Split::Train) && (has(Split::Validation) || has(Split::Test)) {
        true => wanted(purpose).iter().copied().find(|part| has(*part)).unwrap_or(Split::All),
        false => Split::All,
    }
}

/// Whether a file is of a part.
pub(super) fn is_of(file: &DataFile, split: Split) -> bool {
    split == Split::All || part_of(file) == Some(split)
}

/// Whether a file is of no part.
pub(super) fn is_of_none(file: &DataFile) -> bool {
    part_of(file).is_none()
}

/// What to call the files of a part, for messages.
pub(super) struct Names(pub(super) Split);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{0}.jsonl or a folder {0}/", self.0)
    }
}
