//! What a run leaves of its data: questions held out to evaluate on, and languages left out.

use super::{spec, tokenizer, write};
use hbt::data::catalog::{LangId, Role, TextSource};
use hbt::data::datasets::{Datasets, HeldOut};
use hbt::data::formats::{DataSource, Group};
use hbt::data::sampler::{
    BatchMode, DatasetBatches, DatasetSampling, LangSampling, Mixture, MixtureConfig, SamplerConfig,
};
use hbt::data::shard::TokenCache;
use hbt::eval::tasks::parallel;
use std::collections::{BTreeMap, BTreeSet};
use tempfile::TempDir;

/// Two languages each; every third question is asked once more, in one of them, with another answer.
fn rows(first: usize, n: usize) -> Vec<String> {
    let mut rows = Vec::new();
    for i in first..first + n {
        rows.push(format!(
            r#"{{"id": "{i}", "query": {{"en": "w{i} w1", "de": "w{i} w2"}}, "positive": {{"en": "w{i} w3", "de": "w{i} w4"}}}}"#
        ));
        if i % 3 == 0 {
            rows.push(format!(r#"{{"id": "{i}b", "query": {{"de": "w{i} w2"}}, "positive": {{"de": "w{i} w5"}}}}"#));
        }
    }
    rows
}

struct Data {
    dir: TempDir,
    sources: Vec<DataSource>,
}

impl Data {
    fn new(datasets: &[Vec<String>]) -> Self {
        let dir = TempDir::new().unwrap();
        let source = |(i, rows): (usize, &Vec<String>)| {
            DataSource::new(write(dir.path(), &format!("{i}.jsonl"), rows.join("\n")))
        };
        let sources = datasets.iter().enumerate().map(source).collect();
        Data { dir, sources }
    }

    fn datasets(&self) -> Datasets {
        let cache = |source: &DataSource| {
            TokenCache::open_or_build(source, &tokenizer(), &spec(), self.dir.path(), &|_, _| ()).unwrap()
        };
        let named = |(i, source): (usize, &DataSource)| (format!("d{i}"), 1.0, cache(source));
        Datasets::new(self.sources.iter().enumerate().map(named).collect())
    }
}

/// The queries' hashes of all groups, ascending.
fn queries(data: &Datasets) -> Vec<Vec<u64>> {
    let of = |group| data.hashes(group, Role::Query).into_iter().map(|(_, hash)| hash).collect();
    let mut all: Vec<Vec<u64>> = (0..data.catalog().n_groups()).map(of).collect();
    all.sort();
    all
}

/// The texts of the queries that are held out.
fn asked(data: &Data, held_out: &HeldOut) -> BTreeSet<String> {
    parallel::held_out(&data.sources, held_out).unwrap().queries.into_iter().map(|query| query.text).collect()
}

#[test]
fn every_question_is_on_one_side() {
    let data = Data::new(&[rows(0, 30), rows(20, 30)]);
    let whole = data.datasets();
    // What the files say, read without hbt's tokens.
    let groups: Vec<Group> = data.sources.iter().flat_map(|source| source.read_groups().unwrap().0).collect();
    let (kept, held_out) = data.datasets().hold_out(0.2, 7).unwrap();
    let asked = asked(&data, &held_out);
    let is_held = |group: &&Group| group.queries.iter().any(|query| asked.contains(&query.text));
    assert!(groups.iter().filter(is_held).all(|group| group.queries.iter().all(|query| asked.contains(&query.text))));
    let n_held = groups.iter().filter(is_held).count();
    assert_eq!(kept.catalog().n_groups() as usize + n_held, groups.len());
    // 40 groups each, of which 8 are a fifth.
    assert!((12..=20).contains(&n_held), "{n_held} of {}", groups.len());
    let text = held_out.to_string();
    assert!(text.starts_with("held out to evaluate on: ") && text.contains(" of 40 groups in \"d1\""), "{text}");
    // Nothing that is left is asked in the evaluation, and all else is as it was.
    let hashes: BTreeSet<u64> = asked.iter().map(|text| hbt::data::catalog::text_hash(text)).collect();
    let left: Vec<Vec<u64>> =
        queries(&whole).into_iter().filter(|of| of.iter().all(|hash| !hashes.contains(hash))).collect();
    assert_eq!(queries(&kept), left);
    assert_ne!(kept.key(), whole.key());
}

/// Each dataset gives its share, whether its questions are its own or those of another.
#[test]
fn shares_are_of_each_dataset() {
    for data in [[rows(0, 30), rows(0, 30)], [rows(0, 30), rows(50, 30)]] {
        let (_, held_out) = Data::new(&data).datasets().hold_out(0.2, 7).unwrap();
        let expected = "held out to evaluate on: 8 of 40 groups in \"d0\", 8 of 40 groups in \"d1\"";
        assert_eq!(held_out.to_string(), expected);
    }
}

/// Groups keep their texts, and whoever asks for groups of a text gets those that are left, by their new numbers.
#[test]
fn what_is_left_is_whole() {
    let data = Data::new(&[rows(0, 30), rows(40, 12)]);
    let texts = |data: &Datasets| -> BTreeMap<Vec<u64>, usize> {
        let mut counts = BTreeMap::new();
        for group in 0..data.catalog().n_groups() {
            let mut hashes = Vec::new();
            for (lang, role) in [(0, Role::Query), (1, Role::Query), (0, Role::Positive), (1, Role::Positive)] {
                hashes.extend(data.texts(group, role, lang as LangId).map(|text| data.text_hash(text)));
            }
            *counts.entry(hashes).or_default() += 1;
        }
        counts
    };
    let whole = data.datasets();
    let (kept, _) = data.datasets().hold_out(0.3, 1).unwrap();
    let (whole, left) = (texts(&whole), texts(&kept));
    assert!(left.iter().all(|(texts, n)| whole.get(texts) == Some(n)), "a group with other texts");
    let mut n_shared = 0;
    for group in 0..kept.catalog().n_groups() {
        for (_, hash) in kept.hashes(group, Role::Query) {
            let asking = kept.groups_asking(group, hash);
            assert!(asking.contains(&group));
            assert!(asking.iter().all(|of| kept.hashes(*of, Role::Query).iter().any(|(_, other)| *other == hash)));
            n_shared += asking.len() - 1;
        }
    }
    assert!(n_shared > 0, "some questions that are left are asked twice");
}

#[test]
fn seed_and_content_decide_and_not_the_order() {
    let (a, b) = (Data::new(&[rows(0, 40)]), Data::new(&[rows(0, 40).into_iter().rev().collect()]));
    let of = |data: &Data, seed| asked(data, &data.datasets().hold_out(0.2, seed).unwrap().1);
    assert_eq!(of(&a, 3), of(&b, 3));
    assert_ne!(of(&a, 3), of(&a, 4));
    // More data leaves most of it where it was: what is still held out was so before, but for the share's rounding.
    let more = Data::new(&[rows(0, 44)]);
    let (before, after) = (of(&a, 3), of(&more, 3));
    let n_new = after.difference(&before).filter(|text| !text.starts_with("w4")).count();
    assert!(n_new <= 4, "{n_new} of {}", after.len());
}

#[test]
fn a_share_of_nothing_is_an_error() {
    let message = |rows: Vec<String>, fraction| {
        Data::new(&[rows]).datasets().hold_out(fraction, 0).err().expect("an error").to_string()
    };
    assert_eq!(message(rows(1, 2), 0.1), "eval_fraction: 0.1 of 2 groups is none; raise it, or name eval_data");
    let same = |i| format!(r#"{{"id": "{i}", "query": {{"en": "w1"}}, "positive": {{"en": "w{i}"}}}}"#);
    assert_eq!(
        message((0..10).map(same).collect(), 0.3),
        "eval_fraction: 0.3 of 10 groups cannot be held out, as they ask too few different questions; raise it, or name \
         eval_data"
    );
}

#[test]
fn languages_that_are_left_out_are_in_no_class() {
    let data = Data::new(&[rows(0, 6)]);
    let english = data.datasets().exclude(&["deu".to_owned()]).unwrap();
    assert_eq!(english.catalog().languages_in_use(), ["en"]);
    let n_usable = |data: &Datasets| {
        let classes = data.catalog().classes.iter().filter(|class| !class.query_langs.is_empty());
        classes.map(|class| class.n_groups).sum::<u64>()
    };
    // The questions that are asked in German alone are of no use.
    assert_eq!((n_usable(&data.datasets()), n_usable(&english)), (8, 6));
    let message = |languages: &[&str]| {
        let languages: Vec<String> = languages.iter().map(|lang| (*lang).to_owned()).collect();
        data.datasets().exclude(&languages).err().expect("an error").to_string()
    };
    assert_eq!(
        message(&["en", "de-CH"]),
        "exclude_languages: no query or positive of the data is in \"de-CH\", only in de, en; did you mean \"de\"?"
    );
    assert_eq!(message(&["fr"]), "exclude_languages: no query or positive of the data is in \"fr\", only in de, en");
    assert!(message(&["german"]).starts_with("exclude_languages: unknown language \"german\"; write its ISO 639 code"));
    assert_eq!(
        message(&["en", "de"]),
        "exclude_languages: leaves no query with a positive of \"d0\"; take it out of the data"
    );
}

/// What is left may serve no batch: then the keys that leave the rest out are named.
#[test]
fn keys_that_leave_too_little_are_named() {
    let mixing =
        MixtureConfig { sampling: DatasetSampling::Weights, temperature: 1.0, batches: DatasetBatches::Homogeneous };
    let message = |data: &Datasets, mode: BatchMode, batch_size: usize| {
        let config = SamplerConfig {
            mode,
            alpha: 0.5,
            lang_sampling: LangSampling::Uniform,
            lang_temperature: 1.0,
            batch_size,
            seed: 0,
        };
        Mixture::new(&data.weighted(), &config, &mixing).err().expect("an error").to_string()
    };
    // 100 questions of their own, in two languages.
    let data = Data::new(&[rows(0, 100).into_iter().filter(|row| !row.contains("b\"")).collect()]);
    let (few, _) = data.datasets().hold_out(0.99, 0).unwrap();
    assert_eq!(few.catalog().n_groups(), 1);
    assert_eq!(
        message(&few, BatchMode::CrossLingual, 8),
        "batch_size: 8 is more than the 1 group with query and positive in two languages, and no group may come twice \
         in a batch; add parallel data, or let eval_fraction leave more of the data"
    );
    let english = data.datasets().exclude(&["de".to_owned()]).unwrap();
    assert_eq!(
        message(&english, BatchMode::CrossLingual, 8),
        "mode: cross_lingual: cross-lingual batches need two languages, but all of the data is in \"en\"; give parallel \
         data, or set mode = \"monolingual\", or let exclude_languages leave more of the data"
    );
    let (both, _) = english.hold_out(0.99, 0).unwrap();
    let of_both = message(&both, BatchMode::Monolingual, 8);
    assert!(of_both.ends_with(", or let exclude_languages and eval_fraction leave more of the data"), "{of_both}");
    // Neither is to blame for what is wrong in itself, nor where all of the data is taken.
    let wrong = message(&both, BatchMode::Monolingual, 1);
    assert_eq!(wrong, "batch_size: 1 leaves a query no in-batch negatives; set it to 2 or more");
    let all = message(&data.datasets().exclude(&[]).unwrap(), BatchMode::Monolingual, 101);
    assert!(all.ends_with("lower batch_size to 100 or less, or add data"), "{all}");
}
