//! Which passages of a batch are no negatives of which of its queries, because they answer them.
//!
//! **The rule.** A query is answered by the positives of its group, in all languages, and by those of all groups that
//! ask in the same words: where a query has several positives, many data sets have a row for each. A passage says what
//! its text says, what the other languages' positives of its group say, and what its group's queries do. Two rows of a
//! batch are no negatives of each other if the passage of either says what answers the query of the other; so are a
//! query and a hard negative that says what answers it.
//!
//! In XQuAD-R several questions are answered by one sentence, and its German version may stand in another question's
//! group: it is the answer of both. Where duplicate questions are pairs, of A with B and of B with C, B is no negative
//! of itself.
//!
//! The rule is about two rows and is not closed: where A shares an answer with B and B another with C, A and C remain
//! each other's negatives. Judgements of relevance are many to many (in NFCorpus a document answers thirty queries, and
//! a query has forty documents), so that chains of shared texts soon reach everything. Nor are two positives in one
//! language versions of each other: that a query shares one of a group's answers says nothing about its others.
//!
//! **The outcome.** Where the rows of a batch fall into sets in which each answers each, a label says so, and an
//! operation compares labels. Only for the others there is a table of bits.

use std::collections::{HashMap, HashSet};

use super::catalog::{LangId, Role, TextSource};
use super::union_find::UnionFind;

/// Bits in a word of [`SameAnswer::left_out`].
const WORD_BITS: usize = i32::BITS as usize;

/// A passage of a batch.
#[derive(Clone, Copy)]
pub(super) struct Passage {
    /// Its text.
    pub text: u64,
    /// Its language, where it is a positive of a row.
    pub lang: LangId,
    /// The group whose positive it is, if any.
    pub group: Option<u64>,
}

/// Who answers whom in a batch; see [`Batch`](super::batch::Batch) for both fields.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SameAnswer {
    /// `(n_queries + n_passages,)`
    pub labels: Vec<i32>,
    /// `(n_queries, n_passages / 32 rounded up)`, or empty
    pub left_out: Vec<i32>,
}

/// Compares the rows of a batch, given by their groups, and its passages: the rows' positives in order, then negatives.
pub(super) fn same_answer(source: &dyn TextSource, groups: &[u64], passages: &[Passage]) -> SameAnswer {
    let pairs = Answers::new(source, groups, passages).pairs();
    let (of_rows, of_negatives) = pairs.split_at(pairs.partition_point(|(passage, _)| *passage < groups.len()));
    let sets = Sets::new(groups.len(), of_rows);
    // Numbers of rows stand for sets, those of passages for what is alone.
    let mut keys: Vec<usize> = (0..groups.len()).map(|row| sets.of(row).unwrap_or(row)).collect();
    keys.extend_from_within(..);
    keys.extend(groups.len()..passages.len());
    let mut apart: Vec<(usize, usize)> = of_rows.iter().copied().filter(|(_, row)| sets.of(*row).is_none()).collect();
    for of_passage in of_negatives.chunk_by(|a, b| a.0 == b.0) {
        match sets.is_exactly(of_passage) {
            Some(set) => keys[groups.len() + of_passage[0].0] = set,
            None => apart.extend(of_passage),
        }
    }
    SameAnswer { labels: numbered(&keys), left_out: bits(&apart, groups.len(), passages.len()) }
}

/// A batch by its texts' hashes.
struct Answers<'a> {
    source: &'a dyn TextSource,
    groups: &'a [u64],
    /// The groups as a set.
    here: HashSet<u64>,
    /// For each text the passages that say it, ascending.
    saying: HashMap<u64, Vec<usize>>,
    /// For each group of the batch and query of it that was looked up, the place of its answers in `lists`.
    answers: HashMap<(u64, u64), usize>,
    /// Passages, ascending.
    lists: Vec<Vec<usize>>,
}

impl<'a> Answers<'a> {
    fn new(source: &'a dyn TextSource, groups: &'a [u64], passages: &[Passage]) -> Self {
        let mut saying: HashMap<u64, Vec<usize>> = HashMap::with_capacity(2 * passages.len());
        let mut say = |text: u64, number: usize| {
            let numbers = saying.entry(text).or_default();
            if numbers.last() != Some(&number) {
                numbers.push(number);
            }
        };
        for (number, passage) in passages.iter().enumerate() {
            say(source.text_hash(passage.text), number);
            let Some(group) = passage.group else { continue };
            let positives = source.hashes(group, Role::Positive);
            // A negative may be given in another language than where it is a positive.
            let own = source.text_hash(passage.text);
            let as_positive = positives.iter().find(|(_, text)| *text == own).map(|(lang, _)| *lang);
            let own_lang = if number < groups.len() { Some(passage.lang) } else { as_positive };
            let versions = positives.into_iter().filter(|(lang, _)| Some(*lang) != own_lang);
            versions.for_each(|(_, text)| say(text, number));
            if number < groups.len() {
                source.hashes(group, Role::Query).into_iter().for_each(|(_, text)| say(text, number));
            }
        }
        Answers {
            source,
            groups,
            here: groups.iter().copied().collect(),
            saying,
            answers: HashMap::new(),
            lists: Vec::new(),
        }
    }

    /// Each pair of a passage and a row that it answers but that is not its own, ascending. Of two rows, both pairs.
    fn pairs(mut self) -> Vec<(usize, usize)> {
        let (groups, mut pairs) = (self.groups, Vec::new());
        for (row, &group) in groups.iter().enumerate() {
            for (_, query) in self.source.hashes(group, Role::Query) {
                let answers = self.answers(group, query).iter();
                for &passage in answers.filter(|passage| **passage != row) {
                    pairs.push((passage, row));
                    if passage < groups.len() {
                        pairs.push((row, passage));
                    }
                }
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        pairs
    }

    /// The passages that answer a query of a group.
    fn answers(&mut self, group: u64, query: u64) -> &[usize] {
        if let Some(&list) = self.answers.get(&(group, query)) {
            return &self.lists[list];
        }
        let asking = self.source.groups_asking(group, query);
        let texts = asking.iter().flat_map(|group| self.source.hashes(*group, Role::Positive)).map(|(_, text)| text);
        let found = texts.chain([query]).filter_map(|text| self.saying.get(&text));
        let mut found: Vec<usize> = found.flatten().copied().collect();
        found.sort_unstable();
        found.dedup();
        // They have the same answers. A query with many positives has as many groups, of which few are in the batch.
        let here = asking.into_iter().filter(|group| self.here.contains(group));
        self.answers.extend(here.map(|group| ((group, query), self.lists.len())));
        self.lists.push(found);
        self.lists.last().expect("just put there")
    }
}

/// Rows that are connected.
struct Sets {
    roots: Vec<usize>,
    /// Number of rows connected with each root.
    sizes: Vec<usize>,
    /// Whether all pairs of rows connected with each root are pairs of the batch.
    are_whole: Vec<bool>,
}

impl Sets {
    /// Connects `n` rows by pairs that come in both directions, sorted.
    fn new(n: usize, pairs: &[(usize, usize)]) -> Self {
        let mut union = UnionFind::new(n);
        pairs.iter().for_each(|&(a, b)| union.join(a, b));
        let roots: Vec<usize> = (0..n).map(|row| union.root(row)).collect();
        let mut sizes = vec![0; n];
        roots.iter().for_each(|root| sizes[*root] += 1);
        let mut are_whole = vec![true; n];
        for of_row in pairs.chunk_by(|a, b| a.0 == b.0) {
            let root = roots[of_row[0].0];
            are_whole[root] &= of_row.len() + 1 == sizes[root];
        }
        Sets { roots, sizes, are_whole }
    }

    /// The set of a row, if each of its rows answers each.
    fn of(&self, row: usize) -> Option<usize> {
        let root = self.roots[row];
        self.are_whole[root].then_some(root)
    }

    /// The set whose rows, and no others, a passage answers.
    fn is_exactly(&self, of_passage: &[(usize, usize)]) -> Option<usize> {
        let set = self.of(of_passage[0].1)?;
        let all = of_passage.iter().all(|(_, row)| self.roots[*row] == set);
        (all && of_passage.len() == self.sizes[set]).then_some(set)
    }
}

/// Replaces keys by small numbers: equal for equal keys, counted by first appearance.
fn numbered(keys: &[usize]) -> Vec<i32> {
    let mut numbers = HashMap::new();
    let mut number = |key: &usize| {
        let next = numbers.len() as i32;
        *numbers.entry(*key).or_insert(next)
    };
    keys.iter().map(&mut number).collect()
}

/// A row of bits for each of `n_rows` rows, set for its passages in `pairs`; nothing if there are no pairs.
fn bits(pairs: &[(usize, usize)], n_rows: usize, n_passages: usize) -> Vec<i32> {
    let words = n_passages.div_ceil(WORD_BITS);
    let mut bits = vec![0; if pairs.is_empty() { 0 } else { n_rows * words }];
    for (passage, row) in pairs {
        bits[row * words + passage / WORD_BITS] |= 1 << (passage % WORD_BITS);
    }
    bits
}
