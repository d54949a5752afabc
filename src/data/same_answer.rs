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
//! operation compares labels. Only for the others there is a table of bits. Both are found by classes of rows
//! (`same_answer/classes.rs`) and not by pairs: thousands of rows may share an answer.

mod classes;
mod sets;
mod texts;

use self::classes::Classes;
use self::sets::Sets;
use self::texts::{Numbers, Texts};
use super::catalog::{LangId, TextSource};

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
    let classes = Classes::new(Texts::new(source, groups, passages));
    let sets = Sets::new(&classes);
    // Numbers of rows stand for sets, those of passages for what is alone.
    let key = |passage: usize| sets.set_of(passage).unwrap_or(passage);
    let mut numbers = Numbers::default();
    let labels = (0..groups.len()).chain(0..passages.len()).map(|seq| numbers.of(key(seq)) as i32).collect();
    let left_out = if sets.are_all() { Vec::new() } else { bits(&classes, &sets, groups.len(), passages.len()) };
    SameAnswer { labels, left_out }
}

/// A row of bits for each of `n_rows` rows: passages that answer it although their labels differ.
fn bits(classes: &Classes, sets: &Sets, n_rows: usize, n_passages: usize) -> Vec<i32> {
    let words = n_passages.div_ceil(WORD_BITS);
    let mut bits = vec![0; n_rows * words];
    for class in 0..classes.n_of_rows {
        let rows = &classes.members[class];
        let first = rows[0] * words..(rows[0] + 1) * words;
        if !set_bits(classes, sets, class, &mut bits[first.clone()]) {
            continue;
        }
        rows[1..].iter().for_each(|row| bits.copy_within(first.clone(), row * words));
        // A row's own positive is none of the others that answer it.
        rows.iter().for_each(|row| bits[row * words + row / WORD_BITS] &= !(1 << (row % WORD_BITS)));
    }
    bits
}

/// Sets the bits of what labels do not say of a class of rows, and those of the rows themselves if they answer each other.
/// Returns whether any is set.
fn set_bits(classes: &Classes, sets: &Sets, class: usize, bits: &mut [i32]) -> bool {
    let mut any = false;
    let mut set = |class: usize| {
        any = true;
        classes.members[class].iter().for_each(|passage| bits[passage / WORD_BITS] |= 1 << (passage % WORD_BITS));
    };
    if sets.is_mixed(class) {
        classes.related(class).for_each(&mut set);
    }
    let negatives = classes.answers_of(class).flat_map(|text| classes.saying(text).1).copied();
    negatives.filter(|class| sets.answers_others(*class)).for_each(&mut set);
    any
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::catalog::{Catalog, Role};
    use crate::random::{below, hash};
    use std::collections::{HashMap, HashSet};
    use std::ops::Range;

    type Text = (LangId, u64);

    /// Queries and positives of groups; a text's number is its hash.
    struct Groups {
        of: Vec<[Vec<Text>; 2]>,
        asking: HashMap<u64, Vec<u64>>,
        /// The first group with each positive.
        holders: HashMap<u64, u64>,
    }

    impl Groups {
        fn new(of: Vec<[Vec<Text>; 2]>) -> Self {
            let (mut asking, mut holders) = (HashMap::<u64, Vec<u64>>::new(), HashMap::new());
            for (group, [queries, positives]) in (0..).zip(&of) {
                for text in queries.iter().map(|(_, text)| *text).collect::<HashSet<_>>() {
                    asking.entry(text).or_default().push(group);
                }
                positives.iter().for_each(|(_, text)| _ = holders.entry(*text).or_insert(group));
            }
            Groups { of, asking, holders }
        }
    }

    impl TextSource for Groups {
        fn catalog(&self) -> &Catalog {
            unreachable!("rows are given")
        }
        fn texts(&self, _: u64, _: Role, _: LangId) -> Range<u64> {
            unreachable!("passages are given")
        }
        fn tokens(&self, _: u64) -> &[u32] {
            unreachable!("tokens say nothing of answers")
        }
        fn hashes(&self, group: u64, role: Role) -> Vec<Text> {
            self.of[group as usize][role as usize].clone()
        }
        fn groups_asking(&self, _: u64, query: u64) -> Vec<u64> {
            self.asking[&query].clone()
        }
        fn group_of_negative(&self, text: u64) -> Option<u64> {
            self.holders.get(&text).copied()
        }
        fn shares_texts(&self) -> bool {
            true
        }
        fn text_hash(&self, text: u64) -> u64 {
            text
        }
        fn teacher_score(&self, _: u64) -> Option<f32> {
            None
        }
    }

    /// A batch: its groups, its rows' groups, their positives and the negatives.
    struct Case {
        groups: Groups,
        rows: Vec<u64>,
        positives: Vec<Text>,
        negatives: Vec<Text>,
    }

    impl Case {
        /// A few groups in up to three languages, with few texts among them, and rows of which some are of one group.
        fn random(seed: u64) -> Self {
            let mut n_drawn = 0;
            let mut draw = |n: u64| {
                n_drawn += 1;
                below(hash(&[seed, n_drawn]), n)
            };
            let (n_groups, n_langs, n_queries, n_positives) = (1 + draw(14), 1 + draw(3), 1 + draw(40), 1 + draw(40));
            // In every fourth batch a question may be an answer.
            let first_query = if draw(4) == 0 { 0 } else { 100 };
            let mut group = |_| {
                let mut of: [Vec<Text>; 2] = Default::default();
                for lang in (0..n_langs).filter(|lang| *lang == 0 || draw(3) > 0).collect::<Vec<_>>() {
                    of[0].extend((0..1 + draw(2)).map(|_| (lang as LangId, first_query + draw(n_queries))));
                    of[1].extend((0..1 + draw(3) / 2).map(|_| (lang as LangId, draw(n_positives))));
                }
                of
            };
            let groups = Groups::new((0..n_groups).map(&mut group).collect());
            let rows: Vec<u64> = (0..1 + draw(45)).map(|_| draw(n_groups)).collect();
            let of_row = |row: &u64| &groups.of[*row as usize][1];
            let positives: Vec<Text> =
                rows.iter().map(|row| of_row(row)[draw(of_row(row).len() as u64) as usize]).collect();
            let n_negatives = draw(3) * draw(30);
            let negatives = (0..n_negatives).map(|_| (0, draw(2) * first_query + draw(n_queries + n_positives)));
            let negatives = negatives.collect();
            Case { groups, rows, positives, negatives }
        }

        fn outcome(&self) -> SameAnswer {
            let of_row = |(&(lang, text), group): (&Text, &u64)| Passage { text, lang, group: Some(*group) };
            let of_negative = |&(lang, text): &Text| Passage { text, lang, group: self.groups.group_of_negative(text) };
            let positives = self.positives.iter().zip(&self.rows).map(of_row);
            let passages: Vec<Passage> = positives.chain(self.negatives.iter().map(of_negative)).collect();
            same_answer(&self.groups, &self.rows, &passages)
        }

        fn texts<'a>(texts: impl IntoIterator<Item = &'a Text>) -> HashSet<u64> {
            texts.into_iter().map(|(_, text)| *text).collect()
        }

        /// What answers a row's query.
        fn answers(&self, row: usize) -> HashSet<u64> {
            let queries = Self::texts(&self.groups.of[self.rows[row] as usize][0]);
            let asking = self.groups.of.iter().filter(|of| !Self::texts(&of[0]).is_disjoint(&queries));
            Self::texts(asking.flat_map(|of| &of[1])).union(&queries).copied().collect()
        }

        /// What a row's positive says, or a negative: as a positive of the first group that has it, if one does.
        fn says(&self, passage: usize) -> HashSet<u64> {
            let Some(negative) = passage.checked_sub(self.rows.len()) else {
                let [queries, positives] = &self.groups.of[self.rows[passage] as usize];
                let (lang, text) = self.positives[passage];
                let others = positives.iter().filter(|of| of.0 != lang);
                return Self::texts(others.chain(queries).chain([&(lang, text)]));
            };
            let text = self.negatives[negative].1;
            let mut holders = self.groups.of.iter().filter_map(|[_, positives]| {
                let (lang, _) = positives.iter().find(|of| of.1 == text)?;
                Some(Self::texts(positives.iter().filter(|of| of.0 != *lang)))
            });
            holders.next().unwrap_or_default().into_iter().chain([text]).collect()
        }

        /// For each passage whether each row is answered by it, or answers it; a row does not answer itself.
        fn related(&self) -> Vec<Vec<bool>> {
            let n = self.rows.len();
            let answers: Vec<_> = (0..n).map(|row| self.answers(row)).collect();
            let says: Vec<_> = (0..n + self.negatives.len()).map(|passage| self.says(passage)).collect();
            let meet = |passage: usize, row: usize| !says[passage].is_disjoint(&answers[row]);
            let related = |passage: usize, row: usize| {
                passage != row && (meet(passage, row) || passage < n && meet(row, passage))
            };
            (0..says.len()).map(|passage| (0..n).map(|row| related(passage, row)).collect()).collect()
        }
    }

    /// The outcome by the rule in plain loops: labels and bits from each pair of a passage and a row.
    fn by_pairs(related: &[Vec<bool>], n_rows: usize) -> SameAnswer {
        // The rows that a row leads to, one after the other.
        let set_of = |row: usize| {
            let mut set = vec![row];
            let mut next = 0;
            while let Some(&at) = set.get(next) {
                set.extend((0..n_rows).filter(|row| related[at][*row] && !set.contains(row)).collect::<Vec<_>>());
                next += 1;
            }
            set.sort_unstable();
            set
        };
        let is_whole = |set: &[usize]| set.iter().all(|a| set.iter().all(|b| a == b || related[*a][*b]));
        let sets: Vec<Option<Vec<usize>>> =
            (0..n_rows).map(|row| Some(set_of(row)).filter(|set| is_whole(set))).collect();
        let mut keys: Vec<String> = Vec::new();
        let mut bits = vec![0u32; n_rows * related.len().div_ceil(32)];
        for (passage, rows) in related.iter().enumerate() {
            let answered: Vec<usize> = (0..n_rows).filter(|row| rows[*row]).collect();
            let set = match passage < n_rows {
                true => sets[passage].as_ref(),
                false => answered.first().and_then(|row| sets[*row].as_ref()).filter(|set| **set == answered),
            };
            keys.push(set.map_or(format!("alone {passage}"), |set| format!("set {set:?}")));
            for row in answered.into_iter().filter(|_| set.is_none()) {
                bits[row * related.len().div_ceil(32) + passage / 32] |= 1 << (passage % 32);
            }
        }
        let seqs: Vec<&String> = keys[..n_rows].iter().chain(&keys).collect();
        let mut first_ones: Vec<&String> = Vec::new();
        let labels = seqs.into_iter().map(|key| {
            let known = first_ones.iter().position(|first| *first == key);
            known.unwrap_or_else(|| {
                first_ones.push(key);
                first_ones.len() - 1
            }) as i32
        });
        let labels = labels.collect();
        let any = bits.iter().any(|word| *word != 0);
        SameAnswer { labels, left_out: bits.into_iter().filter(|_| any).map(|word| word as i32).collect() }
    }

    #[test]
    fn batches_agree_with_the_rule_pair_by_pair() {
        let (mut n_with_bits, mut n_by_label, mut n_negatives_by_label) = (0, 0, 0);
        for seed in 0..300 {
            let case = Case::random(seed);
            let n = case.rows.len();
            let expected = by_pairs(&case.related(), n);
            assert_eq!(case.outcome(), expected, "seed {seed}");
            let of_rows = &expected.labels[..n];
            let is_shared = (1..n).any(|row| of_rows[..row].contains(&of_rows[row]));
            n_with_bits += usize::from(!expected.left_out.is_empty());
            n_by_label += usize::from(is_shared && expected.left_out.is_empty());
            n_negatives_by_label += expected.labels[2 * n..].iter().filter(|label| of_rows.contains(label)).count();
        }
        let found = [n_with_bits, n_by_label, n_negatives_by_label];
        assert!(found.iter().all(|n| *n > 60), "{found:?}");
    }

    /// Two answers among 65,536 rows: a list of who answers whom would take 34 GB.
    #[test]
    fn rows_that_share_few_answers_take_labels() {
        const N: u64 = 65_536;
        let group = |row: u64| [vec![(0, 2 + row)], vec![(0, row % 2)]];
        let groups = Groups::new((0..N).map(group).collect());
        // Each row has the other answer as a negative.
        let (positives, negatives) = (0..N).map(|row| ((0, row % 2), (0, 1 - row % 2))).unzip();
        let case = Case { groups, rows: (0..N).collect(), positives, negatives };
        let labels = (0..2 * N).map(|seq| seq % 2).chain((0..N).map(|row| 1 - row % 2));
        let labels = labels.map(|label| label as i32).collect();
        assert_eq!(case.outcome(), SameAnswer { labels, left_out: Vec::new() });
    }
}
