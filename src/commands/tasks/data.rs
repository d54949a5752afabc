//! The data of a task: a directory of the user's, or a data set of the hub, of which the files are fetched as they are needed.

use super::planned::Part;
use hbt::data::collection::{
    self, Belebele, Collection, Collections, DEFAULT_SUBSET, PairColumns, Pairs, Tables, bible_nlp, bible_nlp_config,
    clsd, clsd_config, public_health, xnli,
};
use hbt::eval::mteb::table::{Loading, TaskKind, TaskRow};
use hbt::hub::{Dataset, Hub, is_hub_id};
use hbt::{Error, Result};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What reads the data of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loader {
    /// Corpus, queries and judgements.
    Collections,
    /// Pairs: a table of each subset.
    Pairs,
    /// Pairs: one table, whose column `lang` names the subset.
    LangColumn,
    /// Pairs: one table with a column for each language.
    Parallel,
    Belebele,
    BibleNlp,
    Clsd,
    Cure,
    PublicHealth,
    Xnli,
}

/// Tasks that mteb reads by code of their own, and so does hbt.
const OWN: [(&str, Loader); 6] = [
    ("BelebeleRetrieval", Loader::Belebele),
    ("BibleNLPBitextMining", Loader::BibleNlp),
    ("CrossLingualSemanticDiscriminationWMT21", Loader::Clsd),
    ("CUREv1", Loader::Cure),
    ("PublicHealthQA", Loader::PublicHealth),
    ("XNLI", Loader::Xnli),
];

/// The revision of a data set that mteb pins to no commit.
const NEWEST: &str = "main";

impl Loader {
    fn of(row: &TaskRow) -> Option<Loader> {
        match row.loading {
            Loading::Ordinary if row.kind.has_queries() => Some(Loader::Collections),
            Loading::Ordinary => Some(Loader::Pairs),
            Loading::LangColumn => Some(Loader::LangColumn),
            Loading::Parallel => Some(Loader::Parallel),
            Loading::Own => OWN.iter().find(|(name, _)| *name == row.name).map(|(_, loader)| *loader),
        }
    }

    fn open(self, root: &Path) -> Result<Layout> {
        Ok(match self {
            Loader::Collections => Layout::Collections(collection::open(root)?),
            Loader::Cure => Layout::Collections(Collections::open_cure(root)?),
            Loader::Belebele => Layout::Belebele(Belebele::open(root)?),
            _ => Layout::Tables(Tables::open(root)?),
        })
    }

    fn of_names<'a>(self, root: &Path, names: impl Iterator<Item = &'a str>) -> Result<Layout> {
        Ok(match self {
            Loader::Collections => Layout::Collections(Collections::of_names(root, names)?),
            Loader::Cure => Layout::Collections(Collections::of_cure_names(root, names)?),
            Loader::Belebele => Layout::Belebele(Belebele::of_names(root, names)?),
            _ => Layout::Tables(Tables::of_names(root, names)?),
        })
    }
}

/// Where texts are, and how they are laid out.
pub struct TaskData {
    pub root: PathBuf,
    /// What the directory is called, or the data set without its owner.
    pub name: String,
    /// The data set, if its files may have to be fetched.
    dataset: Option<Dataset>,
    loader: Loader,
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
        let commit = Some(row.revision.as_str()).filter(|revision| *revision != NEWEST);
        Source::of_dataset(Hub::from_env().dataset(&row.path, commit)?, &row.path)
    }

    fn of_dataset(dataset: Dataset, id: &str) -> Result<Source> {
        let name = id.rsplit('/').next().unwrap_or(id).to_owned();
        Ok(Source { root: dataset.directory().to_owned(), name, dataset: Some(dataset) })
    }

    fn read_by(self, loader: Loader) -> Result<TaskData> {
        let Source { root, name, dataset } = self;
        let layout = match &dataset {
            Some(dataset) => loader.of_names(&root, dataset.files())?,
            None => loader.open(&root)?,
        };
        Ok(TaskData { root, name, dataset, loader, layout })
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
        Source::of(path)?.read_by(Loader::Collections)
    }

    /// The data of a task of mteb's: the data set that it pins, or another copy.
    pub fn of_row(row: &TaskRow, copy: Option<&Path>) -> Result<TaskData> {
        let loader = Loader::of(row).ok_or_else(|| Error::usage(format!("hbt cannot read {}", row.name)))?;
        copy.map_or_else(|| Source::pinned(row), Source::of)?.read_by(loader)
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
            Layout::Tables(tables) => {
                let [folder, file] = self.place(tables, &subset.name, split);
                tables.files(&folder, &file)
            }
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
                    let places = row.splits.iter().map(|split| self.place(tables, &subset.name, split));
                    names.extend(places.filter_map(|[folder, file]| tables.files(&folder, &file).ok()).flatten());
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
            Layout::Tables(tables) => {
                let [folder, file] = self.place(tables, &subset.name, split);
                match self.loader {
                    Loader::PublicHealth => public_health(tables, [&folder, &file], &subset.name, split),
                    _ => clsd(tables, [&folder, &file], &subset.name, split),
                }
            }
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
        let [folder, file] = self.place(tables, &subset.name, split);
        let [first, second] = row.columns.each_ref().map(|name| [name.as_str()]);
        let gold: Option<&[&str]> = match row.kind {
            TaskKind::BitextMining => None,
            TaskKind::Sts => Some(&["score"]),
            _ => Some(&["labels", "label"]),
        };
        let columns = PairColumns { first: &first, second: &second, gold };
        match self.loader {
            Loader::Parallel => {
                let (from, to) = self.languages(&subset.name)?;
                let mut texts = tables.texts(&folder, &file, &[from, to])?;
                let second = texts.pop().unwrap_or_default();
                Ok(Pairs { first: texts.pop().unwrap_or_default(), second, gold: Vec::new() })
            }
            Loader::BibleNlp => bible_nlp(tables, [&folder, &file], self.languages(&subset.name)?),
            Loader::Xnli => xnli(tables, [&folder, &file]),
            Loader::LangColumn => {
                let of_rows = tables.texts(&folder, &file, &["lang"])?.pop().unwrap_or_default();
                Ok(of_language(tables.pairs(&folder, &file, columns)?, &of_rows, &subset.name))
            }
            _ => tables.pairs(&folder, &file, columns),
        }
    }

    /// The folder and the file that a part is in: those of a config of its name or of a name that the task makes of it, of one
    /// that several subsets share, or of the only one.
    fn place(&self, tables: &Tables, subset: &str, split: &str) -> [String; 2] {
        let of_task = match (self.loader, subset.split_once('-')) {
            (Loader::BibleNlp, Some((from, to))) => Some(bible_nlp_config(from, to)),
            (Loader::Clsd, Some((from, to))) => Some(clsd_config(from, to)),
            _ => None,
        };
        let names = [of_task, Some(subset.to_owned()), Some(DEFAULT_SUBSET.to_owned())];
        let owned = |(folder, file): (&str, &str)| [folder.to_owned(), file.to_owned()];
        let found = names.iter().flatten().find_map(|name| tables.place(name, split).map(owned));
        let only = || tables.configs().next().filter(|_| tables.configs().count() == 1);
        found.unwrap_or_else(|| owned((only().unwrap_or(subset), split)))
    }

    /// Fetches what the hub's cache lacks of a part.
    pub fn fetch(&self, part: &Part) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use hbt::eval::mteb::table;

    #[test]
    fn every_task_of_the_table_is_read() {
        let unread: Vec<&str> =
            table::tasks().iter().filter(|row| Loader::of(row).is_none()).map(|row| row.name.as_str()).collect();
        assert_eq!(unread, [""; 0]);
        for (name, _) in OWN {
            assert_eq!(table::task(name).map(|row| row.loading), Some(Loading::Own), "{name}");
        }
    }
}
