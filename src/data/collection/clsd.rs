//! Cross-lingual semantic discrimination (CLSD): a sentence, its translation, and sentences that nearly are one.
//!
//! As in mteb's CrossLingualSemanticDiscriminationWMT21 rows are queries `Q1`, `Q2`, ..., and the translation and the four
//! distractors of each are the documents `D1`, `D2`, ... A distractor with the translation's very text is relevant, too.

use super::documents::{Corpus, strip};
use super::{Collection, Document, JudgedQuery, Tables};
use crate::Result;
use crate::data::formats::Notes;
use std::sync::Arc;

const SOURCE: &str = "Source";
const TARGETS: [&str; 5] = ["Target", "TargetAdv1", "TargetAdv2", "TargetAdv3", "TargetAdv4"];

/// The config of two languages, `wmt21.de.fr` of `deu` and `fra`.
pub fn clsd_config(from: &str, to: &str) -> String {
    let short = |code| match code {
        "deu" => "de",
        "fra" => "fr",
        other => other,
    };
    format!("wmt21.{}.{}", short(from), short(to))
}

/// The task in a table, of which the [place](Tables::place) is given, as the subset and the split that are to be called so.
///
/// # Errors
/// No such table; a file that cannot be read or lacks a column; a text that is null.
pub fn clsd(tables: &Tables, [folder, file]: [&str; 2], subset: &str, split: &str) -> Result<Collection> {
    let columns = [&[SOURCE], &TARGETS[..]].concat();
    let mut texts = tables.texts(folder, file, &columns)?.into_iter();
    let sources = texts.next().unwrap_or_default();
    let targets: Vec<Vec<String>> = texts.collect();
    let (mut queries, mut documents) = (Vec::new(), Vec::new());
    for (row, text) in sources.into_iter().enumerate() {
        let of_row = targets.iter().map(|column| &column[row]);
        let mut judgements = Vec::new();
        for target in of_row {
            let id = format!("D{}", documents.len() + 1);
            if *target == targets[0][row] {
                judgements.push((id.clone(), 1));
            }
            documents.push(Document { id, text: strip(target).to_owned() });
        }
        queries.push(JudgedQuery { row, id: format!("Q{}", row + 1), text, judgements, candidates: None });
    }
    Ok(Collection {
        subset: subset.to_owned(),
        split: split.to_owned(),
        n_query_rows: queries.len(),
        queries,
        changes: None,
        notes: Notes::default(),
        corpus: Corpus::Held(Arc::new(documents)),
    })
}
