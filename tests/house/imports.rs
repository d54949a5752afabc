//! Who may import whom: the lines of `src/lib.rs` that say so, and the paths that files name.

use super::source::{Source, without_tests};
use std::collections::BTreeSet;

/// What begins the lines, below their title.
const TITLE: &str = "# Who may import whom";
/// The module whose line holds for all.
const ALL: &str = "*";

type Path = Vec<String>;

/// The lines of `src/lib.rs`.
#[derive(Debug)]
pub struct Rules {
    lines: Vec<Line>,
    only: Vec<Only>,
}

/// `module: what it may import, ...`
#[derive(Debug)]
struct Line {
    module: Path,
    /// Each with whether it has been imported.
    may: Vec<(Path, bool)>,
}

/// `only module, ...: what no other may import, ...`
#[derive(Debug)]
struct Only {
    modules: Vec<Path>,
    paths: Vec<Path>,
}

fn path(text: &str) -> Path {
    text.split("::").map(str::to_owned).collect()
}

/// What commas divide.
fn list(text: &str) -> impl Iterator<Item = Path> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(path)
}

fn starts_with_one(target: &Path, paths: &[Path]) -> bool {
    paths.iter().any(|path| target.starts_with(path))
}

impl Rules {
    /// Reads them from the block of text below their title; a line that is indented goes on with the one before.
    pub fn parse(lib: &str) -> Result<Self, String> {
        let docs: Vec<_> = lib.lines().filter_map(|line| line.strip_prefix("//!")).collect();
        let mut block = docs.iter().skip_while(|line| line.trim() != TITLE).skip_while(|line| line.trim() != "```text");
        block.next().ok_or_else(|| format!("src/lib.rs has no block of text below {TITLE:?}"))?;
        let (mut lines, mut only): (Vec<Line>, Vec<Only>) = Default::default();
        for line in block.take_while(|line| line.trim() != "```") {
            let (module, may) = match line.split_once(": ").or(line.trim_end().strip_suffix(':').map(|name| (name, "")))
            {
                Some((module, may)) => (Some(module.trim()), may),
                None => (None, *line),
            };
            if let Some(modules) = module.and_then(|module| module.strip_prefix("only ")) {
                only.push(Only { modules: list(modules).collect(), paths: list(may).collect() });
                continue;
            }
            lines.extend(module.map(|module| Line { module: path(module), may: Vec::new() }));
            let line = lines.last_mut().ok_or_else(|| format!("src/lib.rs: {line:?} names no module"))?;
            line.may.extend(list(may).map(|path| (path, false)));
        }
        Ok(Rules { lines, only })
    }

    /// Modules below `src` that have no line, and lines without a module.
    pub fn without_line(&self, files: &[&str]) -> Vec<String> {
        let modules: BTreeSet<Path> =
            files.iter().map(|file| module_of(file)).filter(|path| !path.is_empty()).collect();
        let has_line = |module: &&Path| self.lines.iter().any(|line| line.module[..] == module[..1]);
        let without = modules.iter().filter(|module| !has_line(module));
        let without: BTreeSet<_> = without.map(|module| format!("src/lib.rs: {} has no line", module[0])).collect();
        let is_of_none =
            |line: &&Line| line.module != [ALL] && !modules.iter().any(|path| path.starts_with(&line.module));
        let of_none = self.lines.iter().filter(is_of_none);
        without
            .into_iter()
            .chain(of_none.map(|line| format!("src/lib.rs: there is no {}", line.module.join("::"))))
            .collect()
    }

    /// What a file imports, or names with its path, that it may not.
    pub fn violations(&mut self, file: &str, text: &str) -> Vec<String> {
        let module = module_of(file);
        let Some(own) =
            self.lines.iter().filter(|line| module.starts_with(&line.module)).max_by_key(|line| line.module.len())
        else {
            return Vec::new();
        };
        let own = own.module.clone();
        let mut violations = Vec::new();
        for (line, target) in paths(&without_tests(&Source::new(text).code)) {
            let Some(target) = resolve(&module, &target) else { continue };
            if !target.starts_with(&own) && !self.allows(&own, &target) {
                violations.push(format!("{file}:{line}: {} may not import {}", own.join("::"), target.join("::")));
            }
        }
        violations
    }

    /// Whether a line allows it, which is noted there.
    fn allows(&mut self, module: &Path, target: &Path) -> bool {
        let top = &module[..1];
        if self
            .only
            .iter()
            .any(|line| starts_with_one(target, &line.paths) && !line.modules.iter().any(|name| name == top))
        {
            return false;
        }
        let mut is_allowed = false;
        let lines = self.lines.iter_mut().filter(|line| line.module == *module || line.module == [ALL]);
        for (may, is_used) in lines.flat_map(|line| &mut line.may) {
            if target.starts_with(may) {
                (*is_used, is_allowed) = (true, true);
            }
        }
        is_allowed
    }

    /// What may be imported and no file that was looked at did: a rule says what is.
    pub fn unused(&self) -> Vec<String> {
        let all = self.lines.iter().flat_map(|line| line.may.iter().map(move |(may, is_used)| (line, may, is_used)));
        let unused = all.filter(|(.., is_used)| !**is_used);
        unused
            .map(|(line, may, _)| format!("src/lib.rs: {} does not import {}", line.module.join("::"), may.join("::")))
            .collect()
    }
}

/// The module that a file is; of the program's, `commands`.
fn module_of(file: &str) -> Path {
    let name = file.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    match name {
        "lib" => Path::new(),
        "main" => path("commands"),
        name => name.split('/').map(str::to_owned).collect(),
    }
}

/// What a path in the file of `module` leads to, from the library's root on; `None` where it stays in the program.
fn resolve(module: &Path, path: &[String]) -> Option<Path> {
    let is_program = module[0] == "commands";
    let (mut target, rest) = match path[0].as_str() {
        "crate" if is_program => return None,
        "crate" | "hbt" => (Path::new(), &path[1..]),
        _ => (module.clone(), path),
    };
    for name in rest {
        match name.as_str() {
            "super" => _ = target.pop()?,
            "self" => {}
            name => target.push(name.to_owned()),
        }
    }
    // What the root has itself are Error and Result.
    if target.first().is_some_and(|name| name.starts_with(char::is_uppercase)) {
        target.insert(0, "error".to_owned());
    }
    Some(target)
}

/// All paths from `crate`, `hbt` or `super` on, with their lines; of a tree, each of its paths.
fn paths(code: &str) -> Vec<(usize, Path)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("::") {
        let before = &code[..at];
        let start = before.rfind(|c: char| !(c.is_alphanumeric() || c == '_')).map_or(0, |i| i + 1);
        let is_first = !before[..start].trim_end().ends_with("::");
        if is_first && matches!(&before[start..], "crate" | "hbt" | "super") {
            tree(code, start, &mut Path::new(), &mut found);
        }
    }
    found
}

/// Reads a path or a tree that begins at `at`, behind `before`, and gives where it ends.
fn tree(code: &str, mut at: usize, before: &mut Path, found: &mut Vec<(usize, Path)>) -> usize {
    let depth = before.len();
    let skip = |at: usize| at + (code[at..].len() - code[at..].trim_start().len());
    let first = at;
    loop {
        let rest = &code[at..];
        let word = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        if word > 0 {
            before.push(rest[..word].to_owned());
            at += word;
            if code[at..].starts_with("::") {
                at += "::".len();
                continue;
            }
        } else if rest.starts_with('{') {
            at = skip(at + 1);
            while !code[at..].starts_with('}') && at < code.len() {
                let end = tree(code, at, before, found);
                let end = skip(code[end..].find([',', '}']).map_or(code.len(), |n| end + n));
                at = if code[end..].starts_with(',') { skip(end + 1) } else { end };
            }
            before.truncate(depth);
            return (at + 1).min(code.len());
        }
        found.push((code[..first].matches('\n').count() + 1, before.clone()));
        before.truncate(depth);
        return at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: &str = "//! # Who may import whom\n//!\n//! Prose.\n//!\n//! ```text\n//! *: error\n//! cli: plan::Target,\n//!     bench\n\
                       //! plan: data\n//! plan::words:\n//! commands: cli\n//! only plan: bench::Work\n//! ```\n";

    fn violations(file: &str, text: &str) -> Vec<String> {
        Rules::parse(LIB).unwrap().violations(file, text)
    }

    #[test]
    fn what_may_be_imported_is_no_violation() {
        for (file, text) in [
            ("src/cli.rs", "use crate::plan::Target;\nuse crate::bench::{Op, ReportRow};\nuse crate::{Error, bench};"),
            ("src/cli/mine.rs", "use super::ConfigArgs;\nuse crate::cli::Cli;\nuse std::io;"),
            (
                "src/plan/mod.rs",
                "use words::plural; // crate::cli\n\n#[cfg(test)]\nmod tests {\n    use crate::cli;\n}\n",
            ),
            ("src/plan/words.rs", "use super::words::a;\nlet a = \"crate::cli\";"),
            ("src/main.rs", "use hbt::{Result, cli};\nuse crate::bench;"),
        ] {
            assert_eq!(violations(file, text), [] as [&str; 0], "{file}");
        }
    }

    #[test]
    fn what_may_not_be_imported_is_found_with_its_line() {
        for (file, text, message) in [
            ("src/cli.rs", "\nuse crate::train::Steps;", "src/cli.rs:2: cli may not import train::Steps"),
            ("src/cli.rs", "use crate::plan::Plan;", "src/cli.rs:1: cli may not import plan::Plan"),
            ("src/cli.rs", "use crate::plan;", "src/cli.rs:1: cli may not import plan"),
            ("src/cli/mine.rs", "use super::super::mine::Rules;", "src/cli/mine.rs:1: cli may not import mine::Rules"),
            ("src/plan/mod.rs", "a::<crate::cli::Cli>();", "src/plan/mod.rs:1: plan may not import cli::Cli"),
            ("src/plan/mod.rs", "$crate::cli::run()", "src/plan/mod.rs:1: plan may not import cli::run"),
            ("src/plan/words.rs", "use super::Plan;", "src/plan/words.rs:1: plan::words may not import plan::Plan"),
            ("src/cli.rs", "use crate::bench::Work;", "src/cli.rs:1: cli may not import bench::Work"),
            ("src/main.rs", "use hbt::plan;", "src/main.rs:1: commands may not import plan"),
        ] {
            assert_eq!(violations(file, text), [message]);
        }
        let text = "use crate::{\n    Error,\n    data::{self, a::{B, C}, d as e},\n    bench,\n};\nuse crate::info;\n";
        let found = [
            "3: cli may not import data",
            "3: cli may not import data::a::B",
            "3: cli may not import data::a::C",
            "3: cli may not import data::d",
            "6: cli may not import info",
        ];
        assert_eq!(violations("src/cli.rs", text), found.map(|found| format!("src/cli.rs:{found}")));
    }

    #[test]
    fn lines_are_complete_and_hold_nothing_else() {
        let mut rules = Rules::parse(LIB).unwrap();
        let files = ["src/lib.rs", "src/main.rs", "src/cli.rs", "src/plan/mod.rs", "src/data/same_answer.rs"];
        assert_eq!(rules.without_line(&files), ["src/lib.rs: data has no line", "src/lib.rs: there is no plan::words"]);
        rules.violations("src/cli.rs", "use crate::{Error, bench};");
        rules.violations("src/main.rs", "use hbt::cli;");
        assert_eq!(
            rules.unused(),
            ["src/lib.rs: cli does not import plan::Target", "src/lib.rs: plan does not import data"]
        );
        assert!(Rules::parse("//! # Modules\n").unwrap_err().contains("no block of text"));
    }
}
