//! What `--task` and `--data` ask for.

use hbt::cli::EvalArgs;
use hbt::config::{Auto, Config};
use hbt::data::collection::{self, Collection, Collections};
use hbt::data::formats::Split;
use hbt::eval::mteb::languages::LanguageFilter;
use hbt::eval::mteb::table::{self, Loading, Subset, TaskKind, TaskRow};
use hbt::eval::tasks::{self, Task};
use hbt::model_dir::hub::Hub;
use hbt::progress::say;
use hbt::{Error, Result};
use std::env;
use std::path::PathBuf;

/// Name of the task that any directory with corpus, queries and judgements is data of.
pub const RETRIEVAL: &str = "retrieval";

/// A task that was asked for.
pub enum Wanted {
    /// What `eval_task` is to be: a task that training can evaluate on, too, or the first that recognises the data.
    Own(Option<Auto<&'static Task>>),
    /// A directory.
    Directory,
    /// One of mteb's, and the subsets that a benchmark takes of it, if not all.
    Row(&'static TaskRow, Option<&'static [String]>),
}

impl Wanted {
    /// The tasks in a list of names; those of a benchmark that hbt cannot run are said.
    ///
    /// # Errors
    /// An unknown name.
    pub fn parse(list: &str) -> Result<Vec<Wanted>> {
        let mut wanted = Vec::new();
        for name in table::split_names(list) {
            if let Some(task) = tasks::named(name) {
                wanted.push(Wanted::Own(Some(Auto::Of(task))));
            } else if name == RETRIEVAL {
                wanted.push(Wanted::Directory);
            } else if let Some(row) = table::task(name) {
                refuse_unable(row)?;
                wanted.push(Wanted::Row(row, None));
            } else if let Some(benchmark) = table::benchmark(name) {
                let (able, unable): (Vec<_>, Vec<_>) = benchmark.runnable().partition(|(_, row)| is_able(row));
                wanted.extend(able.into_iter().map(|(member, row)| Wanted::Row(row, member.subsets.as_deref())));
                let others = unable.into_iter().map(|(member, _)| member).chain(benchmark.others());
                let others: Vec<&str> = others.map(|member| member.name.as_str()).collect();
                if !others.is_empty() {
                    say(&format!("not of {name}, since hbt cannot run them: {}", others.join(", ")));
                    say(&format!("mteb does, as in: mteb run -m MODEL -t {}", others.join(" ")));
                }
            } else {
                return Err(unknown(name));
            }
        }
        Ok(wanted)
    }
}

impl Wanted {
    /// What `eval_task` is to be, if it is such a task.
    pub fn own(&self) -> Option<Option<Auto<&'static Task>>> {
        match self {
            Wanted::Own(task) => Some(*task),
            Wanted::Directory | Wanted::Row(..) => None,
        }
    }
}

fn unknown(name: &str) -> Error {
    let own = tasks::names();
    let nearest = table::nearest(name).map_or(String::new(), |nearest| format!(" did you mean {nearest}?"));
    Error::usage(format!(
        "there is no task {name:?};{nearest} besides mteb's (hbt eval --list) there are {own} and {RETRIEVAL}"
    ))
}

/// Whether hbt reads and measures a task of mteb's.
pub fn is_able(row: &TaskRow) -> bool {
    matches!(row.kind, TaskKind::Retrieval | TaskKind::Reranking) && row.loading == Loading::Ordinary
}

fn refuse_unable(row: &TaskRow) -> Result<()> {
    if is_able(row) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "hbt does not run {} yet ({}); mteb does: mteb run -m MODEL -t {}",
        row.name, row.kind, row.name
    )))
}

/// A subset of a task in one split.
pub struct Part {
    pub split: String,
    pub subset: Subset,
}

/// A task with its data.
pub struct Planned {
    /// mteb's name, or the directory's.
    pub name: String,
    /// The commit of the data set; `None`: a directory of the user's.
    pub revision: Option<String>,
    pub main_score: String,
    pub ignores_identical_ids: bool,
    /// Splits of a subset follow one another.
    pub parts: Vec<Part>,
    pub root: PathBuf,
    collections: Collections,
}

impl Planned {
    /// Finds the data of a task.
    ///
    /// # Errors
    /// Data that is not there, or has no subset in the languages that are asked for.
    pub fn new(wanted: &Wanted, args: &EvalArgs, config: &Config) -> Result<Planned> {
        let filter = args.languages.as_deref().map(LanguageFilter::parse).transpose()?;
        let planned = match wanted {
            Wanted::Own(_) => unreachable!("such tasks are evaluated elsewhere"),
            Wanted::Directory => Planned::of_directory(config, filter.as_ref())?,
            Wanted::Row(row, subsets) => Planned::of_row(row, *subsets, config, filter.as_ref())?,
        };
        if planned.parts.is_empty() {
            let asked = args.languages.as_deref().unwrap_or_default();
            return Err(Error::usage(format!("--languages {asked}: no subset of {} is in these alone", planned.name)));
        }
        Ok(planned)
    }

    fn of_directory(config: &Config, filter: Option<&LanguageFilter>) -> Result<Planned> {
        let Some(root) = config.eval_data.clone() else {
            return Err(Error::config("eval_data", "is missing; name the directory to evaluate on with --data"));
        };
        let collections = collection::open(&root)?;
        let mut parts = Vec::new();
        for name in collections.subsets() {
            let languages = vec![name.to_owned()];
            if filter.is_some_and(|filter| !filter.selects_named(name)) {
                continue;
            }
            let split = split_of(&collections.splits(name)?, config.eval_split);
            parts.push(Part { split, subset: Subset { name: name.to_owned(), languages } });
        }
        let name = root.canonicalize().ok().and_then(|root| Some(root.file_name()?.to_string_lossy().into_owned()));
        Ok(Planned {
            name: name.unwrap_or_else(|| RETRIEVAL.to_owned()),
            revision: None,
            main_score: "ndcg_at_10".to_owned(),
            ignores_identical_ids: false,
            parts,
            root,
            collections,
        })
    }

    fn of_row(
        row: &TaskRow,
        subsets: Option<&[String]>,
        config: &Config,
        filter: Option<&LanguageFilter>,
    ) -> Result<Planned> {
        let is_wanted = |subset: &&Subset| {
            subsets.is_none_or(|subsets| subsets.contains(&subset.name))
                && filter.is_none_or(|filter| filter.selects(&subset.languages))
        };
        let of_subset = |subset: &Subset| {
            let part = |split: &String| Part { split: split.clone(), subset: subset.clone() };
            row.splits.iter().map(part).collect::<Vec<_>>()
        };
        let parts = row.subsets().iter().filter(is_wanted).flat_map(of_subset).collect();
        let (root, revision) = match &config.eval_data {
            Some(root) => (root.clone(), None),
            None => (snapshot(row)?, Some(row.revision.clone())),
        };
        Ok(Planned {
            name: row.name.clone(),
            revision,
            main_score: row.main_score.clone(),
            ignores_identical_ids: row.ignores_identical_ids,
            parts,
            collections: collection::open(&root)?,
            root,
        })
    }

    /// The queries and judgements of a part.
    ///
    /// # Errors
    /// Those of [`Collections::load`].
    pub fn load(&self, part: &Part) -> Result<Collection> {
        self.collections.load(&part.subset.name, &part.split)
    }
}

/// The split that `--split` means among those that a directory has.
fn split_of(splits: &[&str], asked: Auto<Split>) -> String {
    let first = |names: &[&str]| names.iter().find(|name| splits.contains(name)).map(|name| (*name).to_owned());
    let found = match asked {
        Auto::Of(Split::Train) => first(&["train"]),
        Auto::Of(Split::Validation) => first(&["validation", "dev", "val"]),
        Auto::Of(Split::Test) => first(&["test"]),
        Auto::Of(Split::All) | Auto::Auto => first(&["test", "dev", "validation", "val"]),
    };
    // What is not there is an error that names those that are.
    found
        .or_else(|| splits.first().filter(|_| asked == Auto::Auto).map(|name| (*name).to_owned()))
        .unwrap_or_else(|| asked.to_string())
}

/// The data set of a task in the hub's cache.
fn snapshot(row: &TaskRow) -> Result<PathBuf> {
    let TaskRow { name, path, revision, .. } = row;
    let hub = Hub::from_vars(|name| env::var(name).ok().filter(|value| !value.is_empty()));
    let folder = format!("datasets--{}", path.replace('/', "--"));
    let snapshot = hub.cache.map(|cache| cache.join(folder).join("snapshots").join(revision));
    match snapshot {
        Some(snapshot) if snapshot.is_dir() => Ok(snapshot),
        snapshot => {
            let place = snapshot.map_or_else(String::new, |snapshot| format!(" at {}", snapshot.display()));
            Err(Error::other(format!(
                "the data of {name} is not in the hub's cache{place}; fetch it with hf download --repo-type dataset {path} \
                 --revision {revision}, or name a copy of it with --data"
            )))
        }
    }
}
