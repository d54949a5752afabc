//! What is fed with broken input: every reader of something that hbt did not write a moment ago. `cargo test` runs these
//! with fixed seeds (`tests/mutated.rs`), cargo-fuzz without end (`fuzz/fuzz_targets`).
//!
//! A reader may accept the input or refuse it with one line. It may not panic, hang, or say two things of the same bytes.

use std::fs;
use std::path::Path;

use hbt::config::{Config, Draft};
use hbt::data::catalog::{Catalog, Class, Role, TextSource};
use hbt::data::collection;
use hbt::data::formats::{DataSource, Group, Notes, PassageUnit, parallel_row, squad};
use hbt::data::prepare::DataReport;
use hbt::data::sampler::{SampledBatch, WeightedDataset};
use hbt::data::shard::{TokenCache, TokenizeSpec};
use hbt::data::tokenize::TextTokenizer;
use hbt::eval::SideBySide;
use hbt::eval::mteb::entries::{Entry, Phase};
use hbt::eval::mteb::files::{Settings, TaskResult};
use hbt::eval::mteb::folder::{Earlier, ModelFolder, ModelName};
use hbt::files::owned::Manifest;
use hbt::loss::LearnedTemperature;
use hbt::model_dir::ModelDir;
use hbt::npy::NpyReader;
use hbt::tensor_file::TensorFile;
use hbt::train::checkpoint::RunDir;
use hbt::train::schedule::Schedule;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// A reader of the file or directory that is made of these bytes.
pub type Body = fn(&Path, &[u8]);

/// Every reader, by name.
pub const BODIES: [(&str, Body); 22] = [
    ("rows", rows),
    ("columns", columns),
    ("packed", packed),
    ("parquet", parquet),
    ("arrow", arrow),
    ("tables", tables),
    ("squad", squad_file),
    ("split", split_file),
    ("judgements", judgements),
    ("task_rows", task_rows),
    ("task_parquet", task_parquet),
    ("toml", toml),
    ("model_config", model_config),
    ("tokenizer", tokenizer),
    ("safetensors", safetensors),
    ("sampler", sampler),
    ("cache", rehashed_cache),
    ("state", resume_state),
    ("metrics", metrics),
    ("mteb_result", mteb_result),
    ("report", report),
    ("npy", npy),
];

/// Fails if an error is not one line that says something; returns what was read.
fn checked<T>(result: hbt::Result<T>) -> Option<T> {
    result.map_err(|e| assert!(!e.to_string().is_empty() && !e.to_string().contains('\n'), "{e:?}")).ok()
}

fn groups(dir: &Path, name: &str, bytes: &[u8], source: &dyn Fn(&Path) -> DataSource) -> Option<(Vec<Group>, Notes)> {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    let read = || source(&path).read_groups();
    let first = checked(read());
    assert_eq!(first, read().ok(), "the same bytes read twice");
    first
}

/// JSON rows of every layout, and back: what was read is read again from the rows that hbt writes.
pub fn rows(dir: &Path, bytes: &[u8]) {
    let Some((groups, _)) = groups(dir, "rows.jsonl", bytes, &|path| DataSource::new(path)) else { return };
    let text = |groups: &[Group]| groups.iter().map(|group| parallel_row(group) + "\n").collect::<String>();
    let written = text(&groups);
    let path = dir.join("again.jsonl");
    fs::write(&path, &written).unwrap();
    let (again, _) = DataSource::new(&path).read_groups().expect("rows that hbt has written");
    assert_eq!(text(&again), written);
}

/// Columns between tabs and commas.
pub fn columns(dir: &Path, bytes: &[u8]) {
    groups(dir, "rows.csv", bytes, &|path| DataSource::new(path));
    groups(dir, "rows.tsv", bytes, &|path| DataSource::new(path));
}

/// Text packed with gzip or zstd.
pub fn packed(dir: &Path, bytes: &[u8]) {
    groups(dir, "rows.jsonl.gz", bytes, &|path| DataSource::new(path));
}

/// Parquet.
pub fn parquet(dir: &Path, bytes: &[u8]) {
    groups(dir, "rows.parquet", bytes, &|path| DataSource::new(path));
}

/// Arrow, a stream or with a footer.
pub fn arrow(dir: &Path, bytes: &[u8]) {
    groups(dir, "rows.arrow", bytes, &|path| DataSource::new(path));
}

/// MS MARCO's triples of ids and the tables that have the texts, one behind the other, with dashes between them.
pub fn tables(dir: &Path, bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == b'-').filter(|part| !part.is_empty());
    for name in ["qidpidtriples.train.tsv", "queries.train.tsv", "collection.tsv"] {
        fs::write(dir.join(name), parts.next().unwrap_or_default().trim_ascii_start()).unwrap();
    }
    let first = checked(DataSource::new(dir).read_groups());
    assert_eq!(first, DataSource::new(dir).read_groups().ok(), "the same bytes read twice");
}

/// SQuAD layout, by sentence and by paragraph.
pub fn squad_file(dir: &Path, bytes: &[u8]) {
    groups(dir, "de.json", bytes, &|path| DataSource::new(path));
    let unit = |path: &Path| DataSource { passage_unit: PassageUnit::Paragraph, ..DataSource::new(path) };
    groups(dir, "de.json", bytes, &unit);
    checked(squad::read_language(&dir.join("de.json"), &mut Notes::default()));
}

/// The file that divides articles.
pub fn split_file(dir: &Path, bytes: &[u8]) {
    fs::write(dir.join("en.json"), SQUAD).unwrap();
    fs::write(dir.join("split.json"), bytes).unwrap();
    for split in [hbt::config::Split::Train, hbt::config::Split::Validation, hbt::config::Split::Test] {
        checked(DataSource { split: split.into(), ..DataSource::new(dir) }.read_groups());
    }
}

/// Judgements of BEIR's layout.
pub fn judgements(dir: &Path, bytes: &[u8]) {
    fs::create_dir_all(dir.join("qrels")).unwrap();
    fs::write(dir.join("corpus.jsonl"), "{\"_id\": \"d\", \"text\": \"a\"}\n{\"_id\": \"e\", \"text\": \"b\"}\n")
        .unwrap();
    fs::write(dir.join("queries.jsonl"), "{\"_id\": \"q\", \"text\": \"a?\"}\n").unwrap();
    fs::write(dir.join("qrels/train.tsv"), bytes).unwrap();
    checked(DataSource::new(dir).read_groups());
    retrieval_task(dir);
}

/// Every part of a retrieval task as JSON rows.
pub fn task_rows(dir: &Path, bytes: &[u8]) {
    task_of(dir, ".jsonl", bytes);
}

/// Every part of a retrieval task as Parquet.
pub fn task_parquet(dir: &Path, bytes: &[u8]) {
    task_of(dir, "-00000-of-00001.parquet", bytes);
}

/// A task whose configs all are these bytes, with those that a task may lack and without.
fn task_of(dir: &Path, ending: &str, bytes: &[u8]) {
    for config in ["corpus", "queries", "qrels", "top_ranked", "instruction"] {
        fs::create_dir_all(dir.join(config)).unwrap();
        fs::write(dir.join(config).join(format!("train{ending}")), bytes).unwrap();
    }
    retrieval_task(dir);
    for config in ["top_ranked", "instruction"] {
        fs::remove_dir_all(dir.join(config)).unwrap();
    }
    retrieval_task(dir);
}

/// Reads a task to the end, twice.
fn retrieval_task(dir: &Path) {
    let read = || {
        let task = checked(collection::open(dir).and_then(|all| all.load("default", "train")))?;
        checked(task.n_documents_hint());
        let mut documents = task.documents();
        let found: Vec<_> = documents.by_ref().map(checked).collect();
        assert!(documents.next().is_none(), "behind the end");
        Some((task.queries, task.notes.lines(), found, documents.notes().lines()))
    };
    assert_eq!(read(), read(), "the same bytes read twice");
}

/// A configuration, and back.
pub fn toml(dir: &Path, bytes: &[u8]) {
    let path = dir.join("run.toml");
    fs::write(&path, bytes).unwrap();
    let Some(config) = checked(Config::load(&path)) else { return };
    fs::write(&path, config.to_toml()).unwrap();
    assert_eq!(Config::load(&path).expect("a configuration that hbt has written"), config);
}

/// A model's `config.json`.
pub fn model_config(dir: &Path, bytes: &[u8]) {
    fs::write(dir.join("config.json"), bytes).unwrap();
    checked(ModelDir::open(dir));
}

/// A `tokenizer.json`, and what it makes of some texts.
pub fn tokenizer(dir: &Path, bytes: &[u8]) {
    let path = dir.join("tokenizer.json");
    fs::write(&path, bytes).unwrap();
    let Some(tokenizer) = checked(TextTokenizer::from_file(&path)) else { return };
    for text in ["a b", "", "😀 é\u{300}", "日本語"] {
        checked(tokenizer.encode("query: ", text, 8));
    }
}

/// A file of tensors.
pub fn safetensors(dir: &Path, bytes: &[u8]) {
    let path = dir.join("model.safetensors");
    fs::write(&path, bytes).unwrap();
    let Some(file) = checked(TensorFile::open(&path, "copy it again")) else { return };
    let sizes = file.names().into_iter().filter_map(|name| file.info(&name).map(|info| file.bytes(info).len()));
    assert!(sizes.sum::<usize>() <= bytes.len());
}

/// The sampler that a configuration asks for, and the one after the configuration was written and read back: the same
/// batches, each group once in a batch.
pub fn sampler(dir: &Path, bytes: &[u8]) {
    let path = dir.join("run.toml");
    fs::write(&path, bytes).unwrap();
    let Some(config) = checked(Config::load(&path)) else { return };
    fs::write(&path, config.to_toml()).unwrap();
    let again = Config::load(&path).expect("a configuration that hbt has written");
    fs::write(dir.join("config.json"), CONFIG).unwrap();
    fs::write(dir.join("tokenizer.json"), TOKENIZER).unwrap();
    let model = ModelDir::open(dir).expect("a fixture");
    assert_eq!(batches(&config, &model), batches(&again, &model));
}

/// Batches from everywhere in the run that a configuration asks for, on data that is parallel in part.
fn batches(config: &Config, model: &ModelDir) -> Option<Vec<SampledBatch>> {
    let class = |n_groups, langs: &[u16]| Class { n_groups, query_langs: langs.into(), passage_langs: langs.into() };
    let languages: Vec<String> = ["ar", "de", "en"].map(String::from).into();
    let catalogs = [vec![class(40, &[0, 1, 2])], vec![class(9, &[1]), class(30, &[1, 2])]]
        .map(|classes| Catalog { languages: languages.clone(), classes });
    let n_datasets = config.datasets.len().clamp(1, 2);
    let weight = |dataset: usize| config.datasets.get(dataset).map_or(1.0, |dataset| dataset.weight);
    let datasets = catalogs.iter().zip(0..n_datasets);
    let datasets: Vec<WeightedDataset> = datasets
        .map(|(catalog, number)| WeightedDataset { name: "d", catalog, weight: weight(number), left_out_by: &[] })
        .collect();
    let settings = checked(config.training(model))?;
    let mixture = checked(settings.mixture_of(&datasets))?;
    let n_steps = settings.total_steps(mixture.steps_per_pass());
    let schedule = checked(Schedule::new(settings.lr_schedule, settings.warmup_ratio, n_steps))?;
    let steps = [0, 1, n_steps / 2, n_steps.saturating_sub(1)];
    let batch = |step| {
        let factor = schedule.factor(step);
        assert!((0.0..=1.0).contains(&factor), "{factor} at {step} of {n_steps}");
        let batch = mixture.batch(step);
        let mut groups: Vec<u64> = batch.rows.iter().map(|row| row.group).collect();
        groups.sort_unstable();
        groups.dedup();
        assert!(groups.len() == batch.rows.len() && (1..=config.batch_size).contains(&groups.len()), "{batch:?}");
        batch
    };
    Some(steps.map(batch).into())
}

/// A token cache with its checksums written anew, as whoever edits it would have to: what opens can be read to the end.
pub fn rehashed_cache(dir: &Path, bytes: &[u8]) {
    let path = cache_of(dir).path().to_owned();
    let mut bytes = bytes.to_vec();
    rehash(&mut bytes);
    fs::remove_file(&path).unwrap();
    fs::write(&path, bytes).unwrap();
    read_to_the_end(&cache_of(dir));
}

/// A cache of a few rows in `dir`.
pub fn cache_of(dir: &Path) -> TokenCache {
    let data = dir.join("rows.jsonl");
    fs::write(&data, CACHED).unwrap();
    let tokenizer = dir.join("tokenizer.json");
    fs::write(&tokenizer, TOKENIZER).unwrap();
    let spec = TokenizeSpec {
        query_prefix: "query: ".to_owned(),
        passage_prefix: String::new(),
        query_max_len: 8,
        passage_max_len: 8,
    };
    let tokenizer = TextTokenizer::from_file(&tokenizer).expect("a fixture");
    let cache = TokenCache::open_or_build(&DataSource::new(&data), &tokenizer, &spec, &dir.join("cache"), &|_, _| ());
    cache.expect("a cache that does not hold together is built again")
}

/// Asks for all that a cache can be asked for.
pub fn read_to_the_end(cache: &TokenCache) {
    for group in 0..cache.n_groups() {
        cache.group_id(group);
        for (_, hash) in cache.hashes(group, Role::Query) {
            cache.groups_asking(group, hash).into_iter().for_each(|asking| _ = cache.hashes(asking, Role::Positive));
        }
        for text in cache.group_texts(group) {
            cache.tokens(text);
            cache.text_info(text);
            cache.group_of_negative(text);
            cache.teacher_score(text);
        }
    }
    cache.passage_langs();
    DataReport::new(cache).to_string();
}

/// Writes a cache file's checksums anew, as far as it has the sections that its header says.
pub fn rehash(bytes: &mut [u8]) {
    let number =
        |bytes: &[u8], at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().unwrap()) as usize);
    let sections = || {
        let [n_words, n_texts, n_groups, meta_len] = [32, 40, 48, 56].map(|at| number(bytes, at));
        let texts = n_words?.checked_mul(4)?.checked_add(4096)?.checked_next_multiple_of(8)?;
        let groups = n_texts?.checked_mul(40)?.checked_add(texts)?;
        let meta = n_groups?.checked_add(1)?.checked_mul(24)?.checked_add(groups)?;
        meta_len?.checked_add(meta)?.checked_next_multiple_of(8)
    };
    let Some(end) = sections().filter(|end| *end <= bytes.len()) else { return };
    let sums: Vec<u8> = bytes[4096..end].chunks(1 << 20).flat_map(|block| xxh3_64(block).to_le_bytes()).collect();
    let n_sums = sums.len().min(bytes.len() - end);
    bytes[end..end + n_sums].copy_from_slice(&sums[..n_sums]);
    bytes[64..72].copy_from_slice(&xxh3_64(&sums).to_le_bytes());
    let header = xxh3_64(&bytes[..72]);
    bytes[72..80].copy_from_slice(&header.to_le_bytes());
}

/// The state of a run, under a manifest that fits: what it says is shown, computed with and written again.
pub fn resume_state(dir: &Path, bytes: &[u8]) {
    let run = RunDir::new(dir);
    let read = |bytes: &[u8]| {
        fs::create_dir_all(run.last()).unwrap();
        fs::write(run.state_file(), bytes).unwrap();
        Manifest::write(&run.last()).unwrap();
        checked(run.state()).map(|state| state.expect("a file of this name"))
    };
    let Some(state) = read(bytes) else { return };
    if let (Some(before), Some((_, after))) = (&state.before, &state.latest) {
        SideBySide { before, after }.to_string();
    }
    if let Some(bits) = state.temperature {
        let mut temperature = LearnedTemperature::from_bits(bits);
        temperature.step(0.5, 1e-3);
        assert!(temperature.temperature() > 0.0, "{temperature:?}");
    }
    let settings: String = state.settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    let mut draft = Draft::new();
    if checked(draft.saved(&run.state_file(), &settings).map(drop)).is_some() {
        checked(draft.finish());
    }
    let written = serde_json::to_vec(&state).unwrap();
    let again = read(&written).expect("a state that hbt has written");
    assert_eq!(serde_json::to_vec(&again).unwrap(), written);
}

/// The lines of a run's metrics: those that are kept are there as they were.
pub fn metrics(dir: &Path, bytes: &[u8]) {
    let run = RunDir::new(dir);
    fs::write(run.metrics(), bytes).unwrap();
    checked(run.last_reported_step());
    for step in [0, 3] {
        fs::write(run.metrics(), bytes).unwrap();
        let is_opened = checked(run.open_metrics(step, step == 3)).is_some();
        let kept = fs::read(run.metrics()).unwrap();
        match is_opened {
            true => {
                let is_step = |line: &&str| !line.contains("\"task\"");
                let kept = String::from_utf8(kept).expect("what is not UTF-8 is no line");
                assert!(kept.lines().filter(is_step).count() <= step as usize);
            }
            false => assert_eq!(kept, bytes),
        }
    }
}

/// A result that an evaluation goes on from, as it is and with a hash that fits: what is read is written again.
pub fn mteb_result(dir: &Path, bytes: &[u8]) {
    let (folder, made) = mteb_result_of(dir);
    let path = folder.result_path(&made.task_name);
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        match checked(folder.read(&made.task_name, &made.dataset_revision, &made.settings)) {
            Some(Earlier::Same(result)) => Some(result),
            _ => None,
        }
    };
    read(bytes);
    let Some(result) = read(hashed_anew(&String::from_utf8_lossy(bytes)).as_bytes()) else { return };
    result.score();
    let written = |result: &TaskResult| {
        folder.write(result).unwrap();
        fs::read(&path).unwrap()
    };
    let first = written(&result);
    let again = read(&first).expect("a result that hbt has written");
    assert_eq!(written(&again), first);
}

/// A good result, written.
pub fn mteb_result_of(dir: &Path) -> (ModelFolder, TaskResult) {
    let folder = ModelFolder::new(dir, ModelName::new("org/model", "1").unwrap());
    let mut result = TaskResult::new("T", "r", Settings::from([("precision".to_owned(), "f32".to_owned())]));
    let languages = vec!["deu-Latn".to_owned()];
    let numbers = vec![("a".to_owned(), 0.5), ("b".to_owned(), f64::NAN)];
    let groups = vec![("og".to_owned(), numbers.clone())];
    result.record("test", Entry { numbers, groups, main_score: 0.5, hf_subset: "de".to_owned(), languages });
    let [name, split, subset] = ["Scoring", "test", "de"].map(str::to_owned);
    result.evaluation_phases.push(Phase { name, start: 0.5, end: 1.5, split, subset });
    folder.write(&result).unwrap();
    (folder, result)
}

/// The text of a result with the hash that it should have.
fn hashed_anew(text: &str) -> String {
    const FIELD: &str = "\"xxh3_128\": \"";
    let Some((before, rest)) = text.split_once(FIELD) else { return text.to_owned() };
    let Some((_, after)) = rest.split_once('"') else { return text.to_owned() };
    let hash = xxh3_128(format!("{before}{FIELD}\"{after}").as_bytes());
    format!("{before}{FIELD}{hash:032x}\"{after}")
}

/// A result, a run's metrics, reports and configuration: what is read is shown, on a page that says the same again.
pub fn report(dir: &Path, bytes: &[u8]) {
    let result = dir.join("result.json");
    fs::write(&result, bytes).unwrap();
    let mut paths = vec![result];
    for name in ["metrics.jsonl", "eval.json", "config.toml"] {
        let run = dir.join(name.split('.').next().unwrap());
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join("metrics.jsonl"), "").unwrap();
        fs::write(run.join(name), bytes).unwrap();
        paths.push(run);
    }
    for path in paths {
        let page = || hbt::report::page(&hbt::report::read(&[&path])?);
        if let Some(shown) = checked(page()) {
            assert!(hbt::report::is_page(shown.as_bytes()) && page().unwrap() == shown);
        }
    }
}

const CONFIG: &[u8] = include_bytes!("../tests/fixtures/bert/config.json");

const TOKENIZER: &[u8] = include_bytes!("../tests/fixtures/bert/tokenizer.json");

/// Rows of a cache: texts that are shared, negatives, scores, languages.
const CACHED: &str = r#"{"id": "a", "query": {"en": "a", "de": "b c"}, "positive": {"en": ["d"], "de": ["e"]}, "negatives": {"en": ["f g", "h"]}}
{"query": {"en": "a"}, "positive": {"en": ["h"]}, "pos_scores": {"en": [0.5]}}
{"query": {"de": "i"}, "positive": {"en": ["j k l m n o p q r"]}}
"#;

/// A file of SQuAD layout.
pub const SQUAD: &str = r#"{"data": [{"title": "T", "paragraphs": [{"context": "😀 é. Zwei.", "sentences": ["😀 é.", "Zwei."],
    "sentence_breaks": [[0, 4], [5, 10]], "qas": [
        {"id": "1", "question": "first?", "answers": [{"answer_start": 2, "text": "é"}]},
        {"id": 2, "question": "second?", "answers": {"answer_start": [5], "text": ["Zwei"]}, "is_impossible": false}]}]}]}"#;

/// An array of embeddings: what it says that it has can be read, and no more.
pub fn npy(dir: &Path, bytes: &[u8]) {
    let path = dir.join("rows.npy");
    fs::write(&path, bytes).unwrap();
    let Some(mut reader) = checked(NpyReader::open(&path)) else { return };
    let mut values = Vec::new();
    let n = reader.n_rows().min(16) as usize;
    reader.read_rows(reader.n_rows() - n as u64, n, &mut values).unwrap();
    assert_eq!(values.len(), n * reader.dim());
    assert!(reader.read_rows(reader.n_rows(), 1, &mut values).is_err());
}
