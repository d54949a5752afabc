//! The rules of the house that a machine can check: who may import whom, as `src/lib.rs` says; that files, functions and
//! lines are short; that paths which comments and documents name are there.

mod imports;
mod lengths;
mod paths;
mod source;

use imports::Rules;
use source::Source;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Where the repository keeps what comments and documents may name.
const FOLDERS: [&str; 10] =
    [".ci", ".github", "benches", "build", "docs", "fuzz", "kernels", "src", "tests", "weights"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// All files of those folders and beside them, as paths from the root with `/`.
fn files() -> BTreeSet<String> {
    fn walk(folder: &Path, name: &str, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).unwrap_or_else(|e| panic!("{name}: {e}")) {
            let path = entry.unwrap().path();
            let name = format!("{name}{}", path.file_name().unwrap().to_str().expect("a name in UTF-8"));
            if path.is_file() {
                found.insert(name);
            } else if name.contains('/') || FOLDERS.contains(&name.as_str()) {
                walk(&path, &format!("{name}/"), found);
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(root(), "", &mut found);
    found
}

/// Those of `files` in `folder` with one of these extensions.
fn texts<'a>(files: &'a BTreeSet<String>, folder: &str, extensions: &[&str]) -> Vec<&'a str> {
    let found: Vec<_> = files.iter().map(String::as_str).filter(|file| file.starts_with(folder)).collect();
    let is_one = |file: &&str| extensions.iter().any(|extension| file.ends_with(extension));
    let found: Vec<_> = found.into_iter().filter(|file| !file.starts_with("tests/fixtures/")).filter(is_one).collect();
    assert!(!found.is_empty(), "nothing in {folder}");
    found
}

/// Fails with one line for each.
fn assert_none(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn modules_import_what_lib_rs_says_that_they_may() {
    let lib = read("src/lib.rs");
    let mut rules = Rules::parse(&lib).unwrap();
    let files = files();
    let sources = texts(&files, "src/", &[".rs"]);
    let mut violations = rules.without_line(&sources);
    for file in sources.into_iter().filter(|file| *file != "src/lib.rs") {
        violations.extend(rules.violations(file, &read(file)));
    }
    violations.extend(rules.unused());
    assert_none(violations);
}

#[test]
fn files_functions_and_lines_are_short() {
    let files = files();
    let mut violations = Vec::new();
    for file in texts(&files, "src/", &[".rs"]).into_iter().chain(texts(&files, "build", &[".rs"])) {
        let text = read(file);
        violations.extend(lengths::long_file(file, &text));
        violations.extend(lengths::long_functions(file, &text));
    }
    let folders = ["src/", "build", "tests/"];
    for file in folders.into_iter().flat_map(|folder| texts(&files, folder, &[".rs"])) {
        violations.extend(lengths::wide_rust(file, &read(file)));
    }
    for file in texts(&files, "kernels/", &[".cu", ".cuh"]) {
        violations.extend(lengths::wide_kernels(file, &read(file)));
    }
    assert_none(violations);
}

#[test]
fn paths_that_are_named_are_there() {
    let files = files();
    let mut violations = Vec::new();
    for folder in ["src/", "build", "kernels/", "tests/", "benches/"] {
        let extensions = [".rs", ".cu", ".cuh"];
        for file in texts(&files, folder, &extensions) {
            violations.extend(paths::missing(file, &Source::new(&read(file)).comments, &files));
        }
    }
    for file in files.iter().filter(|file| file.ends_with(".md") && !file.starts_with("tests/fixtures/")) {
        violations.extend(paths::missing(file, &read(file), &files));
    }
    assert_none(violations);
}
