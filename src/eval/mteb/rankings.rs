//! Rankings in files: as TREC's runs, and as mteb's predictions. They are written query by query, and appear when complete.

use std::io::{self, Write};
use std::path::Path;

use super::folder::ModelName;
use crate::files::NewFile;
use crate::{Error, Result};

/// A run as trec_eval reads it: lines `QUERY Q0 DOCUMENT RANK SCORE TAG`.
pub struct TrecRun {
    file: NewFile,
    tag: String,
}

impl TrecRun {
    /// Begins a file whose lines end with `tag`, the name of the run; what cannot stand there becomes `_`.
    ///
    /// # Errors
    /// As [`NewFile::create`].
    pub fn create(path: &Path, tag: &str) -> Result<Self> {
        let tag = tag.chars().map(|c| if c.is_whitespace() || c.is_control() { '_' } else { c }).collect();
        Ok(TrecRun { file: NewFile::create(path)?, tag })
    }

    /// Adds the ranking of a query, best document first.
    ///
    /// # Errors
    /// If an id has spaces, which the format cannot hold, or the file cannot be written.
    pub fn write<'a>(&mut self, query: &str, ranking: impl IntoIterator<Item = (&'a str, f32)>) -> Result<()> {
        self.check_id("query", query)?;
        for (i, (document, score)) in ranking.into_iter().enumerate() {
            self.check_id("document", document)?;
            let rank = i + 1;
            writeln!(self.file, "{query} Q0 {document} {rank} {score} {}", self.tag)
                .map_err(|e| failed(&self.file, e))?;
        }
        Ok(())
    }

    fn check_id(&self, what: &str, id: &str) -> Result<()> {
        if id.is_empty() || id.contains(char::is_whitespace) {
            let message = format!("{what} {id:?} cannot stand in a TREC run, where spaces divide columns; rename it");
            return Err(Error::file(self.file.path(), message));
        }
        Ok(())
    }

    /// Completes the file.
    ///
    /// # Errors
    /// As [`NewFile::persist`].
    pub fn finish(self) -> Result<()> {
        self.file.persist()
    }
}

/// `TASK_predictions.json`: the scores of the documents found, by subset, split and query.
///
/// mteb takes such a file for the candidates that a reranker is to rank.
pub struct Predictions {
    file: NewFile,
    at: Option<(String, String)>,
    subsets: Vec<String>,
    n_queries: usize,
}

impl Predictions {
    /// Name of the file that mteb gives the predictions of a task.
    pub fn file_name(task_name: &str) -> String {
        format!("{task_name}_predictions.json")
    }

    /// Begins the file of a task's predictions.
    ///
    /// # Errors
    /// As [`NewFile::create`].
    pub fn create(path: &Path, model: &ModelName) -> Result<Self> {
        let mut predictions = Predictions { file: NewFile::create(path)?, at: None, subsets: Vec::new(), n_queries: 0 };
        let meta = serde_json::json!({ "model_name": model.name(), "revision": model.revision() });
        predictions.put(&format!("{{\"mteb_model_meta\": {meta}"))?;
        Ok(predictions)
    }

    /// Begins a split of a subset. The splits of a subset follow one another, as the format has them together.
    ///
    /// # Errors
    /// If the file cannot be written.
    ///
    /// # Panics
    /// If the subset was begun before another one.
    pub fn begin(&mut self, subset: &str, split: &str) -> Result<()> {
        let before = self.at.replace((subset.to_owned(), split.to_owned()));
        self.n_queries = 0;
        if before.as_ref().is_some_and(|(of, _)| of == subset) {
            return self.put(&format!("}}, {}: {{", quoted(split)));
        }
        assert!(!self.subsets.iter().any(|name| name == subset), "{subset} was begun before another subset");
        self.subsets.push(subset.to_owned());
        let end = if before.is_some() { "}}" } else { "" };
        self.put(&format!("{end}, {}: {{{}: {{", quoted(subset), quoted(split)))
    }

    /// Adds the documents of a query, each once.
    ///
    /// # Errors
    /// If the file cannot be written.
    ///
    /// # Panics
    /// If no split was begun.
    pub fn write<'a>(&mut self, query: &str, documents: impl IntoIterator<Item = (&'a str, f32)>) -> Result<()> {
        assert!(self.at.is_some(), "no split was begun");
        let comma = if self.n_queries > 0 { ", " } else { "" };
        self.n_queries += 1;
        self.put(&format!("{comma}{}: {{", quoted(query)))?;
        for (i, (document, score)) in documents.into_iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            // All digits of the f32, so that equal scores stay equal and others do not become so.
            self.put(&format!("{comma}{}: {}", quoted(document), serde_json::json!(f64::from(score))))?;
        }
        self.put("}")
    }

    /// Completes the file.
    ///
    /// # Errors
    /// As [`NewFile::persist`].
    pub fn finish(mut self) -> Result<()> {
        self.put(if self.at.is_some() { "}}}" } else { "}" })?;
        self.file.persist()
    }

    fn put(&mut self, text: &str) -> Result<()> {
        self.file.write_all(text.as_bytes()).map_err(|e| failed(&self.file, e))
    }
}

fn failed(file: &NewFile, e: io::Error) -> Error {
    Error::io("write", file.path(), e)
}

/// A string of JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::fs;

    #[test]
    fn a_run_has_a_line_for_each_document() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.txt");
        let mut run = TrecRun::create(&path, "e5 small").unwrap();
        run.write("q1", [("d9", 0.75), ("d10", -0.000_001)]).unwrap();
        run.write("q2", []).unwrap();
        run.write("q3", [("39#0", 0.1)]).unwrap();
        for (query, document) in [("q 4", "d1"), ("q4", "d\t1"), ("", "d1")] {
            let message = run.write(query, [(document, 0.0)]).unwrap_err().to_string();
            assert!(message.contains("cannot stand in a TREC run"), "{message}");
        }
        assert!(!path.exists());
        run.finish().unwrap();
        let expected = "q1 Q0 d9 1 0.75 e5_small\nq1 Q0 d10 2 -0.000001 e5_small\nq3 Q0 39#0 1 0.1 e5_small\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn predictions_are_those_of_each_subset_and_split() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(Predictions::file_name("T"));
        let model = ModelName::new("hbt/e5", "abc").unwrap();
        let written = |fill: &dyn Fn(&mut Predictions)| -> Value {
            let mut predictions = Predictions::create(&path, &model).unwrap();
            fill(&mut predictions);
            predictions.finish().unwrap();
            serde_json::from_slice(&fs::read(&path).unwrap()).unwrap()
        };
        let meta = json!({ "model_name": "hbt/e5", "revision": "abc" });
        assert_eq!(written(&|_| {}), json!({ "mteb_model_meta": meta }));
        let several = written(&|predictions| {
            predictions.begin("ar", "dev").unwrap();
            predictions.write("q\"1", [("d1", 0.1), ("d2", -2.5e-9)]).unwrap();
            predictions.write("q2", []).unwrap();
            predictions.begin("ar", "test").unwrap();
            predictions.write("q1", [("d3", 1.0)]).unwrap();
            predictions.begin("de", "test").unwrap();
        });
        // As f64, the f32s nearest to 0.1 and -2.5e-9.
        let dev = json!({ "q\"1": { "d1": 0.10000000149011612, "d2": -2.4999999848063226e-9 }, "q2": {} });
        let ar = json!({ "dev": dev, "test": { "q1": { "d3": 1.0 } } });
        assert_eq!(several, json!({ "mteb_model_meta": meta, "ar": ar, "de": { "test": {} } }));
        assert_eq!(path.file_name().unwrap(), "T_predictions.json");
    }
}
