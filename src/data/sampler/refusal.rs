//! Errors for data that cannot serve the configured mode: what is missing, and every way out.

use super::{BatchKind, BatchMode, SamplerConfig};
use crate::Error;
use crate::data::catalog::{Catalog, LangId};

/// The error if no group can serve a batch of `kind`.
pub fn no_groups(catalog: &Catalog, config: &SamplerConfig, kind: BatchKind) -> Error {
    if catalog.n_groups() == 0 {
        return Error::config("data", "holds no group of a query and a positive; name a file that does");
    }
    let lack = match (kind, languages(catalog).as_slice()) {
        (BatchKind::CrossLingual, ["und"]) => {
            "cross-lingual batches need two languages, but the data names none (query_lang, passage_lang)".to_owned()
        }
        (BatchKind::CrossLingual, [only]) => {
            format!("cross-lingual batches need two languages, but all of the data is in \"{only}\"")
        }
        (BatchKind::CrossLingual, langs) => format!(
            "cross-lingual batches need groups with a query in one language and a positive in another, but each \
             group of the data has one language only ({})",
            langs.join(", ")
        ),
        _ => "monolingual batches need groups with a query and a positive in one language, but the data has none"
            .to_owned(),
    };
    let remedy = match (kind, config.mode) {
        (BatchKind::CrossLingual, BatchMode::Hybrid) => {
            "give parallel data, or set alpha = 1 for monolingual batches only"
        }
        (BatchKind::CrossLingual, _) => "give parallel data, or set mode = \"monolingual\"",
        (_, BatchMode::Hybrid) => "give such data, or set alpha = 0 for cross-lingual batches only",
        _ => "give such data, or set mode = \"cross_lingual\"",
    };
    Error::config("mode", format!("{}: {lack}; {remedy}", config.mode))
}

/// The error if only `n_groups` groups can serve a batch of `kind`: fewer than a batch has rows.
pub fn too_few_groups(catalog: &Catalog, config: &SamplerConfig, kind: BatchKind, n_groups: u64) -> Error {
    let (have, mut remedies) = match kind {
        BatchKind::Monolingual(lang) if languages(catalog).len() > 1 => {
            let lang = &catalog.languages[lang as usize];
            let other = match config.mode {
                BatchMode::Hybrid => BatchMode::CrossLingual,
                _ => BatchMode::MixedMonolingual,
            };
            let more = format!("add data in \"{lang}\"");
            let less = format!("leave \"{lang}\" out");
            (format!("in \"{lang}\""), vec![more, less, format!("set mode = \"{other}\"")])
        }
        BatchKind::CrossLingual => ("in two languages".to_owned(), vec!["add parallel data".to_owned()]),
        _ => ("in one language".to_owned(), vec!["add data".to_owned()]),
    };
    if n_groups >= 2 {
        remedies.insert(0, format!("lower batch_size to {n_groups} or less"));
    }
    let (batch_size, remedies) = (config.batch_size, remedies.join(", or "));
    let message = format!(
        "{batch_size} is more than the {n_groups} groups with query and positive {have}, and no group may come \
         twice in a batch; {remedies}"
    );
    Error::config("batch_size", message)
}

/// Languages that some group has; a dataset of several may lack some of the catalog's languages.
fn languages(catalog: &Catalog) -> Vec<&str> {
    let groups = || catalog.classes.iter().filter(|class| class.n_groups > 0);
    let is_used =
        |lang: &LangId| groups().any(|class| class.query_langs.contains(lang) || class.passage_langs.contains(lang));
    let used = (0..catalog.languages.len() as LangId).filter(is_used);
    used.map(|lang| catalog.languages[usize::from(lang)].as_str()).collect()
}
