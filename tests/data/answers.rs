//! Which passages of a batch answer which queries: planted cases by hand, and many rows against the rule in plain loops.

use std::collections::{BTreeMap, HashSet};

use hbt::data::batch::{Batch, NegativeRules};
use hbt::data::catalog::{LangId, TextSource};
use hbt::data::formats::{Columns, DataSource, Group};
use hbt::data::sampler::{BatchKind, BatchRow, SampledBatch};
use hbt::data::shard::TokenCache;
use tempfile::TempDir;

use super::{open, write, xquad_r::xquad_r};

/// Whether a batch takes a passage for an answer of a query, by a label or a bit.
pub fn answers(batch: &Batch, query: usize, passage: usize) -> bool {
    let words = batch.n_passages.div_ceil(32);
    let word = batch.left_out.get(query * words + passage / 32).copied().unwrap_or(0);
    batch.labels[query] == batch.labels[batch.n_queries + passage] || word as u32 >> (passage % 32) & 1 == 1
}

/// A data set, its cache, and its groups by their ids.
struct Data {
    cache: TokenCache,
    groups: BTreeMap<String, Group>,
}

impl Data {
    fn new(rows: &str) -> Self {
        let dir = TempDir::new().unwrap();
        let columns = Columns { join_by_id: true, ..Columns::default() };
        let source = DataSource { columns, ..DataSource::new(write(dir.path(), "rows.jsonl", rows)) };
        Self::of(&source, dir.path())
    }

    fn of(source: &DataSource, cache_dir: &std::path::Path) -> Self {
        let groups = source.read_groups().unwrap().0.into_iter().map(|group| (group.id.clone(), group)).collect();
        Data { cache: open(source, cache_dir).unwrap(), groups }
    }

    fn number(&self, id: &str) -> u64 {
        (0..self.cache.n_groups()).find(|&group| self.cache.group_id(group) == id).expect(id)
    }

    fn lang(&self, name: &str) -> LangId {
        self.cache.catalog().languages.iter().position(|lang| lang == name).expect(name) as LangId
    }

    /// A batch of rows, each a group's id and its two languages.
    fn batch(&self, rows: &[(&str, &str, &str)]) -> Batch {
        let row = |&(id, query, passage): &(&str, &str, &str)| BatchRow {
            group: self.number(id),
            query_lang: self.lang(query),
            passage_lang: self.lang(passage),
            pick: 0,
        };
        let rows = rows.iter().map(row).collect();
        let sampled = SampledBatch { kind: BatchKind::CrossLingual, dataset: None, rows };
        Batch::pack(0, &sampled, &self.cache, NegativeRules::default()).unwrap()
    }
}

type Pairs = Vec<(usize, usize)>;

/// Pairs of different rows of which each is taken for an answer of the other, the smaller first; and the negatives, by
/// their numbers, with the rows that they answer.
fn pairs(batch: &Batch) -> (Pairs, Pairs) {
    let n = batch.n_queries;
    let of_rows: Vec<_> = (0..n).flat_map(|i| (0..n).map(move |j| (i, j))).filter(|(i, j)| i != j).collect();
    let (there, back): (Vec<_>, Vec<_>) =
        of_rows.into_iter().filter(|(i, j)| answers(batch, *i, *j)).partition(|(i, j)| i < j);
    let mut turned: Vec<_> = back.into_iter().map(|(i, j)| (j, i)).collect();
    turned.sort();
    assert_eq!(there, turned, "rows are no negatives of each other in both directions");
    let of_negatives = (n..batch.n_passages).flat_map(|passage| (0..n).map(move |query| (passage - n, query)));
    (there, of_negatives.filter(|(negative, query)| answers(batch, *query, negative + n)).collect())
}

#[test]
fn by_hand() {
    // a and b share the English answer, of which b's German one is a version; c asks what b does; d and e share a text
    // that is a query here and an answer there; f shares one of its two English answers with d.
    let data = Data::new(
        r#"{"id": "a", "query": {"en": "w1"}, "positive": {"en": "w10"}, "negatives": {"en": ["w11", "w20", "w90"]}}
{"id": "b", "query": {"en": "w2", "de": "w3"}, "positive": {"en": "w10", "de": "w11"}}
{"id": "c", "query": {"de": "w3"}, "positive": {"de": "w12"}, "negatives": {"de": ["w90", "w2"]}}
{"id": "d", "query": {"en": "w4"}, "positive": {"en": "w20"}, "negatives": {"en": ["w12"]}}
{"id": "e", "query": {"en": "w20"}, "positive": {"en": "w1"}}
{"id": "f", "query": {"en": "w5"}, "positive": {"en": ["w20", "w21"]}}"#,
    );
    let rows = [
        ("a", "en", "en"),
        ("b", "de", "de"),
        ("c", "de", "de"),
        ("d", "en", "en"),
        ("e", "en", "en"),
        ("f", "en", "en"),
    ];
    let (of_rows, of_negatives) = pairs(&data.batch(&rows));
    // What answers b answers c. a's question is e's answer, and e's is d's and one of f's, which f does not show here.
    assert_eq!(data.batch(&rows).seq(11)[2], 21 + super::W0 as i32);
    assert_eq!(of_rows, [(0, 1), (0, 2), (0, 4), (1, 2), (3, 4), (3, 5), (4, 5)]);
    // Of a's negatives the German version of its answer, and d's answer; of c's b's question; of d's the answer to c's.
    assert_eq!(of_negatives, [(0, 0), (0, 1), (0, 2), (1, 3), (1, 4), (1, 5), (4, 1), (5, 1), (5, 2)]);
    // Where every row of a set answers every other, labels say so and there are no bits.
    let pair = data.batch(&rows[..2]);
    assert_eq!((&pair.labels[..4], pair.left_out.len()), (&[0, 0, 0, 0][..], 0));
}

/// Queries with two passages each, a row for each, of which each shares one with the next query: as pairs of relevance
/// come. No query is a negative's friend because of a friend's friend.
#[test]
fn chains_of_answers_are_not_followed() {
    let row = |tower: usize, gate: usize| {
        format!("{{\"query\": \"w1 w{tower}\", \"positive\": \"w2 w{gate}\", \"lang\": \"en\"}}\n")
    };
    let rows: String = (0..30).flat_map(|tower| [row(tower, tower), row(tower, tower + 1)]).collect();
    let data = Data::new(&rows);
    assert!(data.cache.shares_texts());
    // The first row of every query: its own gate.
    let ids: Vec<String> = (0..data.cache.n_groups()).map(|group| data.cache.group_id(group).to_string()).collect();
    let line = |id: &str| id.rsplit(':').next().unwrap().parse::<usize>().unwrap();
    let firsts: Vec<&String> = (0..30).map(|tower| ids.iter().find(|id| line(id) == 2 * tower + 1).unwrap()).collect();
    let rows: Vec<(&str, &str, &str)> = firsts.iter().map(|id| (id.as_str(), "en", "en")).collect();
    let batch = data.batch(&rows);
    // Tower i's other gate is that of tower i + 1.
    assert_eq!(pairs(&batch).0, (0..29).map(|i| (i, i + 1)).collect::<Vec<_>>());
    assert!(!batch.left_out.is_empty(), "no labels can say this");
    // Rows of one query are never each other's negatives.
    let second = ids.iter().find(|id| line(id) == 2).unwrap();
    assert_eq!(pairs(&data.batch(&[rows[0], (second, "en", "en"), rows[7]])).0, [(0, 1)]);
}

/// The rule, from the groups as they are read.
struct Rule<'a> {
    data: &'a Data,
}

impl Rule<'_> {
    fn texts(texts: &[hbt::data::formats::Text]) -> HashSet<&str> {
        texts.iter().map(|text| text.text.as_str()).collect()
    }

    /// What answers a group's query: positives of all groups that ask a query of its, and the queries themselves.
    fn answers(&self, id: &str) -> HashSet<&str> {
        let queries = Self::texts(&self.data.groups[id].queries);
        let asking = self.data.groups.values().filter(|of| !Self::texts(&of.queries).is_disjoint(&queries));
        asking.flat_map(|of| Self::texts(&of.positives)).chain(queries.iter().copied()).collect()
    }

    /// What a group's positive says, or a negative that is one: itself, and the group's positives in other languages.
    fn versions<'b>(&'b self, id: &str, lang: &str, text: &'b str) -> HashSet<&'b str> {
        let positives = self.data.groups[id].positives.iter().filter(|of| of.lang != lang);
        positives.map(|of| of.text.as_str()).chain([text]).collect()
    }

    /// The first group that has a text as a positive, and the language in which it does.
    fn holder(&self, text: &str) -> Option<(&str, &str)> {
        let cache = &self.data.cache;
        let mut ids = (0..cache.n_groups()).map(|group| cache.group_id(group));
        ids.find_map(|id| {
            let positive = self.data.groups[id].positives.iter().find(|of| of.text == text)?;
            Some((id, positive.lang.as_str()))
        })
    }
}

#[test]
fn batches_agree_with_the_rule() {
    let mut rows = String::new();
    for i in 0usize..160 {
        let word = |k: usize| i.wrapping_mul(2 * k + 7).wrapping_add(i * i * k) % 61;
        let row = serde_json::json!({
            "id": format!("g{i}"),
            "query": {"en": format!("w{} w{}", word(1), i % 5), "de": format!("w{}", i % 97)},
            "positive": {"en": [format!("w{} w60", word(2)), format!("w{} w61", i % 53)], "de": format!("w{} w62", word(3))},
            "negatives": {"en": [format!("w{} w60", word(4)), format!("w{}", i % 90)], "de": [format!("w{} w62", i % 61)]},
        });
        rows += &format!("{row}\n");
    }
    let data = Data::new(&rows);
    let rule = Rule { data: &data };
    let ids: Vec<&str> = data.groups.keys().map(String::as_str).collect();
    let (mut n_pairs, mut n_negatives, mut n_bits) = (0, 0, 0);
    for step in 0..40usize {
        // Groups as they come, and in languages that change; rows of one group do not meet.
        let chosen: Vec<&str> = (0..12).map(|i| ids[(step * 5 + i * 13) % ids.len()]).collect();
        let langs = |i: usize| (["en", "de"][i % 2], ["en", "de"][(i + step) / 2 % 2]);
        let rows: Vec<(&str, &str, &str)> =
            chosen.iter().enumerate().map(|(i, id)| (*id, langs(i).0, langs(i).1)).collect();
        let batch = data.batch(&rows);
        // The texts that were chosen, by their tokens: two spellings of one text are one token list here.
        let said: Vec<HashSet<&str>> = rows
            .iter()
            .enumerate()
            .map(|(i, (id, _, lang))| {
                let group = &data.groups[*id];
                let of_lang = group.positives.iter().filter(|text| text.lang == *lang);
                let tokens =
                    |text: &str| text.split(' ').map(|word| word[1..].parse::<i32>().unwrap() + 4).collect::<Vec<_>>();
                let packed = batch.seq(batch.n_queries + i);
                // <s>, the prefix, the text, </s>
                let mut found = of_lang.filter(|text| tokens(&text.text) == packed[2..packed.len() - 1]);
                let text = found.next().expect("a positive of the group");
                let queries = Rule::texts(&group.queries);
                rule.versions(id, lang, &text.text).into_iter().chain(queries.iter().copied()).collect()
            })
            .collect();
        let asked: Vec<HashSet<&str>> = chosen.iter().map(|id| rule.answers(id)).collect();
        let meet = |i: usize, j: usize| !said[j].is_disjoint(&asked[i]) || !said[i].is_disjoint(&asked[j]);
        let expected: Vec<(usize, usize)> =
            (0..12).flat_map(|i| (i + 1..12).map(move |j| (i, j))).filter(|(i, j)| meet(*i, *j)).collect();
        let mut of_negatives = Vec::new();
        let negatives = rows
            .iter()
            .flat_map(|(id, _, lang)| data.groups[*id].negatives.iter().filter(move |text| text.lang == *lang));
        for (number, negative) in negatives.enumerate() {
            let says = match rule.holder(&negative.text) {
                Some((id, lang)) => rule.versions(id, lang, &negative.text),
                None => [negative.text.as_str()].into(),
            };
            of_negatives.extend((0..12).filter(|row| !says.is_disjoint(&asked[*row])).map(|row| (number, row)));
        }
        assert_eq!(pairs(&batch), (expected.clone(), of_negatives.clone()), "step {step}");
        n_pairs += expected.len();
        n_negatives += of_negatives.len();
        n_bits += usize::from(!batch.left_out.is_empty());
    }
    assert!(n_pairs > 50 && n_negatives > 50 && n_bits > 5, "{n_pairs} {n_negatives} {n_bits}");
}

#[test]
fn xquad_r_questions_on_one_sentence_are_no_negatives_of_each_other() {
    let Some(dir) = xquad_r() else { return };
    let cache_dir = TempDir::new().unwrap();
    let data = Data::of(&DataSource::new(dir), cache_dir.path());
    let texts = |id: &str, lang: &str| -> HashSet<&str> {
        data.groups[id]
            .positives
            .iter()
            .filter(|text| lang.is_empty() || text.lang == lang)
            .map(|text| text.text.as_str())
            .collect()
    };
    let ids: Vec<&str> = data.groups.keys().map(String::as_str).collect();
    let (mut n_shared, mut n_other_text) = (0, 0);
    for chunk in ids.chunks(64) {
        let rows: Vec<(&str, &str, &str)> = chunk.iter().map(|id| (*id, "en", "de")).collect();
        let found = pairs(&data.batch(&rows)).0;
        for (i, a) in chunk.iter().enumerate() {
            for (j, b) in chunk.iter().enumerate().skip(i + 1) {
                let shared = !texts(a, "").is_disjoint(&texts(b, ""));
                assert_eq!(found.contains(&(i, j)), shared, "{a} and {b}");
                n_shared += usize::from(shared);
                n_other_text += usize::from(shared && texts(a, "de") != texts(b, "de"));
            }
        }
    }
    // The same sentence in another language is often cut in another way: the German texts differ.
    assert!(n_shared > 20 && n_other_text > 0, "{n_shared}, {n_other_text}");
}
