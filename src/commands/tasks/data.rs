//! The data of a task: a directory of the user's, or a data set of the hub, of which the files are fetched as they are needed.

use super::wanted::Part;
use hbt::data::collection::{self, Belebele, Collection, Collections, PairColumns, Pairs, Tables, clsd};
use hbt::eval::mteb::table::{Loading, TaskKind, TaskRow};
use hbt::hub::{Dataset, Hub};
use hbt::{Error, Result};
use std::path::{Path, PathBuf};

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
        let is_belebele = row.loading == Loading::Own && row.kind.has_queries() && !row.name.contains("WMT");
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

    /// Whether a part is queries that search documents.
    pub fn collection(&self, Part { split, subset }: &Part) -> Result<Collection> {
        match &self.layout {
            Layout::Collections(collections) => {
                self.fetch(&collections.files(&subset.name, split)?)?;
                collections.load(&subset.name, split)
            }
            Layout::Belebele(belebele) => {
                // The corpus' language comes first.
                let (corpus, queries) = self.languages(&subset.name)?;
                self.fetch(&belebele.files(corpus)?)?;
                self.fetch(&belebele.files(queries)?)?;
                belebele.load(corpus, queries)
            }
            Layout::Tables(tables) => {
                let short = |code| match code {
                    "deu" => "de",
                    "fra" => "fr",
                    other => other,
                };
                let (from, to) = self.languages(&subset.name)?;
                let config = format!("wmt21.{}.{}", short(from), short(to));
                self.fetch(&tables.files(&config, split)?)?;
                clsd(tables, &config, split, &subset.name)
            }
        }
    }

    fn languages<'a>(&self, subset: &'a str) -> Result<(&'a str, &'a str)> {
        let message = || Error::file(&self.root, format!("subset {subset} is not called by two languages"));
        subset.split_once('-').ok_or_else(message)
    }

    /// Pairs of texts, with a number each unless they are translations.
    pub fn pairs(&self, row: &TaskRow, Part { split, subset }: &Part) -> Result<Pairs> {
        let Layout::Tables(tables) = &self.layout else {
            return Err(Error::file(&self.root, format!("has no pairs of texts, of which {} is", row.name)));
        };
        let [first, second] = &row.columns;
        let gold: &[&str] = match row.kind {
            TaskKind::Sts => &["score"],
            _ => &["labels", "label"],
        };
        let (first, second) = ([first.as_str()], [second.as_str()]);
        let has_gold = row.kind != TaskKind::BitextMining;
        match row.loading {
            Loading::Parallel => {
                let config = self.config(tables, "default");
                self.fetch(&tables.files(&config, split)?)?;
                let (from, to) = self.languages(&subset.name)?;
                let mut texts = tables.texts(&config, split, &[from, to])?;
                let second = texts.pop().unwrap_or_default();
                Ok(Pairs { first: texts.pop().unwrap_or_default(), second, gold: Vec::new() })
            }
            Loading::LangColumn => {
                let config = self.config(tables, "default");
                self.fetch(&tables.files(&config, split)?)?;
                let columns = PairColumns { first: &first, second: &second, gold: has_gold.then_some(gold) };
                let of_rows = tables.texts(&config, split, &["lang"])?.pop().unwrap_or_default();
                let all = tables.pairs(&config, split, columns)?;
                Ok(of_language(all, &of_rows, &subset.name))
            }
            Loading::Ordinary | Loading::Own => {
                let config = self.config(tables, &subset.name);
                self.fetch(&tables.files(&config, split)?)?;
                tables.pairs(
                    &config,
                    split,
                    PairColumns { first: &first, second: &second, gold: has_gold.then_some(gold) },
                )
            }
        }
    }

    /// The config of a name, or the only one.
    fn config(&self, tables: &Tables, name: &str) -> String {
        let mut configs = tables.configs();
        let only = configs.next().filter(|_| configs.next().is_none());
        if tables.configs().any(|config| config == name) { name.to_owned() } else { only.unwrap_or(name).to_owned() }
    }

    fn fetch(&self, names: &[&str]) -> Result<()> {
        self.dataset.as_ref().map_or(Ok(()), |dataset| dataset.fetch(names.iter().copied()))
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
