//! `README.md` of a saved model: what the hub's page shows.

use super::front_matter::quoted;
use super::{ModelSave, front_matter};
use crate::backend::Pooling;
use crate::hub;
use std::path::Path;

/// What only the caller knows about a model.
#[derive(Clone, Debug, Default)]
pub struct ModelCard {
    /// What it was made of.
    pub origin: Origin,
    /// ISO 639-1 codes of the languages it was trained on; `und` where the data names none.
    pub languages: Vec<String>,
    /// What was measured of it.
    pub results: Vec<Evaluated>,
    /// Markdown: how it was trained, and what was measured.
    pub training: String,
}

/// What a model was made of.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Hub id of the model that was fine-tuned; `None` where it has none.
    pub base_model: Option<String>,
    /// Whether it has no more of that model than its configuration and its tokenizer.
    pub from_scratch: bool,
    /// The training data.
    pub data: Vec<DataName>,
}

/// Data as a card names it: never by a path, which would mean nothing to its readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataName {
    /// The id of a data set of the hub.
    Hub(String),
    /// The name of a file or a directory.
    Local(String),
    /// What is part of hbt.
    BuiltIn,
}

impl DataName {
    /// Of the data at `path`. What is in a cache of the hub is the hub's.
    pub fn of(path: &Path) -> DataName {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        match (hub::dataset_of(&path), path.file_name()) {
            (Some(id), _) => DataName::Hub(id),
            (None, Some(name)) => DataName::Local(name.to_string_lossy().into_owned()),
            // Of `..`, and of the root.
            (None, None) => DataName::Local("a directory".to_owned()),
        }
    }

    /// In a line of Markdown.
    pub fn in_words(&self) -> String {
        match self {
            DataName::Hub(id) => format!("[{}](https://huggingface.co/datasets/{id})", plain(id)),
            DataName::Local(name) => plain(name),
            DataName::BuiltIn => "hbt's built-in questions".to_owned(),
        }
    }
}

/// The figures of an evaluation.
#[derive(Clone, Debug, Default)]
pub struct Evaluated {
    /// What was evaluated on.
    pub dataset: String,
    /// The part of it.
    pub split: String,
    /// Each figure's name as in files, its name as in tables, and its value.
    pub metrics: Vec<(String, String, f64)>,
}

impl ModelCard {
    /// Hub id of the model that was fine-tuned.
    pub(super) fn base_model(&self) -> Option<&str> {
        self.origin.base_model.as_deref().filter(|_| !self.origin.from_scratch)
    }

    pub(super) fn known_languages(&self) -> impl Iterator<Item = &str> {
        self.languages.iter().map(String::as_str).filter(|language| *language != "und")
    }

    pub(super) fn is_multilingual(&self) -> bool {
        self.known_languages().nth(1).is_some()
    }

    /// What the model is, as it stands.
    pub(super) fn title(&self) -> String {
        match self.base_model() {
            Some(base_model) => format!("{base_model}, fine-tuned for retrieval with hbt"),
            None if self.is_multilingual() => "A multilingual retriever trained with hbt".to_owned(),
            None => "A retriever trained with hbt".to_owned(),
        }
    }
}

/// YAML front matter and Markdown.
pub(super) fn render(model: &ModelSave) -> String {
    format!("---\n{}---\n\n{}", front_matter::render(model.card, &model.carried.license), body(model))
}

fn body(model: &ModelSave) -> String {
    let card = model.card;
    let title = plain(&card.title());
    let config = &model.source.config;
    let dimensions = model.source.dense.map_or(config.hidden_size, |dense| dense.out_features);
    let pooling = match model.pooling {
        Pooling::Cls => "first token (cls)",
        Pooling::Mean => "mean of the token vectors",
    };
    let training = match card.training.trim() {
        "" => String::new(),
        training => format!("## Training\n\n{training}\n\n"),
    };
    format!(
        "# {title}\n\n\
         It maps queries and passages to vectors of {dimensions} dimensions; compare them by cosine similarity.\n\n\
         | | |\n|---|---|\n\
         | Layers, hidden size | {}, {} |\n\
         | Pooling | {pooling} |\n\
         | Longest text | {} tokens |\n\
         | Before a query | {} |\n\
         | Before a passage | {} |\n\n\
         {training}\
         ## Usage\n\n\
         ```python\n\
         from sentence_transformers import SentenceTransformer\n\n\
         model = SentenceTransformer(\"path/to/this/directory\")\n\
         queries = model.encode([\"...\"], prompt_name=\"query\")\n\
         passages = model.encode([\"...\", \"...\"], prompt_name=\"document\")\n\
         print(model.similarity(queries, passages))\n\
         ```\n\n\
         The prompts put the prefixes above before the texts, as in training.\n",
        config.layers.len(),
        config.hidden_size,
        model.max_seq_length,
        prefix(model.query_prefix),
        prefix(model.passage_prefix),
    )
}

fn prefix(text: &str) -> String {
    if text.is_empty() { "nothing".to_owned() } else { code(&quoted(text)) }
}

/// A cell of a table that shows one line as it is, whatever Markdown or HTML it holds: between more backticks than it has
/// in a row, with bars escaped, which end a cell even there.
fn code(line: &str) -> String {
    let longest = line.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    let line = line.replace('|', "\\|");
    if longest == 0 { format!("{fence}{line}{fence}") } else { format!("{fence} {line} {fence}") }
}

/// A line's text with all that Markdown or HTML could read into it escaped.
fn plain(line: &str) -> String {
    let is_safe = |c: char| c.is_alphanumeric() || matches!(c, ' ' | ',' | '/' | '-' | '.' | '_');
    let escape = |c: char| match c {
        c if is_safe(c) => c.to_string(),
        c if c.is_control() => " ".to_owned(),
        c if c.is_ascii_punctuation() => format!("\\{c}"),
        c => c.to_string(),
    };
    line.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::DataName;
    use std::path::Path;

    #[test]
    fn data_is_named_without_its_path() {
        let local = |name: &str| DataName::Local(name.to_owned());
        assert_eq!(DataName::of(Path::new("/home/me/a|b.jsonl")), local("a|b.jsonl"));
        assert_eq!(local("a|b.jsonl").in_words(), "a\\|b.jsonl");
        assert_eq!(DataName::of(Path::new("data/")), local("data"));
        assert_eq!(DataName::of(Path::new("/")), local("a directory"));
        let cached = DataName::of(Path::new("/c/datasets--org--my_set/snapshots/0123/de/train.jsonl"));
        assert_eq!(cached, DataName::Hub("org/my_set".into()));
        assert_eq!(cached.in_words(), "[org/my_set](https://huggingface.co/datasets/org/my_set)");
    }
}
