//! What is fed with broken input: every reader of something that hbt did not write a moment ago. `cargo test` runs these
//! with fixed seeds (`tests/mutated.rs`), cargo-fuzz without end (`fuzz/fuzz_targets`).
//!
//! A reader may accept the input or refuse it with one line. It may not panic, hang, or say two things of the same bytes.

use std::fs;
use std::path::Path;

use hbt::config::Config;
use hbt::data::formats::{DataSource, Group, Notes, PassageUnit, parallel_row, squad};
use hbt::data::tokenize::TextTokenizer;
use hbt::model_dir::ModelDir;
use hbt::tensor_file::TensorFile;

/// A reader of the file or directory that is made of these bytes.
pub type Body = fn(&Path, &[u8]);

/// Every reader, by name.
pub const BODIES: [(&str, Body); 11] = [
    ("rows", rows),
    ("columns", columns),
    ("packed", packed),
    ("parquet", parquet),
    ("squad", squad_file),
    ("split", split_file),
    ("judgements", judgements),
    ("toml", toml),
    ("model_config", model_config),
    ("tokenizer", tokenizer),
    ("safetensors", safetensors),
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

/// A file of SQuAD layout.
pub const SQUAD: &str = r#"{"data": [{"title": "T", "paragraphs": [{"context": "😀 é. Zwei.", "sentences": ["😀 é.", "Zwei."],
    "sentence_breaks": [[0, 4], [5, 10]], "qas": [
        {"id": "1", "question": "first?", "answers": [{"answer_start": 2, "text": "é"}]},
        {"id": 2, "question": "second?", "answers": {"answer_start": [5], "text": ["Zwei"]}, "is_impossible": false}]}]}]}"#;
