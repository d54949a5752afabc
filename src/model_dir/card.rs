//! `README.md` of a saved model: what the hub's page shows.

use super::ModelSave;
use crate::backend::Pooling;
use crate::error::printable;

/// What only the caller knows about a model.
#[derive(Clone, Debug, Default)]
pub struct ModelCard {
    /// Hub id of the model that was fine-tuned; `None` where it has none.
    pub base_model: Option<String>,
    /// ISO 639-1 codes of the languages it was trained on.
    pub languages: Vec<String>,
    /// Markdown: how it was trained, and what was measured.
    pub training: String,
}

/// YAML front matter and Markdown.
pub(super) fn render(model: &ModelSave) -> String {
    format!("---\n{}---\n\n{}", front_matter(model.card), body(model))
}

fn front_matter(card: &ModelCard) -> String {
    let mut yaml = String::from("library_name: sentence-transformers\npipeline_tag: sentence-similarity\ntags:\n");
    for tag in ["sentence-transformers", "sentence-similarity", "feature-extraction", "hbt"] {
        yaml += &format!("- {tag}\n");
    }
    if !card.languages.is_empty() {
        yaml += "language:\n";
        for language in &card.languages {
            // In quotes: a bare `no` is false in YAML, not Norwegian.
            yaml += &format!("- {}\n", quoted(language));
        }
    }
    if let Some(base_model) = &card.base_model {
        yaml += &format!("base_model: {}\n", quoted(base_model));
    }
    yaml
}

fn body(model: &ModelSave) -> String {
    let card = model.card;
    let title = match &card.base_model {
        Some(base_model) => format!("# {}, fine-tuned for retrieval with hbt", plain(base_model)),
        None => "# A multilingual retriever trained with hbt".to_owned(),
    };
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
        "{title}\n\n\
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
    if text.is_empty() { "nothing".to_owned() } else { code(&printable(&quoted(text))) }
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
    let is_safe = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '/' | '-' | '.' | '_');
    let escape = |c: char| match c {
        c if is_safe(c) => c.to_string(),
        c if c.is_control() => " ".to_owned(),
        c if c.is_ascii_punctuation() => format!("\\{c}"),
        c => c.to_string(),
    };
    line.chars().map(escape).collect()
}

/// In double quotes with escapes that JSON and YAML share.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
