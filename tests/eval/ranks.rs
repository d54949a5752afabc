//! Searches and evaluations that several ranks share, on threads of this process: to the bit what one process finds.

use super::Noise;
use crate::common::{Sandbox, fixture, jsonl};
use crate::dist::threads::world;
use hbt::Result;
use hbt::backend::Cpu;
use hbt::config::Config;
use hbt::data::collection;
use hbt::data::formats::{Group, Notes, Text};
use hbt::dist::Peers;
use hbt::eval::retrieval::search;
use hbt::eval::search::{RelevantRanks, relevant_ranks};
use hbt::eval::tasks::{EvalSet, Passage, Query, Relevant, parallel};
use hbt::eval::top::{Found, TopSearch, nearest};
use hbt::eval::vectors::{Counts, ModelVectors};
use hbt::mine::{Corpus, Rules, Sampling, mine};
use hbt::model_dir::ModelDir;
use hbt::retriever::kept::KeptEmbeddings;
use hbt::retriever::{Embeddings, Retriever};
use serde_json::json;
use std::path::Path;

const DIM: usize = 8;

/// Embeddings whose products tie now and then.
fn embeddings(noise: &mut Noise, n: usize) -> Embeddings {
    Embeddings::new(DIM, (0..n * DIM).map(|_| noise.below(7) as f32 - 3.0).collect())
}

/// What each rank of worlds of one to three has; they are all the same.
fn of_all<T: PartialEq + Send>(f: impl Fn(&Peers) -> T + Sync) -> T {
    let one = f(&Peers::alone());
    for size in 2..=3 {
        for (rank, of_rank) in world(size, |peers| f(&peers)).into_iter().enumerate() {
            assert!(of_rank == one, "rank {rank} of {size}");
        }
    }
    one
}

/// Blocks of 256, 256 and 88 queries, with more ranks than blocks for a single one.
#[test]
fn ranks_of_relevant_passages_are_those_of_one_process() {
    for (n_queries, n_passages) in [(600, 500), (5, 40)] {
        let mut noise = Noise(3);
        let lang = |passage: usize| u16::from(passage >= n_passages / 3);
        let query = |noise: &mut Noise| {
            let mut relevant: Vec<u32> = (0..3).map(|_| noise.below(n_passages as u64) as u32).collect();
            relevant.sort_unstable();
            relevant.dedup();
            Query { relevant: relevant.into_iter().map(Relevant::binary).collect(), ..Query::default() }
        };
        let set = EvalSet {
            notes: Notes::default(),
            task: &parallel::TASK,
            split: "all".into(),
            languages: vec!["aa".into(), "bb".into()],
            passages: (0..n_passages).map(|p| Passage { lang: lang(p), text: String::new() }).collect(),
            queries: (0..n_queries).map(|_| query(&mut noise)).collect(),
        };
        let (queries, passages) = (embeddings(&mut noise, n_queries), embeddings(&mut noise, n_passages));
        let ranks: RelevantRanks =
            of_all(|peers| relevant_ranks(&Cpu::<f32>::new(), peers, &set, &queries, &passages).unwrap());
        assert!(ranks.iter().zip(&set.queries).all(|(ranks, query)| ranks.len() == query.relevant.len()));
    }
}

/// Ids and bits of scores.
fn listed(found: &Found, n_queries: usize) -> Vec<Vec<(String, u32)>> {
    (0..n_queries).map(|query| found.of(query).map(|(id, score)| (id.to_owned(), score.to_bits())).collect()).collect()
}

/// Blocks of 512, 512 and 76 queries, of all documents and of candidates; and the nearest of each.
#[test]
fn the_best_documents_are_those_of_one_process() {
    let mut noise = Noise(4);
    let (n_queries, n_documents) = (1100, 700);
    let (queries, documents) = (embeddings(&mut noise, n_queries), embeddings(&mut noise, n_documents));
    let ids: Vec<String> = (0..n_documents).map(|i| format!("d{}", i * 31 % n_documents)).collect();
    let candidates: Vec<Vec<String>> = (0..n_queries)
        .map(|query| (0..query % 4).map(|_| ids[noise.below(n_documents as u64) as usize].clone()).collect())
        .collect();
    let lists: Vec<&[String]> = candidates.iter().map(Vec::as_slice).collect();
    for candidates in [None, Some(&lists[..])] {
        let found = of_all(|peers| {
            let backend = Cpu::<f32>::new();
            let mut search = TopSearch::new(&backend, peers, queries.clone(), 30, candidates).unwrap();
            for (ids, values) in ids.chunks(300).zip(documents.values().chunks(300 * DIM)) {
                let window = Embeddings::new(DIM, values.to_vec());
                search.add(ids.iter().map(String::as_str), &window).unwrap();
            }
            let wanted: Vec<bool> = ids.iter().map(|id| search.wants(id)).collect();
            (wanted, listed(&search.finish().unwrap(), n_queries))
        });
        assert_eq!(found.1[1099].len(), if candidates.is_none() { 30 } else { 3 });
    }
    let nearest = of_all(|peers| nearest(&Cpu::<f32>::new(), peers, queries.clone(), &documents).unwrap());
    assert_eq!(nearest.len(), n_queries);
}

fn retriever() -> Retriever<Cpu<f32>> {
    let config = Config { chunk_tokens: 1000.into(), ..Config::default() };
    let dir = ModelDir::open(fixture("bert")).unwrap();
    let settings = config.retriever(&dir).unwrap();
    Retriever::load(Cpu::new(), dir, settings).unwrap()
}

/// A corpus of more than two of the windows in which it is read; a tenth of its texts stand there twice, in other windows or in
/// the same.
fn write_corpus(sandbox: &Sandbox) {
    let words = ["old", "river", "green", "sea", "x", "who", "wrote", "it", "?", "the"];
    let mut noise = Noise(5);
    let mut texts: Vec<String> = Vec::new();
    for i in 0..17_000 {
        let again = (i > 0 && noise.below(10) == 0).then(|| texts[noise.below(i) as usize].clone());
        let mut text =
            || (0..1 + noise.below(5)).map(|_| words[noise.below(10) as usize]).collect::<Vec<_>>().join(" ");
        texts.push(again.unwrap_or_else(|| format!("{} {i}", text())));
    }
    let row = |(i, text): (usize, &String)| json!({"_id": format!("d{i}"), "text": text});
    sandbox.write("data/corpus.jsonl", jsonl(&texts.iter().enumerate().map(row).collect::<Vec<_>>()));
    sandbox.write("data/queries.jsonl", jsonl(&texts.iter().step_by(30).enumerate().map(row).collect::<Vec<_>>()));
    let judgements: String = (0..560).map(|i| format!("d{i}\td{}\t1\n", i * 30)).collect();
    sandbox.write("data/qrels/test.tsv", "query-id\tcorpus-id\tscore\n".to_owned() + &judgements);
}

/// Ids and the bits of scores of each query, best first.
type Rankings = Vec<Vec<(String, u32)>>;

/// What a search of the corpus finds, with what is kept in `folder`, if anything is.
fn searched(
    retriever: &Retriever<Cpu<f32>>,
    peers: &Peers,
    data: &Path,
    folder: Option<&Path>,
) -> Result<(Rankings, Counts)> {
    let collection = collection::open(data)?.load("default", "test")?;
    // The first rank's alone.
    let kept = folder.filter(|_| peers.rank() == 0);
    let kept = kept.map(|folder| KeptEmbeddings::open(folder, retriever.embedding_size(), 1 << 30)).transpose()?;
    let mut vectors = ModelVectors::new(retriever, peers, kept, None);
    let found = search(&Cpu::<f32>::new(), peers, &collection, Path::new(""), &mut vectors, &mut |_| {})?.found;
    Ok((listed(&found, collection.queries.len()), vectors.counts()))
}

#[test]
fn a_corpus_is_embedded_and_searched_as_by_one_process() {
    let sandbox = Sandbox::new();
    write_corpus(&sandbox);
    let (retriever, data) = (retriever(), sandbox.path("data"));
    let (found, anew) = searched(&retriever, &Peers::alone(), &data, None).unwrap();
    assert_eq!((found.len(), found[0].len()), (560, 1000));
    let kept = sandbox.path("kept1");
    let (of_one, counts) = searched(&retriever, &Peers::alone(), &data, Some(&kept)).unwrap();
    assert!(counts.n_embedded < anew.n_embedded, "what is kept is embedded once");
    assert!(of_one == found);
    for size in 2..=3 {
        let of_ranks = world(size, |peers| searched(&retriever, &peers, &data, None).unwrap());
        assert!(of_ranks.iter().all(|of_rank| *of_rank == (found.clone(), anew)), "{size} ranks, nothing kept");
        let folder = sandbox.path(&format!("kept{size}"));
        let of_ranks = world(size, |peers| searched(&retriever, &peers, &data, Some(&folder)).unwrap());
        assert!(of_ranks.iter().all(|of_rank| *of_rank == (of_one.clone(), counts)), "{size} ranks");
        for file in ["keys", "vectors"] {
            let [one, several] = [&kept, &folder].map(|folder| std::fs::read(folder.join(file)).unwrap());
            assert!(one == several, "{file} of {size} ranks");
        }
        // Once more: all are there.
        let of_ranks = world(size, |peers| searched(&retriever, &peers, &data, Some(&folder)).unwrap());
        assert!(
            of_ranks.iter().all(|(again, counts)| *again == of_one && counts.n_embedded == 0),
            "{size} ranks again"
        );
    }
}

#[test]
fn ranks_with_other_texts_are_named() {
    let retriever = retriever();
    let errors = world(3, |peers| {
        let texts = ["same", if peers.rank() == 1 { "other" } else { "one" }];
        retriever.encode_among(&peers, &retriever.settings.query, &texts, &mut |_| {}).unwrap_err().to_string()
    });
    assert!(errors.iter().all(|error| error.starts_with("rank 1 has other texts than rank 0; give")), "{errors:?}");
}

/// 600 rows, in blocks of 256.
#[test]
fn negatives_are_those_that_one_process_mines() {
    let text = |role: &str, i: usize| {
        vec![Text::new("en", format!("{role} {} {}", ["river", "sea", "green"][i % 3], i * 31 % 601))]
    };
    let group = |i: usize| Group {
        id: i.to_string(),
        queries: text("who wrote", i),
        positives: text("the", i),
        ..Group::default()
    };
    let corpus = Corpus::read((0..600).map(|i| Ok(group(i)))).unwrap();
    let retriever = retriever();
    let rules = Rules {
        num_negatives: 3,
        range_min: 2,
        range_max: 20,
        relative_margin: None,
        sampling_strategy: Sampling::Random,
        ..Rules::default()
    };
    let mined = of_all(|peers| mine(&retriever, peers, &corpus, &rules, &mut |_, _| {}).unwrap());
    assert!(mined.negatives.iter().filter(|of| of.len() == 3).count() > 300);
}
