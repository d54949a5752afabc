//! What users choose from by a word: enums, and values that may be left to hbt.

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
