//! SQuAD layout, one file a language, as in XQuAD-R: a directory of `XX.json` and, for train and test parts, a
//! `split.json` with two lists of article titles. Offsets count code points, and a question's id joins its versions
//! across languages. Evaluation reads the same structures, because its candidates are the sentences.

mod raw;

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use self::raw::{Counting, RawArticle, RawFile, RawParagraph, counting};
use super::files::{DataFile, file_name, stem};
use super::notes::{Note, Notes};
use super::open;
use super::row::{Body, Layout, Place, Row};
use super::{DataFormat, DataSource, Group, PassageUnit, Split, Text, UNKNOWN_LANG, check_text, language};
use crate::choices::Auto;
use crate::{Error, Result};

/// Name of the file that divides the articles.
pub(super) const SPLIT_FILE: &str = "split.json";

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
    /// Id, equal for the versions of the question in all languages; its place in the file if it has none.
    pub id: String,
    /// Text of the question.
    pub text: String,
    /// Where the first answer starts, in code points of the paragraph; `None` if the question has no answer.
    pub answer_start: Option<usize>,
    /// Index of the sentence that holds `answer_start`; `None` if no sentence does.
    pub sentence: Option<usize>,
}

/// Title lists of a `split.json`.
#[derive(Deserialize)]
struct Titles {
    train: HashSet<String>,
    test: HashSet<String>,
    #[serde(default)]
    validation: HashSet<String>,
}

/// The languages of a data set in SQuAD layout and their files, in the order of their codes. `path` is a directory of
/// `XX.json` files or one such file.
///
/// # Errors
/// Those of [`DataSource::resolve`].
pub fn languages(path: &Path) -> Result<Vec<(String, PathBuf)>> {
    let source = DataSource { format: DataFormat::Squad.into(), split: Auto::Of(Split::All), ..DataSource::new(path) };
    let data = source.resolve()?;
    Ok(data.languages().map(|(lang, file)| (lang.to_owned(), file.to_owned())).collect())
}

/// Sorts files by the languages that their names say, and gives these. One file by itself may be of an unknown one.
pub(super) fn languages_of(root: &Path, files: &mut Vec<DataFile>) -> Result<Vec<String>> {
    let is_alone = !root.is_dir();
    let mut found: Vec<(String, DataFile)> = Vec::new();
    for file in std::mem::take(files) {
        let lang = match language(&stem(&file_name(&file.path))) {
            Ok(lang) => lang,
            _ if is_alone => UNKNOWN_LANG.to_owned(),
            _ => {
                return Err(Error::file(
                    &file.path,
                    "in SQuAD layout a file is named after its language, such as en.json; rename it, or move it away",
                ));
            }
        };
        found.push((lang, file));
    }
    found.sort_by(|a, b| (&a.0, &a.1.name).cmp(&(&b.0, &b.1.name)));
    let folder = |file: &DataFile| file.path.parent().map(Path::to_owned);
    if let Some(pair) = found.windows(2).find(|pair| pair[0].0 == pair[1].0 && folder(&pair[0].1) == folder(&pair[1].1))
    {
        let message = format!("{} and {} are both in {}; move one away", pair[0].1.name, pair[1].1.name, pair[0].0);
        return Err(Error::file(root, message));
    }
    let languages = found.iter().map(|(lang, _)| lang.clone()).collect();
    files.extend(found.into_iter().map(|(_, file)| file));
    Ok(languages)
}

/// Titles of the articles in a part, from a `split.json`.
pub(super) fn split_titles(path: &Path, split: Split) -> Result<HashSet<String>> {
    let titles: Titles = read_json(path)?;
    Ok(match split {
        Split::All | Split::Train => titles.train,
        Split::Validation => titles.validation,
        Split::Test => titles.test,
    })
}

/// Path of `split.json` for a data set (its directory or one of its files).
pub(super) fn split_file(path: &Path) -> PathBuf {
    let dir = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    dir.join(SPLIT_FILE)
}

/// Reads the file of one language.
///
/// # Errors
/// Invalid UTF-8 or JSON; sentences and their breaks that do not agree; an answer that is not where its offset says,
/// whichever way one counts; a blank question. The message names the article, and the question's id.
pub fn read_language(path: &Path, notes: &mut Notes) -> Result<Vec<Article>> {
    let raw: RawFile = read_json(path)?;
    let counting = counting(path, &raw, notes)?;
    let name = file_name(path);
    let check = |(number, article)| check_article(path, counting, article, &format!("{name}:{number}"));
    (1..).zip(raw.data).map(check).collect()
}

fn check_article(path: &Path, counting: Counting, raw: RawArticle, place: &str) -> Result<Article> {
    let title = raw.title;
    let mut paragraphs = Vec::with_capacity(raw.paragraphs.len());
    for (number, paragraph) in (1..).zip(raw.paragraphs) {
        let fail = |message: String| Error::file(path, format!("article \"{title}\", {message}"));
        paragraphs.push(check_paragraph(counting, paragraph, &format!("{place}.{number}")).map_err(fail)?);
    }
    Ok(Article { title, paragraphs })
}

fn check_paragraph(counting: Counting, raw: RawParagraph, place: &str) -> std::result::Result<Paragraph, String> {
    let RawParagraph { context, sentences, sentence_breaks: breaks, qas } = raw;
    let n_chars = context.chars().count();
    if sentences.len() != breaks.len() {
        return Err(format!(
            "a paragraph has {} sentences but {} sentence_breaks; cut it again",
            sentences.len(),
            breaks.len()
        ));
    }
    if let Some((start, end)) = breaks.iter().find(|(start, end)| start > end || *end > n_chars) {
        return Err(format!("sentence_breaks [{start}, {end}] do not fit a paragraph of {n_chars} code points"));
    }
    let mut questions = Vec::with_capacity(qas.len());
    for (number, raw) in (1..).zip(qas) {
        let id = raw.id(|| format!("{place}.{number}"))?;
        check_text(format_args!("question {id}"), &raw.question)?;
        let answer = raw.answer().map_err(|message| format!("question {id}: {message}"))?;
        let answer_start = match answer {
            None => None,
            Some(answer) => Some(counting.byte_of(&context, answer.start).ok_or_else(|| {
                format!(
                    "question {id}: answer_start {} lies outside its paragraph of {n_chars} code points",
                    answer.start
                )
            })?),
        };
        let answer_start = answer_start.map(|at| context[..at].chars().count());
        let sentence = answer_start.and_then(|at| breaks.iter().position(|(start, end)| (*start..*end).contains(&at)));
        questions.push(Question { id, text: raw.question, answer_start, sentence });
    }
    Ok(Paragraph { context, sentences, breaks, questions })
}

impl Paragraph {
    /// Everything that may answer a question, in the order of the text.
    pub fn passages(&self, unit: PassageUnit) -> &[String] {
        match unit {
            PassageUnit::Paragraph => std::slice::from_ref(&self.context),
            PassageUnit::Sentence => &self.sentences,
        }
    }

    /// Which of [the passages](Self::passages) answers a question, or why none does.
    ///
    /// # Errors
    /// Sentences are wanted of a paragraph that is not cut into any.
    pub fn answer(&self, question: &Question, unit: PassageUnit) -> std::result::Result<Answer, String> {
        if unit == PassageUnit::Sentence && self.sentences.is_empty() {
            return Err(format!(
                "question {}: its paragraph is not cut into sentences; set passage_unit = \"paragraph\"",
                question.id
            ));
        }
        Ok(match (question.answer_start, question.sentence, unit) {
            (None, ..) => Answer::None(Note::Unanswered),
            (Some(_), _, PassageUnit::Paragraph) => Answer::Passage(0),
            (Some(_), Some(sentence), PassageUnit::Sentence) => Answer::Passage(sentence),
            (Some(_), None, PassageUnit::Sentence) => Answer::None(Note::NoSentence),
        })
    }
}

/// The answer of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The passage with this number.
    Passage(usize),
    /// There is none.
    None(Note),
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let mut bytes = Vec::new();
    let mut file = open::Text::open(path)?;
    file.reader.read_to_end(&mut bytes).map_err(|e| Error::io("read", path, e))?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = 1 + bytes[..e.valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() as u64;
        let offset = e.valid_up_to() + 1;
        Error::line(path, line, format!("invalid UTF-8 at byte {offset} of the file; save the file as UTF-8"))
    })?;
    serde_json::from_str(text).map_err(|e| {
        let message = e.to_string();
        let what = message.split(" at line ").next().unwrap_or(&message);
        let hint = match what {
            "missing field `paragraphs`" => {
                "; if \"data\" is a list of rows, write the list alone (jq .data), or a row on each line (jq -c '.data[]')"
            }
            _ => "",
        };
        Error::line(path, e.line() as u64, format!("not the SQuAD layout: {what} at column {}{hint}", e.column()))
    })
}

/// The questions of all languages, one language after the other, as rows. Holds one file at a time.
pub(super) struct Questions {
    languages: std::vec::IntoIter<(String, Arc<DataFile>)>,
    titles: Option<HashSet<String>>,
    unit: PassageUnit,
    rows: std::vec::IntoIter<Row>,
    layout: Arc<Layout>,
}

impl Questions {
    pub(super) fn new(
        languages: Vec<(String, Arc<DataFile>)>,
        titles: Option<HashSet<String>>,
        unit: PassageUnit,
        layout: Arc<Layout>,
    ) -> Self {
        Questions { languages: languages.into_iter(), titles, unit, rows: Vec::new().into_iter(), layout }
    }

    fn read_file(&self, lang: &str, file: &Arc<DataFile>) -> Result<Vec<Row>> {
        let path = &file.path;
        let file_len = std::fs::metadata(path).map_err(|e| Error::io("read", path, e))?.len();
        let mut notes = Notes::default();
        let mut articles = read_language(path, &mut notes)?;
        if let Some(titles) = &self.titles {
            articles.retain(|article| titles.contains(&article.title));
            if articles.is_empty() {
                return Err(Error::file(
                    path,
                    "none of its articles is in this part; correct the titles in split.json",
                ));
            }
        }
        let mut groups = Vec::new();
        for article in articles {
            for paragraph in &article.paragraphs {
                groups_of(paragraph, lang, self.unit, &mut groups, &mut notes)
                    .map_err(|e| Error::file(path, format!("article \"{}\", {e}", article.title)))?;
            }
        }
        self.layout.note_all(&notes);
        let n_bytes = file_len / groups.len().max(1) as u64;
        let row = |(group, number)| Row::new(file, &self.layout, Place::Row(number), n_bytes, Body::Group(group));
        Ok(groups.into_iter().zip(1..).map(row).collect())
    }

    fn next_row(&mut self) -> Result<Option<Row>> {
        loop {
            if let Some(row) = self.rows.next() {
                return Ok(Some(row));
            }
            let Some((lang, file)) = self.languages.next() else { return Ok(None) };
            self.rows = self.read_file(&lang, &file)?.into_iter();
        }
    }
}

fn groups_of(
    paragraph: &Paragraph,
    lang: &str,
    unit: PassageUnit,
    groups: &mut Vec<Group>,
    notes: &mut Notes,
) -> std::result::Result<(), String> {
    for question in &paragraph.questions {
        let passage = match paragraph.answer(question, unit)? {
            Answer::Passage(number) => &paragraph.passages(unit)[number],
            Answer::None(why) => {
                notes.add(why, 1);
                continue;
            }
        };
        check_text(format_args!("question {}: its passage", question.id), passage)?;
        let (queries, positives) = (vec![Text::new(lang, &question.text)], vec![Text::new(lang, passage)]);
        groups.push(Group { id: question.id.clone(), queries, positives, ..Group::default() });
    }
    Ok(())
}

impl Iterator for Questions {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().transpose()
    }
}
