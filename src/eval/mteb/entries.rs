//! What a result file lists: the numbers of each subset, and what took how long.
//!
//! Files of mteb's are read, too. What they list besides numbers, such as single experiments of a classification, is left out.

use serde_json::{Map, Value, json};

use super::files::version;
use super::{DECIMALS, rounded};

/// Keys of an entry that are no numbers.
const NO_NUMBERS: [&str; 4] = ["main_score", "hf_subset", "languages", "mteb_version"];

/// What people are shown of a subset beside its main score, where it has them; the files have all numbers.
const SHOWN: [&str; 4] = ["ndcg_at_10", "recall_at_100", "mrr_at_10", "map_at_1000"];

/// The numbers of a subset.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Name and value, in the order in which they are written.
    pub numbers: Vec<(String, f64)>,
    /// Numbers below a name, written behind the others: `og` and `changed` of
    /// [InstructionReranking](super::table::TaskKind::InstructionReranking).
    pub groups: Vec<(String, Vec<(String, f64)>)>,
    /// The one that stands for the subset.
    pub main_score: f64,
    /// Name of the subset.
    pub hf_subset: String,
    /// Its languages, such as `deu-Latn`.
    pub languages: Vec<String>,
}

impl Entry {
    /// The number of this name.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.numbers.iter().find(|(known, _)| known == name).map(|(_, x)| *x)
    }

    /// Names of the numbers that people are shown beside the one called `main_score`.
    pub fn shown_beside(&self, main_score: &str) -> Vec<&'static str> {
        SHOWN.into_iter().filter(|name| *name != main_score && self.number(name).is_some()).collect()
    }

    /// With the 6 decimals of each number that a file has.
    pub(super) fn rounded(mut self) -> Self {
        let in_groups = self.groups.iter_mut().flat_map(|(_, of)| of);
        let numbers = self.numbers.iter_mut().chain(in_groups).map(|(_, x)| x);
        numbers.chain([&mut self.main_score]).for_each(|x| *x = rounded(*x, DECIMALS));
        self
    }

    pub(super) fn to_json(&self) -> Value {
        let object =
            |of: &[(String, f64)]| of.iter().map(|(name, x)| (name.clone(), (*x).into())).collect::<Map<_, _>>();
        let mut entry = object(&self.numbers);
        entry.extend(self.groups.iter().map(|(name, of)| (name.clone(), object(of).into())));
        entry.insert("main_score".into(), self.main_score.into());
        entry.insert("hf_subset".into(), self.hf_subset.clone().into());
        entry.insert("languages".into(), self.languages.clone().into());
        entry.insert("mteb_version".into(), version().into());
        entry.into()
    }

    pub(super) fn from_json(entry: &Value) -> Option<Self> {
        let entry = entry.as_object()?;
        let number = |value: &Value| if value.is_null() { Some(f64::NAN) } else { value.as_f64() };
        let named = |(name, value): (&String, &Value)| Some((name.clone(), number(value)?));
        let rest = entry.iter().filter(|(name, _)| !NO_NUMBERS.contains(&name.as_str()));
        let (groups, numbers): (Vec<_>, Vec<_>) = rest.partition(|(_, value)| value.is_object());
        let group = |(name, of): (&String, &Value)| {
            let numbers = of.as_object()?.iter().filter_map(named).collect();
            Some((name.clone(), numbers))
        };
        let languages = entry.get("languages")?.as_array()?.iter();
        Some(Entry {
            numbers: numbers.into_iter().filter_map(named).collect(),
            groups: groups.into_iter().filter_map(group).collect(),
            main_score: number(entry.get("main_score")?)?,
            hf_subset: entry.get("hf_subset")?.as_str()?.to_owned(),
            languages: languages.map(|code| code.as_str().map(str::to_owned)).collect::<Option<_>>()?,
        })
    }
}

/// A span of the evaluation, in seconds from any moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// mteb calls them `Encoding queries`, `Searching corpus`, `Scoring` and so on.
    pub name: String,
    /// When it began.
    pub start: f64,
    /// When it ended.
    pub end: f64,
    /// The split.
    pub split: String,
    /// The subset.
    pub subset: String,
}

impl Phase {
    pub(super) fn to_json(&self) -> Value {
        let Phase { name, start, end, split, subset } = self;
        json!({ "name": name, "start": start, "end": end, "split": split, "subset": subset })
    }

    pub(super) fn from_json(phase: &Value) -> Option<Self> {
        let text = |key: &str| phase.get(key)?.as_str().map(str::to_owned);
        let seconds = |key: &str| phase.get(key)?.as_f64();
        Some(Phase {
            name: text("name")?,
            start: seconds("start")?,
            end: seconds("end")?,
            split: text("split")?,
            subset: text("subset")?,
        })
    }
}
