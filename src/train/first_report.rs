//! The evaluation before training, kept for the next run that begins with the same model on the same data.
//!
//! A report's file is named by a hash of all that it depends on: the weights as they were loaded, number type, lengths,
//! prefixes, pooling, tokenizer, the texts to evaluate on, a figure on demand, the device or its instructions, and the
//! version of hbt. The file begins with a hash of the rest, without which it is as good as not there.

use crate::Result;
use crate::backend::Backend;
use crate::eval::tasks::EvalSet;
use crate::eval::{EvalReport, Evaluated, FigureKey};
use crate::files::write_file_atomic;
use crate::retriever::Retriever;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::xxh3_128;

/// Where a report is kept.
pub(super) struct FirstReport {
    path: PathBuf,
}

/// What is kept of an evaluation.
#[derive(Serialize, Deserialize)]
struct Kept {
    report: EvalReport,
    cut: Vec<String>,
    warning: Option<String>,
}

impl FirstReport {
    /// The place in `cache_dir` of the report on `retriever` as whoever saves it will measure it, by what it depends on;
    /// `more` is a figure besides the task's.
    ///
    /// # Errors
    /// If a copy from the device fails.
    pub(super) fn of<B: Backend>(
        cache_dir: &Path,
        retriever: &Retriever<B>,
        set: &EvalSet,
        more: Option<FigureKey>,
        instructions: Option<&str>,
    ) -> Result<Self> {
        let more = more.map_or(String::new(), |key| format!(", {key}"));
        let depends_on = format!(
            "values of queries, {}, {:?}, {:?}, data {}{more}",
            retriever.content_key(instructions)?,
            retriever.settings,
            retriever.settings.as_saved(),
            set.key(),
        );
        let key = xxh3_128(depends_on.as_bytes());
        Ok(FirstReport { path: cache_dir.join(format!("evaluation-{key:032x}.json")) })
    }

    /// What is kept, if anything is.
    pub(super) fn text(&self) -> Option<String> {
        fs::read_to_string(&self.path).ok()
    }

    /// The evaluation in a [text](Self::text), if it is whole, of a model that reports call `model`.
    pub(super) fn read(text: &str, model: &str) -> Option<Evaluated> {
        let (hash, rest) = text.split_once('\n')?;
        let kept: Kept = (hash == hash_of(rest)).then(|| serde_json::from_str(rest).ok())??;
        let Kept { report, cut, warning } = kept;
        Some(Evaluated { report: EvalReport { model: model.to_owned(), ..report }, cut, warning })
    }

    /// Keeps an evaluation. A cache that cannot be written is no reason to stop.
    pub(super) fn write(&self, Evaluated { report, cut, warning }: &Evaluated) {
        let kept = Kept { report: report.clone(), cut: cut.clone(), warning: warning.clone() };
        if let Ok(rest) = serde_json::to_string(&kept) {
            let _ = write_file_atomic(&self.path, format!("{}\n{rest}", hash_of(&rest)).as_bytes());
        }
    }
}

fn hash_of(text: &str) -> String {
    format!("{:032x}", xxh3_128(text.as_bytes()))
}
