//! Reading small JSON files, with errors that name file and key.

use crate::{Error, Result};
use serde_json::{Map, Value};
use std::io;
use std::path::Path;

/// The JSON value in `path`; `None` where there is no such file.
pub(crate) fn read_optional(path: &Path) -> Result<Option<Value>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("read", path, e)),
    };
    serde_json::from_str(&text).map(Some).map_err(|e| Error::file(path, format!("invalid JSON: {e}")))
}

/// The JSON object in `path`; `None` where there is no such file.
pub(crate) fn read_optional_object(path: &Path) -> Result<Option<Map<String, Value>>> {
    match read_optional(path)? {
        None => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(_) => Err(Error::file(path, "has to hold one JSON object, `{...}`")),
    }
}

/// Indented, with a final newline, as Hugging Face's libraries write it.
pub(crate) fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Typed access to the keys of one object. A key whose value is null counts as absent.
pub(crate) struct Fields<'a> {
    path: &'a Path,
    map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    /// `path` is what errors name.
    pub(crate) fn new(path: &'a Path, map: &'a Map<String, Value>) -> Self {
        Fields { path, map }
    }

    /// An error about this file.
    pub(crate) fn error(&self, message: impl Into<String>) -> Error {
        Error::file(self.path, message)
    }

    /// The value of `key`.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// The value of `key`, which has to be text.
    pub(crate) fn string(&self, key: &str) -> Result<Option<&'a str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(other) => Err(self.error(format!("{key} is {other}; it has to be a string"))),
        }
    }

    /// The value of `key`, which has to be true or false.
    pub(crate) fn boolean(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(self.error(format!("{key} is {other}; it has to be true or false"))),
        }
    }

    /// The value of `key`, which has to be a non-negative integer that fits i32: kernels index rows with it.
    pub(crate) fn integer(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64().filter(|&n| n <= i32::MAX as u64) {
            Some(n) => Ok(Some(n as usize)),
            None => Err(self.error(format!("{key} is {value}; it has to be an integer from 0 to {}", i32::MAX))),
        }
    }

    /// As [`Fields::integer`], and at least 1; an error where there is neither a value nor a default.
    pub(crate) fn size(&self, key: &str, default: Option<usize>) -> Result<usize> {
        match self.integer(key)?.or(default) {
            Some(0) => Err(self.error(format!("{key} is 0; it has to be at least 1"))),
            Some(n) => Ok(n),
            None => Err(self.error(format!("has no {key}; add it, an encoder cannot be built without"))),
        }
    }

    /// As [`Fields::size`], and at most `most`: what is allocated must not be set by a file's slip.
    pub(crate) fn size_up_to(&self, most: usize, key: &str, default: Option<usize>) -> Result<usize> {
        match self.size(key, default)? {
            n if n > most => Err(self.error(format!("{key} is {n}; hbt computes encoders of up to {most}"))),
            n => Ok(n),
        }
    }

    /// The value of `key`, which has to be a number of at least 0.
    pub(crate) fn float(&self, key: &str, default: f32) -> Result<f32> {
        let Some(value) = self.get(key) else { return Ok(default) };
        match value.as_f64() {
            Some(x) if x >= 0.0 => Ok(x as f32),
            _ => Err(self.error(format!("{key} is {value}; it has to be a number of at least 0"))),
        }
    }
}
