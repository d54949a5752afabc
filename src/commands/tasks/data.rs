//! The data of a task: a directory of the user's, or a data set of the hub, of which the files are fetched as they are needed.

use super::wanted::Part;
use hbt::data::collection::{
    self, Belebele, Collection, Collections, DEFAULT_SUBSET, PairColumns, Pairs, Tables, clsd,
};
use hbt::eval::mteb::table::{Loading, TaskKind, TaskRow};
use hbt::hub::{Dataset, Hub};
use hbt::{Error, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Tasks that mteb reads by code of their own, and so does hbt.
pub const BELEBELE: &str = "BelebeleRetrieval";
pub const CLSD_WMT21: &str = "CrossLingualSemanticDiscriminationWMT21";

/// Where texts are, and how they are laid out.
pub struct TaskData {
    pub root: PathBuf,
    /// The data set, if its files may have to be fetched.
    dataset: Option<Dataset>,
    layout: Layout,
}

enum Layout {
    Collections(Collections),
    Belebele(Belebele),
    Tables(Tables),
}

impl TaskData {
    /// A directory with corpus, queries and judgements.
    pub fn of_directory(root: &Path) -> Result<TaskData> {
        let layout = Layout::Collections(collection::open(root)?);
        Ok(TaskData { root: root.to_owned(), dataset: None, layout })
    }

    /// The data of a task of mteb's: the data set that it pins, or a copy in `directory`.
    pub fn of_row(row: &TaskRow, directory: Option<&Path>) -> Result<TaskData> {
        let dataset = match directory {
            Some(_) => None,
            None => Some(Hub::from_env().dataset(&row.path, Some(&row.revision))?),
        };
        let is_belebele = row.name == BELEBELE;
        let is_collections = row.kind.has_queries() && row.loading != Loading::Own;
        let layout = match (directory, &dataset) {
            (Some(root), _) if is_belebele => Layout::Belebele(Belebele::open(root)?),
            (Some(root), _) if is_collections => Layout::Collections(collection::open(root)?),
            (Some(root), _) => Layout::Tables(Tables::open(root)?),
            (None, Some(dataset)) => {
                let (root, names) = (dataset.directory(), dataset.files());
                if is_belebele {
                    Layout::Belebele(Belebele::of_names(root, names)?)
                } else if is_collections {
                    Layout::Collections(Collections::of_names(root, names)?)
                } else {
                    Layout::Tables(Tables::of_names(root, names)?)
                }
            }
            (None, None) => unreachable!("one of the two is there"),
        };
        let root = directory.or(dataset.as_ref().map(Dataset::directory)).unwrap_or(Path::new("")).to_owned();
        Ok(TaskData { root, dataset, layout })
    }

    /// Subsets of a directory with their splits.
    pub fn subsets(&self) -> Result<Vec<(String, Vec<String>)>> {
        let Layout::Collections(collections) = &self.layout else { return Ok(Vec::new()) };
        let splits = |name: &str| Ok(collections.splits(name)?.into_iter().map(str::to_owned).collect());
        collections.subsets().map(|name| Ok((name.to_owned(), splits(name)?))).collect()
    }

    /// The names of the files below the root that a part is in.
    fn files(&self, Part { split, subset }: &Part) -> Result<Vec<&str>> {
        match &self.layout {
            Layout::Collections(collections) => collections.files(&subset.name, split),
            Layout::Belebele(belebele) => {
                let (corpus, queries) = self.languages(&subset.name)?;
                Ok([belebele.files(corpus)?, belebele.files(queries)?].concat())
            }
            Layout::Tables(tables) => tables.files(&self.config(tables, &subset.name), split),
        }
    }

    /// The names of all files below the root that any part of the task is in.
    pub fn all_files(&self, row: Option<&TaskRow>) -> Result<BTreeSet<&str>> {
        let mut names = BTreeSet::new();
        match &self.layout {
            Layout::Collections(collections) => {
                for subset in collections.subsets() {
                    for split in collections.splits(subset)? {
                        names.extend(collections.files(subset, split)?);
                    }
                }
            }
            Layout::Belebele(belebele) => {
                for language in belebele.languages() {
                    names.extend(belebele.files(language)?);
                }
            }
            Layout::Tables(tables) => {
                let row = row.into_iter().flat_map(|row| row.subsets().iter().map(move |subset| (row, subset)));
                for (row, subset) in row {
                    let config = self.config(tables, &subset.name);
                    names.extend(row.splits.iter().filter_map(|split| tables.files(&config, split).ok()).flatten());
                }
            }
        }
        Ok(names)
    }

    /// A part whose queries search documents.
    pub fn collection(&self, part: &Part) -> Result<Collection> {
        self.fetch(part)?;
        let Part { split, subset } = part;
        match &self.layout {
            Layout::Collections(collections) => collections.load(&subset.name, split),
            Layout::Belebele(belebele) => {
                // The corpus' language comes first.
                let (corpus, queries) = self.languages(&subset.name)?;
                belebele.load(corpus, queries)
            }
            Layout::Tables(tables) => clsd(tables, &self.config(tables, &subset.name), split, &subset.name),
        }
    }

    fn languages<'a>(&self, subset: &'a str) -> Result<(&'a str, &'a str)> {
        let message = || Error::file(&self.root, format!("subset {subset} is not called by two languages"));
        subset.split_once('-').ok_or_else(message)
    }

    /// A part that is pairs of texts, with a number each unless they are translations.
    pub fn pairs(&self, row: &TaskRow, part: &Part) -> Result<Pairs> {
        let Layout::Tables(tables) = &self.layout else {
            return Err(Error::file(&self.root, format!("has no pairs of texts, of which {} is", row.name)));
        };
        self.fetch(part)?;
        let Part { split, subset } = part;
        let config = self.config(tables, &subset.name);
        let [first, second] = row.columns.each_ref().map(|name| [name.as_str()]);
        let gold: Option<&[&str]> = match row.kind {
            TaskKind::BitextMining => None,
            TaskKind::Sts => Some(&["score"]),
            _ => Some(&["labels", "label"]),
        };
        let columns = PairColumns { first: &first, second: &second, gold };
        match row.loading {
            Loading::Parallel => {
                let (from, to) = self.languages(&subset.name)?;
                let mut texts = tables.texts(&config, split, &[from, to])?;
                let second = texts.pop().unwrap_or_default();
                Ok(Pairs { first: texts.pop().unwrap_or_default(), second, gold: Vec::new() })
            }
            Loading::LangColumn => {
                let of_rows = tables.texts(&config, split, &["lang"])?.pop().unwrap_or_default();
                Ok(of_language(tables.pairs(&config, split, columns)?, &of_rows, &subset.name))
            }
            Loading::Ordinary | Loading::Own => tables.pairs(&config, split, columns),
        }
    }

    /// The config of a subset: of its name, one that several share, or that of CLSD's two languages.
    fn config(&self, tables: &Tables, subset: &str) -> String {
        let short = |code| match code {
            "deu" => "de",
            "fra" => "fr",
            other => other,
        };
        let of_two = subset.split_once('-').map(|(from, to)| format!("wmt21.{}.{}", short(from), short(to)));
        let names = [Some(subset.to_owned()), of_two, Some(DEFAULT_SUBSET.to_owned())];
        let is_there = |name: &String| tables.configs().any(|config| config == name);
        let only = || tables.configs().next().map(str::to_owned).filter(|_| tables.configs().count() == 1);
        names.into_iter().flatten().find(is_there).or_else(only).unwrap_or_else(|| subset.to_owned())
    }

    fn fetch(&self, part: &Part) -> Result<()> {
        self.dataset.as_ref().map_or(Ok(()), |dataset| dataset.fetch(self.files(part)?))
    }
}

/// The pairs of the rows whose language is `name`.
fn of_language(all: Pairs, languages: &[String], name: &str) -> Pairs {
    let is_its = |row: &usize| languages.get(*row).is_some_and(|language| language == name);
    let rows: Vec<usize> = (0..all.first.len()).filter(is_its).collect();
    let texts = |of: &[String]| rows.iter().map(|&row| of[row].clone()).collect();
    let gold = rows.iter().filter_map(|&row| all.gold.get(row).copied()).collect();
    Pairs { first: texts(&all.first), second: texts(&all.second), gold }
}
