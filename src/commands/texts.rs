//! `--input` of `hbt encode`: texts to embed, and how they were found in the file.

use hbt::cli::{EncodeAs, InputFormat};
use hbt::data::formats::{behind_title, parse_object};
use hbt::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

/// Names of a text's id, which is kept beside its embedding.
const IDS: [&str; 9] = ["_id", "id", "docid", "doc_id", "pid", "passage_id", "qid", "query_id", "corpus_id"];
/// Names of a row's text: those of a corpus, and those that training knows for a query.
const TEXT: &str = "text";
const QUERY: [&str; 3] = ["query", "anchor", "question"];

/// What is to be embedded.
#[derive(Serialize, Deserialize)]
pub struct Texts {
    /// The texts.
    pub texts: Vec<String>,
    /// The ids of each, under their own names; empty where no row has any.
    pub ids: Vec<Map<String, Value>>,
    /// How the file was taken, for people.
    pub taken: String,
}

/// What was asked for, of the file at `path`; `-` is standard input.
pub struct Request<'a> {
    pub path: &'a Path,
    pub format: Option<InputFormat>,
    /// Field of the text in JSON Lines.
    pub field: Option<&'a str>,
    pub encode_as: EncodeAs,
}

impl Texts {
    /// One text a line, or one JSON object a line if the file is called so or begins with a brace. An empty line is an
    /// empty text, but is skipped among JSON objects.
    ///
    /// # Errors
    /// A file that cannot be read, or a line without a text, which is named.
    pub fn read(request: &Request) -> Result<Texts> {
        let is_stdin = request.path == Path::new("-");
        let path = if is_stdin { PathBuf::from("standard input") } else { request.path.to_owned() };
        let bytes = if is_stdin {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut io::stdin().lock(), &mut bytes).map(|_| bytes)
        } else {
            std::fs::read(&path)
        };
        let bytes = bytes.map_err(|e| Error::io("read", &path, e))?;
        if bytes.starts_with(&GZIP) || bytes.starts_with(&ZSTD) {
            return Err(Error::file(path, "is compressed; decompress it first"));
        }
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
        let is_called_so = || extension == "jsonl" || extension == "ndjson";
        if request.format == Some(InputFormat::Text) && request.field.is_some() {
            return Err(Error::usage("--field names a field of JSON Lines, and --input-format is text; take one away"));
        }
        let is_table = ["csv", "tsv", "parquet"].contains(&extension.as_str());
        if request.format.is_none() && (is_table || extension == "json" && bytes.trim_ascii_start().starts_with(b"[")) {
            let message = "holds no text on each line and no JSON Lines; write one of them, or take its lines as they are \
                           with --input-format text";
            return Err(Error::file(path, message));
        }
        let is_jsonl = match request.format {
            Some(format) => format == InputFormat::Jsonl,
            None => request.field.is_some() || is_called_so() || bytes.trim_ascii_start().starts_with(b"{"),
        };
        if !is_jsonl {
            return lines(&path, bytes);
        }
        let is_guess = request.format.is_none() && request.field.is_none() && !is_called_so();
        Rows::read(&path, bytes, request, is_guess)?.finish(&path)
    }
}

/// What compressed files begin with.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

fn lines(path: &Path, bytes: &[u8]) -> Result<Texts> {
    let numbered = bytes.lines().zip(1..);
    let texts = numbered.map(|(line, number)| line.map_err(|_| not_utf8(path, number))).collect::<Result<Vec<_>>>()?;
    let taken = format!("{}: {} texts, one on each line", path.display(), texts.len());
    Ok(Texts { texts, ids: Vec::new(), taken })
}

fn not_utf8(path: &Path, number: u64) -> Error {
    Error::line(path, number, "invalid UTF-8; save the file as UTF-8")
}

/// JSON objects that have been read.
struct Rows<'a> {
    request: &'a Request<'a>,
    texts: Vec<String>,
    ids: Vec<Map<String, Value>>,
    /// Fields that texts were taken from.
    fields: BTreeSet<String>,
    n_titles: usize,
    unused: BTreeSet<String>,
}

impl<'a> Rows<'a> {
    /// `is_guess`: only its first brace says that the file is JSON Lines.
    fn read(path: &Path, bytes: &[u8], request: &'a Request<'a>, is_guess: bool) -> Result<Self> {
        let (texts, ids) = Default::default();
        let mut rows = Rows { request, texts, ids, fields: BTreeSet::new(), n_titles: 0, unused: BTreeSet::new() };
        for (line, number) in bytes.lines().zip(1..) {
            let line = line.map_err(|_| not_utf8(path, number))?;
            if !line.trim().is_empty() {
                let is_first = rows.texts.is_empty();
                rows.add(&line).map_err(|message| {
                    // A first line that is an object settles it.
                    let hint = match is_guess && is_first && message.starts_with("invalid JSON") {
                        true => " (if it has a text on each line, say --input-format text)",
                        false => "",
                    };
                    Error::line(path, number, format!("{message}{hint}"))
                })?;
            }
        }
        Ok(rows)
    }

    /// The error is a message without file and line.
    fn add(&mut self, line: &str) -> std::result::Result<(), String> {
        let mut row = parse_object(line.as_bytes())?;
        let field = self.field(&row)?.to_owned();
        let Some(Value::String(text)) = row.shift_remove(&field) else {
            return Err(format!("{field} has to be a string"));
        };
        // As training joins the two.
        let takes_title = field == TEXT && self.request.field.is_none();
        let joined = if takes_title { behind_title(&mut row, &text) } else { None };
        self.n_titles += usize::from(joined.is_some());
        self.texts.push(joined.unwrap_or(text));
        self.fields.insert(field);
        let (ids, unused): (Map<_, _>, Map<_, _>) = row.into_iter().partition(|(key, _)| IDS.contains(&key.as_str()));
        self.ids.push(ids);
        let unused = unused.into_iter().map(|(key, _)| key).filter(|key| !self.unused.contains(key));
        self.unused.extend(unused.collect::<Vec<_>>());
        Ok(())
    }

    /// The field of a row's text.
    fn field<'b>(&self, row: &'b Map<String, Value>) -> std::result::Result<&'b str, String> {
        let names = match (self.request.field, self.request.encode_as) {
            (Some(field), _) => vec![field],
            (None, EncodeAs::Passage) => vec![TEXT],
            (None, EncodeAs::Query) => [TEXT].into_iter().chain(QUERY).collect(),
        };
        let found = names.iter().find_map(|name| row.get_key_value(*name));
        found.map(|(name, _)| name.as_str()).ok_or_else(|| {
            let [names, keys] = [names.join(", "), row.keys().map(String::as_str).collect::<Vec<_>>().join(", ")];
            format!("no text: expected a field {names}; the row has {keys}; name the one to embed with --field")
        })
    }

    fn finish(mut self, path: &Path) -> Result<Texts> {
        let list = |names: BTreeSet<String>| names.into_iter().collect::<Vec<_>>().join(", ");
        let of_ids: BTreeSet<String> = self.ids.iter().flat_map(|ids| ids.keys().cloned()).collect();
        if of_ids.is_empty() {
            self.ids.clear();
        }
        let mut taken = format!("{}: {} texts from JSON Lines", path.display(), self.texts.len());
        let titles = match self.n_titles {
            0 => String::new(),
            n if n == self.texts.len() => " behind title".to_owned(),
            n => format!(" (behind title in {n})"),
        };
        for (what, names, more) in
            [("field", self.fields, titles.as_str()), ("ids kept:", of_ids, ""), ("not used:", self.unused, "")]
        {
            if !names.is_empty() {
                taken += &format!(", {what} {}{more}", list(names));
            }
        }
        Ok(Texts { texts: self.texts, ids: self.ids, taken })
    }
}
