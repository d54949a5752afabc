//! Labels: planted duplicates and parallel versions by hand, and many rows against a plain search for what is connected.

use std::collections::{HashMap, HashSet};

use hbt::data::catalog::{Role, TextSource};
use hbt::data::formats::DataSource;
use hbt::data::shard::TokenCache;
use tempfile::TempDir;

use super::{open, write, xquad_r::xquad_r};

fn cache(rows: &str) -> TokenCache {
    let dir = TempDir::new().unwrap();
    open(&DataSource::new(write(dir.path(), "rows.jsonl", rows)), dir.path()).unwrap()
}

/// Labels of a group's texts in a role, over all languages in the order of their names.
fn labels(cache: &TokenCache, id: &str, role: Role) -> Vec<u64> {
    let group = (0..cache.n_groups()).find(|&group| cache.group_id(group) == id).expect(id);
    let texts = cache.group_texts(group).filter(|text| cache.text_info(*text).role == role);
    texts.map(|text| cache.label(text)).collect()
}

#[test]
fn by_hand() {
    // a and b share the English answer, so the German version of b's answers a; c shares its question with b.
    let cache = cache(
        r#"{"id": "a", "query": {"en": "w1"}, "positive": {"en": "w10"}, "negatives": {"en": ["w11", "w20", "w90"]}}
{"id": "b", "query": {"en": "w2", "de": "w3"}, "positive": {"en": "w10", "de": "w11"}}
{"id": "c", "query": {"de": "w3"}, "positive": {"de": "w12"}, "negatives": {"de": ["w90", "w2"]}}
{"id": "d", "query": {"en": "w4"}, "positive": {"en": "w20"}, "negatives": {"en": ["w12"]}}
{"id": "e", "query": {"en": "w20"}, "positive": {"en": "w1"}}"#,
    );
    let of = |id: &str, role: Role| labels(&cache, id, role);
    let [a, d, e] = ["a", "d", "e"].map(|id| of(id, Role::Query)[0]);
    for id in ["a", "b", "c"] {
        assert!([of(id, Role::Query), of(id, Role::Positive)].concat().iter().all(|label| *label == a), "{id}");
    }
    // A text that is a query here and a positive there says two things.
    assert!(a != d && a != e && d != e);
    assert_eq!((of("d", Role::Positive), of("e", Role::Positive)), (vec![d], vec![e]));
    // Negatives that are positives of their own group or another, and one that is nobody's, twice.
    let [parallel, positive_of_d, other] = of("a", Role::Negative)[..] else { panic!("three negatives") };
    assert_eq!((parallel, positive_of_d), (a, d));
    assert!(![a, d, e].contains(&other));
    assert_eq!(of("c", Role::Negative)[0], other);
    assert!(![a, d, e, other].contains(&of("c", Role::Negative)[1]), "b's query is no passage");
    assert_eq!(of("d", Role::Negative), [a]);
}

#[test]
fn the_order_of_the_data_does_not_matter() {
    let rows = super::cache::rows(900);
    let with_ids = rows.lines().enumerate().map(|(i, row)| match row.contains("\"id\"") {
        true => row.to_string(),
        false => row.replacen('{', &format!("{{\"id\": \"row {i}\", "), 1),
    });
    let rows: Vec<String> = with_ids.collect();
    let of = |rows: &[String]| {
        let cache = cache(&rows.join("\n"));
        let groups = 0..cache.n_groups();
        let label = |group| (cache.group_id(group).to_string(), cache.label(cache.group_texts(group).start));
        groups.map(label).collect::<HashMap<_, _>>()
    };
    let (forward, backward) = (of(&rows), of(&rows.iter().rev().cloned().collect::<Vec<_>>()));
    assert!(forward.len() > 300);
    assert_eq!(forward, backward);
}

/// Spreads over groups that share half of their queries or positives, one after the other, until no more are reached.
#[test]
fn agrees_with_a_plain_search() {
    let mut rows = String::new();
    for i in 0..400 {
        let row = serde_json::json!({
            "id": format!("g{i}"), "query": format!("w{} w{} w{}", i % 100, i * 7 % 90, i * i % 41),
            "positive": [
                format!("w{} w{}", i * 13 % 97, i * 5 % 83), format!("w{} w9 w{}", i % 89, i % 31), format!("w{}", i % 7),
            ],
            "negatives": [format!("w{} w{}", (i + 1) * 13 % 97, (i + 1) * 5 % 83), format!("w{} w0", i % 50)],
        });
        rows += &format!("{row}\n");
    }
    // And some that share.
    for i in 0..40 {
        rows +=
            &format!("{{\"id\": \"g{}\", \"query\": \"w99 w{}\", \"positive\": \"w98 w{}\"}}\n", i * 3, i % 7, i % 11);
    }
    let cache = cache(&rows);
    let n = cache.n_groups();
    let texts = |group: u64, role: Role| -> HashSet<u64> {
        let infos = cache.group_texts(group).map(|text| cache.text_info(text));
        infos.filter(|info| info.role == role).map(|info| info.hash).collect()
    };
    let (queries, positives): (Vec<_>, Vec<_>) =
        (0..n).map(|group| (texts(group, Role::Query), texts(group, Role::Positive))).unzip();
    let are_like = |a: &HashSet<u64>, b: &HashSet<u64>| {
        let n_shared = a.intersection(b).count();
        n_shared > 0 && 2 * n_shared >= a.len().min(b.len())
    };
    let share = |a: usize, b: usize| are_like(&queries[a], &queries[b]) || are_like(&positives[a], &positives[b]);
    let mut component = vec![usize::MAX; n as usize];
    for first in 0..n as usize {
        let mut reached = if component[first] == usize::MAX { vec![first] } else { Vec::new() };
        while let Some(group) = reached.pop() {
            component[group] = first;
            reached.extend((0..n as usize).filter(|&other| component[other] == usize::MAX && share(group, other)));
        }
    }
    let n_components = component.iter().collect::<HashSet<_>>().len();
    assert!((20..n as usize - 20).contains(&n_components), "{n_components} of {n} groups");
    // Expected label of each text: that of a component, or of its own text.
    let mut found: HashMap<(bool, u64), u64> = HashMap::new();
    for group in 0..n {
        for text in cache.group_texts(group) {
            let info = cache.text_info(text);
            let owner = match info.role {
                Role::Negative => positives.iter().position(|texts| texts.contains(&info.hash)),
                _ => Some(group as usize),
            };
            let expected = owner.map_or((false, info.hash), |owner| (true, component[owner] as u64));
            assert_eq!(*found.entry(expected).or_insert(info.label), info.label);
        }
    }
    assert_eq!(found.values().collect::<HashSet<_>>().len(), found.len(), "two labels fell into one");
}

#[test]
fn xquad_r_questions_on_one_sentence_are_joined() {
    let Some(dir) = xquad_r() else { return };
    let cache_dir = TempDir::new().unwrap();
    let cache = open(&DataSource::new(dir), cache_dir.path()).unwrap();
    let mut joined: HashMap<u64, HashSet<u64>> = HashMap::new();
    let mut sentences: HashMap<u64, HashSet<u64>> = HashMap::new();
    for group in 0..cache.n_groups() {
        for info in cache.group_texts(group).map(|text| cache.text_info(text)) {
            joined.entry(info.label).or_default().insert(group);
            if info.role == Role::Positive {
                sentences.entry(info.hash).or_default().insert(info.label);
            }
        }
    }
    // Counted by a script of its own. English alone has 787 different answer sentences; Thai has 603, its sentences
    // being longer, so that some are the answers of several labels. Joined by any one text, 489 labels would be left.
    assert!(sentences.values().any(|labels| labels.len() > 1));
    assert_eq!(joined.len(), 789);
    assert_eq!(joined.values().map(HashSet::len).max(), Some(12));
}
