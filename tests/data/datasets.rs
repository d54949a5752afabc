//! Several datasets as one source of texts.

use hbt::data::batch::{Batch, NegativeRules};
use hbt::data::catalog::{LangId, Role, TextSource};
use hbt::data::datasets::Datasets;
use hbt::data::formats::DataSource;
use hbt::data::sampler::{
    BatchKind, BatchMode, BatchRow, DatasetBatches, DatasetSampling, LangSampling, Mixture, MixtureConfig,
    SampledBatch, SamplerConfig,
};
use hbt::data::shard::{TokenCache, TokenizeSpec};
use tempfile::TempDir;

use super::{spec, tokenizer, write};

fn cache(rows: &str, spec: &TokenizeSpec) -> TokenCache {
    let dir = TempDir::new().unwrap();
    let source = DataSource::new(write(dir.path(), "rows.jsonl", rows));
    TokenCache::open_or_build(&source, &tokenizer(), spec, dir.path(), &|_, _| ()).unwrap()
}

/// Role, language, tokens and hash of a text.
type Known = (Role, String, Vec<u32>, u64);

/// Texts of every group of a source, by its number.
fn all(source: &dyn TextSource) -> Vec<Vec<Known>> {
    let languages = &source.catalog().languages;
    let of_group = |group: u64| {
        let mut texts = Vec::new();
        for role in [Role::Query, Role::Positive, Role::Negative] {
            for (lang, name) in languages.iter().enumerate() {
                let cell = source.texts(group, role, lang as LangId);
                let text = |text| (role, name.clone(), source.tokens(text).to_vec(), source.text_hash(text));
                texts.extend(cell.map(text));
            }
        }
        texts
    };
    (0..source.catalog().n_groups()).map(of_group).collect()
}

const A: &str = r#"{"id": "a0", "query": {"en": "w1"}, "positive": {"en": "w30", "de": "w11"}, "negatives": {"en": ["w40", "w50"]}}
{"id": "a1", "query": {"en": "w2"}, "positive": {"en": "w12"}}
{"id": "a2", "query": {"de": "w3"}, "positive": {"de": "w13"}}"#;

/// Shares a positive with a0 and a question with a1; a0 has a negative that is a positive here.
const B: &str = r#"{"id": "b0", "query": {"ar": "w4"}, "positive": {"en": "w30", "ar": "w14"}}
{"id": "b1", "query": {"en": "w2"}, "positive": {"en": "w15"}}
{"id": "b2", "query": {"en": "w5"}, "positive": {"zh": "w40"}, "negatives": {"zh": ["w13", "w50"]}}"#;

#[test]
fn numbers_go_on_from_dataset_to_dataset() {
    let other = TokenizeSpec { query_prefix: "w7 w7 ".into(), ..spec() };
    let (a, b) = (all(&cache(A, &spec())), all(&cache(B, &other)));
    let datasets = Datasets::new(vec![("a".into(), 1.0, cache(A, &spec())), ("b".into(), 1.0, cache(B, &other))]);
    assert_eq!(datasets.catalog().languages, ["ar", "de", "en", "zh"]);
    assert_eq!((datasets.name(0), datasets.name(1)), ("a", "b"));
    assert_eq!(all(&datasets), [a.clone(), b].concat());
    // Alone, a dataset is its cache.
    let alone = Datasets::new(vec![("a".into(), 1.0, cache(A, &spec()))]);
    assert_eq!(all(&alone), a);
    assert_eq!(alone.key(), cache(A, &spec()).key());
    assert_ne!(datasets.key(), alone.key());
}

/// What is equal is known in whichever dataset it is, and with it what its own group has in other languages.
#[test]
fn rows_of_two_datasets_with_an_equal_text_say_the_same() {
    let datasets = Datasets::new(vec![("a".into(), 1.0, cache(A, &spec())), ("b".into(), 1.0, cache(B, &spec()))]);
    let languages = &datasets.catalog().languages;
    let lang = |code: &str| languages.iter().position(|lang| lang == code).unwrap() as LangId;
    let ids: Vec<&str> = datasets.caches().flat_map(|cache| (0..cache.n_groups()).map(|i| cache.group_id(i))).collect();
    let row = |id: &str, query: &str, passage: &str| BatchRow {
        group: ids.iter().position(|of| *of == id).unwrap() as u64,
        query_lang: lang(query),
        passage_lang: lang(passage),
        pick: 0,
    };
    // Each sequence as its dataset's row, with the word that it is where that is a negative; by label.
    let joined = |rows: &[BatchRow], names: &[&'static str]| -> Vec<Vec<&str>> {
        let sampled = SampledBatch { kind: BatchKind::CrossLingual, dataset: None, rows: rows.to_vec() };
        let batch = Batch::pack(0, &sampled, &datasets, NegativeRules::default()).unwrap();
        assert_eq!(batch.n_seqs(), names.len());
        let of_label =
            |label| names.iter().zip(&batch.labels).filter(move |(_, of)| **of == label).map(|(name, _)| *name);
        let labels = 0..=*batch.labels.iter().max().unwrap();
        labels.map(|label| of_label(label).collect()).collect()
    };
    let rows = [
        row("a0", "en", "en"),
        row("a1", "en", "en"),
        row("b0", "ar", "en"),
        row("b1", "en", "en"),
        row("b2", "en", "zh"),
    ];
    let names = ["a0", "a1", "b0", "b1", "b2"];
    let negatives = ["a0 w40", "a0 w50", "b2 w13", "b2 w50"];
    assert_eq!(
        joined(&rows, &[&names[..], &names, &negatives].concat()),
        [
            vec!["a0", "b0", "a0", "b0"],
            vec!["a1", "b1", "a1", "b1"],
            vec!["b2", "b2", "a0 w40"],
            vec!["a0 w50"],
            vec!["b2 w13"],
            vec!["b2 w50"],
        ]
    );
    // These are versions of the answer that a0 and b0 share.
    assert_eq!(joined(&[row("a0", "en", "de"), row("b0", "ar", "ar")], &["a0", "b0", "a0", "b0"]).len(), 1);
}

#[test]
fn batches_hold_what_their_rows_name() {
    let rows = |from: usize, n: usize, lang: &str| -> String {
        let row = |i: usize| {
            format!("{{\"query\": {{\"{lang}\": \"w{i}\"}}, \"positive\": {{\"{lang}\": \"w{}\"}}}}\n", i + 40)
        };
        (from..from + n).map(row).collect()
    };
    let prefixed = |query: &str| TokenizeSpec { query_prefix: query.into(), passage_prefix: String::new(), ..spec() };
    let datasets = Datasets::new(vec![
        ("a".into(), 1.0, cache(&rows(0, 20, "en"), &prefixed("w90 "))),
        ("b".into(), 3.0, cache(&rows(20, 20, "de"), &prefixed("w91 "))),
    ]);
    let config = SamplerConfig {
        mode: BatchMode::MixedMonolingual,
        alpha: 0.5,
        lang_sampling: LangSampling::Uniform,
        lang_temperature: 3.0,
        batch_size: 8,
        seed: 1,
    };
    for (batches, of_a) in [(DatasetBatches::Homogeneous, [0, 8]), (DatasetBatches::Mixed, [2, 2])] {
        let mixing = MixtureConfig { sampling: DatasetSampling::Weights, temperature: 1.0, batches };
        let mixture = Mixture::new(&datasets.weighted(), &config, &mixing).unwrap();
        let mut n_of_a = 0;
        for step in 0..64 {
            let batch = Batch::pack(step, &mixture.batch(step), &datasets, NegativeRules::default()).unwrap();
            let mut here = 0;
            for query in 0..8 {
                let [_, prefix, word, _] = batch.seq(query)[..] else { panic!("{:?}", batch.seq(query)) };
                let word = word - super::W0 as i32;
                let is_a = word < 20;
                assert_eq!(prefix - super::W0 as i32, if is_a { 90 } else { 91 });
                assert_eq!(batch.seq(8 + query)[1] - super::W0 as i32, word + 40);
                assert_eq!(
                    datasets.catalog().languages[usize::from(batch.query_langs[query])],
                    ["de", "en"][usize::from(is_a)]
                );
                here += usize::from(is_a);
            }
            assert!(of_a.contains(&here), "{here} rows of a in {batches} batches");
            assert_eq!(batch.dataset, (batches == DatasetBatches::Homogeneous).then_some(usize::from(here == 0)));
            n_of_a += here;
        }
        assert_eq!(n_of_a, 64 * 8 / 4);
    }
}
