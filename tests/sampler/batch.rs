//! The batch packer and the loader, on a data set in memory.

use super::*;
use crate::data::answers::answers;
use hbt::data::batch::{Batch, NegativeRules};
use hbt::data::catalog::{Role, TextSource};
use hbt::data::loader::{Loader, load as load_batches};
use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

const ALL: NegativeRules = NegativeRules { per_query: None, teacher_margin: None, with_scores: false };

fn at_most(n: usize) -> NegativeRules {
    NegativeRules { per_query: Some(n), ..ALL }
}

/// A data set in memory: `cells[(group, role, lang)]` are the texts.
struct Texts {
    catalog: Catalog,
    cells: HashMap<(u64, Role, LangId), Range<u64>>,
    tokens: Vec<Vec<u32>>,
    /// A teacher's scores of some of the texts.
    scores: HashMap<u64, f32>,
    /// Hashes of texts that are equal to others
    hashes: HashMap<u64, u64>,
    /// Looking at this text panics, as a damaged cache would.
    broken: Option<u64>,
}

impl Texts {
    /// `n_groups` groups in two languages, with 1 query, 2 positives and `n_negatives` negatives in each, but
    /// no negatives in l01 for odd groups. Token ids name the text: group, role, language, index.
    fn new(n_groups: u64, n_negatives: u64) -> Self {
        let mut texts = Texts {
            catalog: parallel(n_groups, 2),
            cells: HashMap::new(),
            tokens: Vec::new(),
            scores: HashMap::new(),
            hashes: HashMap::new(),
            broken: None,
        };
        for group in 0..n_groups {
            for lang in 0..2 {
                for (role, count) in [(Role::Query, 1), (Role::Positive, 2), (Role::Negative, n_negatives)] {
                    let count = if role == Role::Negative && lang == 1 && group % 2 == 1 { 0 } else { count };
                    let start = texts.tokens.len() as u64;
                    texts.cells.insert((group, role, lang), start..start + count);
                    let name = |i| vec![group as u32, role as u32, u32::from(lang), i as u32];
                    // Lengths differ: 4 or 5 tokens.
                    let pad = |i: u64| if (group + i).is_multiple_of(2) { vec![9] } else { Vec::new() };
                    texts.tokens.extend((0..count).map(|i| [name(i), pad(i)].concat()));
                }
            }
        }
        texts
    }
}

impl TextSource for Texts {
    fn catalog(&self) -> &Catalog {
        &self.catalog
    }
    fn texts(&self, group: u64, role: Role, lang: LangId) -> Range<u64> {
        self.cells[&(group, role, lang)].clone()
    }
    fn tokens(&self, text: u64) -> &[u32] {
        assert_ne!(Some(text), self.broken, "broken text");
        &self.tokens[text as usize]
    }
    fn hashes(&self, group: u64, role: Role) -> Vec<(LangId, u64)> {
        let of_lang = |lang| self.texts(group, role, lang).map(move |text| (lang, self.text_hash(text)));
        (0..2).flat_map(of_lang).collect()
    }
    fn groups_asking(&self, group: u64, _: u64) -> Vec<u64> {
        vec![group]
    }
    fn shares_texts(&self) -> bool {
        true
    }
    fn group_of_negative(&self, _: u64) -> Option<u64> {
        None
    }
    fn text_hash(&self, text: u64) -> u64 {
        // Three groups in a row have the same positives, and so answer one another.
        let tokens = &self.tokens[text as usize];
        let own = match tokens[1] == Role::Positive as u32 {
            true => 1_000_000 + u64::from(tokens[0] / 3 * 100 + tokens[2] * 10 + tokens[3]),
            false => text,
        };
        self.hashes.get(&text).copied().unwrap_or(own)
    }
    fn teacher_score(&self, text: u64) -> Option<f32> {
        self.scores.get(&text).copied()
    }
}

#[test]
fn a_batch_holds_the_texts_of_its_rows() {
    let texts = Texts::new(40, 3);
    let sampler = sampler(texts.catalog(), &config(BatchMode::CrossLingual, 8));
    let (mut positives, mut negatives) = (HashSet::new(), 0);
    for step in 0..30 {
        let sampled = sampler.batch(step);
        let batch = Batch::pack(step, &sampled, &texts, ALL).unwrap();
        assert_eq!((batch.step, batch.kind, batch.n_queries), (step, BatchKind::CrossLingual, 8));
        assert_eq!(batch.cu_seqlens.len(), batch.n_seqs() + 1);
        assert_eq!(*batch.cu_seqlens.last().unwrap() as usize, batch.n_tokens());
        // Ids as the definition says: queries, positives, negatives row by row.
        let mut expected: Vec<(u64, Role, LangId)> = Vec::new();
        expected.extend(sampled.rows.iter().map(|row| (row.group, Role::Query, row.query_lang)));
        expected.extend(sampled.rows.iter().map(|row| (row.group, Role::Positive, row.passage_lang)));
        for row in &sampled.rows {
            let n = if row.passage_lang == 1 && row.group % 2 == 1 { 0 } else { 3 };
            expected.extend(vec![(row.group, Role::Negative, row.passage_lang); n]);
        }
        assert_eq!(batch.n_seqs(), expected.len());
        let mut labels = Vec::new();
        for (seq, (group, role, lang)) in expected.into_iter().enumerate() {
            let ids = batch.seq(seq);
            assert_eq!(ids[..3], [group as i32, role as i32, i32::from(lang)], "sequence {seq}");
            let text = texts.cells[&(group, role, lang)].start + ids[3] as u64;
            // A negative is on its own.
            labels.push(if role == Role::Negative { 1000 + seq as u64 } else { group / 3 });
            assert_eq!(ids.len(), texts.tokens(text).len());
            let packed_lang = match seq.checked_sub(batch.n_queries) {
                None => batch.query_langs[seq],
                Some(passage) => batch.passage_langs[passage],
            };
            assert_eq!(packed_lang, lang);
            match role {
                Role::Positive => _ = positives.insert((group, lang, ids[3])),
                Role::Negative => negatives += 1,
                Role::Query => {}
            }
        }
        assert_eq!(batch.labels.len(), labels.len());
        for (i, (label, number)) in labels.iter().zip(&batch.labels).enumerate() {
            let first = labels.iter().position(|other| other == label).unwrap();
            assert_eq!(*number, batch.labels[first]);
            assert_eq!(labels[..i].contains(label), batch.labels[..i].contains(number), "numbers are not shared");
        }
        assert!(batch.labels.iter().max().unwrap() + 1 < batch.n_seqs() as i32);
    }
    assert!(negatives > 300);
    assert!((0..2).all(|i| positives.iter().filter(|p| p.2 == i).count() > 30), "both positives of a cell are used");
}

/// One text of two groups with different labels, as the query or the passage of each: where both rows meet, they are no
/// negatives of each other; nothing follows for those that share a label with either.
#[test]
fn rows_with_an_equal_text_are_no_negatives_of_each_other() {
    use Role::{Positive, Query};
    for roles in [[Positive, Positive], [Query, Query], [Query, Positive], [Positive, Query]] {
        let mut texts = Texts::new(40, 3);
        let sampled = sampler(texts.catalog(), &config(BatchMode::CrossLingual, 20)).batch(0);
        let pack = |texts: &Texts| Batch::pack(0, &sampled, texts, ALL).unwrap();
        let before = pack(&texts);
        assert!(before.left_out.is_empty());
        let has_mate = |row: &usize| (0..20).any(|of| of != *row && before.labels[of] == before.labels[*row]);
        // A row, and another one with another label, of which each shares its label with one more.
        let first = (0..20).find(has_mate).unwrap();
        let other = (0..20).filter(has_mate).find(|&row| before.labels[row] != before.labels[first]).unwrap();
        for (row, role) in [first, other].into_iter().zip(roles) {
            let of = &sampled.rows[row];
            let lang = if role == Query { of.query_lang } else { of.passage_lang };
            texts.texts(of.group, role, lang).for_each(|text| _ = texts.hashes.insert(text, 77));
        }
        let after = pack(&texts);
        for query in 0..after.n_queries {
            for passage in 0..after.n_passages {
                let joined = [(first, other), (other, first)].contains(&(query, passage));
                let expected = answers(&before, query, passage) || joined;
                assert_eq!(answers(&after, query, passage), expected, "{roles:?}: {query} and {passage}");
            }
        }
    }
}

/// A negative that is another row's query word for word is a negative nevertheless, but not that query's.
#[test]
fn a_negative_that_is_a_query_says_what_the_query_does() {
    let mut texts = Texts::new(40, 3);
    let sampled = sampler(texts.catalog(), &config(BatchMode::Monolingual, 8)).batch(0);
    let before = Batch::pack(0, &sampled, &texts, ALL).unwrap();
    let negatives = |row: usize| texts.texts(sampled.rows[row].group, Role::Negative, sampled.rows[row].passage_lang);
    let first = (0..8).find(|&row| !negatives(row).is_empty()).unwrap();
    let other = (0..8).find(|&row| before.labels[row] != before.labels[first]).unwrap();
    let negative = negatives(first).start;
    let query = texts.texts(sampled.rows[other].group, Role::Query, sampled.rows[other].query_lang).start;
    texts.hashes.extend([(negative, 77), (query, 77)]);
    let after = Batch::pack(0, &sampled, &texts, ALL).unwrap();
    let name = |text: u64| texts.tokens(text).iter().map(|&id| id as i32).collect::<Vec<_>>();
    let seq = (0..after.n_seqs()).find(|&seq| after.seq(seq) == name(negative)).expect("all negatives are used");
    assert!(answers(&after, other, seq - after.n_queries));
    assert!(!answers(&after, first, seq - after.n_queries));
}

#[test]
fn negatives_are_limited_and_drawn_evenly() {
    let texts = Texts::new(40, 5);
    let sampler = sampler(texts.catalog(), &config(BatchMode::Monolingual, 20));
    let mut counts = [0f64; 5];
    for step in 0..200 {
        let batch = Batch::pack(step, &sampler.batch(step), &texts, at_most(2)).unwrap();
        let negatives: Vec<(u64, i32)> =
            (2 * batch.n_queries..batch.n_seqs()).map(|seq| (batch.seq(seq)[0] as u64, batch.seq(seq)[3])).collect();
        assert_eq!(negatives.iter().collect::<HashSet<_>>().len(), negatives.len(), "a negative twice");
        let groups = (0..20).map(|query| batch.seq(query)[0]);
        let with = groups.filter(|g| batch.kind == BatchKind::Monolingual(0) || g % 2 == 0).count();
        assert_eq!(negatives.len(), 2 * with);
        negatives.iter().for_each(|(_, i)| counts[*i as usize] += 1.0);
    }
    let mean = counts.iter().sum::<f64>() / 5.0;
    check_chi_square(&counts, &[mean; 5], "negatives");
    let none = Batch::pack(0, &sampler.batch(0), &texts, at_most(0)).unwrap();
    assert_eq!(none.n_passages, none.n_queries);
}

#[test]
fn a_teacher_rejects_negatives() {
    let mut texts = Texts::new(40, 6);
    // The positives have 0.5 and 0.75, the negatives 0.25, 0.5, 0.625, 0.875 and nothing twice; every fourth group
    // has no score at its first positive.
    let cells: Vec<_> = texts.cells.iter().map(|(cell, range)| (*cell, range.clone())).collect();
    for ((group, role, _), range) in cells {
        let scores: &[Option<f32>] = match role {
            Role::Query => &[None],
            Role::Positive if group % 4 == 0 => &[None, Some(0.75)],
            Role::Positive => &[Some(0.5), Some(0.75)],
            Role::Negative => &[Some(0.25), Some(0.5), Some(0.625), Some(0.875), None, None],
        };
        texts.scores.extend(range.zip(scores).filter_map(|(text, score)| Some((text, (*score)?))));
    }
    let sampler = sampler(texts.catalog(), &config(BatchMode::Monolingual, 8));
    let mut n_rejected = 0;
    for step in 0..40 {
        let sampled = sampler.batch(step);
        let plain = Batch::pack(step, &sampled, &texts, ALL).unwrap();
        assert!(plain.rejected.chunks(2).all(|range| range[0] == range[1]), "nobody asked the teacher");
        for margin in [0.0, 0.125, 0.25] {
            let rules = NegativeRules { teacher_margin: Some(margin), ..ALL };
            let batch = Batch::pack(step, &sampled, &texts, rules).unwrap();
            assert_eq!(batch.rejected.len(), 2 * batch.n_queries);
            let mut next = batch.n_queries;
            for (row, range) in batch.rejected.chunks(2).enumerate() {
                let [group, _, _, positive] = batch.seq(batch.n_queries + row)[..4] else { panic!() };
                // By definition, with the positive's index and the negatives' in the order of the data.
                let better: &[i32] = match (group % 4, positive, margin) {
                    (0, 0, _) => &[],
                    (_, 0, 0.0) => &[2, 3],
                    (_, 0, _) => &[1, 2, 3],
                    (_, _, 0.25) => &[2, 3],
                    _ => &[3],
                };
                let negatives = if batch.kind == BatchKind::Monolingual(1) && group % 2 == 1 { 0..0 } else { 0..6 };
                let (last, first): (Vec<i32>, Vec<i32>) = negatives.partition(|i| better.contains(i));
                let seqs = batch.n_queries + next..batch.n_queries + next + first.len() + last.len();
                let found: Vec<[i32; 2]> = seqs.map(|seq| [batch.seq(seq)[0], batch.seq(seq)[3]]).collect();
                let expected: Vec<[i32; 2]> = first.iter().chain(&last).map(|i| [group, *i]).collect();
                assert_eq!(found, expected);
                next += first.len();
                let end = next + last.len();
                assert_eq!(range, [next as i32, end as i32], "row {row}, margin {margin}");
                next = end;
                n_rejected += last.len();
            }
            assert_eq!(next, batch.n_passages);
            assert_eq!(batch.n_tokens(), plain.n_tokens());
        }
    }
    assert!(n_rejected > 500);
}

/// Whose negatives the passages are, and what the teacher says of each.
#[test]
fn a_batch_holds_a_teachers_scores_if_it_is_asked_to() {
    let mut texts = Texts::new(40, 3);
    let n_texts = texts.tokens.len() as u64;
    // No negative of a group that is divisible by 5 has a score.
    let is_without = |tokens: &[u32]| tokens[0].is_multiple_of(5) && tokens[1] == Role::Negative as u32;
    let scored = (0..n_texts).filter(|&text| !is_without(&texts.tokens[text as usize]));
    texts.scores = scored.map(|text| (text, text as f32 / 4.0)).collect();
    let sampler = sampler(texts.catalog(), &config(BatchMode::Hybrid, 8));
    for step in 0..30 {
        let sampled = sampler.batch(step);
        let plain = Batch::pack(step, &sampled, &texts, at_most(2)).unwrap();
        assert!(plain.own_negatives.is_empty() && plain.teacher_scores.is_empty());
        let rules = NegativeRules { with_scores: true, teacher_margin: Some(1.0), ..at_most(2) };
        let batch = Batch::pack(step, &sampled, &texts, rules).unwrap();
        let mut next = batch.n_queries as i32;
        for (row, own) in batch.own_negatives.chunks(2).enumerate() {
            assert_eq!(own[0], next, "negatives come row by row");
            for passage in own[0]..own[1] {
                let seq = batch.n_queries + passage as usize;
                assert_eq!(batch.seq(seq)[..2], [batch.seq(row)[0], Role::Negative as i32], "its own");
            }
            next = own[1];
        }
        assert_eq!(next as usize, batch.n_passages);
        assert_eq!(batch.teacher_scores.len(), batch.n_passages);
        for (passage, &score) in batch.teacher_scores.iter().enumerate() {
            let ids: Vec<u32> = batch.seq(batch.n_queries + passage).iter().map(|&id| id as u32).collect();
            let text = texts.tokens.iter().position(|tokens| *tokens == ids).unwrap();
            assert!(if is_without(&ids) { score.is_nan() } else { score == text as f32 / 4.0 }, "{ids:?}: {score}");
        }
    }
}

#[test]
fn the_stream_has_the_longest_first() {
    let texts = Texts::new(40, 3);
    let sampler = sampler(texts.catalog(), &config(BatchMode::Hybrid, 8));
    for step in 0..30 {
        let batch = Batch::pack(step, &sampler.batch(step), &texts, ALL).unwrap();
        let mut by_definition: Vec<usize> = (0..batch.n_seqs()).collect();
        by_definition.sort_by_key(|&seq| (usize::MAX - batch.seq(seq).len(), seq));
        let (mut found, mut ids) = (vec![usize::MAX; batch.n_seqs()], Vec::<i32>::new());
        for (seq, &place) in batch.places.iter().enumerate() {
            found[place as usize] = seq;
        }
        assert_eq!(found, by_definition);
        assert_ne!(found, (0..batch.n_seqs()).collect::<Vec<_>>(), "lengths differ");
        found.iter().for_each(|&seq| ids.extend(batch.seq(seq)));
        assert_eq!(batch.ids, ids);
    }
}

fn load(texts: Texts, steps: Range<u64>) -> (Loader, Arc<Sampler>, Arc<Texts>) {
    let sampler = Arc::new(sampler(texts.catalog(), &config(BatchMode::Hybrid, 8)));
    let texts = Arc::new(texts);
    let draw = sampler.clone();
    (load_batches(move |step| draw.batch(step), texts.clone(), steps, ALL).unwrap(), sampler, texts)
}

#[test]
fn the_loader_yields_the_batches_of_its_steps_in_order() {
    let (loader, sampler, texts) = load(Texts::new(40, 1), 17..40);
    let batches: Vec<Batch> = loader.map(|batch| batch.unwrap()).collect();
    assert_eq!(batches.len(), 23);
    for (step, batch) in (17..).zip(batches) {
        assert_eq!(batch, Batch::pack(step, &sampler.batch(step), &*texts, ALL).unwrap());
    }
}

#[test]
fn dropping_the_loader_ends_its_thread() {
    let (mut loader, _, texts) = load(Texts::new(40, 1), 0..u64::MAX);
    assert_eq!(loader.next().unwrap().unwrap().step, 0);
    drop(loader);
    // The thread held the other reference.
    assert_eq!(Arc::strong_count(&texts), 1);
}

#[test]
fn a_panic_on_the_loader_thread_reaches_the_caller() {
    let mut texts = Texts::new(40, 1);
    texts.broken = Some(0);
    let (mut loader, ..) = load(texts, 0..1000);
    let panic =
        catch_unwind(AssertUnwindSafe(|| loader.by_ref().count())).expect_err("the text is drawn within 1000 steps");
    assert!(panic.downcast_ref::<String>().unwrap().contains("broken text"));
    assert!(loader.next().is_none());
}
