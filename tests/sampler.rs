//! The hybrid sampler, the batch packer and the loader, from outside.

mod batch;
mod frequencies;
mod mixture;
mod passes;
mod refusals;
mod small;

use hbt::data::catalog::{Catalog, Class, LangId};
use hbt::data::sampler::{BatchKind, BatchMode, LangSampling, SampledBatch, Sampler, SamplerConfig};
use std::collections::HashSet;

fn class(n_groups: u64, query_langs: &[LangId], passage_langs: &[LangId]) -> Class {
    Class { n_groups, query_langs: query_langs.to_vec(), passage_langs: passage_langs.to_vec() }
}

/// A catalog over as many languages as the classes name.
fn catalog(classes: Vec<Class>) -> Catalog {
    let n_langs = classes.iter().flat_map(|c| c.query_langs.iter().chain(&c.passage_langs)).max().map_or(0, |l| l + 1);
    Catalog { languages: (0..n_langs).map(|lang| format!("l{lang:02}")).collect(), classes }
}

/// Every group in every one of `n_langs` languages.
fn parallel(n_groups: u64, n_langs: LangId) -> Catalog {
    let langs: Vec<LangId> = (0..n_langs).collect();
    catalog(vec![class(n_groups, &langs, &langs)])
}

/// Every group in one language, `sizes[lang]` groups each.
fn separate(sizes: &[u64]) -> Catalog {
    catalog((0..).zip(sizes).map(|(lang, &n_groups)| class(n_groups, &[lang], &[lang])).collect())
}

fn config(mode: BatchMode, batch_size: usize) -> SamplerConfig {
    SamplerConfig {
        mode,
        alpha: 0.5,
        lang_sampling: LangSampling::Uniform,
        lang_temperature: 3.0,
        batch_size,
        seed: 42,
    }
}

fn sampler(catalog: &Catalog, config: &SamplerConfig) -> Sampler {
    Sampler::new(catalog, config).unwrap()
}

fn groups(batch: &SampledBatch) -> Vec<u64> {
    batch.rows.iter().map(|row| row.group).collect()
}

/// Checks the promises of every batch against the catalog, by plain search.
fn check_batch(catalog: &Catalog, batch: &SampledBatch, batch_size: usize) {
    assert_eq!(batch.rows.len(), batch_size);
    let distinct: HashSet<u64> = batch.rows.iter().map(|row| row.group).collect();
    assert_eq!(distinct.len(), batch_size, "a group twice in a batch");
    for row in &batch.rows {
        let mut first = 0;
        let class = catalog.classes.iter().find(|class| {
            first += class.n_groups;
            row.group < first
        });
        let class = class.expect("a group of the catalog");
        assert!(class.query_langs.contains(&row.query_lang), "{row:?} of {class:?}");
        assert!(class.passage_langs.contains(&row.passage_lang), "{row:?} of {class:?}");
        match batch.kind {
            BatchKind::Monolingual(lang) => assert_eq!((row.query_lang, row.passage_lang), (lang, lang)),
            BatchKind::MixedMonolingual => assert_eq!(row.query_lang, row.passage_lang),
            BatchKind::CrossLingual => assert_ne!(row.query_lang, row.passage_lang),
        }
    }
}

/// Chi-square of counts against expected counts, and the mean + 5 standard deviations that it must stay below.
fn check_chi_square(counts: &[f64], expected: &[f64], what: &str) {
    let chi2: f64 = counts.iter().zip(expected).map(|(c, e)| (c - e).powi(2) / e).sum();
    let freedom = counts.len() as f64 - 1.0;
    let limit = freedom + 5.0 * (2.0 * freedom).sqrt();
    assert!(chi2 < limit, "{what}: chi-square {chi2:.1}, expected about {freedom}: {counts:?}");
}
