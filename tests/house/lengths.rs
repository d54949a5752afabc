//! Files, functions and lines that are too long.

use super::source::Source;

/// Lines of a file of `src`.
const FILE: usize = 400;
/// Lines of a function there.
const FUNCTION: usize = 60;
/// Characters of a line of code: rustfmt.toml's `max_width`.
const CODE: usize = 120;
/// Characters of a line with a comment or a string, neither of which rustfmt breaks.
const TEXT: usize = 130;
/// Characters of a line of a kernel, what ends the line of a macro not counted. rustfmt does not read them.
const KERNEL: usize = 140;

pub fn long_file(file: &str, text: &str) -> Option<String> {
    let n = text.lines().count();
    (n > FILE).then(|| format!("{file}: {n} lines, more than {FILE}; divide it"))
}

/// Of a file that rustfmt has formatted: a function ends where a brace is as far indented as its beginning.
pub fn long_functions(file: &str, text: &str) -> Vec<String> {
    let code = Source::new(text).code;
    let lines: Vec<_> = code.lines().collect();
    let mut violations = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let Some(name) = function(line) else { continue };
        let is_last = |&(n, end): &(usize, &&str)| {
            let closes = n == 0 || end.trim_start().starts_with([')', '}']);
            closes && indent(end) == indent(line) && end.trim_end().ends_with([';', '}'])
        };
        let n = lines[i..].iter().enumerate().find(is_last).map_or(lines.len() - i, |(n, _)| n + 1);
        if n > FUNCTION {
            violations.push(format!("{file}:{}: {name} has {n} lines, more than {FUNCTION}; divide it", i + 1));
        }
    }
    violations
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// The name of the function that a line begins.
fn function(line: &str) -> Option<&str> {
    let before = line.find("fn ")?;
    let is_modifier = |word: &str| {
        matches!(word, "pub" | "const" | "unsafe" | "async" | "extern" | "\"" | "in") || word.starts_with("pub(")
    };
    line[..before].split_whitespace().all(is_modifier).then(|| {
        let name = &line[before + "fn ".len()..];
        &name[..name.find(['(', '<']).unwrap_or(name.len())]
    })
}

/// Of a test, what strings hold is data, such as a row of JSON, and not counted.
pub fn wide_rust(file: &str, text: &str) -> Vec<String> {
    let source = Source::new(text);
    let marks = source.strings.lines().map(|line| line.matches('x').count());
    let has_text = marks.clone().zip(source.comments.lines()).map(|(n, comment)| n > 0 || !comment.trim().is_empty());
    let most = has_text.map(|has_text| if has_text { TEXT } else { CODE });
    let widths = text.lines().map(|line| line.chars().count());
    match file.starts_with("tests/") {
        true => wide(file, widths.zip(marks).map(|(width, data)| width - data), most),
        false => wide(file, widths, most),
    }
}

pub fn wide_kernels(file: &str, text: &str) -> Vec<String> {
    let widths = text.lines().map(|line| line.trim_end_matches('\\').trim_end().chars().count());
    wide(file, widths, std::iter::repeat(KERNEL))
}

/// Lines that are wider than their bounds.
fn wide(file: &str, widths: impl Iterator<Item = usize>, most: impl Iterator<Item = usize>) -> Vec<String> {
    let wide = widths.zip(most).enumerate().filter(|(_, (width, most))| width > most);
    wide.map(|(i, (width, most))| format!("{file}:{}: {width} characters, more than {most}", i + 1)).collect()
}

#[test]
fn a_long_file_is_found() {
    assert_eq!(long_file("a.rs", &"\n".repeat(FILE)), None);
    assert_eq!(long_file("a.rs", &"\n".repeat(FILE + 1)).unwrap(), "a.rs: 401 lines, more than 400; divide it");
}

#[test]
fn a_long_function_is_found() {
    let with = |n: usize| {
        format!(
            "impl A {{\n    pub(super) fn short(&self);\n\n    pub fn f<T>(\n        a: T,\n    ) {{\n{}    }}\n}}\n",
            "        a();\n".repeat(n)
        )
    };
    assert_eq!(long_functions("a.rs", &with(FUNCTION - 4)), [] as [&str; 0]);
    assert_eq!(long_functions("a.rs", &with(FUNCTION - 3)), ["a.rs:4: f has 61 lines, more than 60; divide it"]);
    // Neither prose nor strings are functions, nor do they end one.
    assert_eq!(long_functions("a.rs", &format!("// fn f() {{\n{}", "a();\n".repeat(99))), [] as [&str; 0]);
    let quoted = format!("fn f() {{\n    let a = \"\n}}\n\";\n{}}}\n", "    a();\n".repeat(FUNCTION));
    assert_eq!(long_functions("a.rs", &quoted), ["a.rs:1: f has 65 lines, more than 60; divide it"]);
}

#[test]
fn a_wide_line_is_found() {
    let line = |start: &str, n: usize| format!("a();\n{start}{}\n", "x".repeat(n - start.len()));
    for (start, most) in [("let a = ", CODE), ("// ", TEXT), ("a(); // ", TEXT), ("let a = \"b\"; ", TEXT)] {
        assert_eq!(wide_rust("a.rs", &line(start, most)), [] as [&str; 0]);
        let message = format!("a.rs:2: {} characters, more than {most}", most + 1);
        assert_eq!(wide_rust("a.rs", &line(start, most + 1)), [message]);
    }
    let data = format!("a(\"{}\");\n", "x".repeat(TEXT));
    assert_eq!(wide_rust("tests/a.rs", &data), [] as [&str; 0]);
    assert_eq!(wide_rust("src/a.rs", &data), ["src/a.rs:1: 136 characters, more than 130"]);
    assert_eq!(wide_kernels("a.cu", &format!("{}{}\\\n", "x".repeat(KERNEL), " ".repeat(9))), [] as [&str; 0]);
    assert_eq!(wide_kernels("a.cu", &line("", KERNEL + 1)), ["a.cu:2: 141 characters, more than 140"]);
}
