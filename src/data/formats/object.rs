//! JSON objects as data has them: a key that stands twice, of which one value would be lost, is an error.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{flat, kind};

/// Parses one line as a JSON object; the error is a message without file and line.
pub fn parse_object(line: &[u8]) -> Result<Map<String, Value>, String> {
    let (Whole(value), text) = parse_line(line, PhantomData)?;
    match value {
        Value::Object(mut row) => {
            flat::keep_digits(&mut row, text);
            Ok(row)
        }
        other => Err(format!("expected one JSON object a line, found {}", kind(&other))),
    }
}

/// What `seed` makes of one line, and the line as text; the error is a message without file and line.
pub(in crate::data) fn parse_line<'de, S: DeserializeSeed<'de>>(
    line: &'de [u8],
    seed: S,
) -> Result<(S::Value, &'de str), String> {
    // Without the line's end, so that the column of an error is one of this line.
    let text = std::str::from_utf8(line.trim_ascii_end())
        .map_err(|e| format!("invalid UTF-8 at byte {} of the line; save the file as UTF-8", e.valid_up_to() + 1))?;
    let mut json = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut json).and_then(|value| json.end().map(|()| value)).map_err(|e| {
        if text.contains('\r') {
            return "lines end in a lone carriage return; end them in a line feed: tr '\\r' '\\n'".to_owned();
        }
        // The message ends in a line number of its own, which is always 1 and would mislead.
        let message = e.to_string();
        let what = message.split(" at line ").next().unwrap_or(&message);
        format!("invalid JSON: {what} at column {}", e.column())
    })?;
    Ok((value, text))
}

/// A value all of whose objects have each key once.
struct Whole(Value);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WholeVisitor).map(Whole)
    }
}

struct WholeVisitor;

impl<'de> Visitor<'de> for WholeVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Whole(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = members.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {key:?} stands twice")));
            }
            let Whole(value) = members.next_value()?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_serde_json() {
        for text in [
            r#"{"a": 1, "b": -2, "c": 18446744073709551615, "d": 0.1, "e": 1e300, "f": null, "g": true, "h": "x\n\u00e9"}"#,
            r#"{"a": [{"b": []}, [1, {"c": {}}]], "": {"a": {"a": 1}}}"#,
            "{}",
        ] {
            let expected: Map<String, Value> = serde_json::from_str(text).unwrap();
            assert_eq!(parse_object(text.as_bytes()).unwrap(), expected);
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_named_wherever_it_is() {
        for (text, column) in [
            (r#"{"query": "a", "query": "b"}"#, 22),
            (r#"{"query": {"en": "a", "en": "b"}}"#, 26),
            (r#"{"more": [{"query": 1, "query": null}]}"#, 30),
        ] {
            let key = if text.contains("en") { "en" } else { "query" };
            let message = format!("invalid JSON: the key {key:?} stands twice at column {column}");
            assert_eq!(parse_object(text.as_bytes()).unwrap_err(), message, "{text}");
        }
    }
}
