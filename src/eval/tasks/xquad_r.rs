//! XQuAD-R (LAReQA, Roy et al. 2020) and any data laid out like it: find the sentence that answers a question.
//!
//! Candidates are all sentences of every paragraph with at least one usable question, or these paragraphs themselves;
//! equal ones of a language are one. A question is usable when a sentence holds the start of its answer, and that
//! sentence answers its versions in all languages, which share an id.

use super::{EvalSet, Passage, Query, Relevant, Task};
use crate::data::catalog::LangId;
use crate::data::formats::squad::{self, Answer, Paragraph};
use crate::data::formats::{DataFormat, DataSource, Notes, PassageUnit, Resolved, Split};
use crate::eval::settings::{FIGURES_WITH_RECALL, MULTILINGUAL_MAP, pooled};
use crate::{Error, Result};
use std::collections::HashMap;

/// The task: its data is a directory in SQuAD layout.
pub static TASK: Task =
    Task { name: "xquad-r", recognises, load, searched: pooled, figures: &FIGURES_WITH_RECALL, main: MULTILINGUAL_MAP };

fn recognises(data: &DataSource) -> Result<bool> {
    Ok(data.resolve()?.format() == DataFormat::Squad)
}

/// Reads a directory of one `XX.json` a language and, unless all of it is asked for, its `split.json`.
///
/// # Errors
/// Files that are missing or not in SQuAD layout; a language without a usable question in this split; paragraphs that
/// are not cut into sentences, where these are the passages.
pub fn load(source: &DataSource) -> Result<EvalSet> {
    load_as(&TASK, source)
}

/// [`load`], for a task of the same layout.
pub(super) fn load_as(task: &'static Task, source: &DataSource) -> Result<EvalSet> {
    let data = source.resolve()?;
    if data.format() != DataFormat::Squad {
        let message =
            format!("holds {} rows, and this task reads SQuAD layout; set eval_task = parallel", data.format());
        return Err(Error::file(&source.path, message));
    }
    let titles = data.titles()?;
    let mut builder = Builder { unit: source.passage_unit, notes: data.notes().clone(), ..Builder::default() };
    for (lang, path) in data.languages() {
        let lang = builder.lang(lang);
        let mut articles = squad::read_language(path, &mut builder.notes)?;
        articles.retain(|article| titles.as_ref().is_none_or(|titles| titles.contains(&article.title)));
        let n_before = builder.questions.len();
        for article in &articles {
            let add = |paragraph| builder.add(lang, paragraph);
            let added = article.paragraphs.iter().try_for_each(add);
            added.map_err(|message| Error::file(path, format!("article \"{}\", {message}", article.title)))?;
        }
        if builder.questions.len() == n_before {
            return Err(nothing_usable(&data, path));
        }
    }
    Ok(builder.finish(task, data.split()))
}

fn nothing_usable(data: &Resolved, path: &std::path::Path) -> Error {
    let message = format!(
        "no question in split \"{}\" has its answer in a passage; this task needs answers and, unless passage_unit is \
         paragraph, \"sentences\" and \"sentence_breaks\" as in XQuAD-R, and titles that occur in split.json",
        data.split()
    );
    Error::file(path, message)
}

/// Passages and questions while the relevant passages of other languages are still unknown.
#[derive(Default)]
struct Builder {
    unit: PassageUnit,
    notes: Notes,
    languages: Vec<String>,
    passages: Vec<Passage>,
    /// Number of each passage of the language that is being read, by its text.
    numbers: HashMap<String, u32>,
    questions: Vec<Query>,
    /// Number of a question id, the same in all languages.
    groups: HashMap<String, u32>,
    /// Passages that answer each group.
    relevant: Vec<Vec<u32>>,
}

impl Builder {
    /// The number of a language, which comes in the order of the codes; a language may have several files.
    fn lang(&mut self, code: &str) -> LangId {
        if self.languages.last().is_none_or(|last| last != code) {
            self.languages.push(code.to_owned());
            self.numbers.clear();
        }
        (self.languages.len() - 1) as LangId
    }

    fn add(&mut self, lang: LangId, paragraph: &Paragraph) -> std::result::Result<(), String> {
        let mut answers = Vec::new();
        for question in &paragraph.questions {
            match paragraph.answer(question, self.unit)? {
                Answer::Passage(number) => answers.push((question, number)),
                Answer::None(why) => self.notes.add(why, 1),
            }
        }
        if answers.is_empty() {
            return Ok(());
        }
        let numbers: Vec<u32> = paragraph.passages(self.unit).iter().map(|text| self.passage(lang, text)).collect();
        for (question, number) in answers {
            let group = *self.groups.entry(question.id.clone()).or_insert(self.relevant.len() as u32);
            self.relevant.resize(self.groups.len(), Vec::new());
            self.relevant[group as usize].push(numbers[number]);
            self.questions.push(Query { lang, group, text: question.text.clone(), ..Query::default() });
        }
        Ok(())
    }

    /// The number of a passage, new or not.
    fn passage(&mut self, lang: LangId, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.passages.len() as u32;
        self.passages.push(Passage { lang, text: text.to_owned() });
        self.numbers.insert(text.to_owned(), number);
        number
    }

    fn finish(mut self, task: &'static Task, split: Split) -> EvalSet {
        for relevant in &mut self.relevant {
            relevant.sort_unstable();
            relevant.dedup();
        }
        for query in &mut self.questions {
            query.relevant = self.relevant[query.group as usize].iter().copied().map(Relevant::binary).collect();
        }
        EvalSet {
            task,
            split: split.to_string(),
            notes: self.notes,
            languages: self.languages,
            passages: self.passages,
            queries: self.questions,
        }
    }
}
