//! The lines of `metrics.jsonl`, in the order in which a run writes them: the evaluation before training, if there is one
//! (step 0), then each step, numbered from 1, and behind a step's line those of the evaluations that were made after it.

use serde::Deserialize;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::iter::Peekable;
use std::path::Path;

/// A line of a run's metrics.
#[derive(Debug)]
pub struct Line {
    /// Number of updates that the run had done.
    pub step: u64,
    /// Whether it is of an evaluation, which names its `task`, and not of an update.
    pub is_evaluation: bool,
    /// The JSON object, without the end of the line.
    pub text: String,
}

impl Line {
    /// A line's text, if it is of a run's metrics.
    pub fn parse(text: String) -> Option<Self> {
        #[derive(Deserialize)]
        struct Head {
            step: u64,
            task: Option<String>,
        }
        let Head { step, task } = serde_json::from_str(&text).ok()?;
        Some(Line { step, is_evaluation: task.is_some(), text })
    }

    /// What it says, by name.
    pub fn values(&self) -> Map<String, Value> {
        serde_json::from_str(&self.text).unwrap_or_default()
    }
}

/// The lines of a file; see [`lines`].
pub struct Lines {
    lines: Peekable<Box<dyn Iterator<Item = io::Result<String>>>>,
    /// Step of the line before
    before: Option<u64>,
    /// Lines read so far
    n_read: u64,
}

/// The lines of `path` one after the other, none where there is no such file. A last line that a kill has cut ends them.
/// Where one is damaged or does not follow the one before it, its number (from 1) comes in its place.
pub fn lines(path: &Path) -> Lines {
    let lines: Box<dyn Iterator<Item = _>> = match File::open(path) {
        Ok(file) => Box::new(BufReader::new(file).lines()),
        Err(_) => Box::new(std::iter::empty()),
    };
    Lines { lines: lines.peekable(), before: None, n_read: 0 }
}

impl Lines {
    /// Every step has a line, and an evaluation is of the step before it, so that another order is not what was written. The
    /// file begins anywhere: one that was moved away does not come back.
    fn follows(&self, line: &Line) -> bool {
        let expected = |before: u64| if line.is_evaluation { Some(before) } else { before.checked_add(1) };
        let is_numbered = line.is_evaluation || line.step > 0;
        is_numbered && self.before.is_none_or(|before| expected(before) == Some(line.step))
    }
}

impl Iterator for Lines {
    type Item = Result<Line, u64>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = self.lines.next()?.ok().and_then(Line::parse);
        self.n_read += 1;
        match line {
            Some(line) if self.follows(&line) => {
                self.before = Some(line.step);
                Some(Ok(line))
            }
            // The last line of a killed run may be incomplete.
            None if self.lines.peek().is_none() => None,
            _ => Some(Err(self.n_read)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps, evaluations with a plus sign, and a damaged line's number in brackets.
    fn read(text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        std::fs::write(&path, text).unwrap();
        let shown = |line: Result<Line, u64>| match line {
            Ok(line) => format!("{}{} ", line.step, if line.is_evaluation { "+" } else { "" }),
            Err(number) => format!("[{number}]"),
        };
        // Who finds damage stops there.
        let mut is_damaged = false;
        lines(&path).take_while(|line| !std::mem::replace(&mut is_damaged, line.is_err())).map(shown).collect()
    }

    #[test]
    fn evaluations_stand_behind_their_steps() {
        let step = |n: u64| format!("{{\"step\":{n},\"loss\":0.5}}\n");
        let evaluation =
            |n: u64, task: &str| format!("{{\"step\":{n},\"task\":{task},\"split\":\"all\",\"map\":0.5}}\n");
        let whole = [evaluation(0, "\"a\""), evaluation(0, "\"b\""), step(1), step(2), evaluation(2, "\"a\""), step(3)];
        assert_eq!(read(&whole.concat()), "0+ 0+ 1 2 2+ 3 ");
        // What a kill has cut, and what it has not.
        assert_eq!(read(&(whole.concat() + "{\"step\":3,\"ta")), "0+ 0+ 1 2 2+ 3 ");
        assert_eq!(read(&("{\"ste\n".to_owned() + &whole.concat())), "[1]");
        // The file before it was moved away.
        assert_eq!(read(&[evaluation(7, "\"a\""), step(8)].concat()), "7+ 8 ");
        assert_eq!(read(&[step(8), evaluation(8, "\"a\"")].concat()), "8 8+ ");
        for (lines, expected) in [
            ([step(1), evaluation(2, "\"a\"")], "1 [2]"),
            ([evaluation(1, "\"a\""), step(1)], "1+ [2]"),
            ([step(1), step(3)], "1 [2]"),
            ([step(0), step(1)], "[1]"),
            ([step(1), evaluation(1, "7") + &step(2)], "1 [2]"),
            ([step(u64::MAX), step(1)], "18446744073709551615 [2]"),
        ] {
            assert_eq!(read(&lines.concat()), expected, "{lines:?}");
        }
    }

    #[test]
    fn without_a_file_there_are_no_lines() {
        assert_eq!(lines(Path::new("no/such/file")).count(), 0);
    }
}
