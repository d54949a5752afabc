//! Retrieval over a corpus while training: directories with corpus, queries and judgements, as `hbt eval --task retrieval`
//! reads them, held in memory.
//!
//! Each subset is a language here, whatever it is called: its queries search its own documents, and figures are means over
//! the subsets. `hbt eval` streams the corpus and writes mteb's numbers; these are by the same rules, but that products are in
//! the type that the model computes in, and that mAP is over the whole ranking.

use super::{EvalSet, Passage, Query, Relevant, Task};
use crate::data::catalog::LangId;
use crate::data::collection::{self, Collection, Document};
use crate::data::formats::{DataSource, Notes};
use crate::eval::figures::FigureKey;
use crate::eval::metrics::{MAP, MRR, NDCG, RECALL};
use crate::eval::settings::{MONOLINGUAL, Ranked};
use crate::{Error, Result};

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
    let set = from_collections(loaded, false)?;
    notes.extend(&set.notes);
    Ok(EvalSet { notes, ..set })
}

/// The benchmark that some collections make, each a subset of its own. With `ignores_identical_ids` a document whose id is the
/// query's is left out of its ranking.
///
/// # Errors
/// A corpus that cannot be read; a collection with documents to rank for each query; nothing to evaluate on.
pub fn from_collections(mut collections: Vec<Collection>, ignores_identical_ids: bool) -> Result<EvalSet> {
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
        set.add(lang, collection, ignores_identical_ids)?;
    }
    if set.queries.is_empty() {
        return Err(Error::other("no query of the evaluation has a judgement; check the ids"));
    }
    Ok(set)
}

impl EvalSet {
    fn add(&mut self, lang: LangId, collection: Collection, ignores_identical_ids: bool) -> Result<()> {
        let subset = &collection.subset;
        if collection.queries.iter().any(|query| query.candidates.is_some()) {
            let message = format!("subset {subset} ranks candidates of each query; hbt eval does, training does not");
            return Err(Error::other(message));
        }
        let mut documents = collection.documents();
        let mut all = documents.by_ref().collect::<Result<Vec<Document>>>()?;
        [&collection.notes, documents.notes()].into_iter().for_each(|notes| self.notes.extend(notes));
        // Of equal scores the earlier passage ranks higher, and mteb's the larger id.
        all.sort_unstable_by(|a, b| b.id.cmp(&a.id));
        let (first, end) = (self.passages.len(), self.passages.len() + all.len());
        u32::try_from(end).map_err(|_| Error::other("the evaluation has more than 4 billion documents"))?;
        let (ids, texts): (Vec<String>, Vec<String>) = all.into_iter().map(|of| (of.id, of.text)).unzip();
        self.passages.extend(texts.into_iter().map(|text| Passage { lang, text }));
        let place = |id: &str| ids.binary_search_by(|other| id.cmp(other.as_str())).ok().map(|at| (first + at) as u32);
        for query in collection.queries {
            let left_out = if ignores_identical_ids { place(&query.id) } else { None };
            let (mut relevant, mut out_of_reach) = (Vec::new(), Vec::new());
            for (id, grade) in &query.judgements {
                // What is worth less than nothing is not relevant.
                let grade = u32::try_from(*grade).unwrap_or(0);
                match place(id).filter(|passage| Some(*passage) != left_out) {
                    Some(passage) => relevant.push(Relevant { passage, grade }),
                    None => out_of_reach.push(grade),
                }
            }
            relevant.sort_unstable();
            let group = self.queries.len() as u32;
            self.queries.push(Query { lang, group, text: query.text, relevant, out_of_reach, left_out });
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
        assert_eq!(queries, [(0, "de q1"), (0, "de q2"), (1, "en q1"), (1, "en q2")]);
        // Documents are d3, d2, d1: of equal scores the larger id comes first.
        let relevant = |passage, grade| Relevant { passage, grade };
        assert_eq!(set.queries[0].relevant, [relevant(1, 2), relevant(2, 0)]);
        assert_eq!((&set.queries[1].relevant[..], &set.queries[1].out_of_reach[..]), (&[][..], &[1][..]));
        assert_eq!(set.queries[3].relevant, [relevant(4, 1)]);
        // Ranks in the own subset, the pooled ones are all 6. de: nDCG 1/log2(3) and 0; en: 1 and 1/log2(4).
        let rank = |lang, in_language| super::super::RelevantRank { lang, in_language, pooled: 6 };
        let ranks = [vec![rank(0, 2), rank(0, 1)], vec![], vec![rank(1, 1)], vec![rank(1, 3)]];
        let report = settings::report("m", &set, &ranks);
        let (de, en) = ((1.0 / 3.0_f64.log2() + 0.0) / 2.0, (1.0 + 0.5) / 2.0);
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
