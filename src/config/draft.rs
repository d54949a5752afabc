//! Collects a configuration: sources are read in any order; for each key the source of highest rank wins.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::{Spanned, Value};

use super::choices::nearest;
use super::keys::{Config, KEYS, Key};
use super::suggest::{nearest_key, otherwise};
use crate::{Error, Result};

/// `key=value`, as typed after `--set`.
#[derive(Clone, Debug, PartialEq)]
pub struct Assignment {
    key: String,
    value: String,
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok(Assignment { key: key.trim().to_owned(), value: value.to_owned() })
            }
            _ => Err("write it as key=value, for example batch_size=64".to_owned()),
        }
    }
}

impl Assignment {
    /// The value: as TOML if it parses as TOML (`0.5`, `true`, `"a"`), otherwise as text (`hybrid`).
    fn value_for(&self, key: &Key) -> Value {
        let text = if key.is_text { self.value.as_str() } else { self.value.trim() };
        match self.value.trim().parse::<Value>() {
            Ok(value) if value.is_str() || !key.is_text => value,
            _ => Value::String(text.to_owned()),
        }
    }
}

/// Source of a key's value, lowest rank first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Default,
    Preset,
    File,
    Option,
    Set,
}

/// Place where a value was written, for messages.
#[derive(Clone)]
enum Place {
    Nowhere,
    Line(PathBuf, u64),
    Option(String),
}

impl Place {
    fn error(&self, message: String) -> Error {
        match self {
            Place::Nowhere => Error::other(message),
            Place::Line(path, line) => Error::line(path, *line, message),
            Place::Option(option) => Error::config(option, message),
        }
    }
}

/// Collects a [`Config`] from defaults, presets, a file, options and `--set`, in this order of increasing rank.
#[derive(Clone)]
pub struct Draft {
    config: Config,
    /// For each of [`KEYS`] the source of its value, and the place there.
    origins: Vec<(Rank, Place)>,
}

impl Default for Draft {
    fn default() -> Self {
        Draft { config: Config::default(), origins: vec![(Rank::Default, Place::Nowhere); KEYS.len()] }
    }
}

impl Draft {
    /// A draft with all keys at their defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a TOML file of flat keys.
    ///
    /// Errors name the file and line: unreadable file, invalid TOML, unknown key, wrong type, value out of range.
    pub fn file(&mut self, path: &Path) -> Result<&mut Self> {
        if path.is_dir() {
            let message = "is a directory, not a configuration file; name data with --data and a model with --model";
            return Err(Error::file(path, message));
        }
        let bytes = fs::read(path).map_err(|source| Error::io("read", path, source))?;
        let text = String::from_utf8(bytes).map_err(|_| Error::file(path, "is not UTF-8; save it as UTF-8 text"))?;
        self.document(path, &text, Rank::File)
    }

    /// Adds a configuration that `path` holds among other things, as if it were a file of its own.
    ///
    /// # Errors
    /// Those of [`Draft::file`].
    pub fn saved(&mut self, path: &Path, text: &str) -> Result<&mut Self> {
        self.document(path, text, Rank::File)
    }

    /// Adds better defaults for a situation, as TOML: they hold for keys that no file, option or `--set` gives, even if
    /// those are read first. Messages name `name` as the file.
    pub fn preset(&mut self, name: &str, toml: &str) -> Result<&mut Self> {
        self.document(&PathBuf::from(name), toml, Rank::Preset)
    }

    /// Adds the value of a command-line option, such as `--model` for the key `model`.
    pub fn option(&mut self, option: &str, key: &str, value: impl Into<Value>) -> Result<&mut Self> {
        self.apply(key, Rank::Option, Place::Option(option.to_owned()), |_| value.into())
    }

    /// Adds one `--set key=value`.
    pub fn set(&mut self, assignment: &Assignment) -> Result<&mut Self> {
        self.apply(&assignment.key, Rank::Set, Place::Option("--set".to_owned()), |key| assignment.value_for(key))
    }

    /// The configuration collected so far, not yet checked as a whole.
    pub fn so_far(&self) -> &Config {
        &self.config
    }

    /// Whether a file, an option or `--set` gave `key` a value.
    pub fn is_given(&self, key: &str) -> bool {
        self.origin(key).0 > Rank::Preset
    }

    /// Whether an option or `--set` gave `key` a value.
    pub fn is_typed(&self, key: &str) -> bool {
        self.origin(key).0 > Rank::File
    }

    /// The configuration, its keys checked against one another.
    pub fn finish(mut self) -> Result<Config> {
        self.settle_data()
            .and_then(|()| self.settle_length())
            .and_then(|()| self.config.check())
            .map_err(|error| self.place(error))?;
        Ok(self.config)
    }

    fn document(&mut self, path: &Path, text: &str, rank: Rank) -> Result<&mut Self> {
        let line_of = |offset: usize| 1 + text[..offset.min(text.len())].matches('\n').count() as u64;
        let entries: BTreeMap<Spanned<String>, Spanned<Value>> = toml::from_str(text).map_err(|error| {
            let hint = match path.extension() {
                Some(extension) if extension == "toml" => "",
                _ => " (a configuration is TOML; name data with --data and a model with --model)",
            };
            let line = line_of(error.span().map_or(0, |span| span.start));
            Error::line(path, line, format!("not valid TOML: {}{hint}", error.message().replace('\n', ", ")))
        })?;
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let place = Place::Line(path.to_owned(), line_of(key.span().start));
            if value.get_ref().is_table() {
                let name = key.get_ref();
                return Err(place.error(match name.as_str() {
                    "datasets" | "evaluations" => format!("write [[{name}]] with two brackets, once for each of them"),
                    _ => format!("keys stand by themselves, without tables; take away [{name}]"),
                }));
            }
            self.apply(key.get_ref(), rank, place, |_| value.into_inner())?;
        }
        Ok(self)
    }

    /// Gives `name` the value that `value` makes for its key, unless a source of higher rank has given it one.
    fn apply(&mut self, name: &str, rank: Rank, place: Place, value: impl FnOnce(&Key) -> Value) -> Result<&mut Self> {
        let Some(index) = KEYS.iter().position(|key| key.name == name) else {
            return Err(place.error(unknown_key(name)));
        };
        let key = &KEYS[index];
        let value = value(key);
        // A value that loses is still checked, so that a mistake in a file shows up before the option is dropped.
        let mut changed = self.config.clone();
        if !(key.set)(&mut changed, &value) {
            return Err(place.error(wrong_value(key, &value)));
        }
        if rank >= self.origins[index].0 {
            self.config = changed;
            self.origins[index] = (rank, place);
        }
        Ok(self)
    }

    /// The length of a run is given by `steps` or `epochs`: the one with higher rank wins, so that `--set steps=60`
    /// works whatever the file says; two from one source contradict each other.
    fn settle_length(&mut self) -> Result<()> {
        if self.config.steps.is_none() || self.config.epochs.is_none() {
            return Ok(());
        }
        match self.origin("steps").0.cmp(&self.origin("epochs").0) {
            std::cmp::Ordering::Greater => self.config.epochs = None,
            std::cmp::Ordering::Less => self.config.steps = None,
            std::cmp::Ordering::Equal => {
                return Err(Error::config("steps", "epochs is given as well; keep one of the two"));
            }
        }
        Ok(())
    }

    /// Training data is given by `data` or `datasets`: the one with higher rank wins.
    fn settle_data(&mut self) -> Result<()> {
        if self.config.data.is_none() || self.config.datasets.is_empty() {
            return Ok(());
        }
        match self.origin("data").0.cmp(&self.origin("datasets").0) {
            std::cmp::Ordering::Greater => self.config.datasets = Vec::new(),
            std::cmp::Ordering::Less => self.config.data = None,
            std::cmp::Ordering::Equal => {
                return Err(Error::config(
                    "data",
                    "datasets are given as well; make it one of them, or keep one of the two",
                ));
            }
        }
        Ok(())
    }

    fn origin(&self, name: &str) -> &(Rank, Place) {
        let index = KEYS.iter().position(|key| key.name == name).expect("a name from the table of keys");
        &self.origins[index]
    }

    /// `error` about a key, with the line that gave the key its value, if one did.
    pub fn place(&self, error: Error) -> Error {
        match error {
            Error::Config { key, message } => match &self.origin(&key).1 {
                Place::Line(path, line) => Error::line(path, *line, format!("{key}: {message}")),
                _ => Error::Config { key, message },
            },
            other => other,
        }
    }
}

fn unknown_key(name: &str) -> String {
    if let Some(how) = otherwise(name) {
        return format!("unknown key {name:?}; {how}");
    }
    match nearest_key(name, KEYS.iter().map(|key| key.name)) {
        Some(near) => format!("unknown key {name:?}; did you mean {near}?"),
        None => format!(
            "unknown key {name:?}; there are model, data, mode, alpha, batch_size, steps, learning_rate and more: \
             see them all with `hbt config`"
        ),
    }
}

fn wrong_value(key: &Key, value: &Value) -> String {
    if let Some(complaint) = (key.complaint)(value) {
        return format!("{}: {complaint}; it must be {}", key.name, key.expects());
    }
    let choices = (key.choices)();
    let near = value.as_str().and_then(|text| nearest(text, choices.iter().map(String::as_str)));
    let it = near.map_or("it".to_owned(), |near| format!("did you mean {near}? It"));
    format!("{} is {}; {it} must be {}", key.name, in_words(value), key.expects())
}

/// A value as messages show it: short, on one line.
fn in_words(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".to_owned(),
        Value::Table(_) => "a table".to_owned(),
        Value::String(text) if text.is_empty() => "empty".to_owned(),
        Value::String(text) if text.chars().count() > 60 => {
            format!("{:?}...", text.chars().take(60).collect::<String>())
        }
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}
