//! Mining hard negatives: what is found against a naive search, and what is written.

mod command;
mod naive;
mod rows;
mod rules;
mod xquad_r;

use hbt::backend::Cpu;
use hbt::data::formats::{Group, Text};
use hbt::mine::{Corpus, Mined, Rules, mine_embedded};
use hbt::retriever::Embeddings;

/// Texts of `(language, text)`.
fn texts(of: &[(&str, &str)]) -> Vec<Text> {
    of.iter().map(|(lang, text)| Text::new(*lang, *text)).collect()
}

fn group(id: &str, queries: &[(&str, &str)], positives: &[(&str, &str)], negatives: &[(&str, &str)]) -> Group {
    let [queries, positives, negatives] = [queries, positives, negatives].map(texts);
    Group { id: id.into(), queries, positives, negatives, ..Group::default() }
}

/// Negatives mined from `rows` with vectors of texts that `embed` makes.
fn mined(rows: &[Group], rules: &Rules, embed: impl Fn(&str) -> Vec<f32>) -> hbt::Result<(Corpus, Mined)> {
    let corpus = Corpus::read(rows.iter().cloned().map(Ok))?;
    let embeddings = |texts: &[String]| {
        let rows: Vec<Vec<f32>> = texts.iter().map(|text| embed(text)).collect();
        Embeddings::new(rows[0].len(), rows.concat())
    };
    let (queries, passages) = (embeddings(&corpus.queries), embeddings(&corpus.texts));
    let mined = mine_embedded(&Cpu::<f32>::new(), &corpus, rules, &queries, &passages)?;
    Ok((corpus, mined))
}

/// Negatives of every row as `language:text`.
fn named(corpus: &Corpus, mined: &Mined) -> Vec<Vec<String>> {
    let name = |&passage: &u32| {
        let Text { lang, text, .. } = corpus.text(passage);
        format!("{lang}:{text}")
    };
    mined.negatives.iter().map(|row| row.iter().map(name).collect()).collect()
}
