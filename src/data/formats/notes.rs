//! What reading data has left out, joined or mended: nothing of it in silence.

use serde::{Deserialize, Serialize};

use crate::error::{counted, listed};

/// Something that users should know of how their data was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Note {
    /// A file of the directory was not read.
    UnusedFile(String),
    /// Rows have a column that hbt has no use for.
    UnusedColumn(String),
    /// The data is divided, and this part of it was taken without being asked for.
    Part(String),
    /// A file has no header, so its columns were taken in this order.
    NoHeader(String),
    /// Rows with one id and different questions or languages were not joined.
    SharedIds,
    /// Rows were joined: they are about one question.
    JoinedRows,
    /// Negatives are in a language in which their question has no positive.
    UnusedNegatives,
    /// Texts have instructions that are of no use here.
    UnusedInstructions,
    /// Questions have no answer in the data.
    Unanswered,
    /// No sentence holds the answer of a question.
    NoSentence,
    /// Answers were found where their offset says, once it was counted like this.
    Offsets(String),
    /// Judgements are of queries that are not there.
    UnknownQueries,
    /// Judgements and candidates name documents that are not there.
    UnknownDocuments,
    /// A document is judged more than once for one query.
    RepeatedJudgements,
    /// Queries stand more than once.
    RepeatedQueries,
    /// Documents stand more than once.
    RepeatedDocuments,
}

/// Notes and how often each was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes(Vec<(Note, u64)>);

impl Notes {
    /// Takes a note of `n` rows, files or questions.
    pub fn add(&mut self, note: Note, n: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == note) {
            Some((_, count)) => *count += n,
            None if n > 0 => self.0.push((note, n)),
            None => {}
        }
    }

    /// Takes over the notes of another part of the data.
    pub fn extend(&mut self, other: &Notes) {
        other.0.iter().for_each(|(note, n)| self.add(note.clone(), *n));
    }

    /// How often a note was taken.
    pub fn count(&self, note: &Note) -> u64 {
        self.0.iter().find(|(known, _)| known == note).map_or(0, |(_, n)| *n)
    }

    /// The notes in sentences, one line each.
    pub fn lines(&self) -> Vec<String> {
        let mut notes: Vec<&(Note, u64)> = self.0.iter().collect();
        notes.sort();
        let (mut files, mut columns) = (Vec::new(), Vec::new());
        let mut lines = Vec::new();
        for (note, n) in notes {
            lines.push(match note {
                Note::UnusedFile(name) => {
                    files.push(name.clone());
                    continue;
                }
                Note::UnusedColumn(name) => {
                    columns.push(format!("{name} ({})", counted(*n, "row")));
                    continue;
                }
                Note::Part(part) => part.clone(),
                Note::NoHeader(columns) => format!("{} without a header: read as {columns}", counted(*n, "file")),
                Note::SharedIds => format!(
                    "{} shared by several questions or languages, which stay apart; join_by_id = true makes them \
                     versions of one question",
                    counted(*n, "id")
                ),
                Note::JoinedRows => format!("{} joined to others that are about the same question", counted(*n, "row")),
                Note::UnusedNegatives => format!(
                    "{} not used: in a language in which their question has no positive",
                    counted(*n, "negative")
                ),
                Note::UnusedInstructions => format!(
                    "{} with an instruction of its own: not used here, where the model's prefixes hold for all",
                    counted(*n, "text")
                ),
                Note::Unanswered => format!("{} left out: no answer in the data", counted(*n, "question")),
                Note::NoSentence => format!("{} left out: no sentence holds the answer", counted(*n, "question")),
                Note::Offsets(way) => format!("{} mended: answer_start counts {way}", counted(*n, "offset")),
                Note::UnknownQueries => {
                    format!("{} judged and not among the queries: left out", counted(*n, "query"))
                }
                Note::UnknownDocuments => {
                    format!("{} judged or to be ranked, and not in the corpus: never found", counted(*n, "document"))
                }
                Note::RepeatedJudgements => {
                    format!("{} left out: one below is of the same query and document", counted(*n, "judgement"))
                }
                Note::RepeatedQueries => {
                    format!("{} left out: id and text are those of one above", counted(*n, "query"))
                }
                Note::RepeatedDocuments => {
                    format!("{} left out: id and text are those of one above", counted(*n, "document"))
                }
            });
        }
        for (what, names) in [("files", files), ("columns", columns)] {
            if !names.is_empty() {
                lines.push(format!("{what} not used: {}", listed(&names)));
            }
        }
        lines
    }
}
