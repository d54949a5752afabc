//! mteb's result files, which its `ResultCache` loads unchanged, and which an interrupted evaluation goes on from.
//!
//! A file has the keys of mteb's, in its order and with its rounding, and one more at the end, which mteb reads over: `hbt`
//! holds what the numbers depend on, and a hash of the file. Where mteb writes NaN, which is no JSON, there is null.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_128;

use super::entries::{Entry, Phase};
use super::folder::ModelName;
use super::table::mteb_version;
use crate::{Error, Result};

/// Key of what is hbt's own in a result file.
const OWN: &str = "hbt";
/// Key of the hash in it: of the file with an empty string here.
const HASH: &str = "xxh3_128";
/// What the numbers depend on besides model, task and data: precision, lengths, prefixes, each as text.
pub type Settings = BTreeMap<String, String>;

/// The version that hbt's results carry: mteb's, whose definitions they follow, with hbt's behind it.
pub fn version() -> String {
    format!("{}+hbt.{}", mteb_version(), env!("CARGO_PKG_VERSION"))
}

/// Whether this is a result file that hbt wrote.
pub fn is_result(file: &Value) -> bool {
    file.get(OWN).is_some_and(|own| own.get(HASH).is_some()) && file.get("scores").is_some()
}

/// The result of a task, so far.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskResult {
    /// mteb's name of the task.
    pub task_name: String,
    /// The commit of the dataset.
    pub dataset_revision: String,
    /// What else the numbers depend on.
    pub settings: Settings,
    /// By split; [`TaskResult::record`] adds to them.
    scores: Vec<(String, Vec<Entry>)>,
    /// Seconds that it took.
    pub evaluation_time: f64,
    /// When it ended, in seconds since 1970.
    pub date: f64,
    /// What took how long.
    pub evaluation_phases: Vec<Phase>,
}

impl TaskResult {
    /// A result without numbers.
    pub fn new(task_name: &str, dataset_revision: &str, settings: Settings) -> Self {
        TaskResult {
            task_name: task_name.to_owned(),
            dataset_revision: dataset_revision.to_owned(),
            settings,
            scores: Vec::new(),
            evaluation_time: 0.0,
            date: 0.0,
            evaluation_phases: Vec::new(),
        }
    }

    /// The numbers of a subset, where there are any yet.
    pub fn entry(&self, split: &str, subset: &str) -> Option<&Entry> {
        let (_, entries) = self.scores.iter().find(|(name, _)| name == split)?;
        entries.iter().find(|entry| entry.hf_subset == subset)
    }

    /// All numbers, by split, in the order in which they were recorded.
    pub fn scores(&self) -> &[(String, Vec<Entry>)] {
        &self.scores
    }

    /// Adds the numbers of a subset behind the others of its split, with the 6 decimals that the file has of them.
    pub fn record(&mut self, split: &str, entry: Entry) {
        let entry = entry.rounded();
        match self.scores.iter_mut().find(|(name, _)| name == split) {
            Some((_, entries)) => entries.push(entry),
            None => self.scores.push((split.to_owned(), vec![entry])),
        }
    }

    /// mteb's score of the task: the mean of [`Entry::main_score`] over all splits and subsets. NaN without any.
    pub fn score(&self) -> f64 {
        let scores: Vec<f64> = self.scores.iter().flat_map(|(_, of)| of).map(|entry| entry.main_score).collect();
        scores.iter().sum::<f64>() / scores.len() as f64
    }

    /// The text of the file.
    pub(super) fn text(&self, model: &ModelName) -> String {
        format!("{:#}", self.to_json(model))
    }

    /// The file of this result of a model.
    pub fn to_json(&self, model: &ModelName) -> Value {
        let entries = |of: &[Entry]| of.iter().map(Entry::to_json).collect::<Value>();
        let scores: Map<_, _> = self.scores.iter().map(|(split, of)| (split.clone(), entries(of))).collect();
        let mut file = json!({
            "dataset_revision": self.dataset_revision,
            "task_name": self.task_name,
            "mteb_version": version(),
            "scores": scores,
            "evaluation_time": self.evaluation_time,
            "kg_co2_emissions": null,
            "date": self.date,
            "evaluation_phases": self.evaluation_phases.iter().map(Phase::to_json).collect::<Value>(),
            OWN: { "model": model.name(), "revision": model.revision(), "settings": self.settings, HASH: "" },
        });
        let hash = xxh3_128(format!("{file:#}").as_bytes());
        file[OWN][HASH] = format!("{hash:032x}").into();
        file
    }

    fn from_json(file: &Map<String, Value>, settings: Settings) -> Option<Self> {
        let text = |key: &str| file.get(key)?.as_str().map(str::to_owned);
        let entries = |of: &Value| of.as_array()?.iter().map(Entry::from_json).collect::<Option<_>>();
        let scores = file.get("scores")?.as_object()?.iter();
        // Earlier versions of mteb did not write them all.
        let seconds = |key: &str| file.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let phases = file.get("evaluation_phases").and_then(Value::as_array).into_iter().flatten();
        Some(TaskResult {
            task_name: text("task_name")?,
            dataset_revision: text("dataset_revision")?,
            settings,
            scores: scores.map(|(split, of)| Some((split.clone(), entries(of)?))).collect::<Option<_>>()?,
            evaluation_time: seconds("evaluation_time"),
            date: seconds("date"),
            evaluation_phases: phases.map(Phase::from_json).collect::<Option<_>>()?,
        })
    }
}

/// The result in a file of mteb's form, whoever wrote it, and whose it is, where the file says that.
#[derive(Clone, Debug)]
pub struct Written {
    /// The numbers.
    pub result: TaskResult,
    /// The model's name and revision, which only hbt writes.
    pub model: Option<(String, String)>,
    /// [`version`] of what wrote it.
    pub version: Option<String>,
}

impl Written {
    /// Whether this is a file of mteb's form, damaged or not.
    pub fn is_of(file: &Value) -> bool {
        file.get("task_name").is_some() && file.get("scores").is_some()
    }

    /// Takes the numbers as they are: whether somebody edited them is asked where an evaluation goes on from them. `None`: a
    /// file that is not of mteb's form.
    pub fn read(file: &Value) -> Option<Self> {
        let string = |value: Option<&Value>| value?.as_str().map(str::to_owned);
        let own = file.get(OWN);
        let settings = own.and_then(|own| own.get("settings")?.as_object()).into_iter().flatten();
        let settings = settings.filter_map(|(key, value)| Some((key.clone(), string(Some(value))?))).collect();
        let model = own.and_then(|own| Some((string(own.get("model"))?, string(own.get("revision"))?)));
        let result = TaskResult::from_json(file.as_object()?, settings)?;
        Some(Written { result, model, version: string(file.get("mteb_version")) })
    }
}

/// A file that hbt wrote and nobody changed.
pub(super) struct Found {
    /// What is in it.
    pub result: TaskResult,
    /// [`version`] of who wrote it.
    pub version: String,
    /// Name of the model.
    pub model: String,
    /// Its revision.
    pub revision: String,
}

impl Found {
    /// Reads `text`, the content of `path`.
    ///
    /// # Errors
    /// If another program wrote it, or it is not as hbt wrote it.
    pub(super) fn parse(path: &Path, text: &str) -> Result<Self> {
        let damaged = || Error::file(path, "is damaged, or was edited; remove it, and its numbers are computed again");
        let Ok(Value::Object(file)) = serde_json::from_str(text) else { return Err(damaged()) };
        let Some(own) = file.get(OWN) else {
            let message = "was not written by hbt, which replaces no files of others; move it, or name another folder";
            return Err(Error::file(path, message));
        };
        let read = || {
            let hash = own.get(HASH)?.as_str()?;
            let field = |hash: &str| format!("{HASH:?}: {hash:?}");
            let hashed = xxh3_128(text.replacen(&field(hash), &field(""), 1).as_bytes());
            if hash != format!("{hashed:032x}") {
                return None;
            }
            let string = |value: Option<&Value>| value?.as_str().map(str::to_owned);
            let settings = own.get("settings")?.as_object()?.iter();
            let settings =
                settings.map(|(key, value)| Some((key.clone(), string(Some(value))?))).collect::<Option<_>>()?;
            Some(Found {
                result: TaskResult::from_json(&file, settings)?,
                version: string(file.get("mteb_version"))?,
                model: string(own.get("model"))?,
                revision: string(own.get("revision"))?,
            })
        };
        read().ok_or_else(damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `TaskResult.to_disk` of mteb 2.26.24 wrote for these values, but for null, which was NaN.
    const OF_MTEB: &str = r#"{
  "dataset_revision": "5bef8b6e",
  "task_name": "MLQARetrieval",
  "mteb_version": "2.26.24+hbt.VERSION",
  "scores": {
    "validation": [
      {
        "ndcg_at_1": 0.015625,
        "ndcg_at_3": 1.0,
        "mrr_at_1": 0.123456,
        "nauc_ndcg_at_1_max": null,
        "tiny": 1e-06,
        "zero": -0.0,
        "hit_rate_at_1": 0.0,
        "main_score": 0.4711,
        "hf_subset": "ara-deu",
        "languages": [
          "ara-Arab",
          "deu-Latn"
        ],
        "mteb_version": "2.26.24+hbt.VERSION"
      }
    ],
    "test": [
      {
        "ndcg_at_1": 0.666667,
        "og": {
          "map_at_1": 0.333333
        },
        "main_score": 0.5289,
        "hf_subset": "ara-deu",
        "languages": [
          "ara-Arab",
          "deu-Latn"
        ],
        "mteb_version": "2.26.24+hbt.VERSION"
      }
    ]
  },
  "evaluation_time": 12.5,
  "kg_co2_emissions": null,
  "date": 1764523305.25,
  "evaluation_phases": [
    {
      "name": "Scoring",
      "start": 0.5,
      "end": 1.25,
      "split": "test",
      "subset": "ara-deu"
    }
  ]
}"#;

    fn entry(numbers: &[(&str, f64)], main_score: f64) -> Entry {
        Entry {
            numbers: numbers.iter().map(|&(name, x)| (name.to_owned(), x)).collect(),
            groups: Vec::new(),
            main_score,
            hf_subset: "ara-deu".to_owned(),
            languages: vec!["ara-Arab".to_owned(), "deu-Latn".to_owned()],
        }
    }

    fn result() -> TaskResult {
        let settings = Settings::from([("precision".to_owned(), "f32".to_owned())]);
        let mut result = TaskResult::new("MLQARetrieval", "5bef8b6e", settings);
        let numbers = [
            ("ndcg_at_1", 0.015625),
            ("ndcg_at_3", 1.0),
            // Below the middle in binary.
            ("mrr_at_1", 0.1234565),
            ("nauc_ndcg_at_1_max", f64::NAN),
            ("tiny", 0.0000012),
            ("zero", -1e-9),
            ("hit_rate_at_1", 0.0),
        ];
        result.record("validation", entry(&numbers, 0.4711));
        let mut instructed = entry(&[("ndcg_at_1", 2.0 / 3.0)], 0.5289);
        instructed.groups.push(("og".to_owned(), vec![("map_at_1".to_owned(), 1.0 / 3.0)]));
        result.record("test", instructed);
        let [name, split, subset] = ["Scoring", "test", "ara-deu"].map(str::to_owned);
        result.evaluation_phases.push(Phase { name, start: 0.5, end: 1.25, split, subset });
        (result.evaluation_time, result.date) = (12.5, 1_764_523_305.25);
        result
    }

    fn model() -> ModelName {
        ModelName::new("hbt/e5 small", "abc").unwrap()
    }

    #[test]
    fn the_text_is_what_mteb_writes_and_one_key_more() {
        let text = result().text(&model());
        let (of_mteb, own) = text.split_once(",\n  \"hbt\": {").unwrap();
        let expected = OF_MTEB.replace("VERSION", env!("CARGO_PKG_VERSION")).replace("1e-06", "1e-6");
        assert_eq!(format!("{of_mteb}\n}}"), expected);
        assert!(own.contains("\"precision\": \"f32\""), "{own}");
    }

    #[test]
    fn a_result_is_read_back_as_it_was() {
        let path = Path::new("MLQARetrieval.json");
        let text = result().text(&model());
        let found = Found::parse(path, &text).unwrap();
        assert_eq!((found.model.as_str(), found.revision.as_str()), ("hbt/e5 small", "abc"));
        assert_eq!(found.version, format!("2.26.24+hbt.{}", env!("CARGO_PKG_VERSION")));
        // NaN is among the numbers, which no comparison finds equal.
        assert_eq!(found.result.text(&model()), text);
        assert_eq!(found.result.settings, result().settings);
        assert_eq!(found.result.entry("test", "ara-deu").unwrap().numbers, [("ndcg_at_1".to_owned(), 0.666667)]);
        assert!(found.result.entry("validation", "ara-deu").unwrap().numbers[3].1.is_nan());
        assert!(found.result.entry("test", "deu-deu").is_none() && found.result.entry("dev", "ara-deu").is_none());
        // (0.4711 + 0.5289) / 2, as mteb's get_score says.
        assert_eq!(found.result.score(), 0.5);
    }

    #[test]
    fn files_of_others_and_damaged_ones_are_refused() {
        let path = Path::new("MLQARetrieval.json");
        let message = |text: &str| Found::parse(path, text).map(|_| ()).unwrap_err().to_string();
        assert!(message(OF_MTEB).contains("MLQARetrieval.json: was not written by hbt"));
        let text = result().text(&model());
        let edited = [
            text.replace("0.4711", "0.9711"),
            text.replace("\"f32\"", "\"bf16\""),
            text.replace("Scoring", "scoring"),
            text[..text.len() / 2].to_owned(),
            text.replace("\"settings\": {", "\"settings\": 1, \"more\": {"),
            String::new(),
            "[]".to_owned(),
            "{\"hbt\": 1}".to_owned(),
        ];
        for text in edited {
            assert!(message(&text).contains("is damaged"), "{text}");
        }
    }
}
