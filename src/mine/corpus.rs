//! Data to mine: its rows, and all their passages as candidates.

use std::collections::HashMap;
use std::ops::Range;

use super::answers::{Answers, GroupTexts};
use crate::data::catalog::{LangId, text_hash};
use crate::data::formats::{Group, Text};
use crate::{Error, Result};

/// A candidate: a text that the data has as a positive or negative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Index into [`Corpus::languages`].
    pub lang: LangId,
}

/// A row of the data. Passages are indices into [`Corpus::passages`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorpusRow {
    /// The versions of one question: indices into [`Corpus::queries`].
    pub queries: Range<usize>,
    /// Number of its group.
    pub group: u64,
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
    /// Hashes of the queries of each group.
    questions: Vec<Vec<u64>>,
    answers: Answers,
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

    /// Passages that answer the row's question, ascending; its positives are among them.
    pub fn answers(&self, row: &CorpusRow) -> Vec<u32> {
        self.answers.of(&self.questions[row.group as usize])
    }

    /// A passage with its language.
    pub fn text(&self, passage: u32) -> Text {
        let lang = self.languages[usize::from(self.passages[passage as usize].lang)].clone();
        Text::new(lang, &self.texts[passage as usize])
    }
}

/// Data read so far: languages and passages are numbered by their first occurrence.
#[derive(Default)]
struct Reading {
    languages: Vec<String>,
    /// Their numbers.
    lang_ids: HashMap<String, usize>,
    passages: HashMap<(LangId, u64), u32>,
    /// Language, text hash and text of each passage.
    candidates: Vec<(LangId, u64, String)>,
    rows: Vec<CorpusRow>,
    queries: Vec<String>,
    /// Numbers of the groups, by their ids.
    groups: HashMap<String, u64>,
    texts: Vec<GroupTexts>,
}

impl Reading {
    fn push(&mut self, row: Group) -> Result<()> {
        let next = self.groups.len() as u64;
        let group = *self.groups.entry(row.identity().to_owned()).or_insert(next);
        self.texts.resize(self.groups.len(), GroupTexts::default());
        let first_query = self.queries.len();
        for query in row.queries {
            self.texts[group as usize].queries.push(text_hash(&query.text));
            self.queries.push(query.text);
        }
        let positives = row.positives.into_iter().map(|text| self.passage(text)).collect::<Result<Vec<_>>>()?;
        let negatives = row.negatives.into_iter().map(|text| self.passage(text)).collect::<Result<_>>()?;
        self.texts[group as usize].positives.extend(&positives);
        self.rows.push(CorpusRow { queries: first_query..self.queries.len(), group, positives, negatives });
        Ok(())
    }

    /// The number of a passage, new or not.
    fn passage(&mut self, text: Text) -> Result<u32> {
        let lang = match self.lang_ids.get(&text.lang) {
            Some(lang) => *lang,
            None => {
                self.languages.push(text.lang.clone());
                *self.lang_ids.entry(text.lang).or_insert(self.languages.len() - 1)
            }
        };
        let hash = text_hash(&text.text);
        let next = self.candidates.len();
        if next >= u32::MAX as usize || lang > usize::from(LangId::MAX) {
            return Err(Error::other("more than 4,294,967,295 passages or 65,536 languages; split the data"));
        }
        let passage = *self.passages.entry((lang as LangId, hash)).or_insert(next as u32);
        if passage as usize == next {
            self.candidates.push((lang as LangId, hash, text.text));
        }
        Ok(passage)
    }

    fn finish(self) -> Corpus {
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
            Corpus { languages: languages.into_iter().map(|(lang, _)| lang).collect(), ..Corpus::default() };
        let mut hashes = Vec::with_capacity(order.len());
        for old in order {
            let (lang, hash, text) = candidates[old as usize].take().expect("an order has every number once");
            corpus.passages.push(Passage { lang: lang_ids[usize::from(lang)] });
            corpus.texts.push(text);
            hashes.push(hash);
        }
        corpus.queries = self.queries;
        corpus.rows = self.rows;
        for row in &mut corpus.rows {
            row.positives
                .iter_mut()
                .chain(&mut row.negatives)
                .for_each(|passage| *passage = numbers[*passage as usize]);
            row.negatives.sort_unstable();
        }
        let mut groups = self.texts;
        groups
            .iter_mut()
            .flat_map(|group| &mut group.positives)
            .for_each(|passage| *passage = numbers[*passage as usize]);
        let lang = |passage: u32| corpus.passages[passage as usize].lang;
        corpus.answers = Answers::new(&groups, hashes, |a, b| lang(a) == lang(b));
        corpus.questions = groups.into_iter().map(|group| group.queries).collect();
        corpus
    }
}
