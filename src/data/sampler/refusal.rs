//! Errors for data that cannot serve the configured mode: what is missing, and every way out.

use super::{BatchKind, BatchMode, SamplerConfig};
use crate::Error;
use crate::data::catalog::Catalog;
use crate::error::counted;

/// The error if no group can serve a batch of `kind`.
pub fn no_groups(catalog: &Catalog, config: &SamplerConfig, kind: BatchKind) -> Error {
    if catalog.n_groups() == 0 {
        return Error::config("data", "holds no group of a query and a positive; name a file that does");
    }
    let lack = match (kind, catalog.languages_in_use().as_slice()) {
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

/// The error if only `n_groups` groups can serve a mixed or cross-lingual batch of `kind`: fewer than it has rows.
pub fn too_few_groups(config: &SamplerConfig, kind: BatchKind, n_groups: u64) -> Error {
    match kind {
        BatchKind::CrossLingual => too_few(config, "in two languages", "add parallel data", n_groups),
        _ => too_few(config, "in one language", "add data", n_groups),
    }
}

/// The error if the groups of all `n_langs` languages that monolingual batches can be in are fewer than a batch has rows.
pub fn too_few_monolingual(catalog: &Catalog, config: &SamplerConfig, n_langs: usize, n_groups: u64) -> Error {
    let have = match (catalog.languages_in_use().len(), n_langs) {
        (1, _) => "in one language".to_owned(),
        (_, 1) => "in one language, in the only one that has any".to_owned(),
        (_, n) => format!("in one language, in all {n} languages together"),
    };
    too_few(config, &have, "add data", n_groups)
}

fn too_few(config: &SamplerConfig, have: &str, remedy: &str, n_groups: u64) -> Error {
    let lower = if n_groups >= 2 { format!("lower batch_size to {n_groups} or less, or ") } else { String::new() };
    let batch_size = config.batch_size;
    let message = format!(
        "{batch_size} is more than the {} with query and positive {have}, and no group may come twice in a batch; \
         {lower}{remedy}",
        counted(n_groups, "group")
    );
    Error::config("batch_size", message)
}

/// The error about what is left of some data, with the keys that leave the rest out.
pub fn of_less_data(error: Error, left_out_by: &[&str]) -> Error {
    match error {
        Error::Config { key, message } if !left_out_by.is_empty() => {
            let keys = left_out_by.join(" and ");
            Error::config(key, format!("{message}, or let {keys} leave more of the data"))
        }
        other => other,
    }
}
