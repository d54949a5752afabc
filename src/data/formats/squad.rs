//! SQuAD layout, one file a language, as in XQuAD-R: a directory of `XX.json` and, for train and test parts, a
//! `split.json` with two lists of article titles. Offsets count code points, and a question's id joins its versions
//! across languages. Evaluation reads the same structures, because its candidates are the sentences.

use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::files::{DataFile, file_name};
use super::notes::{Note, Notes};
use super::open;
use super::row::{Body, Layout, Place, Row};
use super::{DataFormat, DataSource, Group, PassageUnit, Split, Text, UNKNOWN_LANG, check_text, language};
use crate::choices::Auto;
use crate::error::counted;
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
    // As it is written: numbers keep every digit.
    id: Option<Box<RawValue>>,
    question: String,
    #[serde(default)]
    answers: Value,
    #[serde(default)]
    is_impossible: bool,
}

/// The first answer of a question.
struct RawAnswer {
    text: Option<String>,
    /// As the file counts.
    start: i64,
}

impl RawQuestion {
    fn id(&self, place: impl FnOnce() -> String) -> std::result::Result<String, String> {
        let written = self.id.as_ref().map_or("null", |id| id.get());
        match serde_json::from_str(written) {
            Ok(Value::Null) => Ok(place()),
            Ok(Value::String(id)) if !id.is_empty() => Ok(id),
            Ok(Value::Number(_)) => Ok(written.to_owned()),
            _ => Err(format!("id {written} has to be a number or a string that is not empty")),
        }
    }

    /// The answer, in SQuAD's form (`[{"text", "answer_start"}]`) or that of `datasets` (`{"text": [], "answer_start":
    /// []}`). No answer: none is there, it starts at null or -1, or the question is marked as impossible.
    fn answer(&self) -> std::result::Result<Option<RawAnswer>, String> {
        let (text, start) = match &self.answers {
            _ if self.is_impossible => return Ok(None),
            Value::Null => return Ok(None),
            Value::Array(answers) => match answers.first() {
                None => return Ok(None),
                Some(answer) => (answer.get("text"), answer.get("answer_start")),
            },
            Value::Object(lists) => {
                let first = |key: &str| lists.get(key).map(|list| list.get(0).unwrap_or(&Value::Null));
                (first("text"), first("answer_start"))
            }
            other => return Err(format!("answers have to be a list, not {}", super::kind(other))),
        };
        match start {
            None => Err("its answer has no answer_start".to_owned()),
            Some(Value::Null) => Ok(None),
            Some(start) => match start.as_i64() {
                Some(-1) => Ok(None),
                Some(start) => Ok(Some(RawAnswer { text: text.and_then(Value::as_str).map(str::to_owned), start })),
                None => Err(format!("answer_start {start} is no whole number")),
            },
        }
    }
}

/// What `answer_start` counts; SQuAD means code points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counting {
    CodePoints,
    Bytes,
    Utf16,
    /// Code points of a paragraph whose white space at the start had been removed.
    Stripped,
}

impl Counting {
    const ALL: [Counting; 4] = [Counting::CodePoints, Counting::Bytes, Counting::Utf16, Counting::Stripped];

    fn name(self) -> &'static str {
        match self {
            Counting::CodePoints => "code points",
            Counting::Bytes => "bytes",
            Counting::Utf16 => "UTF-16 units",
            Counting::Stripped => "code points without the white space that the paragraph begins with",
        }
    }

    /// The byte of `context` where an answer starts, if it is the start of a character.
    fn byte_of(self, context: &str, start: i64) -> Option<usize> {
        let start = usize::try_from(start).ok()?;
        let code_point = |number: usize| context.char_indices().map(|(at, _)| at).nth(number);
        match self {
            Counting::CodePoints => code_point(start),
            Counting::Bytes => Some(start).filter(|at| *at < context.len() && context.is_char_boundary(*at)),
            Counting::Utf16 => {
                let mut n_units = 0;
                let of_char = context.char_indices().find(|(_, c)| {
                    let is_there = n_units == start;
                    n_units += c.len_utf16();
                    is_there
                });
                of_char.map(|(at, _)| at)
            }
            Counting::Stripped => {
                let n_removed = context.chars().take_while(|c| c.is_whitespace()).count();
                code_point(start.checked_add(n_removed)?)
            }
        }
    }

    /// Whether the answer stands where it says; one without a text cannot be wrong.
    fn fits(self, context: &str, answer: &RawAnswer) -> bool {
        let there = self.byte_of(context, answer.start).map(|at| &context[at..]);
        answer.text.as_ref().is_none_or(|text| there.is_some_and(|there| there.starts_with(text.as_str())))
    }
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
        let name = file_name(&file.path);
        let lang = match language(name.split('.').next().unwrap_or_default()) {
            Ok(lang) if name.matches('.').count() == 1 || name.to_lowercase().ends_with("z") => lang,
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

/// Finds out how the file counts: the one way in which every answer is where it says.
fn counting(path: &Path, raw: &RawFile, notes: &mut Notes) -> Result<Counting> {
    let mut n_answers = 0;
    let mut n_wrong = [0; Counting::ALL.len()];
    let mut first_wrong = None;
    for article in &raw.data {
        for paragraph in &article.paragraphs {
            for question in &paragraph.qas {
                let Ok(Some(answer)) = question.answer() else { continue };
                n_answers += 1;
                for (n_wrong, counting) in n_wrong.iter_mut().zip(Counting::ALL) {
                    *n_wrong += u64::from(!counting.fits(&paragraph.context, &answer));
                }
                if first_wrong.is_none() && n_wrong[0] > 0 {
                    let text = answer.text.unwrap_or_default();
                    first_wrong = Some((&article.title, question, text, answer.start));
                }
            }
        }
    }
    if let Some(at) = n_wrong.iter().position(|n| *n == 0) {
        let counting = Counting::ALL[at];
        notes.add(Note::Offsets(counting.name().to_owned()), if at == 0 { 0 } else { n_wrong[0] });
        return Ok(counting);
    }
    let (title, question, text, start) = first_wrong.expect("an answer that is wrong in code points");
    let id = question.id(|| "without an id".to_owned()).unwrap_or_default();
    Err(Error::file(
        path,
        format!(
            "article \"{title}\", question {id}: its answer {text:?} is not at answer_start {start}, and {} of {} are \
             not where they say, in code points, bytes or UTF-16; correct the offsets",
            n_wrong[0],
            counted(n_answers, "answer")
        ),
    ))
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
        Error::line(path, e.line() as u64, format!("not the SQuAD layout: {what} at column {}", e.column()))
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
