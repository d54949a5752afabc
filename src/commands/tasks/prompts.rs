//! The prompts that a model has for tasks.

use hbt::config::Config;
use hbt::eval::mteb::files::Settings;
use hbt::eval::mteb::prompts::{Side, prompt_name};
use hbt::eval::mteb::table::TaskRow;
use hbt::eval::retrieval::TaskKinds;
use hbt::model_dir::Prompts;
use hbt::retriever::{RetrieverSettings, TextKind};

/// How a model embeds the texts of tasks.
pub struct TaskPrompts {
    prompts: Prompts,
    /// As it embeds all others.
    usual: [TextKind; 2],
    /// Whether the prefix of queries and of documents was set, which holds for all tasks.
    is_given: [bool; 2],
}

impl TaskPrompts {
    pub fn new(config: &Config, prompts: &Prompts, settings: &RetrieverSettings) -> Self {
        TaskPrompts {
            prompts: prompts.clone(),
            usual: [settings.query.clone(), settings.passage.clone()],
            is_given: [config.query_prefix.is_some(), config.passage_prefix.is_some()],
        }
    }

    /// Those for a task of mteb's, or for a directory.
    pub fn of(&self, row: Option<&TaskRow>) -> TaskKinds {
        let named = |side: Option<Side>| {
            let name = prompt_name(row?, side, |name| self.prompts.get(name).is_some())?;
            self.prompts.get(&name).cloned()
        };
        let kind = |number: usize, side: Side| {
            let usual = self.usual[number].clone();
            match named(Some(side)).filter(|_| !self.is_given[number]) {
                Some(prefix) => TextKind { prefix, ..usual },
                None => usual,
            }
        };
        let of_texts = named(None).or_else(|| self.prompts.usual().cloned());
        TaskKinds {
            query: kind(0, Side::Query),
            document: kind(1, Side::Document),
            text: TextKind { prefix: of_texts.unwrap_or_default(), ..self.usual[1].clone() },
        }
    }
}

/// `settings` of a task whose texts are embedded like this.
pub fn with_kinds(settings: &Settings, kinds: &TaskKinds) -> Settings {
    let TaskKinds { query, document, text } = kinds;
    let mut settings = settings.clone();
    for (name, kind) in [("queries", query), ("documents", document)] {
        settings.insert(name.to_owned(), kind.in_words());
    }
    if !text.prefix.is_empty() {
        settings.insert("texts".to_owned(), text.in_words());
    }
    settings
}
