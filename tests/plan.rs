//! Plans: the counting backend compared with memory and arithmetic counted in other ways, and plans as answers.

mod answers;
mod command;
mod counted;
mod exchanged;

use crate::common::{Sandbox, fixture, groups, jsonl};
use hbt::config::{Assignment, Config, Draft};
use hbt::data::datasets::{DatasetSource, Datasets};
use hbt::data::formats::DataSource;
use hbt::data::shard::{TokenCache, TokenizeSpec};
use hbt::data::tokenize::TextTokenizer;
use hbt::model_dir::ModelDir;
use hbt::plan::{Cluster, Data, Machine, Part, Plan, Question, Sample, Speed};
use hbt::train::TrainSettings;
use serde_json::{Value, json};
use std::path::PathBuf;

/// A tiny model, and data before and after it is tokenized.
struct Setting {
    _sandbox: Sandbox,
    model: ModelDir,
    sources: Vec<DatasetSource>,
    data: Datasets,
}

impl Setting {
    /// 60 groups in three languages.
    fn new() -> Self {
        Self::of(&[("data", &groups(60, &["ar", "de", "en"]))])
    }

    /// Datasets by their names.
    fn of(datasets: &[(&str, &[Value])]) -> Self {
        let sandbox = Sandbox::new();
        let model = ModelDir::open(fixture("bert")).unwrap();
        let tokenizer = TextTokenizer::from_file(&model.tokenizer).unwrap();
        let (mut sources, mut caches) = (Vec::new(), Vec::new());
        for (name, rows) in datasets {
            let file = format!("{name}.jsonl");
            sandbox.write(&file, jsonl(rows));
            let source = sample_source(name, sandbox.path(&file));
            let DatasetSource { data, spec, .. } = &source;
            let cache = TokenCache::open_or_build(data, &tokenizer, spec, &sandbox.path("cache"), &|_, _| ()).unwrap();
            caches.push((source.name.clone(), source.weight, cache));
            sources.push(source);
        }
        Setting { _sandbox: sandbox, model, sources, data: Datasets::new(caches) }
    }

    fn sample(&self) -> Sample {
        Sample::read(&self.sources, &Part::default(), &self.model.tokenizer, self.model.config.vocab_size).unwrap()
    }

    fn question<'a>(&'a self, config: &Config, machine: &'a Machine) -> Question<'a> {
        Question {
            settings: self.settings(config),
            open: config.open(machine.is_gpu),
            precision: config.precision.given().unwrap(),
            from_scratch: config.from_scratch,
            model: &self.model,
            data: Data::Tokens(&self.data),
            eval_texts: None,
            machine,
            cluster: Cluster::of(1),
        }
    }

    fn settings(&self, config: &Config) -> TrainSettings {
        config.training(&self.model).unwrap()
    }

    fn plan(&self, config: &Config, machine: &Machine) -> Plan {
        Plan::new(&self.question(config, machine)).unwrap()
    }
}

/// A dataset of weight 1 with texts of up to 24 tokens.
fn sample_source(name: &str, path: impl Into<PathBuf>) -> DatasetSource {
    let [query_prefix, passage_prefix] = [String::new(), String::new()];
    let spec = TokenizeSpec { query_prefix, passage_prefix, query_max_len: 24, passage_max_len: 24 };
    DatasetSource { name: name.to_owned(), weight: 1.0, data: DataSource::new(path), spec }
}

/// Groups with a query and a positive of about `n_words` words in each of `langs`; `name` keeps ids apart.
fn groups_of(name: &str, n: usize, langs: &[&str], n_words: usize) -> Vec<Value> {
    let text = |i: usize, lang: usize, role: usize| {
        let n = n_words.max(2) - usize::from(n_words > 2 && (i + lang + role).is_multiple_of(3));
        // The first words of a long text number it, so that no two groups say the same.
        let letter = |w: usize| match n_words > 8 && w < 4 {
            true => i / 26_usize.pow(w as u32),
            false => i * 7 + lang * 5 + role * 11 + w * (i % 5 + 1),
        };
        let word = |w: usize| char::from(b'a' + (letter(w) % 26) as u8).to_string();
        (0..n).map(word).collect::<Vec<_>>().join(" ")
    };
    let by_lang = |i: usize, role: usize| {
        Value::Object(langs.iter().enumerate().map(|(l, code)| (code.to_string(), text(i, l, role).into())).collect())
    };
    (0..n).map(|i| json!({"id": format!("{name}{i}"), "query": by_lang(i, 0), "positive": by_lang(i, 1)})).collect()
}

/// Batches of 20 in f32, and what `sets` say.
fn config(sets: &[&str]) -> Config {
    let mut draft = Draft::new();
    let usual =
        ["batch_size=20", "precision=f32", "query_max_len=24", "passage_max_len=24", "epochs=2", "pooling=mean"];
    for set in usual.iter().chain(sets) {
        draft.set(&set.parse::<Assignment>().unwrap()).unwrap();
    }
    draft.finish().unwrap()
}

fn machine(is_gpu: bool, memory: Option<u64>) -> Machine {
    let speed = Some(Speed { products: 1e12, memory: 1e11, measured: None });
    Machine { name: "a machine".to_owned(), is_gpu, memory, in_all: None, overhead: 1 << 20, speed, link: None }
}
