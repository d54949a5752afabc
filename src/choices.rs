//! What users choose from by a word: enums, values that may be left to hbt, and the word that was probably meant.

use std::fmt;

/// A value, or the one that suits the machine or the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auto<T> {
    /// As hbt finds it.
    #[default]
    Auto,
    /// This one.
    Of(T),
}

impl<T> Auto<T> {
    /// The value, where it is one.
    pub fn given(self) -> Option<T> {
        match self {
            Auto::Auto => None,
            Auto::Of(value) => Some(value),
        }
    }

    /// The value, or else this one.
    pub fn or(self, otherwise: T) -> T {
        self.given().unwrap_or(otherwise)
    }

    /// The value, or else what `find` finds.
    pub fn or_else(self, find: impl FnOnce() -> T) -> T {
        self.given().unwrap_or_else(find)
    }
}

impl<T> From<T> for Auto<T> {
    fn from(value: T) -> Self {
        Auto::Of(value)
    }
}

impl<T: fmt::Display> fmt::Display for Auto<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Auto::Auto => f.pad("auto"),
            Auto::Of(value) => value.fmt(f),
        }
    }
}

/// Declares enums whose variants are spelled in configuration files, on the command line and in reports as given
/// here; each gets `ALL`, `Display` and `FromStr`.
macro_rules! choices {
    ($(
        $(#[$meta:meta])*
        $name:ident { $( $(#[$variant_meta:meta])* $variant:ident = $text:literal, )+ }
    )+) => { $(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $( $(#[$variant_meta])* $variant, )+ }

        impl $name {
            /// Every choice, in the order in which help, messages and tables list them.
            pub const ALL: &[Self] = &[$(Self::$variant),+];
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self { $(Self::$variant => $text),+ })
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> std::result::Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(format!("unknown word {text:?}; use one of {}", [$($text),+].join(", "))),
                }
            }
        }
    )+ };
}

pub(crate) use choices;

/// Least similarity (0 to 1) at which a word counts as a typing error.
const NEAR: f64 = 0.6;

/// The candidate most similar to `word`, if any is similar. Case and the kind of dash do not count.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.trim().to_lowercase().replace(['-', ' ', '.'], "_");
    let word = plain(word);
    candidates
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(&word, &plain(candidate)), candidate))
        .filter(|(similarity, _)| *similarity >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_near_and_far_is_nothing() {
        assert_eq!(nearest("Cross-Lingual", ["monolingual", "cross_lingual"]), Some("cross_lingual"));
        assert_eq!(nearest("hybird", ["monolingual", "hybrid"]), Some("hybrid"));
        assert_eq!(nearest("zebra", ["monolingual", "hybrid"]), None);
    }
}
