//! Files of SQuAD layout as they are written: ids and answers in several forms, offsets in several ways of counting.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::data::formats::{Note, Notes, kind};
use crate::error::counted;
use crate::{Error, Result};

#[derive(Deserialize)]
pub(super) struct RawFile {
    pub(super) data: Vec<RawArticle>,
}

#[derive(Deserialize)]
pub(super) struct RawArticle {
    #[serde(default)]
    pub(super) title: String,
    pub(super) paragraphs: Vec<RawParagraph>,
}

#[derive(Deserialize)]
pub(super) struct RawParagraph {
    pub(super) context: String,
    #[serde(default)]
    pub(super) sentences: Vec<String>,
    #[serde(default)]
    pub(super) sentence_breaks: Vec<(usize, usize)>,
    pub(super) qas: Vec<RawQuestion>,
}

#[derive(Deserialize)]
pub(super) struct RawQuestion {
    // As it is written: numbers keep every digit.
    pub(super) id: Option<Box<RawValue>>,
    pub(super) question: String,
    #[serde(default)]
    pub(super) answers: Value,
    #[serde(default)]
    pub(super) is_impossible: bool,
}

/// The first answer of a question.
pub(super) struct RawAnswer {
    pub(super) text: Option<String>,
    /// As the file counts.
    pub(super) start: i64,
}

impl RawQuestion {
    pub(super) fn id(&self, place: impl FnOnce() -> String) -> std::result::Result<String, String> {
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
    pub(super) fn answer(&self) -> std::result::Result<Option<RawAnswer>, String> {
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
            other => return Err(format!("answers have to be a list, not {}", kind(other))),
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
pub(super) enum Counting {
    CodePoints,
    Bytes,
    Utf16,
    /// Code points of a paragraph whose white space at the start had been removed.
    Stripped,
}

impl Counting {
    const ALL: [Counting; 4] = [Counting::CodePoints, Counting::Bytes, Counting::Utf16, Counting::Stripped];

    pub(super) fn name(self) -> &'static str {
        match self {
            Counting::CodePoints => "code points",
            Counting::Bytes => "bytes",
            Counting::Utf16 => "UTF-16 units",
            Counting::Stripped => "code points without the white space that the paragraph begins with",
        }
    }

    /// The byte of `context` where an answer starts, if it is the start of a character.
    pub(super) fn byte_of(self, context: &str, start: i64) -> Option<usize> {
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
    pub(super) fn fits(self, context: &str, answer: &RawAnswer) -> bool {
        let there = self.byte_of(context, answer.start).map(|at| &context[at..]);
        answer.text.as_ref().is_none_or(|text| there.is_some_and(|there| there.starts_with(text.as_str())))
    }
}

/// Finds out how the file counts: the one way in which every answer is where it says.
pub(super) fn counting(path: &Path, raw: &RawFile, notes: &mut Notes) -> Result<Counting> {
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
