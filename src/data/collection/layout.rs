//! What the files of a retrieval task are called, and so what they hold.
//!
//! A *config* of the hub is a folder of files, one or several a split: `de-corpus/test-00000-of-00002.parquet`,
//! `corpus/test.jsonl`. In BEIR's layout corpus and queries are files of these names, `de/corpus.jsonl`, and judgements lie in
//! `de/qrels/test.tsv`. MIRACL's own files have the language in their names. The name alone decides, so that it is known
//! what a task needs before anything is fetched.

use std::collections::BTreeMap;
use std::path::Path;

use crate::data::formats::files::{DataFile, Kind, kind_of, without_endings};

/// What a file is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Corpus,
    Queries,
    Judgements,
    TopRanked,
    Instructions,
    Changes,
}

impl Part {
    /// What it is called in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Part::Corpus => "corpus",
            Part::Queries => "queries",
            Part::Judgements => "judgements (qrels)",
            Part::TopRanked => "top_ranked",
            Part::Instructions => "instructions",
            Part::Changes => "changes (qrel_diff)",
        }
    }
}

/// The config of queries that goes before all others.
const QUERY: &str = "query";
/// Names of configs. Of those that name one part, mteb takes the first that is there.
const CONFIGS: [(&str, Part); 8] = [
    ("corpus", Part::Corpus),
    (QUERY, Part::Queries),
    ("queries", Part::Queries),
    ("default", Part::Judgements),
    ("qrels", Part::Judgements),
    ("top_ranked", Part::TopRanked),
    ("instruction", Part::Instructions),
    ("qrel_diff", Part::Changes),
];

/// Where the hub keeps a config that is called `default`.
const DEFAULT_FOLDER: &str = "data";
/// What the folders of MIRACL's own data sets begin with.
pub(super) const MIRACL: &str = "miracl";
/// Split of a file that names none; as it is the only one, it is taken for any.
const NO_SPLIT: &str = "test";

/// The place of a file in a task.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// "" if the name has none.
    pub(super) subset: String,
    pub(super) part: Part,
    /// Place of the config's name in [`CONFIGS`].
    pub(super) rank: usize,
    pub(super) split: String,
}

/// The splits of a config, each with its files in the order of reading.
pub(super) type Splits = BTreeMap<String, Vec<DataFile>>;

/// The data files among files of these names below `root`, which need not be there.
pub(super) fn of_names<'a>(root: &Path, names: impl IntoIterator<Item = &'a str>) -> Vec<DataFile> {
    let file = |name: &str| Some(DataFile { path: root.join(name), name: name.to_owned(), kind: kind_of(name)? });
    names.into_iter().filter_map(file).collect()
}

/// The split of this name and its files, or the only one.
pub(super) fn split_or_only<'a>(splits: &'a Splits, split: &str) -> Option<(&'a str, &'a [DataFile])> {
    let only = || splits.first_key_value().filter(|_| splits.len() == 1);
    let (name, files) = splits.get_key_value(split).or_else(only)?;
    Some((name, files))
}

/// The configs of a subset.
pub(super) type Parts = BTreeMap<Part, Splits>;

/// Subsets in the order of their names; that without a name is "".
pub(super) type Subsets = BTreeMap<String, Parts>;

/// Subsets whose parts have the places of their configs' names in [`CONFIGS`].
type Ranked = BTreeMap<String, BTreeMap<Part, (usize, Splits)>>;

/// The subsets in some files. `root_name` is the name of the directory.
pub(super) fn subsets(root_name: &str, files: Vec<DataFile>) -> Subsets {
    let mut found = Ranked::new();
    for file in files {
        let Some(Place { subset, part, rank, split }) = place(root_name, &file) else { continue };
        let parts = found.entry(subset).or_default();
        let (best, splits) = parts.entry(part).or_insert_with(|| (rank, Splits::new()));
        if rank < *best {
            (*best, *splits) = (rank, Splits::new());
        }
        if rank == *best {
            splits.entry(split).or_default().push(file);
        }
    }
    share_queries(&mut found);
    let part = |(part, (_, splits)): (Part, (usize, Splits))| {
        (part, splits.into_iter().map(|(split, files)| (split, in_order(files))).collect())
    };
    found.into_iter().map(|(subset, parts)| (subset, parts.into_iter().map(part).collect())).collect()
}

/// The queries of a config that is called [`QUERY`] are those of all subsets, as in mteb, whatever these have themselves.
fn share_queries(found: &mut Ranked) {
    let own = found.get("").and_then(|parts| parts.get(&Part::Queries));
    let Some(shared) = own.filter(|(rank, _)| CONFIGS[*rank].0 == QUERY).cloned() else { return };
    found.values_mut().for_each(|parts| _ = parts.insert(Part::Queries, shared.clone()));
    if found.len() > 1 && found[""].len() == 1 {
        found.remove("");
    }
}

/// The configs in some files of which each is a table: a folder is a config, and what lies in none or in `data` is
/// [`DEFAULT_SUBSET`](super::DEFAULT_SUBSET).
pub(super) fn configs(files: Vec<DataFile>) -> BTreeMap<String, Splits> {
    let mut found: BTreeMap<String, Splits> = BTreeMap::new();
    for file in files {
        let inner = without_endings(&file.name);
        let (folder, last) = inner.rsplit_once('/').unwrap_or(("", inner));
        let inside = folder.strip_prefix(DEFAULT_FOLDER).map_or(folder, |folder| folder.trim_start_matches('/'));
        let config = if inside.is_empty() { super::DEFAULT_SUBSET } else { inside };
        let split = split(last).to_owned();
        found.entry(config.to_owned()).or_default().entry(split).or_default().push(file);
    }
    for files in found.values_mut().flat_map(BTreeMap::values_mut) {
        *files = in_order(std::mem::take(files));
    }
    found
}

/// Files of one split in the order of their numbers. Where they are there in two forms, one is taken: Parquet before JSON
/// before text, unpacked before packed.
fn in_order(mut files: Vec<DataFile>) -> Vec<DataFile> {
    let form = |file: &DataFile| match file.kind {
        Kind::Parquet => 0,
        Kind::Delimited(_) => 2,
        _ => 1,
    };
    let best = files.iter().map(form).min();
    files.retain(|file| Some(form(file)) == best);
    files.sort_by_cached_key(|file| (natural(without_endings(&file.name)), file.name.len()));
    files.dedup_by(|a, b| without_endings(&a.name) == without_endings(&b.name));
    files
}

/// A name that sorts by the numbers in it: `docs-2` before `docs-10`.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut pieces = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let end = rest[digits..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |n| digits + n);
        pieces.push((rest[..digits].to_owned(), rest[digits..end].parse().unwrap_or(u64::MAX)));
        rest = &rest[end..];
    }
    pieces
}

/// The place that a file's name says.
fn place(root_name: &str, file: &DataFile) -> Option<Place> {
    let inner = without_endings(&file.name);
    let (folders, last) = inner.rsplit_once('/').unwrap_or(("", inner));
    if let Some(place) = miracl(root_name, folders, last) {
        return Some(place);
    }
    let (above, folder) = folders.rsplit_once('/').unwrap_or(("", folders));
    if let Some((subset, part, rank)) = config(folder) {
        return Some(Place { subset: joined(above, subset), part, rank, split: split(last).to_owned() });
    }
    if let Some((subset, part, rank)) = config(split(last)) {
        return Some(Place { subset: joined(folders, subset), part, rank, split: NO_SPLIT.to_owned() });
    }
    let is_default = folders == DEFAULT_FOLDER;
    is_default.then(|| Place { subset: String::new(), part: Part::Judgements, rank: 3, split: split(last).to_owned() })
}

/// `SUBSET-CONFIG`, or `CONFIG` alone, as its subset, part and rank.
fn config(name: &str) -> Option<(&str, Part, usize)> {
    CONFIGS.iter().enumerate().find_map(|(rank, (config, part))| match name.strip_suffix(config)? {
        "" => Some(("", *part, rank)),
        // `default` is the config without a subset.
        subset => Some((subset.strip_suffix('-').filter(|_| *config != "default")?, *part, rank)),
    })
}

fn joined(folders: &str, subset: &str) -> String {
    [folders, subset].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

/// The split of a file of a config: its name without the number of the shard, `-00000-of-00002`.
fn split(last: &str) -> &str {
    let is_number = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let cut = || {
        let (rest, of) = last.rsplit_once("-of-")?;
        let (split, number) = rest.rsplit_once('-')?;
        (is_number(of) && is_number(number)).then_some(split)
    };
    cut().unwrap_or(last)
}

/// MIRACL's own names: `topics.miracl-v1.0-de-dev.tsv`, `qrels.miracl-v1.0-de-dev.tsv`,
/// `miracl-corpus-v1.0-de/docs-0.jsonl.gz`.
fn miracl(root_name: &str, folders: &str, last: &str) -> Option<Place> {
    for (start, part, rank) in [("topics.", Part::Queries, 2), ("qrels.", Part::Judgements, 4)] {
        if let Some(name) = last.strip_prefix(start) {
            let (subset, split) = behind_version(name)?.split_once('-')?;
            return Some(Place { subset: subset.to_owned(), part, rank, split: split.to_owned() });
        }
    }
    let is_documents = last.strip_prefix("docs-").is_some_and(|number| number.bytes().all(|b| b.is_ascii_digit()));
    let folder = folders.rsplit('/').next().filter(|folder| !folder.is_empty()).unwrap_or(root_name);
    let subset = is_documents.then(|| behind_version(folder).unwrap_or_default())?;
    Some(Place { subset: subset.to_owned(), part: Part::Corpus, rank: 0, split: NO_SPLIT.to_owned() })
}

/// `de` of `miracl-corpus-v1.0-de`.
fn behind_version(name: &str) -> Option<&str> {
    let at = name.find("-v").map(|at| at + 2)?;
    let (version, rest) = name[at..].split_once('-')?;
    version.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.').then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn file(name: &str) -> DataFile {
        DataFile { path: PathBuf::from(name), name: name.to_owned(), kind: kind_of(name).unwrap() }
    }

    #[test]
    fn names_say_what_files_hold() {
        use Part::*;
        for (name, subset, part, split) in [
            ("de-corpus/test-00000-of-00002.parquet", "de", Corpus, "test"),
            ("ara-deu-qrels/validation-00000-of-00001.parquet", "ara-deu", Judgements, "validation"),
            ("zho_Hans-top_ranked/test.jsonl", "zho_Hans", TopRanked, "test"),
            ("instruction/test-00000-of-00001.parquet", "", Instructions, "test"),
            ("qrel_diff/qrel_diff-00000-of-00001.parquet", "", Changes, "qrel_diff"),
            ("corpus/corpus-00000-of-00001.parquet", "", Corpus, "corpus"),
            ("corpus.jsonl", "", Corpus, "test"),
            ("queries.jsonl.gz", "", Queries, "test"),
            ("de-queries.JSONL", "de", Queries, "test"),
            ("data/test-00000-of-00001.parquet", "", Judgements, "test"),
            ("default/test.jsonl", "", Judgements, "test"),
            ("qrels/dev.tsv", "", Judgements, "dev"),
            ("de/corpus.jsonl", "de", Corpus, "test"),
            ("de/qrels/test.tsv", "de", Judgements, "test"),
            ("sets/de/query/test.jsonl", "sets/de", Queries, "test"),
            ("miracl-v1.0-de/topics/topics.miracl-v1.0-de-dev.tsv", "de", Queries, "dev"),
            ("topics.miracl-v1.0-de-test-a.tsv", "de", Queries, "test-a"),
            ("miracl-v1.0-sw/qrels/qrels.miracl-v1.0-sw-train.tsv", "sw", Judgements, "train"),
            ("corpora/miracl-corpus-v1.0-sw/docs-10.jsonl.gz", "sw", Corpus, "test"),
            ("docs-0.jsonl.gz", "yo", Corpus, "test"),
        ] {
            let place = place("miracl-corpus-v1.0-yo", &file(name)).unwrap_or_else(|| panic!("{name}"));
            assert_eq!((&*place.subset, place.part, &*place.split), (subset, part, split), "{name}");
        }
        for name in ["rows.jsonl", "my-default/test.jsonl", "sub/data/test.parquet", "corpora/a.jsonl", "docs-x.jsonl"]
        {
            assert_eq!(place("x", &file(name)), None, "{name}");
        }
    }

    #[test]
    fn one_form_of_the_same_and_shards_by_number() {
        let names = |names: &[&str]| -> Vec<String> {
            in_order(names.iter().map(|name| file(name)).collect()).into_iter().map(|file| file.name).collect()
        };
        assert_eq!(names(&["a/docs-10.jsonl.gz", "a/docs-2.jsonl.gz"]), ["a/docs-2.jsonl.gz", "a/docs-10.jsonl.gz"]);
        assert_eq!(names(&["corpus.jsonl.gz", "corpus.jsonl"]), ["corpus.jsonl"]);
        assert_eq!(names(&["qrels/test.tsv", "qrels/test.jsonl"]), ["qrels/test.jsonl"]);
        let both = subsets("", ["query/test.jsonl", "queries/test.jsonl"].map(file).into());
        assert_eq!(both[""][&Part::Queries]["test"], [file("query/test.jsonl")]);
        let names = ["de-corpus/test.jsonl", "de-queries/test.jsonl", "query/all.jsonl"];
        let shared = subsets("", names.map(file).into());
        assert_eq!(shared.keys().collect::<Vec<_>>(), ["de"]);
        assert_eq!(shared["de"][&Part::Queries]["all"], [file("query/all.jsonl")]);
    }
}
