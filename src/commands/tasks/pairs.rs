//! Tasks of pairs of texts: translations that are to be found, and similarities that are compared with people's judgements.

use super::evaluation::Searcher;
use super::planned::{Part, Planned};
use hbt::data::collection::Pairs;
use hbt::eval::mteb::Numbers;
use hbt::eval::mteb::bitext::bitext_numbers;
use hbt::eval::mteb::pairs::pair_numbers;
use hbt::eval::mteb::similarity::{ModelSimilarity, PairSimilarities};
use hbt::eval::mteb::sts::sts_numbers;
use hbt::eval::mteb::table::{TaskKind, TaskRow};
use hbt::eval::retrieval::{Vectors, unit};
use hbt::retriever::Embeddings;
use hbt::train::Ranks;
use hbt::{Error, Result};

/// The numbers of a subset, which the first rank has, and how many pairs it has.
pub fn evaluate(
    searcher: &Searcher,
    ranks: &Ranks,
    task: &Planned,
    row: &TaskRow,
    part: &Part,
    vectors: &mut dyn Vectors,
) -> Result<(Option<Numbers>, usize)> {
    let pairs = task.data.pairs(row, part)?;
    if pairs.first.is_empty() {
        let message = format!("has no pair of subset {} in split {}", part.subset.name, part.split);
        return Err(Error::file(&task.data.root, message));
    }
    let n_pairs = pairs.first.len();
    let mut embed = |texts: &[String]| vectors.texts(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let (first, second) = (embed(&pairs.first)?, embed(&pairs.second)?);
    let numbers = match row.kind {
        TaskKind::BitextMining => bitext_numbers(&nearest(searcher, ranks, &pairs, first, second)?),
        _ if !ranks.leads() => return Ok((None, n_pairs)),
        _ => {
            let (dim, cosine) = (first.dim(), ModelSimilarity::Cosine);
            let similarities = PairSimilarities::new(cosine, dim, first.values(), second.values());
            match row.kind {
                TaskKind::Sts => sts_numbers(&pairs.gold, &similarities),
                _ => pair_numbers(&labels(task, part, &pairs)?, &similarities),
            }
        }
    };
    Ok((ranks.leads().then_some(numbers), n_pairs))
}

fn labels(task: &Planned, part: &Part, pairs: &Pairs) -> Result<Vec<bool>> {
    let label = |gold: &f64| match *gold {
        0.0 => Ok(false),
        1.0 => Ok(true),
        other => {
            let message = format!("has the label {other} in subset {}; expected 0 and 1", part.subset.name);
            Err(Error::file(&task.data.root, message))
        }
    };
    pairs.gold.iter().map(label).collect()
}

/// For each first text the number of the second text that is nearest by cosine.
fn nearest(
    searcher: &Searcher,
    ranks: &Ranks,
    pairs: &Pairs,
    first: Embeddings,
    second: Embeddings,
) -> Result<Vec<u32>> {
    let first = unit(first, |row| &pairs.first[row], "sentence")?;
    let second = unit(second, |row| &pairs.second[row], "sentence")?;
    searcher.nearest(ranks.peers(), first, &second)
}
