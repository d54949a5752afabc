//! CURE: questions of medical professionals in three languages, and passages in English, of ten disciplines.
//!
//! A discipline is a folder: `dermatology/corpus.jsonl`, `dermatology/queries-fr.jsonl`, `dermatology/qrels.jsonl`. As in mteb's
//! CUREv1 the languages of the queries are subsets and the disciplines are splits; the split `all` is all disciplines, one
//! after the other.

use std::path::Path;

use super::layout::{self, Part, Subsets};
use super::{Collections, files};
use crate::data::formats::files::{DataFile, without_endings};
use crate::{Error, Result};

/// The split of all disciplines: `datasets` takes that word for all splits there are.
const ALL: &str = "all";
const QUERIES: &str = "queries-";

impl Collections {
    /// CURE's subsets in a directory.
    ///
    /// # Errors
    /// No directory, or none with a discipline.
    pub fn open_cure(path: &Path) -> Result<Collections> {
        of_files(path, files::walk(path)?.files)
    }

    /// CURE's subsets in files of these names below `root`, which need not be there before they are loaded.
    ///
    /// # Errors
    /// No discipline is complete.
    pub fn of_cure_names<'a>(root: &Path, names: impl IntoIterator<Item = &'a str>) -> Result<Collections> {
        of_files(root, layout::of_names(root, names))
    }
}

fn of_files(root: &Path, files: Vec<DataFile>) -> Result<Collections> {
    let subsets = subsets(files);
    if subsets.is_empty() {
        let expected = "expected folders of disciplines with corpus.jsonl, qrels.jsonl and queries-LANGUAGE.jsonl";
        return Err(Error::file(root, format!("no queries of CURE here; {expected}")));
    }
    Collections::new(root, subsets)
}

fn subsets(files: Vec<DataFile>) -> Subsets {
    let place = |file: &DataFile| {
        let (discipline, last) = without_endings(&file.name).split_once('/')?;
        let (part, language) = match last {
            "corpus" => (Part::Corpus, None),
            "qrels" => (Part::Judgements, None),
            last => (Part::Queries, Some(last.strip_prefix(QUERIES)?.to_owned())),
        };
        (discipline != ALL).then(|| (discipline.to_owned(), part, language))
    };
    let mut placed: Vec<_> = files.into_iter().filter_map(|file| Some((place(&file)?, file))).collect();
    // Alphabetical, which is the order of the data set's card.
    placed.sort_by(|a, b| a.0.cmp(&b.0));
    let mut subsets = Subsets::new();
    for language in placed.iter().filter_map(|((.., language), _)| language.clone()).collect::<Vec<_>>() {
        subsets.entry(language).or_default();
    }
    for (language, parts) in &mut subsets {
        for ((discipline, part, of), file) in &placed {
            if of.as_ref().is_none_or(|of| of == language) {
                let splits = parts.entry(*part).or_default();
                for split in [discipline, ALL] {
                    splits.entry(split.to_owned()).or_default().push(file.clone());
                }
            }
        }
    }
    subsets
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn write_discipline(root: &Path, name: &str, document: &str, languages: &[&str]) {
        let documents = format!(
            "{{\"_id\": \"{document}\", \"title\": \"T\", \"text\": \"{name}\"}}\n\
             {{\"_id\": \"shared\", \"title\": \"\", \"text\": \"s \"}}\n"
        );
        write(root, &format!("{name}/corpus.jsonl"), &documents);
        let judged = |document: &str, score: u8| {
            format!("{{\"query-id\": \"q-{name}\", \"corpus-id\": \"{document}\", \"score\": {score}}}\n")
        };
        write(root, &format!("{name}/qrels.jsonl"), &[judged("shared", 1), judged(document, 2)].concat());
        for language in languages {
            let query = format!("{{\"_id\": \"q-{name}\", \"text\": \"{language} {name}?\"}}\n");
            write(root, &format!("{name}/queries-{language}.jsonl"), &query);
        }
    }

    #[test]
    fn disciplines_are_splits_and_all_is_all_of_them() {
        let dir = TempDir::new().unwrap();
        write_discipline(dir.path(), "genetics", "g", &["en", "fr"]);
        write_discipline(dir.path(), "dermatology", "d", &["en", "fr"]);
        // The first version of the data set had such a folder.
        write_discipline(dir.path(), "all", "a", &["en-en"]);
        write(dir.path(), "README.md", "words");
        let all = Collections::open_cure(dir.path()).unwrap();
        assert_eq!(all.subsets().collect::<Vec<_>>(), ["en", "fr"]);
        assert_eq!(all.splits("fr").unwrap(), ["all", "dermatology", "genetics"]);
        let names = ["genetics/corpus.jsonl", "genetics/queries-fr.jsonl", "genetics/qrels.jsonl"];
        assert_eq!(all.files("fr", "genetics").unwrap(), names);
        let listed = Collections::of_cure_names(dir.path(), names).unwrap();
        assert_eq!(listed.subsets().collect::<Vec<_>>(), ["fr"]);

        let shown = |subset, split| {
            let task = all.load(subset, split).unwrap();
            let grades =
                |of: &[(String, i32)]| of.iter().map(|(id, grade)| format!(" {id}={grade}")).collect::<String>();
            let query = |of: &super::super::JudgedQuery| format!("{}:{}", of.text, grades(&of.judgements));
            let queries: Vec<String> = task.queries.iter().map(query).collect();
            let documents = task.documents().map(|of| of.map(|of| format!("{}: {}", of.id, of.text)).unwrap());
            (queries, documents.collect::<Vec<String>>())
        };
        let one = |text: &str| text.to_owned();
        let genetics = (vec![one("fr genetics?: shared=1 g=2")], vec![one("g: T genetics"), one("shared: s")]);
        assert_eq!(shown("fr", "genetics"), genetics);
        let queries = vec![one("en dermatology?: shared=1 d=2"), one("en genetics?: shared=1 g=2")];
        let documents = vec![one("d: T dermatology"), one("shared: s"), one("g: T genetics")];
        assert_eq!(shown("en", "all"), (queries, documents));
    }

    #[test]
    fn what_is_not_cure() {
        let dir = TempDir::new().unwrap();
        write(dir.path(), "corpus.jsonl", "{}\n");
        let none = Collections::open_cure(dir.path()).unwrap_err().to_string();
        assert!(none.contains("no queries of CURE here; expected folders of disciplines with corpus.jsonl"), "{none}");
        write(dir.path(), "genetics/queries-en.jsonl", "{}\n");
        let lacking = Collections::open_cure(dir.path()).unwrap_err().to_string();
        assert!(lacking.contains("subset en left out: it has no corpus"), "{lacking}");
    }
}
