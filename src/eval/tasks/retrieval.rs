//! Retrieval over a corpus while training: directories with corpus, queries and judgements, as `hbt eval --task retrieval`
//! reads them, held in memory.
//!
//! Each subset is a language here, whatever it is called: its queries search its own documents, and figures are means over
//! the subsets. `hbt eval` streams the corpus and writes mteb's numbers; these differ from them where scores tie, and where a
//! judged document is not in the corpus: there it cannot be found, here it does not count.

use super::{EvalSet, Passage, Query, Relevant, Task};
use crate::data::catalog::LangId;
use crate::data::collection::{self, Collection};
use crate::data::formats::{DataSource, Note, Notes};
use crate::eval::figures::FigureKey;
use crate::eval::metrics::{MAP, MRR, NDCG, RECALL};
use crate::eval::settings::{MONOLINGUAL, Ranked};
use crate::{Error, Result};
use std::collections::{HashMap, HashSet};

const NDCG_AT_10: FigureKey = FigureKey { setting: None, metric: &NDCG, cutoff: Some(10) };

/// nDCG@10, recall@100, MRR@10 and mAP.
static FIGURES: [FigureKey; 4] = [
    NDCG_AT_10,
    FigureKey { metric: &RECALL, cutoff: Some(100), ..NDCG_AT_10 },
    FigureKey { metric: &MRR, ..NDCG_AT_10 },
    FigureKey { metric: &MAP, cutoff: None, ..NDCG_AT_10 },
];

/// The task: its data is any directory with a corpus, queries and judgements.
pub static TASK: Task =
    Task { name: "retrieval", recognises, load, searched: own_subset, figures: &FIGURES, main: NDCG_AT_10 };

fn recognises(data: &DataSource) -> Result<bool> {
    Ok(data.path.is_dir() && collection::open(&data.path).is_ok())
}

/// A query searches the documents of its own subset.
fn own_subset(query: &Query, ranks: &[super::RelevantRank]) -> Vec<Ranked> {
    (MONOLINGUAL.rankings)(query, ranks).into_iter().map(|(_, ranking)| (None, ranking)).collect()
}

/// Reads every subset in the split that is meant.
///
/// # Errors
/// Data that cannot be read, that lacks the split, or that names documents to rank for each query; the message names the file.
pub fn load(data: &DataSource) -> Result<EvalSet> {
    let collections = collection::open(&data.path)?;
    let mut loaded = Vec::new();
    let mut notes = collections.notes().clone();
    for subset in collections.subsets() {
        let meant = collection::splits_meant(&collections.splits(subset)?, data.split, data.purpose);
        let [split] = &meant[..] else {
            let message = format!(
                "subset {subset} has the splits {}; name one of them to evaluate on",
                collections.splits(subset)?.join(", ")
            );
            return Err(Error::file(&data.path, message));
        };
        loaded.push(collections.load(subset, split)?);
    }
    let set = from_collections(loaded)?;
    notes.extend(&set.notes);
    Ok(EvalSet { notes, ..set })
}

/// The benchmark that some collections make, each a subset of its own.
///
/// # Errors
/// A corpus that cannot be read; a collection with documents to rank for each query; nothing to evaluate on.
pub fn from_collections(mut collections: Vec<Collection>) -> Result<EvalSet> {
    collections.sort_by(|a, b| a.subset.cmp(&b.subset));
    let mut splits: Vec<String> = collections.iter().map(|collection| collection.split.clone()).collect();
    splits.dedup();
    let mut set = EvalSet {
        task: &TASK,
        split: splits.join(","),
        notes: Notes::default(),
        languages: collections.iter().map(|collection| collection.subset.clone()).collect(),
        passages: Vec::new(),
        queries: Vec::new(),
    };
    for (lang, collection) in collections.into_iter().enumerate() {
        let lang = LangId::try_from(lang).map_err(|_| Error::other("there are more than 65,536 subsets"))?;
        set.add(lang, collection)?;
    }
    if set.queries.is_empty() {
        return Err(Error::other("no query of the evaluation has a judged document in the corpus; check the ids"));
    }
    Ok(set)
}

impl EvalSet {
    fn add(&mut self, lang: LangId, collection: Collection) -> Result<()> {
        let subset = &collection.subset;
        if collection.queries.iter().any(|query| query.candidates.is_some()) {
            let message = format!("subset {subset} ranks candidates of each query; hbt eval does, training does not");
            return Err(Error::other(message));
        }
        let judged = collection.queries.iter().flat_map(|query| query.judgements.iter().map(|(id, _)| id.as_str()));
        let judged: HashSet<&str> = judged.collect();
        let mut places: HashMap<String, u32> = HashMap::with_capacity(judged.len());
        let mut documents = collection.documents();
        for document in &mut documents {
            let document = document?;
            let place = u32::try_from(self.passages.len())
                .map_err(|_| Error::other("the evaluation has more than 4 billion documents"))?;
            if judged.contains(document.id.as_str()) {
                places.insert(document.id, place);
            }
            self.passages.push(Passage { lang, text: document.text });
        }
        [&collection.notes, documents.notes()].into_iter().for_each(|notes| self.notes.extend(notes));
        let mut n_left_out = 0;
        for query in &collection.queries {
            let relevant = query.judgements.iter().filter_map(|(id, grade)| {
                // What is worth less than nothing is not relevant.
                Some(Relevant { passage: *places.get(id)?, grade: u32::try_from(*grade).unwrap_or(0) })
            });
            let mut relevant: Vec<Relevant> = relevant.collect();
            relevant.sort_unstable();
            if relevant.is_empty() {
                n_left_out += 1;
                continue;
            }
            let group = self.queries.len() as u32;
            self.queries.push(Query { lang, group, text: query.text.clone(), relevant });
        }
        if n_left_out > 0 {
            let note =
                format!("subset {subset}: {n_left_out} queries left out, as no document judged for them is there");
            self.notes.add(Note::Part(note), 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choices::Auto;
    use crate::data::formats::{Purpose, Split};
    use crate::eval::settings;
    use std::fs;
    use std::path::Path;

    fn write(root: &Path, subset: &str, qrels: &[(&str, &str)]) {
        let folder = root.join(subset);
        fs::create_dir_all(folder.join("qrels")).unwrap();
        let row = |id: &str| format!("{{\"_id\": \"{id}\", \"text\": \"{subset} {id}\"}}\n");
        fs::write(folder.join("corpus.jsonl"), ["d1", "d2", "d3"].map(row).concat()).unwrap();
        fs::write(folder.join("queries.jsonl"), ["q1", "q2"].map(row).concat()).unwrap();
        for (split, rows) in qrels {
            fs::write(folder.join(format!("qrels/{split}.tsv")), format!("query-id\tcorpus-id\tscore\n{rows}"))
                .unwrap();
        }
    }

    #[test]
    fn queries_search_the_documents_of_their_subset() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "de", &[("test", "q1\td2\t2\nq1\td1\t-1\nq2\tgone\t1\n"), ("dev", "q2\td3\t1\n")]);
        write(root.path(), "en", &[("test", "q1\td1\t1\nq2\td2\t1\n"), ("dev", "q1\td3\t1\n")]);
        let source = DataSource { split: Auto::Of(Split::Test), ..DataSource::new(root.path()) };
        assert!(recognises(&source).unwrap());
        let set = load(&source).unwrap();
        assert_eq!((set.languages.join(" "), set.split.as_str(), set.passages.len()), ("de en".into(), "test", 6));
        let queries: Vec<_> = set.queries.iter().map(|query| (query.lang, query.text.as_str())).collect();
        assert_eq!(queries, [(0, "de q1"), (1, "en q1"), (1, "en q2")]);
        let relevant = |passage, grade| Relevant { passage, grade };
        assert_eq!(set.queries[0].relevant, [relevant(0, 0), relevant(1, 2)]);
        assert_eq!(set.queries[2].relevant, [relevant(4, 1)]);
        let lines = set.notes.lines().join("\n");
        assert!(lines.contains("subset de: 1 queries left out"), "{lines}");
        // Ranks in the own subset, the pooled ones are all 6. de: nDCG 1/log2(3); en: (1 + 1/log2(4)) / 2.
        let rank = |lang, in_language| super::super::RelevantRank { lang, in_language, pooled: 6 };
        let ranks = [vec![rank(0, 1), rank(0, 2)], vec![rank(1, 1)], vec![rank(1, 3)]];
        let report = settings::report("m", &set, &ranks);
        let (de, en) = (1.0 / 3.0_f64.log2(), (1.0 + 0.5) / 2.0);
        assert!((report.value(NDCG_AT_10).unwrap() - (de + en) / 2.0).abs() < 1e-12);
        assert_eq!(NDCG_AT_10.to_string(), "ndcg@10");
        assert!((report.by_query_language["ndcg@10"]["de"] - de).abs() < 1e-12);
        assert!(report.by_direction.is_empty());

        let while_training = DataSource { split: Auto::Auto, purpose: Purpose::Validation, ..source.clone() };
        assert_eq!(load(&while_training).unwrap().split, "dev");
        let all = DataSource { split: Auto::Of(Split::All), ..source };
        let error = load(&all).unwrap_err().to_string();
        assert!(error.contains("subset de has the splits dev, test; name one"), "{error}");
    }
}
