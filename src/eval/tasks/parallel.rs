//! Parallel questions and answers, in any format that hbt trains on: find the positives of a question's group.
//!
//! Candidates in a language are all positives and negatives of all groups. Equal texts of one language are one
//! candidate, which answers every group that has it as a positive.

use super::{EvalSet, Passage, Query, Relevant, Task};
use crate::data::catalog::LangId;
use crate::data::datasets::HeldOut;
use crate::data::formats::{DataFormat, DataSource, Group, Notes, Split, Text};
use crate::eval::settings::{FIGURES, MULTILINGUAL_MAP, pooled};
use crate::{Error, Result};
use std::collections::{BTreeSet, HashMap};

/// The task: its data is all that hbt trains on but SQuAD layout.
pub static TASK: Task =
    Task { name: "parallel", recognises, load, searched: pooled, figures: &FIGURES, main: MULTILINGUAL_MAP };

fn recognises(data: &DataSource) -> Result<bool> {
    Ok(data.resolve()?.format() != DataFormat::Squad)
}

/// Reads groups of any format; of SQuAD layout, a passage that answers no question is then no candidate.
///
/// # Errors
/// Data that cannot be read or holds no group; the message names the file and line.
pub fn load(data: &DataSource) -> Result<EvalSet> {
    let resolved = data.resolve()?;
    refuse_beir(data, resolved.format())?;
    let split = resolved.split();
    let (groups, notes) = data.read_groups()?;
    if groups.is_empty() {
        return Err(Error::file(&data.path, "there is no question in it to evaluate on"));
    }
    Ok(EvalSet { notes, ..from_groups(&groups, split) })
}

/// The groups of some training data that are held out of it.
///
/// # Errors
/// Data that cannot be read, or is in BEIR's layout.
pub fn held_out(sources: &[DataSource], held_out: &HeldOut) -> Result<EvalSet> {
    let mut groups = Vec::new();
    for source in sources {
        refuse_beir(source, source.resolve()?.format())?;
        // What there is to say about the data is said where it is read to train on.
        groups.extend(source.read_groups_of(|group| held_out.has(group))?.0);
    }
    Ok(EvalSet { split: "held_out".to_owned(), ..from_groups(&groups, Split::All) })
}

/// Fails on data whose candidates would be its judged documents alone.
fn refuse_beir(data: &DataSource, format: DataFormat) -> Result<()> {
    if format != DataFormat::Beir {
        return Ok(());
    }
    let message = "is in BEIR's layout, and measured on judged documents alone, a search would look better than it is; the task \
                   retrieval searches the whole corpus";
    Err(Error::file(&data.path, message))
}

/// The benchmark that `groups` make; `split` is only its name. Languages are those of all their texts.
pub fn from_groups(groups: &[Group], split: Split) -> EvalSet {
    let texts = groups.iter().flat_map(|group| [&group.queries, &group.positives, &group.negatives]).flatten();
    let languages: BTreeSet<&str> = texts.map(|text| text.lang.as_str()).collect();
    let languages: Vec<String> = languages.into_iter().map(str::to_owned).collect();
    let (passages, relevant) = candidates(groups, &languages);
    let mut queries = Vec::new();
    for (lang, code) in languages.iter().enumerate() {
        for (group, relevant) in relevant.iter().enumerate() {
            queries.extend(in_language(&groups[group].queries, code).map(|text| Query {
                lang: lang as LangId,
                group: group as u32,
                text: text.to_owned(),
                relevant: relevant.iter().copied().map(Relevant::binary).collect(),
                ..Query::default()
            }));
        }
    }
    EvalSet { task: &TASK, split: split.to_string(), notes: Notes::default(), languages, passages, queries }
}

/// All candidates, ordered by language and then by first appearance, and each group's relevant ones, ascending.
fn candidates(groups: &[Group], languages: &[String]) -> (Vec<Passage>, Vec<Vec<u32>>) {
    let mut passages = Vec::new();
    let mut relevant = vec![Vec::new(); groups.len()];
    for (lang, code) in languages.iter().enumerate() {
        let mut seen = HashMap::new();
        let mut candidate = |text| {
            *seen.entry(text).or_insert_with(|| {
                passages.push(Passage { lang: lang as LangId, text: str::to_owned(text) });
                passages.len() as u32 - 1
            })
        };
        for (group, relevant) in groups.iter().zip(&mut relevant) {
            relevant.extend(in_language(&group.positives, code).map(&mut candidate));
            in_language(&group.negatives, code).for_each(|text| _ = candidate(text));
        }
    }
    for relevant in &mut relevant {
        relevant.sort_unstable();
        relevant.dedup();
    }
    (passages, relevant)
}

/// The texts in one language.
fn in_language<'a>(texts: &'a [Text], code: &'a str) -> impl Iterator<Item = &'a str> {
    texts.iter().filter(move |text| text.lang == code).map(|text| text.text.as_str())
}
