//! Lists of tables as values of keys: `[[datasets]]` and `[[evaluations]]`.

use toml::{Table, Value as Toml};

use super::suggest::nearest_key;
use super::value::{ANY, Bounds, KeyType};

/// The table that `value` is, if it has none but these fields; the error says what is wrong with it.
pub(super) fn table<'a>(value: &'a Toml, fields: &[&'static str]) -> Result<&'a Table, String> {
    let Some(table) = value.as_table() else { return Err("is no table".to_owned()) };
    if let Some(unknown) = table.keys().find(|key| !fields.contains(&key.as_str())) {
        let near = nearest_key(unknown, fields.iter().copied()).filter(|near| fields.contains(near));
        let near = near.map_or(format!("there are {}", fields.join(", ")), |near| format!("did you mean {near}?"));
        return Err(format!("has an unknown key {unknown:?}; {near}"));
    }
    Ok(table)
}

/// A field that may say "none", as the keys of the same names may.
pub(super) fn optional<T: KeyType>(table: &Table, key: &str) -> Result<Option<T>, String> {
    field::<Option<T>>(table, key, &ANY).map(Option::flatten)
}

/// A field, if the table has it.
pub(super) fn field<T: KeyType>(table: &Table, key: &str, bounds: &Bounds) -> Result<Option<T>, String> {
    let Some(value) = table.get(key) else { return Ok(None) };
    let wrong = || format!("has {key} = {value}, which must be {}", T::expects(bounds));
    T::read(value, bounds).map(Some).ok_or_else(wrong)
}

/// All tables of a list, each as `read` reads it; an error has the number of its table.
pub(super) fn read_all<T>(value: &Toml, read: fn(&Toml) -> Result<T, String>) -> Result<Vec<T>, String> {
    let tables = value.as_array().ok_or("is no list of tables")?;
    let read = |(i, table)| read(table).map_err(|message| format!("table {} {message}", i + 1));
    tables.iter().enumerate().map(read).collect()
}

/// A table on one line.
pub(super) fn written(fields: impl IntoIterator<Item = Option<(&'static str, String)>>) -> String {
    let fields: Vec<String> = fields.into_iter().flatten().map(|(key, value)| format!("{key} = {value}")).collect();
    format!("{{ {} }}", fields.join(", "))
}
