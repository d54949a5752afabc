//! The one error type. A message is one line that names the file, line or field and says what to do.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Result of every fallible function of hbt.
pub type Result<T> = std::result::Result<T, Error>;

/// A problem that the user can solve. A bug in hbt is a panic instead.
#[derive(Debug)]
pub enum Error {
    /// A configuration key has a value that cannot work.
    Config {
        /// The key as the user writes it.
        key: String,
        /// The problem and its solution.
        message: String,
    },
    /// A file has invalid content.
    File {
        /// The file or directory.
        path: PathBuf,
        /// 1-based line, if the file has lines.
        line: Option<u64>,
        /// The problem and its solution.
        message: String,
    },
    /// The operating system refused something.
    Io {
        /// The action that failed, as an infinitive: "read", "write", "create".
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The command line asks for something that does not exist, or for two things that exclude each other; the message
    /// is complete in itself.
    Usage(String),
    /// Anything else; the message is complete in itself.
    Other(String),
}

impl Error {
    /// The value of a configuration key cannot work.
    pub fn config(key: impl Into<String>, message: impl Into<String>) -> Self {
        Error::Config { key: key.into(), message: message.into() }
    }

    /// The content of a file is invalid.
    pub fn file(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Error::File { path: path.as_ref().to_owned(), line: None, message: message.into() }
    }

    /// A line (1-based) of a file is invalid.
    pub fn line(path: impl AsRef<Path>, line: u64, message: impl Into<String>) -> Self {
        Error::File { path: path.as_ref().to_owned(), line: Some(line), message: message.into() }
    }

    /// The operating system refused `action` ("read", "write", "create", ...) on `path`.
    pub fn io(action: &'static str, path: impl AsRef<Path>, source: io::Error) -> Self {
        Error::Io { action, path: path.as_ref().to_owned(), source }
    }

    /// A command line that cannot be carried out; `message` is complete in itself.
    pub fn usage(message: impl Into<String>) -> Self {
        Error::Usage(message.into())
    }

    /// Anything else; `message` is complete in itself.
    pub fn other(message: impl Into<String>) -> Self {
        Error::Other(message.into())
    }
}

/// A number with its noun, for messages: `1 thread`, `2 threads`.
#[doc(hidden)]
pub fn counted(n: u64, noun: &str) -> String {
    format!("{n} {}", noun_of(n, noun))
}

/// A noun in the number of what it counts.
pub(crate) fn noun_of(n: u64, noun: &str) -> String {
    format!("{noun}{}", if n == 1 { "" } else { "s" })
}

/// Names in a list, for messages: the first ten, and how many there are besides.
pub fn listed(names: &[String]) -> String {
    const MOST: usize = 10;
    match names.len().checked_sub(MOST) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..MOST].join(", ")),
    }
}

/// `text` for a terminal or a log: control characters, which names and data may hold and a terminal would obey, as JSON's
/// escapes, such as `\u001b`; ends of lines and tabulators stay. All that the program prints for people passes through here,
/// in [`progress`](crate::progress) and in the program's own `print`.
#[doc(hidden)]
pub fn printable(text: &str) -> Cow<'_, str> {
    let is_obeyed = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut printable = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_obeyed(c) { printable += &format!("\\u{:04x}", u32::from(c)) } else { printable.push(c) }
    }
    Cow::Owned(printable)
}

impl fmt::Display for Error {
    /// One line: names and data may have ends of lines in them, which are shown as escapes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        match text.contains(['\n', '\r']) {
            true => f.write_str(&text.replace('\n', "\\n").replace('\r', "\\r")),
            false => f.write_str(&text),
        }
    }
}

impl Error {
    fn text(&self) -> String {
        match self {
            Error::Config { key, message } => format!("{key}: {message}"),
            Error::File { path, line: Some(line), message } => format!("{}, line {line}: {message}", path.display()),
            Error::File { path, line: None, message } => format!("{}: {message}", path.display()),
            Error::Io { action, path, source } => {
                let remedy = match source.kind() {
                    io::ErrorKind::NotFound => "; check the path",
                    io::ErrorKind::PermissionDenied => "; check the permissions",
                    io::ErrorKind::StorageFull => "; free some disk space and run the command again",
                    io::ErrorKind::FileTooLarge => {
                        "; raise the limit on the size of files (ulimit -f), and run the command again"
                    }
                    _ => "",
                };
                format!("cannot {action} {}: {source}{remedy}", path.display())
            }
            Error::Usage(message) | Error::Other(message) => message.clone(),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
