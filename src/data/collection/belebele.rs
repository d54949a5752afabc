//! Belebele: passages of FLORES and questions about them, the same in each language; one table a language.
//!
//! As in mteb's BelebeleRetrieval a subset is `CORPUS-QUERIES`, two languages. Passages with one link are one document,
//! `C0`, `C1`, ... in the order of the rows; questions with one text are one query, `Q0`, `Q1`, ...

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;

use super::cell::{Cell, Column, Parsed, needed, optional};
use super::documents::{Corpus, strip};
use super::pairs::Tables;
use super::{Collection, DEFAULT_SUBSET, Document, JudgedQuery};
use crate::data::formats::Notes;
use crate::{Error, Result};

const COLUMNS: [Column; 4] =
    [needed(&["link"]), needed(&["flores_passage"]), needed(&["question"]), optional(&["question_number"])];

/// The split that mteb evaluates.
const SPLIT: &str = "test";

/// The languages of a directory.
#[derive(Debug)]
pub struct Belebele {
    tables: Tables,
}

/// A row of a language's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What tells the passage from others, in every language.
    pub link: String,
    /// Tells the questions about one passage apart, in every language; 0 without a column of that name.
    pub number: i64,
    /// The passage, unchanged.
    pub passage: String,
    /// The question, unchanged.
    pub question: String,
}

impl Belebele {
    /// The languages in a directory: folders such as `eng_Latn`, or files such as `data/eng_Latn.jsonl`.
    ///
    /// # Errors
    /// No directory, or no table in it.
    pub fn open(path: &Path) -> Result<Belebele> {
        Ok(Belebele { tables: Tables::open(path)? })
    }

    /// The languages in files of these names below `root`, which need not be there before they are read.
    ///
    /// # Errors
    /// None of them is a table.
    pub fn of_names<'a>(root: &Path, names: impl IntoIterator<Item = &'a str>) -> Result<Belebele> {
        Ok(Belebele { tables: Tables::of_names(root, names)? })
    }

    /// The languages, as FLORES calls them.
    pub fn languages(&self) -> Vec<&str> {
        match self.is_of_files() {
            true => self.tables.splits(DEFAULT_SUBSET).collect(),
            false => self.tables.configs().collect(),
        }
    }

    /// The names of a language's files.
    ///
    /// # Errors
    /// No such language.
    pub fn files(&self, language: &str) -> Result<Vec<&str>> {
        let (config, split) = self.place(language)?;
        self.tables.files(config, split)
    }

    /// The rows of a language.
    ///
    /// # Errors
    /// No such language; a file that cannot be read; a row without link, passage or question.
    pub fn questions(&self, language: &str) -> Result<Vec<Question>> {
        let mut questions = Vec::new();
        let (config, split) = self.place(language)?;
        self.tables.each_row(config, split, &COLUMNS, usize::MAX, |cells| {
            questions.push(question(cells)?);
            Ok(())
        })?;
        Ok(questions)
    }

    /// The passages of one language with the questions of another, as mteb's subset `CORPUS-QUERIES`.
    ///
    /// # Errors
    /// As [`questions`](Belebele::questions); a question about a passage that the corpus does not have.
    pub fn load(&self, corpus: &str, queries: &str) -> Result<Collection> {
        let mut places: HashMap<String, String> = HashMap::new();
        let mut documents = Vec::new();
        for Question { link, passage, .. } in self.questions(corpus)? {
            if let Entry::Vacant(place) = places.entry(link) {
                let id = format!("C{}", documents.len());
                documents.push(Document { id: id.clone(), text: strip(&passage).to_owned() });
                place.insert(id);
            }
        }
        let mut found: Vec<JudgedQuery> = Vec::new();
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let rows = self.questions(queries)?;
        let n_query_rows = rows.len();
        for (row, Question { link, question, .. }) in rows.into_iter().enumerate() {
            let document = places.get(&link).ok_or_else(|| {
                Error::file(self.tables.root(), format!("{queries}: no passage of {corpus} has the link {link}"))
            })?;
            let number = *numbers.entry(question.clone()).or_insert(found.len());
            if number == found.len() {
                let id = format!("Q{number}");
                found.push(JudgedQuery { row, id, text: question, judgements: Vec::new(), candidates: None });
            }
            let judgement = (document.clone(), 1);
            if !found[number].judgements.contains(&judgement) {
                found[number].judgements.push(judgement);
            }
        }
        Ok(Collection {
            subset: format!("{corpus}-{queries}"),
            split: SPLIT.to_owned(),
            queries: found,
            n_query_rows,
            changes: None,
            notes: Notes::default(),
            corpus: Corpus::Held(Arc::new(documents)),
        })
    }

    /// Whether languages are files of one folder.
    fn is_of_files(&self) -> bool {
        self.tables.configs().eq([DEFAULT_SUBSET])
    }

    /// Config and split of a language.
    fn place<'a>(&self, language: &'a str) -> Result<(&'a str, &'a str)> {
        if !self.languages().contains(&language) {
            let there: Vec<String> = self.languages().into_iter().map(str::to_owned).collect();
            let message = format!("no language {language} here; there is {}", crate::error::listed(&there));
            return Err(Error::file(self.tables.root(), message));
        }
        Ok(if self.is_of_files() { (DEFAULT_SUBSET, language) } else { (language, SPLIT) })
    }
}

fn question(cells: Vec<Cell>) -> Parsed<Question> {
    let [link, passage, question, number]: [Cell; 4] = cells.try_into().map_err(|_| "not four cells".to_owned())?;
    Ok(Question {
        link: link.into_text("link")?,
        number: match number {
            Cell::Null => 0,
            number => number.to_grade("question_number")?.into(),
        },
        passage: passage.into_text("flores_passage")?,
        question: question.into_text("question")?,
    })
}
