//! What a model is evaluated on: passages and queries in several languages, and which passages answer which queries.

pub mod parallel;
pub mod xquad_r;

use super::Metric;
use crate::data::catalog::LangId;
use std::ops::Range;

/// A candidate of the search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Index into [`EvalSet::languages`].
    pub lang: LangId,
    /// The text as the data has it, without a prefix.
    pub text: String,
}

/// A question and what answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// Index into [`EvalSet::languages`].
    pub lang: LangId,
    /// The parallel group: the versions of one question in several languages share a number.
    pub group: u32,
    /// The text as the data has it, without a prefix.
    pub text: String,
    /// Indices of the passages of all languages that answer it, ascending, at least one.
    pub relevant: Vec<u32>,
}

/// A retrieval benchmark over several languages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalSet {
    /// What the report calls it.
    pub task: String,
    /// The part of the data: `all`, `train` or `test`.
    pub split: String,
    /// ISO 639-1 codes, ascending.
    pub languages: Vec<String>,
    /// Ordered by language, so that each language is one contiguous range.
    pub passages: Vec<Passage>,
    /// Ordered by language.
    pub queries: Vec<Query>,
}

impl EvalSet {
    /// Whether a report on this set has a value for `metric`.
    pub fn gives(&self, metric: Metric) -> bool {
        let is_own = |query: &Query, passage: u32| self.passages[passage as usize].lang == query.lang;
        self.queries.iter().any(|query| match metric {
            Metric::MonolingualMap => query.relevant.iter().any(|&passage| is_own(query, passage)),
            Metric::CrossLingualMap => query.relevant.iter().any(|&passage| !is_own(query, passage)),
            Metric::MultilingualMap => true,
            Metric::RankDistance => query.relevant.len() > 1,
        })
    }

    /// Indices of the passages in one language; empty where it has none.
    pub fn passage_range(&self, lang: LangId) -> Range<usize> {
        let start = self.passages.partition_point(|p| p.lang < lang);
        start..start + self.passages[start..].partition_point(|p| p.lang == lang)
    }
}
