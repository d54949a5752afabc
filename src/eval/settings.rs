//! The three settings of arXiv 2408.10536, and how figures are averaged.
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

use super::bias::RANK_DISTANCE;
use super::figures::{Figure, FigureKey};
use super::metrics::{MAP, MRR, NDCG, RECALL, Ranking};
use super::report::{EvalReport, QueryOutcome};
use super::search::RelevantRank;
use super::tasks::{EvalSet, Query};
use crate::data::catalog::LangId;
use std::collections::BTreeMap;

/// Which passages a query searches.
pub struct Setting {
    /// As figures' names, files and options have it.
    pub name: &'static str,
    /// As tables have it.
    pub title: &'static str,
    /// The rankings that a query takes part in.
    pub rankings: fn(&Query, &[RelevantRank]) -> Vec<Ranked>,
}

/// A ranking and the language of its passages; `None`: one pool of all languages.
pub type Ranked = (Option<LangId>, Ranking);

/// Queries and passages in one language.
pub static MONOLINGUAL: Setting = Setting {
    name: "monolingual",
    title: "monolingual",
    rankings: |query, ranks| by_language(query, ranks, |lang| lang == query.lang),
};

/// Queries in one language, passages in another.
pub static CROSS_LINGUAL: Setting = Setting {
    name: "cross_lingual",
    title: "cross-lingual",
    rankings: |query, ranks| by_language(query, ranks, |lang| lang != query.lang),
};

/// Passages of all languages in one pool.
pub static MULTILINGUAL: Setting = Setting { name: "multilingual", title: "multilingual", rankings: pooled };

/// Mean average precision with the passages of all languages in one pool.
pub const MULTILINGUAL_MAP: FigureKey = FigureKey { setting: Some(&MULTILINGUAL), metric: &MAP, cutoff: None };

/// The figures of the paper.
pub const FIGURES: [FigureKey; 4] = [
    FigureKey { setting: Some(&MONOLINGUAL), ..MULTILINGUAL_MAP },
    FigureKey { setting: Some(&CROSS_LINGUAL), ..MULTILINGUAL_MAP },
    MULTILINGUAL_MAP,
    FigureKey { setting: None, metric: &RANK_DISTANCE, cutoff: None },
];

/// The figures of the paper on benchmarks with answers in every language: those, and its recalls.
pub static FIGURES_WITH_RECALL: [FigureKey; 7] = [
    FIGURES[0],
    FIGURES[1],
    FIGURES[2],
    FIGURES[3],
    FigureKey { metric: &RECALL, cutoff: Some(1), ..FIGURES[0] },
    FigureKey { metric: &RECALL, cutoff: Some(1), ..FIGURES[1] },
    FigureKey { metric: &RECALL, cutoff: Some(10), ..FIGURES[2] },
];

/// Figures that any benchmark can give, for whoever asks for one.
pub static ON_DEMAND: [FigureKey; 9] = {
    const NDCG_AT_10: FigureKey = FigureKey { metric: &NDCG, cutoff: Some(10), ..MULTILINGUAL_MAP };
    const MRR_AT_10: FigureKey = FigureKey { metric: &MRR, ..NDCG_AT_10 };
    const RECALL_AT_100: FigureKey = FigureKey { metric: &RECALL, cutoff: Some(100), ..NDCG_AT_10 };
    [
        FigureKey { setting: Some(&MONOLINGUAL), ..NDCG_AT_10 },
        FigureKey { setting: Some(&CROSS_LINGUAL), ..NDCG_AT_10 },
        NDCG_AT_10,
        FigureKey { setting: Some(&MONOLINGUAL), ..MRR_AT_10 },
        FigureKey { setting: Some(&CROSS_LINGUAL), ..MRR_AT_10 },
        MRR_AT_10,
        FigureKey { setting: Some(&MONOLINGUAL), ..RECALL_AT_100 },
        FigureKey { setting: Some(&CROSS_LINGUAL), ..RECALL_AT_100 },
        RECALL_AT_100,
    ]
};

/// A ranking for each language of relevant passages that is `wanted`; what is out of reach counts as the query's language.
fn by_language(query: &Query, ranks: &[RelevantRank], wanted: impl Fn(LangId) -> bool) -> Vec<Ranked> {
    let mut judged: BTreeMap<LangId, Vec<(Option<u32>, u32)>> = BTreeMap::new();
    for (rank, of) in ranks.iter().zip(&query.relevant) {
        judged.entry(rank.lang).or_default().push((Some(rank.in_language), of.grade));
    }
    if !query.out_of_reach.is_empty() {
        judged.entry(query.lang).or_default().extend(query.out_of_reach.iter().map(|grade| (None, *grade)));
    }
    let languages = judged.into_iter().filter(|(lang, _)| wanted(*lang));
    languages.map(|(lang, judged)| (Some(lang), Ranking::new(judged))).collect()
}

/// The ranking of all passages, which is what a query of the paper's benchmarks searches.
pub fn pooled(query: &Query, ranks: &[RelevantRank]) -> Vec<Ranked> {
    let judged = ranks.iter().zip(&query.relevant).map(|(rank, of)| (Some(rank.pooled), of.grade));
    vec![(None, Ranking::new(judged.chain(query.out_of_reach.iter().map(|grade| (None, *grade)))))]
}

/// Averages the ranks of `set`'s queries ([`super::search::relevant_ranks`]) into a report on `model`: every figure that the
/// task lists.
pub fn report(model: &str, set: &EvalSet, ranks: &[Vec<RelevantRank>]) -> EvalReport {
    report_with(None, model, set, ranks)
}

/// [`report`], with one figure `more`, unless the task lists it.
pub fn report_with(more: Option<FigureKey>, model: &str, set: &EvalSet, ranks: &[Vec<RelevantRank>]) -> EvalReport {
    assert_eq!(ranks.len(), set.queries.len(), "ranks for every query");
    let mut report = EvalReport {
        model: model.to_owned(),
        task: set.task.name,
        split: set.split.clone(),
        languages: set.languages.clone(),
        main: set.task.main,
        figures: Vec::new(),
        by_direction: BTreeMap::new(),
        by_query_language: BTreeMap::new(),
        n_queries: BTreeMap::new(),
        data: set.key(),
        hbt: None,
        per_query: Vec::new(),
    };
    let more = more.filter(|key| !set.task.figures.contains(key));
    for key in set.task.figures.iter().copied().chain(more) {
        let strata = Strata::new(key, set, ranks);
        report.figures.push(Figure { task: set.task.name, key, value: strata.mean() });
        strata.add_details(key, &mut report);
        if key == set.task.main {
            report.per_query = strata.outcomes;
        }
    }
    report
}

/// The values of one figure for each query, and their means by query language and, unless it is one pool, passage language:
/// those weigh the same however many queries they are of.
struct Strata {
    means: BTreeMap<(LangId, Option<LangId>), Mean>,
    outcomes: Vec<QueryOutcome>,
}

impl Strata {
    fn new(key: FigureKey, set: &EvalSet, ranks: &[Vec<RelevantRank>]) -> Self {
        let (mut means, mut outcomes) = (BTreeMap::new(), Vec::new());
        let rankings = key.setting.map_or(set.task.searched, |setting| setting.rankings);
        let counts =
            |(query, ranks): &(&Query, &Vec<RelevantRank>)| !ranks.is_empty() || !query.out_of_reach.is_empty();
        for (query, ranks) in set.queries.iter().zip(ranks).filter(counts) {
            for (passages, ranking) in rankings(query, ranks) {
                let Some(value) = (key.metric.of)(&ranking, key.cutoff) else { continue };
                let stratum = (query.lang, passages);
                means.entry(stratum).or_insert_with(Mean::default).add(value);
                outcomes.push(QueryOutcome { stratum, group: query.group, value });
            }
        }
        Strata { means, outcomes }
    }

    fn mean(&self) -> Option<f64> {
        let mut mean = Mean::default();
        self.means.values().for_each(|of| mean.add(of.value()));
        (mean.n > 0).then(|| mean.value())
    }

    fn add_details(&self, key: FigureKey, report: &mut EvalReport) {
        let code = |lang: LangId| report.languages[usize::from(lang)].clone();
        for (&(query, passages), mean) in &self.means {
            match passages {
                Some(passages) => {
                    let matrix = report.by_direction.entry(key.measure()).or_default();
                    matrix.entry(code(query)).or_default().insert(code(passages), mean.value());
                    report.n_queries.entry(code(query)).or_default().insert(code(passages), mean.n);
                }
                None => {
                    let column = report.by_query_language.entry(key.to_string()).or_default();
                    column.insert(code(query), mean.value());
                }
            }
        }
    }
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

    fn value(self) -> f64 {
        self.sum / self.n as f64
    }
}
