//! C++ as far as kernels need it: words, numbers and signs, each with its place, and the lines of the preprocessor.

use super::Fault;
use std::rc::Rc;

/// Where something stands in the sources.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub file: Rc<str>,
    pub line: usize,
    pub column: usize,
}

impl Place {
    pub fn fault(&self, message: impl Into<String>) -> Fault {
        Fault { place: self.clone(), message: message.into() }
    }
}

#[derive(Clone, Debug)]
pub struct Token {
    pub text: Rc<str>,
    pub place: Place,
    /// Macros that it comes from, which do not expand in it again.
    pub from: Vec<Rc<str>>,
    /// Whether it touches the token before: what tells `#define F(x)` from `#define F (x)`.
    pub touches: bool,
}

impl Token {
    pub fn is(&self, text: &str) -> bool {
        &*self.text == text
    }

    pub fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
    }
}

/// A line of the preprocessor without its `#`, or all that stands between two of them.
pub enum Piece {
    Directive(Vec<Token>),
    Text(Vec<Token>),
}

/// Signs of more than one character that kernels are written with, the longest first.
const SIGNS: [&str; 24] = [
    "...", "<<=", ">>=", "##", "::", "->", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "++", "--", "+=", "-=",
    "*=", "/=", "%=", "&=", "|=", "^=",
];

struct Reader<'a> {
    file: Rc<str>,
    rest: &'a str,
    line: usize,
    column: usize,
}

/// The text of a file, in pieces.
pub fn pieces(file: &str, text: &str) -> Result<Vec<Piece>, Fault> {
    let mut reader = Reader { file: file.into(), rest: text, line: 1, column: 1 };
    let (mut pieces, mut tokens) = (Vec::new(), Vec::new());
    let mut at_line_start = true;
    loop {
        let (spaces, new_line) = reader.skip_spaces(false)?;
        at_line_start |= new_line;
        let Some(token) = reader.token(!spaces)? else { break };
        if at_line_start && token.is("#") {
            pieces.push(Piece::Text(std::mem::take(&mut tokens)));
            pieces.push(Piece::Directive(reader.directive()?));
            continue;
        }
        at_line_start = false;
        tokens.push(token);
    }
    pieces.push(Piece::Text(tokens));
    Ok(pieces)
}

impl Reader<'_> {
    fn place(&self) -> Place {
        Place { file: self.file.clone(), line: self.line, column: self.column }
    }

    fn advance(&mut self, bytes: usize) {
        for c in self.rest[..bytes].chars() {
            (self.line, self.column) = if c == '\n' { (self.line + 1, 1) } else { (self.line, self.column + 1) };
        }
        self.rest = &self.rest[bytes..];
    }

    /// Skips spaces, comments and joined lines: whether there were any, and whether a line ended. `within` one, it stops
    /// there.
    fn skip_spaces(&mut self, within: bool) -> Result<(bool, bool), Fault> {
        let (before, mut new_line) = (self.rest.len(), false);
        loop {
            let rest = self.rest;
            if rest.starts_with("\\\n") {
                self.advance(2);
            } else if rest.starts_with("//") {
                self.advance(rest.find('\n').unwrap_or(rest.len()));
            } else if rest.starts_with("/*") {
                let end = rest.find("*/").ok_or_else(|| self.place().fault("this comment has no end"))?;
                self.advance(end + 2);
            } else if rest.starts_with('\n') && within {
                break;
            } else if let Some(c) = rest.chars().next().filter(|c| c.is_whitespace()) {
                new_line |= c == '\n';
                self.advance(c.len_utf8());
            } else {
                break;
            }
        }
        Ok((self.rest.len() < before, new_line))
    }

    /// The rest of a line that begins with `#`.
    fn directive(&mut self) -> Result<Vec<Token>, Fault> {
        let mut tokens = Vec::new();
        loop {
            let (spaces, _) = self.skip_spaces(true)?;
            if self.rest.is_empty() || self.rest.starts_with('\n') {
                return Ok(tokens);
            }
            tokens.extend(self.token(!spaces)?);
        }
    }

    fn token(&mut self, touches: bool) -> Result<Option<Token>, Fault> {
        let Some(first) = self.rest.chars().next() else { return Ok(None) };
        let place = self.place();
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let until = |end: &dyn Fn(char) -> bool| self.rest.find(end).unwrap_or(self.rest.len());
        let length = if first.is_ascii_digit() {
            until(&|c| !(is_word(c) || c == '.'))
        } else if is_word(first) {
            until(&|c| !is_word(c))
        } else if first == '"' || first == '\'' {
            self.quoted(first).ok_or_else(|| place.fault("this quote has no end"))?
        } else {
            SIGNS.iter().find(|sign| self.rest.starts_with(**sign)).map_or(first.len_utf8(), |sign| sign.len())
        };
        let text = self.rest[..length].into();
        self.advance(length);
        Ok(Some(Token { text, place, from: Vec::new(), touches }))
    }

    /// The length of what stands in quotes, with them.
    fn quoted(&self, quote: char) -> Option<usize> {
        let mut is_escaped = true;
        for (i, c) in self.rest.char_indices() {
            if c == quote && !is_escaped {
                return Some(i + 1);
            }
            is_escaped = c == '\\' && !is_escaped;
        }
        None
    }
}
