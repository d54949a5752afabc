//! Weights of languages, and draws of a row's languages by these weights.

use super::BatchKind;
use super::config::{LangSampling, SamplerConfig};
use crate::data::catalog::{Catalog, Class, LangId};
use crate::random::{hash, unit};

/// Weights of the languages as queries, as passages, and as both at once.
///
/// Weights are whole numbers up to 2^32: their sums, and differences of sums, are exact in f64, so subtracting a
/// language from a sum leaves no remainder.
pub struct LangWeights {
    query: Vec<f64>,
    passage: Vec<f64>,
    common: Vec<f64>,
}

impl LangWeights {
    /// Weights for `config.lang_sampling`, by the number of groups that have a language.
    pub fn new(catalog: &Catalog, config: &SamplerConfig) -> Self {
        let weights = |langs_of: fn(&Class) -> Vec<LangId>| -> Vec<f64> {
            let mut sizes = vec![0u64; catalog.languages.len()];
            for class in &catalog.classes {
                langs_of(class).into_iter().for_each(|lang| sizes[usize::from(lang)] += class.n_groups);
            }
            weigh(&sizes.into_iter().map(|size| size as f64).collect::<Vec<_>>(), config)
        };
        LangWeights {
            query: weights(|class| class.query_langs.clone()),
            passage: weights(|class| class.passage_langs.clone()),
            common: weights(Class::common_langs),
        }
    }

    /// Weight of a language in which groups have both a query and a positive.
    pub fn common(&self, lang: LangId) -> f64 {
        self.common[lang as usize]
    }

    /// Draws the languages of query and passage of a row in a batch of `kind`, which groups of this class can serve.
    pub fn draw_langs(&self, kind: BatchKind, class: &Class, bits: u64) -> (LangId, LangId) {
        match kind {
            BatchKind::Monolingual(lang) => (lang, lang),
            BatchKind::MixedMonolingual => {
                let lang = self.draw_common(class, bits);
                (lang, lang)
            }
            BatchKind::CrossLingual => self.draw_pair(class, bits),
        }
    }

    /// Draws among the languages in which groups of this class have both a query and a positive.
    fn draw_common(&self, class: &Class, bits: u64) -> LangId {
        let langs = class.query_langs.iter().filter(|lang| class.passage_langs.contains(lang));
        draw(langs.map(|&lang| (lang, self.common(lang))), bits)
    }

    /// Draws a query language and a different passage language among those that groups of this class have: the pair
    /// `(q, p)` with probability proportional to `query_weight[q] * passage_weight[p]`.
    fn draw_pair(&self, class: &Class, bits: u64) -> (LangId, LangId) {
        let passage = |lang: LangId| self.passage[lang as usize];
        let total: f64 = class.passage_langs.iter().map(|&lang| passage(lang)).sum();
        // Weight left for the passage once the query's language is taken.
        let rest = |query: LangId| {
            if class.passage_langs.contains(&query) { total - passage(query) } else { total }
        };
        let queries = class.query_langs.iter().map(|&lang| (lang, self.query[lang as usize] * rest(lang)));
        let query_lang = draw(queries, hash(&[bits, 0]));
        let passages = class.passage_langs.iter().filter(|&&lang| lang != query_lang);
        let passage_lang = draw(passages.map(|&lang| (lang, passage(lang))), hash(&[bits, 1]));
        (query_lang, passage_lang)
    }
}

/// Weights for languages of the given numbers of groups; 0 for a language without groups.
fn weigh(sizes: &[f64], config: &SamplerConfig) -> Vec<f64> {
    let largest = sizes.iter().copied().fold(0.0, f64::max);
    let exponent = match config.lang_sampling {
        LangSampling::Uniform => 0.0,
        LangSampling::Proportional => 1.0,
        LangSampling::Temperature => 1.0 / config.lang_temperature,
    };
    let weight = |&size: &f64| {
        if size > 0.0 { ((size / largest).powf(exponent) * (1u64 << 32) as f64).round().max(1.0) } else { 0.0 }
    };
    sizes.iter().map(weight).collect()
}

/// One of the languages, in proportion to the weights; at least one weight must be positive.
fn draw(weighted: impl Iterator<Item = (LangId, f64)> + Clone, bits: u64) -> LangId {
    let total: f64 = weighted.clone().map(|(_, weight)| weight).sum();
    let mut left = unit(bits) * total;
    let mut drawn = None;
    for (lang, weight) in weighted.filter(|(_, weight)| *weight > 0.0) {
        drawn = Some(lang);
        left -= weight;
        if left < 0.0 {
            break;
        }
    }
    drawn.expect("a group is drawn only for a kind of batch whose languages it has")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::sampler::BatchMode;

    fn config(lang_sampling: LangSampling) -> SamplerConfig {
        SamplerConfig {
            mode: BatchMode::CrossLingual,
            alpha: 0.5,
            lang_sampling,
            lang_temperature: 2.0,
            batch_size: 2,
            seed: 0,
        }
    }

    #[test]
    fn weights_follow_the_definition() {
        let ratio = |lang_sampling| {
            let weights = weigh(&[100.0, 400.0, 0.0], &config(lang_sampling));
            assert_eq!(weights[2], 0.0);
            weights[0] / weights[1]
        };
        assert_eq!(ratio(LangSampling::Uniform), 1.0);
        assert_eq!(ratio(LangSampling::Proportional), 0.25);
        assert_eq!(ratio(LangSampling::Temperature), 0.5);
    }

    /// The naive way: list every allowed pair with its weight.
    #[test]
    fn pairs_come_in_proportion_to_the_product_of_weights() {
        let class = |n_groups, query_langs: &[u16], passage_langs: &[u16]| Class {
            n_groups,
            query_langs: query_langs.to_vec(),
            passage_langs: passage_langs.to_vec(),
        };
        let catalog = Catalog {
            languages: ["ar", "de", "en", "zh"].map(str::to_owned).to_vec(),
            classes: vec![class(10, &[0, 1, 2], &[1, 2, 3]), class(70, &[2], &[1]), class(20, &[1], &[3])],
        };
        let weights = LangWeights::new(&catalog, &config(LangSampling::Proportional));
        // Groups with a query in ar, de, en: 10, 30, 80; with a positive in de, en, zh: 80, 10, 30.
        let pairs = [
            ((0, 1), 800.0),
            ((0, 2), 100.0),
            ((0, 3), 300.0),
            ((1, 2), 300.0),
            ((1, 3), 900.0),
            ((2, 1), 6400.0),
            ((2, 3), 2400.0),
        ];
        let total: f64 = pairs.iter().map(|(_, weight)| weight).sum();
        let n = 50_000;
        let mut counts = std::collections::HashMap::new();
        for i in 0..n {
            *counts.entry(weights.draw_pair(&catalog.classes[0], hash(&[i]))).or_insert(0.0) += 1.0;
        }
        assert_eq!(counts.len(), pairs.len());
        for (pair, weight) in pairs {
            let p = weight / total;
            let (expected, sd) = (p * n as f64, (p * (1.0 - p) * n as f64).sqrt());
            assert!((counts[&pair] - expected).abs() < 4.5 * sd, "{pair:?}: {} for {expected:.0}", counts[&pair]);
        }
    }
}
