//! mteb's tasks and benchmarks that hbt knows: where their data is, and what is measured on it.
//!
//! The table is `tasks.json`, which `make_tasks.py` writes from mteb's own definitions; its head describes the format.

mod packed;
mod subsets;

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

pub use self::subsets::Subset;

use self::packed::table;
use self::subsets::Subsets;
use super::languages::LanguageFilter;
use crate::choices::{choices, nearest as nearest_word};

choices! {
    /// mteb's types of the tasks that embeddings and a simple measure suffice for.
    TaskKind {
        /// Queries search a corpus.
        Retrieval = "Retrieval",
        /// Queries rank candidates of their own.
        Reranking = "Reranking",
        /// Queries rank candidates of their own, with an instruction and with a changed one.
        InstructionReranking = "InstructionReranking",
        /// Sentences find their translations.
        BitextMining = "BitextMining",
        /// Similarities of pairs are compared with people's.
        Sts = "STS",
        /// Similarities of pairs tell two classes apart.
        PairClassification = "PairClassification",
    }
}

impl TaskKind {
    /// Whether it searches or ranks documents for queries.
    pub fn has_queries(self) -> bool {
        matches!(self, TaskKind::Retrieval | TaskKind::Reranking | TaskKind::InstructionReranking)
    }
}

/// How the data of a task is laid out on the hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loading {
    /// As mteb's ordinary loader reads it: configurations of each subset.
    #[default]
    Ordinary,
    /// One table of all subsets; its column `lang` names the row's.
    LangColumn,
    /// One table with a column for each language; a subset `A-B` is two of them.
    Parallel,
    /// As code of the task reads it.
    Own,
}

/// What mteb tells an instruction model about a task.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Prompt {
    /// For all texts.
    Any(String),
    /// For queries and for documents.
    BySide {
        /// For queries.
        query: Option<String>,
        /// For documents.
        document: Option<String>,
    },
}

/// How much a split holds, all its subsets together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Size {
    /// Queries and documents.
    Sides([u64; 2]),
    /// Pairs; or, for tasks that [have queries](TaskKind::has_queries), queries and documents together.
    Total([u64; 1]),
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::Sides([queries, documents]) => write!(f, "{queries} x {documents}"),
            Size::Total([total]) => write!(f, "{total}"),
        }
    }
}

/// One of mteb's tasks.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskRow {
    /// mteb's name.
    pub name: String,
    /// mteb's type.
    pub kind: TaskKind,
    /// Dataset on the hub.
    pub path: String,
    /// The commit of the dataset that mteb pins.
    pub revision: String,
    /// The splits that are evaluated.
    pub splits: Vec<String>,
    /// Name of the number that is the score of a subset, such as `ndcg_at_10`.
    pub main_score: String,
    /// The `k` of measures such as nDCG@k, ascending.
    pub cutoffs: Vec<usize>,
    /// Whether a document whose id is the query's is taken out of its ranking.
    pub ignores_identical_ids: bool,
    /// Text for instruction models.
    pub prompt: Option<Prompt>,
    /// How the data is laid out.
    pub loading: Loading,
    /// Columns of the two texts of a pair.
    pub columns: [String; 2],
    /// Lowest and highest gold score of STS; mteb scales them to 0 and 1.
    pub score_range: [f64; 2],
    /// How much the splits hold, where mteb says it.
    pub sizes: BTreeMap<String, Size>,
    subsets: Subsets,
}

impl TaskRow {
    /// The subsets, in the order in which mteb lists their scores.
    pub fn subsets(&self) -> &[Subset] {
        self.subsets.all()
    }

    /// The different languages of the subsets, such as `deu-Latn`.
    pub fn languages(&self) -> Vec<String> {
        self.subsets.languages()
    }

    /// The subset of this name.
    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.subsets().iter().find(|subset| subset.name == name)
    }

    /// The subsets whose languages are all among those asked for.
    pub fn in_languages(&self, filter: &LanguageFilter) -> impl Iterator<Item = &Subset> {
        self.subsets().iter().filter(|subset| filter.selects(&subset.languages))
    }
}

/// One of mteb's benchmarks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchmarkRow {
    /// mteb's name.
    pub name: String,
    /// Other names that mteb knows it by.
    pub aliases: Vec<String>,
    /// Its tasks, in mteb's order.
    pub members: Vec<Member>,
}

/// A task of a benchmark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name of the task. It is in the table if its type is a [`TaskKind`].
    pub name: String,
    /// mteb's type of it, such as `Classification`.
    pub type_name: String,
    /// The subsets that the benchmark takes of it, where it does not take all.
    pub subsets: Option<Vec<String>>,
}

impl BenchmarkRow {
    /// The members that are in the table, with their rows.
    pub fn runnable(&self) -> impl Iterator<Item = (&Member, &'static TaskRow)> {
        self.members.iter().filter_map(|member| Some((member, task(&member.name)?)))
    }

    /// The members that hbt cannot run, such as those of type `Classification`.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| task(&member.name).is_none())
    }
}

/// The version of mteb whose definitions these are, and as which hbt's result files count.
pub fn mteb_version() -> &'static str {
    &table().mteb_version
}

/// All tasks, by name.
pub fn tasks() -> &'static [TaskRow] {
    &table().tasks
}

/// The task that mteb calls so.
pub fn task(name: &str) -> Option<&'static TaskRow> {
    tasks().iter().find(|task| task.name == name)
}

/// All benchmarks.
pub fn benchmarks() -> &'static [BenchmarkRow] {
    &table().benchmarks
}

/// The benchmark that mteb calls so, by whatever name.
pub fn benchmark(name: &str) -> Option<&'static BenchmarkRow> {
    benchmarks().iter().find(|row| row.name == name || row.aliases.iter().any(|alias| alias == name))
}

/// The task or benchmark whose name is most like `name`, if one is.
pub fn nearest(name: &str) -> Option<&'static str> {
    let of_benchmarks = benchmarks().iter().map(|row| row.name.as_str());
    nearest_word(name, tasks().iter().map(|row| row.name.as_str()).chain(of_benchmarks))
}

/// Names of tasks and benchmarks in a list that commas divide: those in parentheses belong to a name, as in `MTEB(eng, v2)`.
pub fn split_names(list: &str) -> Vec<&str> {
    let mut depth = 0_u32;
    let is_divider = |c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    list.split(is_divider).map(str::trim).filter(|name| !name.is_empty()).collect()
}

/// By code that one may ask for, the ISO 639-3 codes that it stands for; see [`LanguageFilter`].
pub(super) fn language_groups() -> &'static BTreeMap<String, String> {
    &table().language_groups
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `make_tasks.py` printed: it has the subsets from mteb, the table has them packed.
    const N_SUBSETS: usize = 46_712;
    const CRC_32_OF_SUBSETS: u32 = 0x9e8f_f0f3;

    #[test]
    fn subsets_and_their_languages_are_those_of_mteb() {
        let (mut crc, mut n_subsets) = (flate2::Crc::new(), 0);
        for task in tasks() {
            for Subset { name, languages } in task.subsets() {
                crc.update(format!("{} {name} {}\n", task.name, languages.join(" ")).as_bytes());
                n_subsets += 1;
            }
        }
        assert_eq!((n_subsets, crc.sum()), (N_SUBSETS, CRC_32_OF_SUBSETS));
    }

    #[test]
    fn a_row_has_what_mteb_says_of_the_task() {
        let arguana = task("ArguAna").unwrap();
        assert_eq!((arguana.kind, arguana.path.as_str()), (TaskKind::Retrieval, "mteb/arguana"));
        assert_eq!(arguana.revision, "c22ab2a51041ffd869aaddef7af8d8215647e41a");
        assert_eq!((arguana.splits.as_slice(), arguana.main_score.as_str()), (&["test".to_owned()][..], "ndcg_at_10"));
        assert!(arguana.ignores_identical_ids);
        let query = Some("Given a claim, find documents that refute the claim".to_owned());
        assert_eq!(arguana.prompt, Some(Prompt::BySide { query, document: None }));
        assert_eq!(arguana.cutoffs, [1, 3, 5, 10, 20, 100, 1000]);
        assert_eq!(arguana.sizes["test"].to_string(), "1406 x 8674");
        assert_eq!(
            (arguana.subsets().len(), arguana.subset("default").unwrap().languages.join(" ")),
            (1, "eng-Latn".into())
        );

        let mlqa = task("MLQARetrieval").unwrap();
        assert_eq!((mlqa.splits.join(" "), mlqa.subsets().len()), ("validation test".to_owned(), 49));
        assert_eq!(mlqa.subset("ara-deu").unwrap().languages, ["ara-Arab", "deu-Latn"]);
        assert!(!mlqa.ignores_identical_ids && mlqa.prompt.is_none() && mlqa.loading == Loading::Ordinary);

        assert_eq!(task("XQuADRetrieval").unwrap().sizes["validation"], Size::Total([17_079]));
        assert_eq!(task("SprintDuplicateQuestions").unwrap().columns, ["sent1", "sent2"]);
        assert_eq!(task("JSICK").unwrap().score_range, [1.0, 5.0]);
        assert_eq!(task("Core17InstructionRetrieval").unwrap().kind, TaskKind::InstructionReranking);
        let loading = |name| task(name).unwrap().loading;
        assert_eq!(loading("BelebeleRetrieval"), Loading::Own);
        assert_eq!(loading("MrTidyRetrieval"), Loading::Ordinary);
        assert_eq!(loading("Tatoeba"), Loading::LangColumn);
        let flores = task("FloresBitextMining").unwrap();
        assert_eq!((flores.loading, flores.subsets().len()), (Loading::Parallel, 204 * 203));
        assert_eq!(flores.languages().len(), 204);
        let of_mlqa = ["ara-Arab", "deu-Latn", "eng-Latn", "spa-Latn", "hin-Deva", "vie-Latn", "zho-Hans"];
        assert_eq!(mlqa.languages(), of_mlqa);
        assert_eq!(flores.subset("deu_Latn-zho_Hans").unwrap().languages, ["deu-Latn", "zho-Hans"]);
    }

    /// The numbers of tasks are those of the leaderboards.
    #[test]
    fn benchmarks_list_what_hbt_runs_and_what_it_does_not() {
        for (name, n_runnable, n_others) in
            [("MTEB(Multilingual, v2)", 67, 64), ("MTEB(eng, v2)", 24, 17), ("NanoBEIR-multilingual", 13, 0)]
        {
            let row = benchmark(name).unwrap();
            assert_eq!((row.runnable().count(), row.others().count()), (n_runnable, n_others), "{name}");
            for (member, task) in row.runnable() {
                assert_eq!(member.type_name, task.kind.to_string());
                for subset in member.subsets.iter().flatten() {
                    assert!(task.subset(subset).is_some(), "{name}: {} has no {subset}", task.name);
                }
            }
            let unknown_types: Vec<_> =
                row.others().filter(|other| other.type_name.parse::<TaskKind>().is_ok()).collect();
            assert!(unknown_types.is_empty(), "{name}: {unknown_types:?}");
        }
        let english = benchmark("MTEB(eng)").unwrap();
        assert_eq!(english, benchmark("MTEB(eng, v2)").unwrap());
        let sts17 = english.members.iter().find(|member| member.name == "STS17").unwrap();
        assert_eq!(sts17.subsets.as_deref(), Some(&["en-en".to_owned()][..]));
    }

    #[test]
    fn a_misspelled_name_leads_to_the_right_one() {
        assert!(task("MLQARetreival").is_none());
        assert_eq!(nearest("MLQARetreival"), Some("MLQARetrieval"));
        assert_eq!(nearest("mteb(multilingual, v2)"), Some("MTEB(Multilingual, v2)"));
        assert_eq!(nearest("qqq"), None);
        let names = ["MTEB(eng, v2)", "STS17", "xquad-r"];
        assert_eq!(split_names(" MTEB(eng, v2),STS17, xquad-r ,"), names);
        assert_eq!(split_names("a),b(c,d"), ["a)", "b(c,d"]);
    }
}
