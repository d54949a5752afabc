//! Tasks with their data, found before anything is computed.

use super::data::TaskData;
use super::wanted::Wanted;
use hbt::cli::EvalArgs;
use hbt::config::{Auto, Config};
use hbt::data::collection::{DEFAULT_SUBSET, splits_meant};
use hbt::data::formats::{Purpose, Split};
use hbt::error::listed;
use hbt::eval::mteb::languages::LanguageFilter;
use hbt::eval::mteb::table::{Subset, TaskRow};
use hbt::progress::say;
use hbt::{Error, Result};
use std::path::Path;

/// A subset of a task in one split.
pub struct Part {
    pub split: String,
    pub subset: Subset,
}

/// A task with its data.
pub struct Planned {
    /// mteb's name, or the directory's.
    pub name: String,
    /// The row of the table; `None`: a directory of the user's.
    pub row: Option<&'static TaskRow>,
    /// The commit of the data set; `None`: a copy of the user's.
    pub revision: Option<String>,
    pub main_score: String,
    /// Splits of a subset follow one another.
    pub parts: Vec<Part>,
    pub data: TaskData,
}

/// What is wanted of a task's data.
#[derive(Clone, Copy)]
pub struct Selection<'a> {
    /// A directory, or the name of a data set on the hub; `None`: the one that mteb pins.
    pub data: Option<&'a Path>,
    pub split: Auto<Split>,
    pub purpose: Purpose,
    /// As `--languages` has them.
    pub languages: Option<&'a str>,
}

impl Planned {
    /// Finds the data of all tasks. Of several that have none, each is said, so that all can be fetched.
    ///
    /// # Errors
    /// Data that is not there, or has no subset in the languages that are asked for.
    pub fn all(wanted: &[&Wanted], args: &EvalArgs, config: &Config) -> Result<Vec<Planned>> {
        let selection = Selection {
            data: config.eval_data.as_deref(),
            split: config.eval_split,
            purpose: Purpose::Test,
            languages: args.languages.as_deref(),
        };
        let (mut planned, mut errors) = (Vec::new(), Vec::new());
        for wanted in wanted {
            let found = match wanted {
                Wanted::Own(_) => unreachable!("such tasks are evaluated elsewhere"),
                Wanted::Directory => Planned::of_directory(selection),
                Wanted::Row(row, subsets) => Planned::of_row(row, subsets.as_deref(), selection),
            };
            match found {
                Ok(task) => planned.push(task),
                Err(error) => errors.push(error),
            }
        }
        match errors.len() {
            0 => Ok(planned),
            1 => Err(errors.remove(0)),
            n => {
                errors.iter().for_each(|error| say(&format!("no data: {error}")));
                let n_tasks = wanted.len();
                Err(Error::other(format!("{n} of {n_tasks} tasks have no data, as said above; nothing was evaluated")))
            }
        }
    }

    /// A directory with corpus, queries and judgements, or a data set of the hub that is one.
    fn of_directory(selection: Selection) -> Result<Planned> {
        let Some(root) = selection.data else {
            return Err(Error::config("eval_data", "is missing; name the directory to evaluate on with --data"));
        };
        let data = TaskData::of_directory(root)?;
        let subsets = data.subsets()?;
        let (mut parts, mut unsaid) = (Vec::new(), Vec::new());
        for (name, there) in in_languages(root, &subsets, selection.languages)? {
            let names: Vec<&str> = there.iter().map(String::as_str).collect();
            let splits = splits_meant(&names, selection.split, selection.purpose);
            if splits.is_empty() {
                let message = format!("subset {name} has no split {}; there is {}", selection.split, listed(there));
                return Err(Error::file(root, message));
            }
            if selection.split == Auto::Auto && (there.len() > 1 || splits[0] != "test") {
                unsaid.extend(splits.clone());
            }
            let subset = Subset { languages: vec![name.clone()], name: name.clone() };
            parts.extend(splits.into_iter().map(|split| Part { split, subset: subset.clone() }));
        }
        unsaid.sort();
        unsaid.dedup();
        if !unsaid.is_empty() {
            say(&format!("{}: split {} is measured; choose with --split", root.display(), listed(&unsaid)));
        }
        Ok(Planned {
            name: data.name.clone(),
            row: None,
            revision: data.commit().map(str::to_owned),
            main_score: "ndcg_at_10".to_owned(),
            parts,
            data,
        })
    }

    /// One of mteb's tasks, or some subsets of it.
    pub fn of_row(row: &'static TaskRow, subsets: Option<&[String]>, selection: Selection) -> Result<Planned> {
        let filter = selection.languages.map(LanguageFilter::parse).transpose()?;
        let splits = match (selection.split, selection.purpose) {
            // As mteb.
            (Auto::Auto, Purpose::Test) => row.splits.clone(),
            (asked, purpose) => {
                splits_meant(&row.splits.iter().map(String::as_str).collect::<Vec<_>>(), asked, purpose)
            }
        };
        if splits.is_empty() {
            let (name, split) = (&row.name, selection.split);
            let message = format!("{name} has no split {split}; mteb evaluates {}", listed(&row.splits));
            return Err(Error::config("--split", message));
        }
        let is_wanted = |subset: &&Subset| {
            subsets.is_none_or(|subsets| subsets.contains(&subset.name))
                && filter.as_ref().is_none_or(|filter| filter.selects(&subset.languages))
        };
        let of_subset = |subset: &Subset| {
            let part = |split: &String| Part { split: split.clone(), subset: subset.clone() };
            splits.iter().map(part).collect::<Vec<_>>()
        };
        let parts: Vec<Part> = row.subsets().iter().filter(is_wanted).flat_map(of_subset).collect();
        if parts.is_empty() {
            let asked = selection.languages.unwrap_or_default();
            let message = format!("no subset of {} is in {asked} alone; hbt eval --list shows its languages", row.name);
            return Err(Error::config("--languages", message));
        }
        Ok(Planned {
            name: row.name.clone(),
            row: Some(row),
            revision: selection.data.is_none().then(|| row.revision.clone()),
            main_score: row.main_score.clone(),
            parts,
            data: TaskData::of_row(row, selection.data)?,
        })
    }

    /// What ranks compare before they evaluate together: a line for each part.
    pub fn in_words(&self) -> String {
        let line = |part: &Part| {
            let revision = self.revision.as_deref().unwrap_or("a copy");
            format!("{} ({revision}), subset {} in split {}\n", self.name, part.subset.name, part.split)
        };
        self.parts.iter().map(line).collect()
    }

    /// Whether a document whose id is the query's is taken out of its ranking.
    pub fn ignores_identical_ids(&self) -> bool {
        self.row.is_some_and(|row| row.ignores_identical_ids)
    }
}

/// The subsets that are asked for by their names, or by the languages that these are.
fn in_languages<'a>(
    root: &Path,
    subsets: &'a [(String, Vec<String>)],
    asked: Option<&str>,
) -> Result<Vec<&'a (String, Vec<String>)>> {
    let Some(asked) = asked else { return Ok(subsets.iter().collect()) };
    let names: Vec<&str> = subsets.iter().map(|(name, _)| name.as_str()).collect();
    if names == [DEFAULT_SUBSET] {
        let message = format!("is one set, which does not say its language; take --languages {asked} away");
        return Err(Error::file(root, message));
    }
    let codes: Vec<&str> = asked.split(',').map(str::trim).collect();
    let selected: Vec<_> = match codes.iter().all(|code| names.contains(code)) {
        true => subsets.iter().filter(|(name, _)| codes.contains(&name.as_str())).collect(),
        false => match LanguageFilter::parse(asked) {
            Ok(filter) => subsets.iter().filter(|(name, _)| filter.selects_named(name)).collect(),
            Err(_) => Vec::new(),
        },
    };
    if selected.is_empty() {
        let there = names.join(", ");
        return Err(Error::file(
            root,
            format!("none of its subsets is in {asked} alone (--languages); there is {there}"),
        ));
    }
    Ok(selected)
}
