//! Data to mine: its rows, and all their passages as candidates.

use std::collections::HashMap;
use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use crate::data::catalog::{LangId, Role};
use crate::data::formats::{Group, Text};
use crate::data::same_answer::SameAnswer;
use crate::{Error, Result};

/// A candidate: a text that the data has as a positive or negative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Index into [`Corpus::languages`].
    pub lang: LangId,
    /// Label of the question that it answers, the [label](SameAnswer::labels) of its groups; `None` for a text that
    /// occurs only as a negative.
    pub label: Option<u64>,
}

/// A row of the data. Passages are indices into [`Corpus::passages`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorpusRow {
    /// The versions of one question: indices into [`Corpus::queries`].
    pub queries: Range<usize>,
    /// Label of its answer.
    pub label: u64,
    /// Its positives in the order of the row.
    pub positives: Vec<u32>,
    /// The negatives that the row has already, ascending.
    pub negatives: Vec<u32>,
}

/// Rows and candidates of a data set.
///
/// Passages are numbered language by language, in the order of the languages' codes, and within a language by their
/// first occurrence in the data. Equal texts of one language are one passage.
#[derive(Default)]
pub struct Corpus {
    /// Languages of the passages, ascending.
    pub languages: Vec<String>,
    /// Candidates.
    pub passages: Vec<Passage>,
    /// Texts of the passages.
    pub texts: Vec<String>,
    /// Rows, in the order of the data.
    pub rows: Vec<CorpusRow>,
    /// Texts of the queries of all rows.
    pub queries: Vec<String>,
    /// Largest number of groups that have the same answer.
    pub largest_label: u64,
    /// Number of groups of rows.
    pub n_groups: u64,
    /// Passages sorted by label, then by number.
    by_label: Vec<u32>,
}

impl Corpus {
    /// Reads all rows; each is a group, or the part of a group that a row of the data holds.
    ///
    /// # Errors
    /// Those of the rows.
    pub fn read(rows: impl Iterator<Item = Result<Group>>) -> Result<Self> {
        let mut reading = Reading::default();
        for row in rows {
            reading.push(row?)?;
        }
        Ok(reading.finish())
    }

    /// Indices of the passages in one language.
    pub fn passage_range(&self, lang: LangId) -> Range<usize> {
        let start = self.passages.partition_point(|passage| passage.lang < lang);
        start..start + self.passages[start..].partition_point(|passage| passage.lang == lang)
    }

    /// Passages that answer the questions with this label, ascending.
    pub fn answers(&self, label: u64) -> &[u32] {
        let label_of = |passage: &u32| self.passages[*passage as usize].label;
        let start = self.by_label.partition_point(|passage| label_of(passage) < Some(label));
        let len = self.by_label[start..].partition_point(|passage| label_of(passage) == Some(label));
        &self.by_label[start..start + len]
    }

    /// A passage with its language.
    pub fn text(&self, passage: u32) -> Text {
        let lang = self.languages[usize::from(self.passages[passage as usize].lang)].clone();
        Text::new(lang, &self.texts[passage as usize])
    }
}

/// Data read so far: languages and passages are numbered by their first occurrence, labels are not yet known.
#[derive(Default)]
struct Reading {
    languages: Vec<String>,
    passages: HashMap<(LangId, u64), u32>,
    /// Language, text hash and text of each passage.
    candidates: Vec<(LangId, u64, String)>,
    /// Rows, with the number of their group in the place of the label.
    rows: Vec<CorpusRow>,
    queries: Vec<String>,
    groups: HashMap<String, u64>,
    /// Group, role and hash of each text, from which [`SameAnswer`] finds the labels.
    roles: Vec<(u64, Role, u64)>,
}

impl Reading {
    fn push(&mut self, row: Group) -> Result<()> {
        let next = self.groups.len() as u64;
        let group = *self.groups.entry(row.identity().to_owned()).or_insert(next);
        let first_query = self.queries.len();
        for query in row.queries {
            self.roles.push((group, Role::Query, xxh3_64(query.text.as_bytes())));
            self.queries.push(query.text);
        }
        let positives = row.positives.into_iter().map(|text| {
            let (passage, hash) = self.passage(text)?;
            self.roles.push((group, Role::Positive, hash));
            Ok(passage)
        });
        let positives = positives.collect::<Result<_>>()?;
        let negatives = row.negatives.into_iter().map(|text| Ok(self.passage(text)?.0)).collect::<Result<_>>()?;
        self.rows.push(CorpusRow { queries: first_query..self.queries.len(), label: group, positives, negatives });
        Ok(())
    }

    /// The number of a passage, new or not, and its text's hash.
    fn passage(&mut self, text: Text) -> Result<(u32, u64)> {
        let known = self.languages.iter().position(|lang| *lang == text.lang);
        let lang = known.unwrap_or_else(|| {
            self.languages.push(text.lang);
            self.languages.len() - 1
        });
        let hash = xxh3_64(text.text.as_bytes());
        let next = self.candidates.len();
        if next >= u32::MAX as usize || lang > usize::from(LangId::MAX) {
            return Err(Error::other("more than 4,294,967,295 passages or 65,536 languages; split the data"));
        }
        let passage = *self.passages.entry((lang as LangId, hash)).or_insert(next as u32);
        if passage as usize == next {
            self.candidates.push((lang as LangId, hash, text.text));
        }
        Ok((passage, hash))
    }

    fn finish(self) -> Corpus {
        let n_groups = self.groups.len() as u64;
        let same = SameAnswer::new(n_groups, self.roles);
        let mut languages: Vec<(String, usize)> = self.languages.into_iter().zip(0..).collect();
        languages.sort();
        let mut lang_ids = vec![0; languages.len()];
        languages.iter().zip(0..).for_each(|((_, old), new)| lang_ids[*old] = new);

        // A stable sort: it keeps the order within a language.
        let mut order: Vec<u32> = (0..self.candidates.len() as u32).collect();
        order.sort_by_key(|&old| lang_ids[usize::from(self.candidates[old as usize].0)]);
        let mut numbers = vec![0; order.len()];
        order.iter().zip(0..).for_each(|(&old, new)| numbers[old as usize] = new);

        let mut candidates: Vec<Option<(LangId, u64, String)>> = self.candidates.into_iter().map(Some).collect();
        let mut corpus =
            Corpus { languages: languages.into_iter().map(|(lang, _)| lang).collect(), n_groups, ..Corpus::default() };
        for old in order {
            let (lang, hash, text) = candidates[old as usize].take().expect("an order has every number once");
            corpus.passages.push(Passage { lang: lang_ids[usize::from(lang)], label: same.label_of_text(hash) });
            corpus.texts.push(text);
        }
        corpus.queries = self.queries;
        corpus.rows = self.rows;
        for row in &mut corpus.rows {
            row.label = same.labels()[row.label as usize];
            row.positives
                .iter_mut()
                .chain(&mut row.negatives)
                .for_each(|passage| *passage = numbers[*passage as usize]);
            row.negatives.sort_unstable();
        }
        let mut n_with: HashMap<u64, u64> = HashMap::new();
        same.labels().iter().for_each(|label| *n_with.entry(*label).or_default() += 1);
        corpus.largest_label = n_with.into_values().max().unwrap_or(0);
        corpus.by_label = (0..corpus.passages.len() as u32).collect();
        corpus.by_label.sort_by_key(|&passage| corpus.passages[passage as usize].label);
        corpus
    }
}
