//! The data of a task: a directory of the user's, or a data set of the hub, of which the files are fetched as they are needed.

use super::planned::Part;
use hbt::data::collection::{
    self, Belebele, Collection, Collections, DEFAULT_SUBSET, PairColumns, Pairs, Tables, clsd,
};
use hbt::eval::mteb::table::{Loading, TaskKind, TaskRow};
use hbt::hub::{Dataset, Hub, is_hub_id};
use hbt::{Error, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Tasks that mteb reads by code of their own, and so does hbt.
pub const BELEBELE: &str = "BelebeleRetrieval";
pub const CLSD_WMT21: &str = "CrossLingualSemanticDiscriminationWMT21";

/// Where texts are, and how they are laid out.
pub struct TaskData {
    pub root: PathBuf,
    /// What the directory is called, or the data set without its owner.
    pub name: String,
    /// The data set, if its files may have to be fetched.
    dataset: Option<Dataset>,
    layout: Layout,
}

enum Layout {
    Collections(Collections),
    Belebele(Belebele),
    Tables(Tables),
}

/// Where a task's files are, before it is known how they are laid out.
struct Source {
    root: PathBuf,
    name: String,
    dataset: Option<Dataset>,
}

impl Source {
    /// A directory; what is none, and may be the name of a data set, is looked for on the hub.
    fn of(path: &Path) -> Result<Source> {
        match hub_id(path) {
            Some(id) => Source::of_dataset(Hub::from_env().dataset(id, None)?, id),
            None => {
                let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
                let name =
                    whole.file_name().map_or_else(|| "retrieval".into(), |name| name.to_string_lossy().into_owned());
                Ok(Source { root: path.to_owned(), name, dataset: None })
            }
        }
    }

    fn pinned(row: &TaskRow) -> Result<Source> {
        Source::of_dataset(Hub::from_env().dataset(&row.path, Some(&row.revision))?, &row.path)
    }

    fn of_dataset(dataset: Dataset, id: &str) -> Result<Source> {
        let name = id.rsplit('/').next().unwrap_or(id).to_owned();
        Ok(Source { root: dataset.directory().to_owned(), name, dataset: Some(dataset) })
    }

    fn with(self, layout: Layout) -> TaskData {
        let Source { root, name, dataset } = self;
        TaskData { root, name, dataset, layout }
    }

    fn collections(&self) -> Result<Collections> {
        match &self.dataset {
            Some(dataset) => Collections::of_names(&self.root, dataset.files()),
            None => collection::open(&self.root),
        }
    }

    fn belebele(&self) -> Result<Belebele> {
        match &self.dataset {
            Some(dataset) => Belebele::of_names(&self.root, dataset.files()),
            None => Belebele::open(&self.root),
        }
    }

    fn tables(&self) -> Result<Tables> {
        match &self.dataset {
            Some(dataset) => Tables::of_names(&self.root, dataset.files()),
            None => Tables::open(&self.root),
        }
    }
}

/// The data set of the hub that a path may mean: nothing is there, nor a folder that it begins with, which would be misspelled.
fn hub_id(path: &Path) -> Option<&str> {
    let id = path.to_str().filter(|id| is_hub_id(id) && id.contains('/'))?;
    (!path.exists() && !path.parent().is_some_and(Path::exists)).then_some(id)
}

/// Whether a path is a directory with corpus, queries and judgements, or a data set of the hub that is laid out so.
pub fn is_collection(path: &Path) -> bool {
    (path.is_dir() || hub_id(path).is_some()) && TaskData::of_directory(path).is_ok()
}

/// The directory that evaluation data is in; of a data set of the hub, with all its tables fetched.
pub fn fetched(path: &Path) -> Result<PathBuf> {
    let Some(id) = hub_id(path) else { return Ok(path.to_owned()) };
    let dataset = Hub::from_env().dataset(id, None)?;
    dataset.fetch(dataset.files().filter(|name| collection::is_table(name)))?;
    Ok(dataset.directory().to_owned())
}

impl TaskData {
    /// A directory with corpus, queries and judgements, or the name of a data set of the hub that is laid out so.
    pub fn of_directory(path: &Path) -> Result<TaskData> {
        let source = Source::of(path)?;
        let layout = Layout::Collections(source.collections()?);
        Ok(source.with(layout))
    }

    /// The data of a task of mteb's: the data set that it pins, or another copy.
    pub fn of_row(row: &TaskRow, copy: Option<&Path>) -> Result<TaskData> {
        let source = copy.map_or_else(|| Source::pinned(row), Source::of)?;
        let layout = if row.name == BELEBELE {
            Layout::Belebele(source.belebele()?)
        } else if row.kind.has_queries() && row.loading != Loading::Own {
            Layout::Collections(source.collections()?)
        } else {
            Layout::Tables(source.tables()?)
        };
        Ok(source.with(layout))
    }

    /// The commit of the data set, if it is one of the hub's.
    pub fn commit(&self) -> Option<&str> {
        self.dataset.as_ref().map(Dataset::commit)
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
