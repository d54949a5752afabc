//! The main figure's values of single queries in a report's JSON, from which [`super::compare`] draws: a list a stratum,
//! with the numbers of the queries' groups beside their values. Languages go by their place among the report's.

use super::report::QueryOutcome;
use crate::data::catalog::LangId;
use serde::ser::Error;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The queries of one language, on the passages of one or (`null`) of all.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stratum {
    query_language: LangId,
    passage_language: Option<LangId>,
    groups: Vec<u32>,
    values: Vec<f64>,
}

/// Writes outcomes by stratum, on one line: thousands of numbers are for no reader.
pub(super) fn write<S: Serializer>(outcomes: &[QueryOutcome], serializer: S) -> Result<S::Ok, S::Error> {
    let mut strata: BTreeMap<(LangId, Option<LangId>), Stratum> = BTreeMap::new();
    for QueryOutcome { stratum, group, value } in outcomes {
        let (query_language, passage_language) = *stratum;
        let new = || Stratum { query_language, passage_language, ..Stratum::default() };
        let of = strata.entry(*stratum).or_insert_with(new);
        of.groups.push(*group);
        of.values.push(*value);
    }
    let text = serde_json::to_string(&strata.into_values().collect::<Vec<_>>()).map_err(S::Error::custom)?;
    RawValue::from_string(text).map_err(S::Error::custom)?.serialize(serializer)
}

/// The outcomes that were written, in the order of their strata.
///
/// # Errors
/// What is wrong: a place behind those of the `n_languages`, lists of two lengths.
pub(super) fn read(strata: Vec<Stratum>, n_languages: usize) -> Result<Vec<QueryOutcome>, String> {
    let mut outcomes = Vec::new();
    for Stratum { query_language, passage_language, groups, values } in strata {
        let last = query_language.max(passage_language.unwrap_or(0));
        if usize::from(last) >= n_languages {
            return Err(format!("per_query has language {last} of {n_languages}, counted from 0"));
        }
        if groups.len() != values.len() {
            return Err(format!("per_query has {} groups beside {} values", groups.len(), values.len()));
        }
        let pairs = groups.into_iter().zip(values);
        let stratum = (query_language, passage_language);
        outcomes.extend(pairs.map(|(group, value)| QueryOutcome { stratum, group, value }));
    }
    Ok(outcomes)
}
