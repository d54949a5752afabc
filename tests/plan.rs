//! What a run will take: the counting backend against memory and arithmetic counted in other ways, and plans as answers.

mod answers;
mod command;
mod counted;

use crate::common::{Sandbox, fixture, groups, jsonl};
use hbt::config::{Assignment, Config, Draft};
use hbt::data::datasets::Datasets;
use hbt::data::formats::DataSource;
use hbt::data::shard::{TokenCache, TokenizeSpec};
use hbt::data::tokenize::TextTokenizer;
use hbt::model::ModelDir;
use hbt::plan::{Data, Machine, Plan, Question, Sample, Speed};

/// A tiny model, and 60 groups in three languages.
struct Setting {
    _sandbox: Sandbox,
    model: ModelDir,
    source: DataSource,
    spec: TokenizeSpec,
    data: Datasets,
}

impl Setting {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        sandbox.write("data.jsonl", jsonl(&groups(60, &["ar", "de", "en"])));
        let model = ModelDir::open(fixture("bert")).unwrap();
        let source = DataSource::new(sandbox.path("data.jsonl"));
        let spec = TokenizeSpec {
            query_prefix: String::new(),
            passage_prefix: String::new(),
            query_max_len: 24,
            passage_max_len: 24,
        };
        let tokenizer = TextTokenizer::from_file(&model.tokenizer).unwrap();
        let cache = TokenCache::open_or_build(&source, &tokenizer, &spec, &sandbox.path("cache"), &|_, _| ()).unwrap();
        let data = Datasets::new(vec![("data".to_owned(), 1.0, cache)]);
        Setting { _sandbox: sandbox, model, source, spec, data }
    }

    fn sample(&self) -> Sample {
        let sources = [(self.source.clone(), self.spec.clone())];
        Sample::read(&sources, &self.model.tokenizer, self.model.config.vocab_size).unwrap()
    }

    fn question<'a>(&'a self, config: &'a Config, machine: &'a Machine) -> Question<'a> {
        Question { config, model: &self.model, data: Data::Tokens(&self.data), eval_texts: None, machine }
    }

    fn plan(&self, config: &Config, machine: &Machine) -> Plan {
        Plan::new(&self.question(config, machine)).unwrap()
    }
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
    let speed = Some(Speed { products: 1e12, memory: 1e11, is_measured: false });
    Machine { name: "a machine".to_owned(), is_gpu, memory, overhead: 1 << 20, speed }
}
