//! The three settings of arXiv 2408.10536 and the language bias, averaged from the ranks of relevant passages.
//!
//! - *monolingual*: queries of language L search the passages of L; mean over the languages.
//! - *cross-lingual*: queries of L search the passages of one other language M; mean over the n(n - 1) directions.
//! - *multilingual*: queries of L search one pool of all languages, where the answers in every language are relevant;
//!   mean over the query languages. The rank distance is averaged in the same way.
//!
//! Every number is a mean of means: first over the queries of a language, then over languages or directions, so that
//! a language with many queries weighs no more than one with few. XQuAD-R asks every question in every language,
//! where this equals the mean over all queries that XTREME reports. A query that has no relevant passage in a
//! language does not count for that direction, and a direction without queries does not count at all.

use super::bias::rank_distance;
use super::metrics::average_precision;
use super::report::{EvalReport, MapScore, MultilingualScore, QueryLanguageScore, QueryOutcome};
use super::search::RelevantRank;
use super::tasks::EvalSet;
use std::collections::BTreeMap;

/// Averages the ranks of `set`'s queries ([`super::search::relevant_ranks`]) into a report on `model`.
pub fn report(model: &str, set: &EvalSet, ranks: &[Vec<RelevantRank>]) -> EvalReport {
    assert_eq!(ranks.len(), set.queries.len(), "ranks for every query");
    let n = set.languages.len();
    let mut directions = vec![vec![Mean::default(); n]; n];
    let mut pooled = vec![Mean::default(); n];
    let mut distances = vec![Mean::default(); n];
    let mut per_query = Vec::with_capacity(ranks.len());
    for (query, ranks) in set.queries.iter().zip(ranks).filter(|(_, ranks)| !ranks.is_empty()) {
        let lang = usize::from(query.lang);
        for answers in ranks.chunk_by(|a, b| a.lang == b.lang) {
            let ap = precision_of(answers.iter().map(|r| r.in_language));
            directions[lang][usize::from(answers[0].lang)].add(ap);
        }
        let average_precision = precision_of(ranks.iter().map(|r| r.pooled));
        pooled[lang].add(average_precision);
        let pooled_ranks: Vec<u32> = ranks.iter().map(|r| r.pooled).collect();
        if let Some(distance) = rank_distance(&pooled_ranks) {
            distances[lang].add(f64::from(distance));
        }
        per_query.push(QueryOutcome { lang: query.lang, group: query.group, average_precision });
    }
    let of_direction = |q: usize, p: usize| directions[q][p].value();
    let diagonal = (0..n).map(|q| of_direction(q, q));
    let off_diagonal = (0..n).flat_map(|q| (0..n).filter(move |&p| p != q).map(move |p| (q, p)));
    EvalReport {
        model: model.to_owned(),
        task: set.task.clone(),
        split: set.split.clone(),
        languages: set.languages.clone(),
        monolingual: MapScore { map: mean_of(diagonal) },
        cross_lingual: MapScore { map: mean_of(off_diagonal.map(|(q, p)| of_direction(q, p))) },
        multilingual: MultilingualScore {
            map: mean_of(pooled.iter().map(Mean::value)),
            rank_distance: mean_of(distances.iter().map(Mean::value)),
        },
        by_direction: by_language(set, |q| {
            Some(by_language(set, |p| of_direction(q, p))).filter(|row| !row.is_empty())
        }),
        by_query_language: by_language(set, |q| {
            let multilingual_map = pooled[q].value()?;
            Some(QueryLanguageScore { multilingual_map, rank_distance: distances[q].value() })
        }),
        per_query,
    }
}

/// Average precision of ranks in any order, all relevant passages being ranked.
fn precision_of(ranks: impl Iterator<Item = u32>) -> f64 {
    let mut ranks: Vec<u32> = ranks.collect();
    ranks.sort_unstable();
    average_precision(&ranks, ranks.len())
}

/// What `of` gives for each language that it gives something for.
fn by_language<T>(set: &EvalSet, of: impl Fn(usize) -> Option<T>) -> BTreeMap<String, T> {
    set.languages.iter().enumerate().filter_map(|(i, code)| Some((code.clone(), of(i)?))).collect()
}

/// Mean of the values that are there; `None` where none is.
fn mean_of(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let mut mean = Mean::default();
    values.flatten().for_each(|x| mean.add(x));
    mean.value()
}

/// A mean under way.
#[derive(Clone, Copy, Default)]
struct Mean {
    sum: f64,
    n: u64,
}

impl Mean {
    fn add(&mut self, x: f64) {
        self.sum += x;
        self.n += 1;
    }

    fn value(&self) -> Option<f64> {
        (self.n > 0).then(|| self.sum / self.n as f64)
    }
}
