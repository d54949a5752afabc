//! Which splits of a retrieval task are meant.

use crate::choices::Auto;
use crate::data::formats::part::{wanted, words};
use crate::data::formats::{Purpose, Split};

/// Those that are meant among the splits that are `there`, in their order: all, or the first of the names that the part asked
/// for goes by. Where none is asked for, the one for this purpose, else the first that is there. None where there is no such
/// part.
pub fn splits_meant(there: &[&str], asked: Auto<Split>, purpose: Purpose) -> Vec<String> {
    let of_part = |part: &Split| words(*part).iter().find(|name| there.contains(name)).map(|name| (*name).to_owned());
    let found = match asked {
        Auto::Of(Split::All) => return there.iter().map(|name| (*name).to_owned()).collect(),
        Auto::Of(part) => of_part(&part),
        Auto::Auto => {
            let first = || there.first().map(|name| (*name).to_owned());
            wanted(purpose).iter().find_map(of_part).or_else(first)
        }
    };
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_purpose_decides_where_nothing_is_asked_for() {
        let there = ["dev", "test", "train"];
        for (asked, purpose, expected) in [
            (Auto::Auto, Purpose::Test, "test"),
            (Auto::Auto, Purpose::Validation, "dev"),
            (Auto::Of(Split::Train), Purpose::Test, "train"),
            (Auto::Of(Split::Validation), Purpose::Test, "dev"),
            (Auto::Of(Split::All), Purpose::Validation, "dev test train"),
        ] {
            assert_eq!(splits_meant(&there, asked, purpose).join(" "), expected, "{asked:?} {purpose:?}");
        }
        assert_eq!(splits_meant(&["test-a", "test-b"], Auto::Auto, Purpose::Test), ["test-a"]);
        assert!(splits_meant(&["dev"], Auto::Of(Split::Test), Purpose::Test).is_empty());
    }
}
