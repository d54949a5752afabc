//! Paths of the repository that a text names and that are not there.

use super::FOLDERS;
use std::collections::BTreeSet;

/// Extensions by which a name alone is known for one of a file of the repository.
const OWN: [&str; 3] = [".rs", ".cu", ".cuh"];
/// Names of that form of what is not the repository's: figures of products in the cache, a site.
const ELSEWHERE: [&str; 2] = ["kernels/products-*.txt", "docs.rs"];

/// The violations of a text. Paths with `{...}` stand for several, and are not looked for.
pub fn missing(file: &str, text: &str, files: &BTreeSet<String>) -> Vec<String> {
    let mut violations = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let words = line.split(|c: char| !(c.is_alphanumeric() || "_./*{}-".contains(c)));
        for word in words.map(|word| word.trim_end_matches(['.', '-'])) {
            let is_path =
                FOLDERS.iter().any(|folder| word.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')));
            let is_name = !word.contains('/') && OWN.iter().any(|end| word.len() > end.len() && word.ends_with(end));
            if (is_path || is_name) && !ELSEWHERE.contains(&word) && !word.contains('{') && !is_there(word, files) {
                violations.push(format!("{file}:{}: there is no {word}", i + 1));
            }
        }
    }
    violations
}

/// Whether `word` is a file, a folder, with `*` one of either, or the name of a file in any folder.
fn is_there(word: &str, files: &BTreeSet<String>) -> bool {
    let (start, end) = word.split_once('*').unwrap_or((word, ""));
    files.iter().any(|file| {
        let name = if word.contains('/') { file } else { file.rsplit('/').next().expect("a part") };
        name.strip_prefix(start).is_some_and(|rest| match word.contains('*') {
            true => rest.ends_with(end),
            false => rest.is_empty() || rest.starts_with('/') || start.ends_with('/'),
        })
    })
}

#[test]
fn a_path_that_is_not_there_is_found() {
    let files = ["src/a.rs", "src/b/mod.rs", "kernels/c_d.cu"].map(str::to_owned).into();
    let there = "(`src/a.rs`), src/b/, src/b, src/b/mod.rs. kernels/c*.cu; a.rs, kernels/{name}.cu x.org/src/e c.py";
    assert_eq!(missing("a.md", there, &files), [] as [&str; 0]);
    for word in ["src/e.rs", "src/a.r", "src/c/", "src/b/mo", "kernels/e*.cu", "kernels/c*.cuh", "e.cu", "docs/a"] {
        let text = format!("\nsee `{word}`.");
        assert_eq!(missing("a.md", &text, &files), [format!("a.md:2: there is no {word}")]);
    }
}
