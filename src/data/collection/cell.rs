//! Values of rows, and those of a JSON object that are wanted.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// The error is a message without file and line.
pub(super) type Parsed<T> = Result<T, String>;

/// A value of a row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    /// Nothing, or no such column.
    Null,
    Text(String),
    /// Booleans are 0 and 1.
    Integer(i64),
    Float(f64),
    List(Vec<Cell>),
    /// What one says in a conversation, by its `role` and `content`.
    Turn(String, String),
    /// Something with parts of its own.
    Other,
}

/// A column that is wanted, by the names that it may have; the first of those that are there is taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column<'a> {
    pub(super) names: &'a [&'a str],
    /// Whether a file without it cannot be read.
    pub(super) is_needed: bool,
}

/// A needed column.
pub(super) const fn needed<'a>(names: &'a [&'a str]) -> Column<'a> {
    Column { names, is_needed: true }
}

/// A column that may be missing.
pub(super) const fn optional<'a>(names: &'a [&'a str]) -> Column<'a> {
    Column { names, is_needed: false }
}

/// The columns that a file lacks, for an error.
pub(super) fn check_columns(columns: &[Column], has: impl Fn(&str) -> bool, all: &[&str]) -> Parsed<()> {
    match columns.iter().find(|column| column.is_needed && !column.names.iter().any(|name| has(name))) {
        None => Ok(()),
        Some(column) => {
            let all = if all.is_empty() { "nothing".to_owned() } else { all.join(", ") };
            Err(format!("no {}; there is {all}", column.names.join(" or ")))
        }
    }
}

/// A line without names, cut at its tabs, or at white space where it has none.
pub(super) fn split(line: &[u8]) -> Parsed<Vec<Cell>> {
    let text = std::str::from_utf8(line)
        .map_err(|e| format!("invalid UTF-8 at byte {} of the line; save the file as UTF-8", e.valid_up_to() + 1))?;
    let text = text.trim_end_matches(['\n', '\r']);
    let cell = |text: &str| Cell::Text(text.to_owned());
    Ok(match text.contains('\t') {
        true => text.split('\t').map(cell).collect(),
        false => text.split_whitespace().map(cell).collect(),
    })
}

/// What stands for nothing in a table of commas: the words that pandas, and so `datasets`, takes for it
/// (pandas.read_csv, `na_values`).
const MISSING: [&str; 19] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
];

/// A cell of a table of commas.
pub(super) fn missing_or_text(cell: Option<&str>) -> Cell {
    cell.filter(|text| !MISSING.contains(text)).map_or(Cell::Null, |text| Cell::Text(text.to_owned()))
}

impl Cell {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Cell::Null => "null",
            Cell::Text(_) => "a text",
            Cell::Integer(_) | Cell::Float(_) => "a number",
            Cell::List(_) => "a list",
            Cell::Turn(..) | Cell::Other => "an object",
        }
    }

    /// An id; whole numbers are ids too.
    pub(super) fn into_id(self, name: &str) -> Parsed<String> {
        match self {
            Cell::Text(id) if !id.is_empty() => Ok(id),
            Cell::Integer(id) => Ok(id.to_string()),
            Cell::Text(_) => Err(format!("{name} is empty; give it an id")),
            Cell::Float(_) => Err(format!("{name} is a number that is not whole, or too long; write it as a text")),
            other => Err(format!("{name} has to be a text or a whole number, not {}", other.kind())),
        }
    }

    /// A text, which may be empty.
    pub(super) fn into_text(self, name: &str) -> Parsed<String> {
        match self {
            Cell::Text(text) => Ok(text),
            other => Err(format!("{name} has to be a text, not {}; give it one, or remove the row", other.kind())),
        }
    }

    /// A whole number, however it is written: 1, "1" or 1.0.
    pub(super) fn to_grade(&self, name: &str) -> Parsed<i32> {
        let whole =
            |number: f64| (number.fract() == 0.0 && number.abs() < f64::from(i32::MAX)).then_some(number as i32);
        let grade = match self {
            Cell::Integer(number) => i32::try_from(*number).ok(),
            Cell::Float(number) => whole(*number),
            Cell::Text(text) => text.trim().parse().ok().or_else(|| whole(text.trim().parse().ok()?)),
            _ => None,
        };
        let said = || match self {
            Cell::Integer(number) => number.to_string(),
            Cell::Float(number) => number.to_string(),
            Cell::Text(text) => format!("{text:?}"),
            other => other.kind().to_owned(),
        };
        grade.ok_or_else(|| format!("{name} has to be a whole number, not {}", said()))
    }
}

/// Reads the wanted columns of a JSON object, and whether those that are needed are there.
pub(super) struct Wanted<'a>(pub(super) &'a [Column<'a>]);

impl<'de> DeserializeSeed<'de> for Wanted<'_> {
    type Value = (Vec<Cell>, bool);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Wanted<'_> {
    type Value = (Vec<Cell>, bool);

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("one JSON object a line")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut cells = vec![Cell::Null; self.0.len()];
        // The place of the name that each cell was found under, among those of its column.
        let mut ranks = vec![usize::MAX; self.0.len()];
        while let Some(place) = members.next_key_seed(Key(self.0))? {
            let Some((column, rank)) = place else {
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            if ranks[column] == rank {
                let name = self.0[column].names[rank];
                return Err(A::Error::custom(format!("the key {name:?} stands twice")));
            }
            let cell = members.next_value()?;
            if rank < ranks[column] {
                (cells[column], ranks[column]) = (cell, rank);
            }
        }
        let is_there = |(column, rank): (&Column, &usize)| !column.is_needed || *rank < usize::MAX;
        Ok((cells, self.0.iter().zip(&ranks).all(is_there)))
    }
}

/// Reads a key as the place of its column and of its name among those of the column.
struct Key<'a>(&'a [Column<'a>]);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = Option<(usize, usize)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = Option<(usize, usize)>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        let place = |column: &Column| column.names.iter().position(|name| *name == key);
        Ok(self.0.iter().enumerate().find_map(|(number, column)| Some((number, place(column)?))))
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

struct CellVisitor;

impl<'de> Visitor<'de> for CellVisitor {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Cell, E> {
        Ok(Cell::Integer(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Cell, E> {
        Ok(Cell::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Cell, E> {
        Ok(i64::try_from(value).map_or(Cell::Float(value as f64), Cell::Integer))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Cell, E> {
        Ok(Cell::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Cell, E> {
        Ok(Cell::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Cell, E> {
        Ok(Cell::Text(value))
    }

    fn visit_unit<E>(self) -> Result<Cell, E> {
        Ok(Cell::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Cell, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Cell::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Cell, A::Error> {
        let (mut role, mut content) = (Cell::Null, Cell::Null);
        while let Some(key) = members.next_key::<String>()? {
            match key.as_str() {
                ROLE => role = members.next_value()?,
                CONTENT => content = members.next_value()?,
                _ => _ = members.next_value::<IgnoredAny>()?,
            }
        }
        Ok(turn(role, content))
    }
}

/// What the parts of a turn are called.
pub(super) const ROLE: &str = "role";
pub(super) const CONTENT: &str = "content";

/// A turn of its parts.
pub(super) fn turn(role: Cell, content: Cell) -> Cell {
    match (role, content) {
        (Cell::Text(role), Cell::Text(content)) => Cell::Turn(role, content),
        _ => Cell::Other,
    }
}
