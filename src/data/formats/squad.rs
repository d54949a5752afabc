//! SQuAD layout, one file a language, as in XQuAD-R: a directory of `XX.json` and, for train and test parts, a
//! `split.json` with two lists of article titles. Offsets count code points, and a question's id joins its versions
//! across languages. Evaluation reads the same structures, because its candidates are the sentences.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Deserialize;

use super::row::{DataFile, Row};
use super::{Group, PassageUnit, Split, Text, check_lang, check_text, source};
use crate::{Error, Result};

/// An article of one language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Article {
    /// Its title, the same in every language.
    pub title: String,
    /// Paragraphs, in the order of the file.
    pub paragraphs: Vec<Paragraph>,
}

/// A paragraph and the questions about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paragraph {
    /// Text of the whole paragraph.
    pub context: String,
    /// Sentences of the paragraph; empty in SQuAD files that are not cut into sentences.
    pub sentences: Vec<String>,
    /// `[start, end)` of each sentence in code points of `context`.
    pub breaks: Vec<(usize, usize)>,
    /// Questions, in the order of the file.
    pub questions: Vec<Question>,
}

/// A question about a paragraph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Id, equal for the versions of the question in all languages.
    pub id: String,
    /// Text of the question.
    pub text: String,
    /// Where the first answer starts, in code points of the paragraph; `None` if the question has no answer.
    pub answer_start: Option<usize>,
    /// Index of the sentence that holds `answer_start`; `None` if no sentence does.
    pub sentence: Option<usize>,
}

#[derive(Deserialize)]
struct RawFile {
    data: Vec<RawArticle>,
}

#[derive(Deserialize)]
struct RawArticle {
    #[serde(default)]
    title: String,
    paragraphs: Vec<RawParagraph>,
}

#[derive(Deserialize)]
struct RawParagraph {
    context: String,
    #[serde(default)]
    sentences: Vec<String>,
    #[serde(default)]
    sentence_breaks: Vec<(usize, usize)>,
    qas: Vec<RawQuestion>,
}

#[derive(Deserialize)]
struct RawQuestion {
    id: String,
    question: String,
    #[serde(default)]
    answers: Vec<RawAnswer>,
}

#[derive(Deserialize)]
struct RawAnswer {
    answer_start: usize,
}

/// Title lists of a `split.json`.
#[derive(Deserialize)]
struct Titles {
    train: HashSet<String>,
    test: HashSet<String>,
}

/// The languages of a data set and their files, in the order of their codes. `path` is a directory of `XX.json` files
/// (others are ignored) or one such file.
pub fn languages(path: &Path) -> Result<Vec<(String, PathBuf)>> {
    let candidates = if path.is_dir() { source::entries(path)? } else { vec![path.to_owned()] };
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    for file in candidates.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "json")) {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if check_lang(&stem).is_ok() {
            found.push((stem, file));
        }
    }
    found.sort();
    match found.is_empty() {
        true => Err(Error::file(
            path,
            "no data here that hbt knows; expected .jsonl files or one SQuAD file a language, named en.json, ar.json, ...",
        )),
        false => Ok(found),
    }
}

/// Titles of the articles in a part, from the `split.json` beside the language files; `None` means all articles.
pub fn split_titles(dir: &Path, split: Split) -> Result<Option<HashSet<String>>> {
    if split == Split::All {
        return Ok(None);
    }
    let path = split_file(dir);
    if !path.exists() {
        return Err(Error::file(
            &path,
            format!(
                "missing: split = \"{split}\" takes the titles of its articles from it; write it or use split = \"all\""
            ),
        ));
    }
    let titles: Titles = read_json(&path)?;
    Ok(Some(if split == Split::Train { titles.train } else { titles.test }))
}

/// Path of `split.json` for a data set (its directory or one of its files).
pub(super) fn split_file(path: &Path) -> PathBuf {
    let dir = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    dir.join("split.json")
}

/// Reads the file of one language.
///
/// # Errors
/// Invalid UTF-8 or JSON; sentences and their breaks that do not agree; an offset outside its paragraph; a blank
/// question. The message names the article, and the question's id.
pub fn read_language(path: &Path) -> Result<Vec<Article>> {
    let raw: RawFile = read_json(path)?;
    raw.data.into_iter().map(|article| check_article(path, article)).collect()
}

fn check_article(path: &Path, raw: RawArticle) -> Result<Article> {
    let title = raw.title;
    let mut paragraphs = Vec::with_capacity(raw.paragraphs.len());
    for paragraph in raw.paragraphs {
        let fail = |message: String| Error::file(path, format!("article \"{title}\", {message}"));
        let n_chars = paragraph.context.chars().count();
        let RawParagraph { context, sentences, sentence_breaks: breaks, qas } = paragraph;
        if sentences.len() != breaks.len() {
            return Err(fail(format!(
                "a paragraph has {} sentences but {} sentence_breaks; cut it again",
                sentences.len(),
                breaks.len()
            )));
        }
        if let Some((start, end)) = breaks.iter().find(|(start, end)| start > end || *end > n_chars) {
            return Err(fail(format!(
                "sentence_breaks [{start}, {end}] do not fit a paragraph of {n_chars} code points"
            )));
        }
        let mut questions = Vec::with_capacity(qas.len());
        for RawQuestion { id, question, answers } in qas {
            check_text(format_args!("question {id}"), &question).map_err(&fail)?;
            let answer_start = answers.first().map(|answer| answer.answer_start);
            if let Some(start) = answer_start.filter(|start| *start >= n_chars) {
                return Err(fail(format!(
                    "question {id}: answer_start {start} lies outside its paragraph of {n_chars} code points"
                )));
            }
            let sentence =
                answer_start.and_then(|at| breaks.iter().position(|(start, end)| (*start..*end).contains(&at)));
            questions.push(Question { id, text: question, answer_start, sentence });
        }
        paragraphs.push(Paragraph { context, sentences, breaks, questions });
    }
    Ok(Article { title, paragraphs })
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = 1 + bytes[..e.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() as u64;
        let offset = e.valid_up_to() + 1;
        Error::line(path, line, format!("invalid UTF-8 at byte {offset} of the file; save the file as UTF-8"))
    })?;
    serde_json::from_str(text).map_err(|e| {
        let message = e.to_string();
        let what = message.split(" at line ").next().unwrap_or(&message);
        Error::line(path, e.line() as u64, format!("not the SQuAD layout: {what} at column {}", e.column()))
    })
}

/// The questions of all languages, one language after the other, as rows. Holds one file at a time.
pub(super) struct Questions {
    languages: std::vec::IntoIter<(String, PathBuf)>,
    titles: Option<HashSet<String>>,
    unit: PassageUnit,
    rows: std::vec::IntoIter<Row>,
    n_skipped: Arc<AtomicU64>,
}

impl Questions {
    pub(super) fn new(
        languages: Vec<(String, PathBuf)>,
        titles: Option<HashSet<String>>,
        unit: PassageUnit,
        n_skipped: Arc<AtomicU64>,
    ) -> Self {
        Questions { languages: languages.into_iter(), titles, unit, rows: Vec::new().into_iter(), n_skipped }
    }

    fn read_file(&self, lang: &str, path: PathBuf) -> Result<Vec<Row>> {
        let file_len = fs::metadata(&path).map_err(|e| Error::io("read", &path, e))?.len();
        let mut articles = read_language(&path)?;
        if let Some(titles) = &self.titles {
            articles.retain(|article| titles.contains(&article.title));
            if articles.is_empty() {
                return Err(Error::file(
                    &path,
                    "none of its articles is in this part; correct the titles in split.json",
                ));
            }
        }
        let mut groups = Vec::new();
        for article in articles {
            for paragraph in &article.paragraphs {
                self.groups_of(paragraph, lang, &mut groups)
                    .map_err(|e| Error::file(&path, format!("article \"{}\", {e}", article.title)))?;
            }
        }
        let n_bytes = file_len / groups.len().max(1) as u64;
        let file = Arc::new(DataFile { path, name: format!("{lang}.json") });
        Ok(groups.into_iter().map(|group| Row::of_group(&file, n_bytes, group)).collect())
    }

    fn groups_of(&self, paragraph: &Paragraph, lang: &str, groups: &mut Vec<Group>) -> std::result::Result<(), String> {
        let text = |text: &str| Text { lang: lang.to_string(), text: text.to_string() };
        for question in &paragraph.questions {
            let passage = match self.unit {
                PassageUnit::Paragraph => question.answer_start.map(|_| &paragraph.context),
                PassageUnit::Sentence if paragraph.sentences.is_empty() => {
                    return Err(format!(
                        "question {}: its paragraph is not cut into sentences; use the paragraph as the passage",
                        question.id
                    ));
                }
                PassageUnit::Sentence => question.sentence.map(|sentence| &paragraph.sentences[sentence]),
            };
            let Some(passage) = passage else {
                self.n_skipped.fetch_add(1, Ordering::Relaxed);
                continue;
            };
            check_text(format_args!("question {}: its passage", question.id), passage)?;
            let (queries, positives) = (vec![text(&question.text)], vec![text(passage)]);
            groups.push(Group { id: question.id.clone(), queries, positives, ..Group::default() });
        }
        Ok(())
    }

    fn next_row(&mut self) -> Result<Option<Row>> {
        loop {
            if let Some(row) = self.rows.next() {
                return Ok(Some(row));
            }
            let Some((lang, path)) = self.languages.next() else { return Ok(None) };
            self.rows = self.read_file(&lang, path)?.into_iter();
        }
    }
}

impl Iterator for Questions {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().transpose()
    }
}
