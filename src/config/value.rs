//! Types of configuration keys: how each is read from TOML, written back and described.

use std::fmt;
use std::ops::Bound;
use std::path::PathBuf;

use toml::Value as Toml;

use super::choices::*;
use crate::eval::tasks::TASKS;

/// Range of the numbers that a key accepts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bounds(Bound<f64>, Bound<f64>);

/// No bounds; also for keys that hold no number.
pub(super) const ANY: Bounds = Bounds(Bound::Unbounded, Bound::Unbounded);

/// `low` and more.
pub(super) const fn at_least(low: f64) -> Bounds {
    Bounds(Bound::Included(low), Bound::Unbounded)
}

/// More than `low`.
pub(super) const fn above(low: f64) -> Bounds {
    Bounds(Bound::Excluded(low), Bound::Unbounded)
}

/// `low` to `high`, both included.
pub(super) const fn between(low: f64, high: f64) -> Bounds {
    Bounds(Bound::Included(low), Bound::Included(high))
}

/// More than `low` and less than `high`.
pub(super) const fn within(low: f64, high: f64) -> Bounds {
    Bounds(Bound::Excluded(low), Bound::Excluded(high))
}

/// `low` to `high`, without `high` itself.
pub(super) const fn below(low: f64, high: f64) -> Bounds {
    Bounds(Bound::Included(low), Bound::Excluded(high))
}

impl Bounds {
    /// `number`, if it is finite and within the bounds.
    fn admit(self, number: f64) -> Option<f64> {
        use std::ops::RangeBounds;
        (number.is_finite() && (self.0, self.1).contains(&number)).then_some(number)
    }
}

/// Text that continues "a number".
impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Bounds(Bound::Included(low), Bound::Included(high)) => write!(f, " from {low} to {high}"),
            Bounds(Bound::Included(low), Bound::Excluded(high)) => write!(f, " from {low} to below {high}"),
            Bounds(Bound::Included(low), _) => write!(f, " of at least {low}"),
            Bounds(Bound::Excluded(low), Bound::Excluded(high)) => write!(f, " above {low} and below {high}"),
            Bounds(Bound::Excluded(low), _) => write!(f, " above {low}"),
            Bounds(Bound::Unbounded, _) => Ok(()),
        }
    }
}

/// The type of a key.
pub(super) trait KeyType: Sized {
    /// Whether any text is a value, so that `--set out=2024` means the text "2024".
    const IS_TEXT: bool = false;

    /// Description of valid values that continues "must be".
    fn expects(bounds: &Bounds) -> String;
    /// The words to choose from, if the type is a choice.
    fn choices() -> Vec<String> {
        Vec::new()
    }
    /// The value; `None` if it has the wrong type, is out of bounds or is not among the choices.
    fn read(value: &Toml, bounds: &Bounds) -> Option<Self>;
    /// A more specific reason why a value cannot be read, if there is one.
    fn complaint(_: &Toml) -> Option<String> {
        None
    }
    /// The value as TOML.
    fn write(&self) -> String;
}

impl KeyType for bool {
    fn expects(_: &Bounds) -> String {
        "true or false".to_owned()
    }
    fn read(value: &Toml, _: &Bounds) -> Option<Self> {
        value.as_bool()
    }
    fn write(&self) -> String {
        self.to_string()
    }
}

impl KeyType for u64 {
    fn expects(bounds: &Bounds) -> String {
        format!("a whole number{bounds}")
    }
    fn read(value: &Toml, bounds: &Bounds) -> Option<Self> {
        let number = value.as_integer()?;
        bounds.admit(number as f64)?;
        number.try_into().ok()
    }
    fn write(&self) -> String {
        self.to_string()
    }
}

impl KeyType for usize {
    fn expects(bounds: &Bounds) -> String {
        u64::expects(bounds)
    }
    fn read(value: &Toml, bounds: &Bounds) -> Option<Self> {
        u64::read(value, bounds)?.try_into().ok()
    }
    fn write(&self) -> String {
        self.to_string()
    }
}

impl<T: KeyType> KeyType for Auto<T> {
    fn expects(bounds: &Bounds) -> String {
        format!("{}, or {AUTO}", T::expects(bounds))
    }
    fn choices() -> Vec<String> {
        let mut choices = T::choices();
        choices.push(AUTO.to_owned());
        choices
    }
    fn read(value: &Toml, bounds: &Bounds) -> Option<Self> {
        match value.as_str() {
            Some(AUTO) => Some(Auto::Auto),
            _ => T::read(value, bounds).map(Auto::Of),
        }
    }
    fn write(&self) -> String {
        match self {
            Auto::Auto => quoted(AUTO),
            Auto::Of(value) => value.write(),
        }
    }
}

impl KeyType for f64 {
    fn expects(bounds: &Bounds) -> String {
        format!("a number{bounds}")
    }
    fn read(value: &Toml, bounds: &Bounds) -> Option<Self> {
        let number = value.as_float().or_else(|| value.as_integer().map(|i| i as f64))?;
        bounds.admit(number)
    }
    fn write(&self) -> String {
        // `Debug` gives the shortest text that reads back the same, with an exponent if that is shorter: 3e-5.
        format!("{self:?}")
    }
}

impl KeyType for String {
    const IS_TEXT: bool = true;

    fn expects(_: &Bounds) -> String {
        "text".to_owned()
    }
    fn read(value: &Toml, _: &Bounds) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
    fn write(&self) -> String {
        quoted(self)
    }
}

impl KeyType for PathBuf {
    const IS_TEXT: bool = true;

    fn expects(_: &Bounds) -> String {
        "a path".to_owned()
    }
    fn read(value: &Toml, _: &Bounds) -> Option<Self> {
        value.as_str().filter(|path| !path.is_empty()).map(PathBuf::from)
    }
    fn write(&self) -> String {
        quoted(&self.to_string_lossy())
    }
}

fn quoted(text: &str) -> String {
    Toml::from(text).to_string()
}

impl<T: KeyType> KeyType for Vec<T> {
    fn expects(bounds: &Bounds) -> String {
        format!("a list in brackets, each {}", T::expects(bounds))
    }
    fn read(value: &Toml, bounds: &Bounds) -> Option<Self> {
        value.as_array()?.iter().map(|item| T::read(item, bounds)).collect()
    }
    fn write(&self) -> String {
        format!("[{}]", self.iter().map(T::write).collect::<Vec<_>>().join(", "))
    }
}

/// The word for a value that hbt finds.
const AUTO: &str = "auto";

/// An unset value is written as "none", so that a saved configuration names every key.
const NONE: &str = "none";

impl<T: KeyType> KeyType for Option<T> {
    const IS_TEXT: bool = T::IS_TEXT;

    fn expects(bounds: &Bounds) -> String {
        format!("{}, or {NONE}", T::expects(bounds))
    }
    fn choices() -> Vec<String> {
        T::choices()
    }
    fn read(value: &Toml, bounds: &Bounds) -> Option<Self> {
        match value.as_str() {
            Some(NONE) => Some(None),
            _ => T::read(value, bounds).map(Some),
        }
    }
    fn write(&self) -> String {
        self.as_ref().map_or_else(|| quoted(NONE), T::write)
    }
}

/// Makes types whose values a list holds, each with a `Display` of its own, usable as the type of a key.
macro_rules! listed_types {
    ($($name:ty: $all:expr),+ $(,)?) => { $(
        impl KeyType for $name {
            fn expects(_: &Bounds) -> String {
                format!("one of {}", Self::choices().join(", "))
            }
            fn choices() -> Vec<String> {
                $all.iter().map(ToString::to_string).collect()
            }
            fn read(value: &Toml, _: &Bounds) -> Option<Self> {
                let text = value.as_str()?;
                $all.iter().find(|choice| choice.to_string() == text).copied()
            }
            fn write(&self) -> String {
                quoted(&self.to_string())
            }
        }
    )+ };
}

/// The same of enums with `ALL`.
macro_rules! choice_types {
    ($($name:ident),+ $(,)?) => { listed_types!($($name: $name::ALL),+); };
}

choice_types!(
    BatchMode,
    LangSampling,
    DataFormat,
    DatasetBatches,
    DatasetSampling,
    Distillation,
    Split,
    PassageUnit,
    Pooling,
    LrSchedule,
    Device,
    Precision,
);

listed_types!(&'static Task: TASKS, FigureKey: FigureKey::known());
