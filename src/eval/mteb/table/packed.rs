//! The table as `tasks.json` has it, packed; `make_tasks.py` describes the format.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::subsets::{Names, Subsets};
use super::{BenchmarkRow, Loading, Member, Prompt, Size, TaskRow};

/// All that the file says.
pub(super) struct Table {
    /// Version of mteb.
    pub mteb_version: String,
    /// ISO 639-3 codes, divided by spaces, that a code stands for.
    pub language_groups: BTreeMap<String, String>,
    /// In the script's order.
    pub benchmarks: Vec<BenchmarkRow>,
    /// By name.
    pub tasks: Vec<TaskRow>,
}

/// The table, read when it is first asked for.
pub(super) fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let written: WrittenTable = serde_json::from_str(include_str!("../tasks.json")).expect("tasks.json is a table");
        Table {
            mteb_version: written.mteb,
            language_groups: written.languages,
            benchmarks: rows(written.benchmarks, WrittenBenchmark::row),
            tasks: rows(written.tasks, WrittenTask::row),
        }
    })
}

/// The file as it is written; rows keep their order.
#[derive(Deserialize)]
struct WrittenTable {
    mteb: String,
    languages: BTreeMap<String, String>,
    benchmarks: Map<String, Value>,
    tasks: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenTask {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    revision: String,
    main_score: String,
    splits: String,
    subsets: Option<String>,
    pairs: Option<String>,
    #[serde(default)]
    codes: BTreeMap<String, String>,
    k_values: Option<Vec<usize>>,
    #[serde(default)]
    ignore_identical_ids: bool,
    columns: Option<[String; 2]>,
    score_range: Option<[f64; 2]>,
    prompt: Option<Prompt>,
    #[serde(default)]
    loading: Loading,
    #[serde(default)]
    counts: BTreeMap<String, Size>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenBenchmark {
    aliases: Vec<String>,
    tasks: Map<String, Value>,
    #[serde(default)]
    subsets: BTreeMap<String, String>,
}

fn rows<W: DeserializeOwned, R>(written: Map<String, Value>, row: fn(W, String) -> R) -> Vec<R> {
    let read = |(name, value)| row(serde_json::from_value(value).unwrap_or_else(|e| panic!("{name}: {e}")), name);
    written.into_iter().map(read).collect()
}

impl WrittenTask {
    fn row(self, name: String) -> TaskRow {
        let names = match (self.subsets, self.pairs) {
            (Some(names), None) => Names::All(names),
            (None, Some(sides)) => Names::Sides(sides),
            _ => panic!("{name}: either subsets or pairs"),
        };
        TaskRow {
            subsets: Subsets::new(names, self.codes),
            kind: self.kind.parse().unwrap_or_else(|e| panic!("{name}: {e}")),
            name,
            path: self.path,
            revision: self.revision,
            splits: words(&self.splits),
            main_score: self.main_score,
            cutoffs: self.k_values.unwrap_or_else(|| vec![1, 3, 5, 10, 20, 100, 1000]),
            ignores_identical_ids: self.ignore_identical_ids,
            prompt: self.prompt,
            loading: self.loading,
            columns: self.columns.unwrap_or_else(|| ["sentence1", "sentence2"].map(str::to_owned)),
            score_range: self.score_range.unwrap_or([0.0, 5.0]),
            sizes: self.counts,
        }
    }
}

impl WrittenBenchmark {
    fn row(mut self, name: String) -> BenchmarkRow {
        let member = |(task, type_name): (String, Value)| Member {
            type_name: type_name.as_str().unwrap_or_else(|| panic!("{name}: {task} has a type")).to_owned(),
            subsets: self.subsets.remove(&task).map(|names| words(&names)),
            name: task,
        };
        BenchmarkRow { members: self.tasks.into_iter().map(member).collect(), aliases: self.aliases, name }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}
