//! Code, comments and strings of a Rust or CUDA file, told apart.

/// A file's code, its comments and what its strings hold, each as long as the text, with blanks for all else; lines stay
/// lines, and quotes are code.
pub struct Source {
    pub code: String,
    pub comments: String,
    /// `x` for each character.
    pub strings: String,
}

/// Where a reader is.
enum In {
    Code,
    LineComment,
    BlockComment,
    /// In a string that ends with a quote and as many `#`; `None` has escapes.
    Text(Option<usize>),
}

impl Source {
    pub fn new(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let (mut code, mut comments, mut strings) = (String::new(), String::new(), String::new());
        let mut place = In::Code;
        let mut i = 0;
        while i < chars.len() {
            let rest = &chars[i..];
            let (next, n, is_code, is_comment) = match place {
                In::Code if rest.starts_with(&['/', '/']) => (In::LineComment, 2, false, true),
                In::Code if rest.starts_with(&['/', '*']) => (In::BlockComment, 2, false, true),
                In::Code => match string_start(&chars, i) {
                    Some((n, end)) => (In::Text(end), n, true, false),
                    None => (In::Code, char_literal(rest), true, false),
                },
                In::LineComment if rest[0] == '\n' => (In::Code, 1, false, true),
                In::LineComment => (In::LineComment, 1, false, true),
                In::BlockComment if rest.starts_with(&['*', '/']) => (In::Code, 2, false, true),
                In::BlockComment => (In::BlockComment, 1, false, true),
                In::Text(None) if rest[0] == '\\' => (In::Text(None), 2, false, false),
                In::Text(end) if ends_string(rest, end) => (In::Code, 1 + end.unwrap_or(0), true, false),
                In::Text(end) => (In::Text(end), 1, false, false),
            };
            for &c in rest.iter().take(n) {
                let or_blank = |is_there: bool| if is_there || c == '\n' { c } else { ' ' };
                code.push(or_blank(is_code));
                comments.push(or_blank(is_comment));
                strings.push(if c == '\n' { c } else { [' ', 'x'][usize::from(!is_code && !is_comment)] });
            }
            place = next;
            i += n;
        }
        Source { code, comments, strings }
    }
}

/// How many characters begin a string here, if one begins, and what ends it.
fn string_start(chars: &[char], i: usize) -> Option<(usize, Option<usize>)> {
    if chars[i] == '"' {
        return Some((1, None));
    }
    let is_in_word = i > 0 && (chars[i - 1].is_alphanumeric() || chars[i - 1] == '_') && chars[i - 1] != 'b';
    if chars[i] != 'r' || is_in_word {
        return None;
    }
    let hashes = chars[i + 1..].iter().take_while(|&&c| c == '#').count();
    (chars.get(i + 1 + hashes) == Some(&'"')).then_some((hashes + 2, Some(hashes)))
}

fn ends_string(rest: &[char], end: Option<usize>) -> bool {
    let hashes = end.unwrap_or(0);
    rest[0] == '"' && rest[1..].iter().take(hashes).filter(|&&c| c == '#').count() == hashes
}

/// Characters of the literal that begins here, such as `'"'`; 1 where none does, which may be a lifetime.
fn char_literal(rest: &[char]) -> usize {
    match rest {
        ['\'', '\\', _, '\'', ..] => 4,
        ['\'', c, '\'', ..] if *c != '\\' => 3,
        _ => 1,
    }
}

/// `code` with blanks for modules that only tests have.
pub fn without_tests(code: &str) -> String {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let (mut out, mut lines) = (String::new(), code.lines().peekable());
    while let Some(line) = lines.next() {
        out += line;
        out.push('\n');
        if line.trim() != "#[cfg(test)]" || !lines.peek().is_some_and(|next| next.trim_start().starts_with("mod ")) {
            continue;
        }
        for inner in lines.by_ref() {
            out.push('\n');
            let ends = inner.trim_end().ends_with(';') || inner.trim() == "}";
            if ends && indent(inner) == indent(line) {
                break;
            }
        }
    }
    out
}

#[test]
fn code_and_comments_are_told_apart() {
    let source = Source::new("a // \"b\nc(\"// d\\\"\", '\"', r#\"e\"f\"#, &'g h) /* i\n */ j\n");
    assert_eq!(source.code, "a      \nc(\"      \", '\"', r#\"   \"#, &'g h)     \n    j\n");
    assert_eq!(source.comments, "  // \"b\n                                  /* i\n */  \n");
}

#[test]
fn modules_of_tests_are_left_out() {
    let code = "a\n#[cfg(test)]\nmod tests {\n    b {\n    }\n}\nc\n#[cfg(test)]\nmod other;\nd\n";
    assert_eq!(without_tests(code), "a\n#[cfg(test)]\n\n\n\n\nc\n#[cfg(test)]\n\nd\n");
}
