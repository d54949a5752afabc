//! XQuAD-R (LAReQA, Roy et al. 2020) and any data laid out like it: find the sentence that answers a question.
//!
//! Candidates are all sentences of every paragraph with at least one usable question. A question is usable when a
//! sentence holds the start of its answer, and that sentence answers its versions in all languages, which share an id.

use super::{EvalSet, Passage, Query, Relevant, Task};
use crate::data::catalog::LangId;
use crate::data::formats::{DataFormat, DataSource, Split, squad};
use crate::eval::settings::{FIGURES, MULTILINGUAL_MAP};
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// The task: its data is a directory in SQuAD layout.
pub static TASK: Task = Task { name: "xquad-r", recognises, load, figures: &FIGURES, main: MULTILINGUAL_MAP };

fn recognises(path: &Path, split: Split) -> Result<bool> {
    Ok(DataSource { split, ..DataSource::new(path) }.resolve()?.format() == DataFormat::Squad)
}

/// Reads the directory `dir` of one `XX.json` a language and, unless `split` is `All`, its `split.json`.
///
/// # Errors
/// Files that are missing or not in SQuAD layout; a language without a usable question in this split.
pub fn load(dir: &Path, split: Split) -> Result<EvalSet> {
    let titles = squad::split_titles(dir, split)?;
    let files = squad::languages(dir)?;
    let mut builder = Builder::default();
    for (lang, (_, path)) in files.iter().enumerate() {
        let mut articles = squad::read_language(path)?;
        articles.retain(|article| titles.as_ref().is_none_or(|titles| titles.contains(&article.title)));
        let n_before = builder.questions.len();
        articles.iter().flat_map(|article| &article.paragraphs).for_each(|p| builder.add(lang as LangId, p));
        if builder.questions.len() == n_before {
            let message = format!(
                "no question in split \"{split}\" has its answer in a sentence; this task needs \"sentences\" and \
                 \"sentence_breaks\" as in XQuAD-R, and titles that occur in split.json"
            );
            return Err(Error::file(path, message));
        }
    }
    Ok(builder.finish(split, files.into_iter().map(|(code, _)| code).collect()))
}

/// Sentences and questions while the relevant sentences of other languages are still unknown.
#[derive(Default)]
struct Builder {
    passages: Vec<Passage>,
    questions: Vec<Query>,
    /// Number of a question id, the same in all languages.
    groups: HashMap<String, u32>,
    /// Sentences that answer each group, ascending because passages are added in order.
    relevant: Vec<Vec<u32>>,
}

impl Builder {
    fn add(&mut self, lang: LangId, paragraph: &squad::Paragraph) {
        let first = self.passages.len() as u32;
        let n_before = self.questions.len();
        for question in &paragraph.questions {
            let Some(sentence) = question.sentence else { continue };
            let group = *self.groups.entry(question.id.clone()).or_insert(self.relevant.len() as u32);
            self.relevant.resize(self.groups.len(), Vec::new());
            self.relevant[group as usize].push(first + sentence as u32);
            self.questions.push(Query { lang, group, text: question.text.clone(), relevant: Vec::new() });
        }
        if self.questions.len() > n_before {
            self.passages.extend(paragraph.sentences.iter().map(|text| Passage { lang, text: text.clone() }));
        }
    }

    fn finish(mut self, split: Split, languages: Vec<String>) -> EvalSet {
        // An id that one language uses twice may name one sentence twice, or two out of order.
        for relevant in &mut self.relevant {
            relevant.sort_unstable();
            relevant.dedup();
        }
        for query in &mut self.questions {
            query.relevant = self.relevant[query.group as usize].iter().copied().map(Relevant::binary).collect();
        }
        let split = split.to_string();
        EvalSet { task: &TASK, split, languages, passages: self.passages, queries: self.questions }
    }
}
