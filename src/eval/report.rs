//! The result of one evaluation: what `--json` writes, what `eval.json` holds, and what early stopping looks at.

use super::figures::{Figure, FigureKey, Written};
use super::mteb::files::Settings;
use super::{per_query, tasks};
use crate::data::catalog::LangId;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::collections::BTreeMap;

/// A number for each language.
pub type ByLanguage = BTreeMap<String, f64>;

/// One model on one task. [`super::settings`] says how each number is averaged.
///
/// One that is read back has figures of a task that there is, its main one among them, and details of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EvalReport {
    /// What made the embeddings, as the user named it.
    pub model: String,
    /// The task's name.
    pub task: &'static str,
    /// The part of its data.
    pub split: String,
    /// ISO 639-1 codes, ascending.
    pub languages: Vec<String>,
    /// The one among the figures that the task is about.
    #[serde(serialize_with = "by_name")]
    pub main: FigureKey,
    /// All that the task gives, in its order.
    pub figures: Vec<Figure>,
    /// By metric and cut-off (`map`, `ndcg@10`), then query language, then passage language; the diagonal is monolingual.
    pub by_direction: BTreeMap<String, BTreeMap<String, ByLanguage>>,
    /// By name of a figure that ranks one pool, then query language.
    pub by_query_language: BTreeMap<String, ByLanguage>,
    /// By query language, then passage language: the queries that have an answer there, over which means are taken.
    pub n_queries: BTreeMap<String, BTreeMap<String, u64>>,
    /// Identity of the data: [`EvalSet::key`](tasks::EvalSet::key); empty in a report of an earlier hbt.
    pub data: String,
    /// What made the numbers; absent in a report of an earlier hbt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hbt: Option<Origin>,
    /// What [`super::compare`] resamples; empty in a report of an earlier hbt.
    #[serde(serialize_with = "per_query::write")]
    pub per_query: Vec<QueryOutcome>,
}

/// What numbers depend on besides model, task and data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// That of hbt.
    pub version: String,
    /// Precision, lengths, prefixes and the like, each as text.
    pub settings: Settings,
}

impl Origin {
    /// By this version of hbt.
    pub fn new(settings: Settings) -> Self {
        Origin { version: env!("CARGO_PKG_VERSION").to_owned(), settings }
    }
}

/// The main figure's value for one query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QueryOutcome {
    /// Languages of the query and of its passages (`None`: one pool of all), indices into [`EvalReport::languages`]. Means
    /// over the queries of a stratum weigh the same.
    pub stratum: (LangId, Option<LangId>),
    /// The parallel group that the query belongs to.
    pub group: u32,
    /// The value.
    pub value: f64,
}

impl EvalReport {
    /// A figure's value; `None` where the task does not have it or the data could not give it.
    pub fn value(&self, key: FigureKey) -> Option<f64> {
        self.figures.iter().find(|figure| figure.key == key)?.value
    }
}

fn by_name<S: Serializer>(key: &FigureKey, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(key)
}

/// A report as it was written, not checked yet.
#[derive(Deserialize)]
struct WrittenReport {
    model: String,
    task: String,
    split: String,
    languages: Vec<String>,
    main: Option<String>,
    figures: Option<Vec<Written>>,
    by_direction: Value,
    by_query_language: Value,
    // Earlier versions did not count them.
    #[serde(default)]
    n_queries: Value,
    #[serde(default)]
    data: String,
    #[serde(default)]
    hbt: Option<Origin>,
    #[serde(default)]
    per_query: Vec<per_query::Stratum>,
}

impl<'de> Deserialize<'de> for EvalReport {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        EvalReport::checked(WrittenReport::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl EvalReport {
    fn checked(written: WrittenReport) -> Result<Self, String> {
        let (Some(main), Some(figures)) = (written.main, written.figures) else {
            return Err("its report lists no figures, so an earlier hbt wrote it".to_owned());
        };
        let task = tasks::named(&written.task).ok_or_else(|| format!("there is no task {:?}", written.task))?;
        let figures: Vec<Figure> = figures.into_iter().map(|figure| figure.read(task)).collect::<Result<_, _>>()?;
        let names: Vec<String> = figures.iter().map(|figure| figure.key.to_string()).collect();
        if let Some(i) = (1..names.len()).find(|&i| names[..i].contains(&names[i])) {
            return Err(format!("{} is listed twice", names[i]));
        }
        let main = figures.iter().find(|figure| figure.key.to_string() == main);
        let report = EvalReport {
            main: main.ok_or("its main figure is not among its figures")?.key,
            model: written.model,
            task: task.name,
            split: written.split,
            by_direction: details(written.by_direction)?,
            by_query_language: details(written.by_query_language)?,
            n_queries: if written.n_queries.is_null() { BTreeMap::new() } else { details(written.n_queries)? },
            figures,
            data: written.data,
            hbt: written.hbt,
            per_query: per_query::read(written.per_query, written.languages.len())?,
            languages: written.languages,
        };
        report.check_details()?;
        Ok(report)
    }

    /// Whether what tables look up by name is of figures and languages that the report has.
    fn check_details(&self) -> Result<(), String> {
        let of = |name: fn(&FigureKey) -> String| self.figures.iter().map(|figure| name(&figure.key)).collect();
        let (measures, names): (Vec<String>, Vec<String>) = (of(FigureKey::measure), of(FigureKey::to_string));
        let unknown = |known: &[String], name: &String| (!known.contains(name)).then(|| name.clone());
        let directions = self.by_direction.values().flatten();
        let mut languages = directions.flat_map(|(query, row)| std::iter::once(query).chain(row.keys()));
        let mut query_languages = self.by_query_language.values().flat_map(ByLanguage::keys);
        let mut counted = self.n_queries.iter().flat_map(|(query, row)| std::iter::once(query).chain(row.keys()));
        let found = (self.by_direction.keys().find_map(|name| unknown(&measures, name)))
            .or_else(|| self.by_query_language.keys().find_map(|name| unknown(&names, name)))
            .or_else(|| languages.find_map(|code| unknown(&self.languages, code)))
            .or_else(|| query_languages.find_map(|code| unknown(&self.languages, code)))
            .or_else(|| counted.find_map(|code| unknown(&self.languages, code)));
        found.map_or(Ok(()), |name| Err(format!("its report has details of {name:?}, but does not list it")))
    }
}

fn details<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What made a report is in its file if it is known, and earlier files have nothing of it.
    #[test]
    fn a_report_says_what_made_it() {
        let figure =
            json!({"task": "parallel", "setting": "multilingual", "metric": "map", "cutoff": null, "value": 0.5});
        let old = json!({
            "model": "m", "task": "parallel", "split": "all", "languages": ["de"], "main": "multilingual_map",
            "figures": [figure], "by_direction": {}, "by_query_language": {}, "n_queries": {}, "data": "", "per_query": [],
        });
        let report: EvalReport = serde_json::from_value(old.clone()).unwrap();
        assert_eq!(report.hbt, None);
        assert_eq!(serde_json::to_value(&report).unwrap(), old);
        let origin = Origin::new(Settings::from([("precision".to_owned(), "f32".to_owned())]));
        let report = EvalReport { hbt: Some(origin), ..report };
        let written = serde_json::to_value(&report).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(written["hbt"], json!({"version": version, "settings": {"precision": "f32"}}));
        assert_eq!(serde_json::from_value::<EvalReport>(written).unwrap(), report);
        let mut odd = old;
        odd["hbt"] = 1.into();
        assert!(serde_json::from_value::<EvalReport>(odd).is_err());
    }
}
