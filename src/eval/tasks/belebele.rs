//! Belebele (Bandarkar et al. 2023) in the paper's settings: find the passage that a question is about, within a language,
//! across languages, and among the passages of all. Questions and passages are the same in 122 languages.
//!
//! mteb's task of the same data, BelebeleRetrieval, searches one language at a time.

use super::{EvalSet, Passage, Query, Relevant, Task};
use crate::data::catalog::LangId;
use crate::data::collection::Belebele;
use crate::data::formats::{DataSource, Notes};
use crate::eval::settings::{FIGURES_WITH_RECALL, MULTILINGUAL_MAP, pooled};
use crate::{Error, Result};
use std::collections::HashMap;

/// The task. Its data is a directory of tables, a language each, and has to be named.
pub static TASK: Task = Task {
    name: "belebele",
    recognises: |_| Ok(false),
    load,
    searched: pooled,
    figures: &FIGURES_WITH_RECALL,
    main: MULTILINGUAL_MAP,
};

/// Reads the tables of all languages. Passages with one link are one, and its versions in all languages answer the questions
/// about it.
///
/// # Errors
/// A table that cannot be read; more passages than numbers.
pub fn load(source: &DataSource) -> Result<EvalSet> {
    let tables = Belebele::open(&source.path)?;
    let languages: Vec<String> = tables.languages().into_iter().map(str::to_owned).collect();
    let (mut passages, mut queries) = (Vec::new(), Vec::new());
    // The versions of each passage, and the number of each question, by link.
    let mut versions: HashMap<String, Vec<u32>> = HashMap::new();
    let mut groups: HashMap<(String, i64), u32> = HashMap::new();
    let mut links = Vec::new();
    for (lang, language) in languages.iter().enumerate() {
        let lang = LangId::try_from(lang).map_err(|_| Error::file(&source.path, "holds more than 65,536 languages"))?;
        let mut seen: HashMap<String, u32> = HashMap::new();
        for question in tables.questions(language)? {
            let next = passages.len() as u32;
            if *seen.entry(question.link.clone()).or_insert(next) == next {
                versions.entry(question.link.clone()).or_default().push(next);
                passages.push(Passage { lang, text: question.passage });
            }
            let next = groups.len() as u32;
            let group = *groups.entry((question.link.clone(), question.number)).or_insert(next);
            queries.push(Query { lang, group, text: question.question, ..Query::default() });
            links.push(question.link);
        }
    }
    for (query, link) in queries.iter_mut().zip(&links) {
        query.relevant = versions[link].iter().copied().map(Relevant::binary).collect();
    }
    Ok(EvalSet { task: &TASK, split: "test".to_owned(), notes: Notes::default(), languages, passages, queries })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn versions_of_a_passage_answer_the_questions_about_it() {
        let folder = tempfile::tempdir().unwrap();
        let row = |link: &str, number: u32, lang: &str| {
            format!(
                "{{\"link\": \"{link}\", \"question_number\": {number}, \"flores_passage\": \"{link} in {lang}\", \"question\": \
                 \"{number} of {link} in {lang}?\"}}\n"
            )
        };
        for lang in ["deu_Latn", "eng_Latn"] {
            let rows = [row("a", 1, lang), row("b", 1, lang), row("a", 2, lang)].concat();
            fs::create_dir(folder.path().join(lang)).unwrap();
            fs::write(folder.path().join(lang).join("test.jsonl"), rows).unwrap();
        }
        let set = load(&DataSource::new(folder.path())).unwrap();
        assert_eq!(set.languages, ["deu_Latn", "eng_Latn"]);
        let passages: Vec<_> = set.passages.iter().map(|passage| passage.text.as_str()).collect();
        assert_eq!(passages, ["a in deu_Latn", "b in deu_Latn", "a in eng_Latn", "b in eng_Latn"]);
        let queries: Vec<_> = set.queries.iter().map(|query| (query.lang, query.group, query.text.as_str())).collect();
        let german = [(0, 0, "1 of a in deu_Latn?"), (0, 1, "1 of b in deu_Latn?"), (0, 2, "2 of a in deu_Latn?")];
        assert_eq!(queries[..3], german);
        assert_eq!(queries[5], (1, 2, "2 of a in eng_Latn?"));
        let relevant = |query: usize| set.queries[query].relevant.iter().map(|of| of.passage).collect::<Vec<_>>();
        assert_eq!([relevant(0), relevant(1), relevant(5)], [[0, 2], [1, 3], [0, 2]]);
    }
}
