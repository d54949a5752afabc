//! The subsets of a task, made when they are first asked for: FloresBitextMining has 41,412.

use std::collections::BTreeMap;
use std::sync::OnceLock;

/// A part of a task's data that has a score of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subset {
    /// mteb's name; `default` where a task has no parts.
    pub name: String,
    /// ISO 639-3 codes with their scripts, `deu-Latn`, in mteb's order.
    pub languages: Vec<String>,
}

/// The subsets as the table has them, and what they come to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Subsets {
    names: Names,
    codes: BTreeMap<String, String>,
    made: OnceLock<Vec<Subset>>,
}

/// Names, divided by spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Of the subsets.
    All(String),
    /// Of the sides of subsets `A-B`, of which there is one for all different A and B, those of the first A first.
    Sides(String),
}

impl Subsets {
    /// With `codes`, the languages of a subset, or of a part of its name; any other part is a code, with `_` for `-`.
    pub(super) fn new(names: Names, codes: BTreeMap<String, String>) -> Self {
        Subsets { names, codes, made: OnceLock::new() }
    }

    /// All of them, in mteb's order.
    pub(super) fn all(&self) -> &[Subset] {
        self.made.get_or_init(|| {
            let subset = |name: String| Subset { languages: self.languages_of(&name), name };
            match &self.names {
                Names::All(names) => names.split(' ').map(str::to_owned).map(subset).collect(),
                Names::Sides(sides) => ordered_pairs(sides).map(subset).collect(),
            }
        })
    }

    /// The different languages in them, in order of appearance.
    pub(super) fn languages(&self) -> Vec<String> {
        let (Names::All(names) | Names::Sides(names)) = &self.names;
        let mut languages: Vec<String> = Vec::new();
        for code in names.split(' ').flat_map(|name| self.languages_of(name)) {
            if !languages.contains(&code) {
                languages.push(code);
            }
        }
        languages
    }

    /// Languages of a subset, or of a side of it.
    fn languages_of(&self, name: &str) -> Vec<String> {
        if let Some(languages) = self.codes.get(name) {
            return languages.split(' ').map(str::to_owned).collect();
        }
        let of_part = |part: &str| self.codes.get(part).cloned().unwrap_or_else(|| part.replace('_', "-"));
        name.split('-').map(of_part).collect()
    }
}

fn ordered_pairs(sides: &str) -> impl Iterator<Item = String> {
    let of = move |a| sides.split(' ').filter(move |&b| a != b).map(move |b| format!("{a}-{b}"));
    sides.split(' ').flat_map(of)
}
