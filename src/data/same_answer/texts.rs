//! What the passages of a batch say and its rows ask, by the texts' hashes.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use super::Passage;
use crate::data::catalog::{Role, TextSource};

/// The texts that passages say and the questions that rows ask, numbered; all lists ascend.
pub(super) struct Texts {
    pub n_texts: usize,
    /// For each passage the texts that it says.
    pub says: Vec<Vec<usize>>,
    /// For each row the questions that its group asks.
    pub asks: Vec<Vec<usize>>,
    /// For each question the texts that answer it, but for those that no passage says.
    pub answers: Vec<Vec<usize>>,
}

impl Texts {
    /// Those of the rows of a batch, given by their groups, and its passages.
    pub(super) fn new(source: &dyn TextSource, groups: &[u64], passages: &[Passage]) -> Self {
        let mut texts = Numbers::default();
        let says = passages.iter().enumerate().map(|(number, passage)| {
            let said = said(source, passage, number < groups.len());
            ascending(said.into_iter().map(|text| texts.of(text)).collect())
        });
        let says = says.collect();
        let mut questions = Questions {
            source,
            texts: &texts,
            here: groups.iter().copied().collect(),
            numbers: HashMap::new(),
            answers: Vec::new(),
        };
        let asks = groups.iter().map(|&group| {
            let queries = source.hashes(group, Role::Query).into_iter();
            ascending(queries.map(|(_, query)| questions.number(group, query)).collect())
        });
        let asks = asks.collect();
        Texts { asks, answers: questions.answers, says, n_texts: texts.0.len() }
    }
}

/// What a passage says: a row's positive, or a negative.
fn said(source: &dyn TextSource, passage: &Passage, is_of_row: bool) -> Vec<u64> {
    let own = source.text_hash(passage.text);
    let mut said = vec![own];
    let Some(group) = passage.group else { return said };
    let positives = source.hashes(group, Role::Positive);
    // A negative may be given in another language than where it is a positive.
    let as_positive = positives.iter().find(|(_, text)| *text == own).map(|(lang, _)| *lang);
    let own_lang = if is_of_row { Some(passage.lang) } else { as_positive };
    said.extend(positives.into_iter().filter(|(lang, _)| Some(*lang) != own_lang).map(|(_, text)| text));
    if is_of_row {
        said.extend(source.hashes(group, Role::Query).into_iter().map(|(_, text)| text));
    }
    said
}

/// The questions of a batch.
struct Questions<'a> {
    source: &'a dyn TextSource,
    texts: &'a Numbers<u64>,
    /// The groups of the batch.
    here: HashSet<u64>,
    /// For each group of the batch and query of it that was looked up, the question.
    numbers: HashMap<(u64, u64), usize>,
    /// See [`Texts::answers`].
    answers: Vec<Vec<usize>>,
}

impl Questions<'_> {
    /// The number of a query of a group.
    fn number(&mut self, group: u64, query: u64) -> usize {
        if let Some(&question) = self.numbers.get(&(group, query)) {
            return question;
        }
        let question = self.answers.len();
        let asking = self.source.groups_asking(group, query);
        let texts = asking.iter().flat_map(|group| self.source.hashes(*group, Role::Positive)).map(|(_, text)| text);
        let answers = texts.chain([query]).filter_map(|text| self.texts.0.get(&text).copied());
        self.answers.push(ascending(answers.collect()));
        // They ask the same. A query with many positives has as many groups, of which few are in the batch.
        let here = asking.into_iter().filter(|group| self.here.contains(group));
        self.numbers.extend(here.map(|group| ((group, query), question)));
        question
    }
}

/// Numbers for keys, by first appearance.
pub(super) struct Numbers<K>(pub HashMap<K, usize>);

impl<K> Default for Numbers<K> {
    fn default() -> Self {
        Numbers(HashMap::new())
    }
}

impl<K: Hash + Eq> Numbers<K> {
    /// The number of a key, the next one if it is new.
    pub(super) fn of(&mut self, key: K) -> usize {
        let next = self.0.len();
        *self.0.entry(key).or_insert(next)
    }

    /// The keys, in the order of their numbers.
    pub(super) fn into_keys(self) -> Vec<K> {
        let mut keys: Vec<(K, usize)> = self.0.into_iter().collect();
        keys.sort_unstable_by_key(|(_, number)| *number);
        keys.into_iter().map(|(key, _)| key).collect()
    }
}

/// Numbers in order, each once.
pub(super) fn ascending(mut numbers: Vec<usize>) -> Vec<usize> {
    numbers.sort_unstable();
    numbers.dedup();
    numbers
}
