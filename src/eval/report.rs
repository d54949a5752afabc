//! The result of one evaluation: what `--json` writes, what `eval.json` holds, and what early stopping looks at.

use crate::data::catalog::LangId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One model on one benchmark. [`super::settings`] says how each number is averaged; one that the data cannot give
/// (cross-lingual from a single language) is `None`, `null` in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalReport {
    /// What made the embeddings, as the user named it.
    pub model: String,
    /// The benchmark.
    pub task: String,
    /// The part of its data.
    pub split: String,
    /// ISO 639-1 codes, ascending.
    pub languages: Vec<String>,
    /// Queries and passages in one language.
    pub monolingual: MapScore,
    /// Queries in one language, passages in another.
    pub cross_lingual: MapScore,
    /// Passages of all languages in one pool.
    pub multilingual: MultilingualScore,
    /// Mean average precision by query language, then passage language; the diagonal is monolingual.
    pub by_direction: BTreeMap<String, BTreeMap<String, f64>>,
    /// The multilingual setting by query language.
    pub by_query_language: BTreeMap<String, QueryLanguageScore>,
    /// What [`super::compare`] resamples; empty in a report that was read from a file.
    #[serde(skip)]
    pub per_query: Vec<QueryOutcome>,
}

/// Mean average precision of one setting.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MapScore {
    /// In [0, 1].
    pub map: Option<f64>,
}

/// The multilingual setting.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MultilingualScore {
    /// Mean average precision in [0, 1].
    pub map: Option<f64>,
    /// Mean rank distance of parallel answers, in ranks.
    pub rank_distance: Option<f64>,
}

/// The multilingual setting for the queries of one language.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueryLanguageScore {
    /// Mean average precision in [0, 1].
    pub multilingual_map: f64,
    /// Mean rank distance of parallel answers, in ranks.
    pub rank_distance: Option<f64>,
}

/// One query in the multilingual setting.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueryOutcome {
    /// Index of the query's language in [`EvalReport::languages`].
    pub lang: LangId,
    /// The parallel group it belongs to.
    pub group: u32,
    /// Its average precision in the pool of all languages.
    pub average_precision: f64,
}

crate::choices::choices! {
    /// A figure of a report: one of them decides which model is best.
    Metric {
        /// Mean average precision among the passages of the query's own language.
        MonolingualMap = "monolingual_map",
        /// Mean average precision over all pairs of two different languages.
        CrossLingualMap = "cross_lingual_map",
        /// Mean average precision with the passages of all languages in one pool.
        MultilingualMap = "multilingual_map",
        /// Spread of the ranks of parallel passages in that pool.
        RankDistance = "rank_distance",
    }
}

impl Metric {
    /// True where a smaller value is the better one.
    pub fn lower_is_better(self) -> bool {
        self == Metric::RankDistance
    }

    /// True when `new` improves on `old`; an equal value does not.
    pub fn is_better(self, new: f64, old: f64) -> bool {
        if self.lower_is_better() { new < old } else { new > old }
    }
}

impl EvalReport {
    /// One number of the report; `None` where the data could not give it.
    pub fn metric(&self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::MonolingualMap => self.monolingual.map,
            Metric::CrossLingualMap => self.cross_lingual.map,
            Metric::MultilingualMap => self.multilingual.map,
            Metric::RankDistance => self.multilingual.rank_distance,
        }
    }
}
