//! MLQA-R (LAReQA, Roy et al. 2020), laid out as XQuAD-R: find the sentence that answers a question.
//!
//! A question exists in 2 to 4 of 7 languages, with one answer in each. Where it has no answer in a language, it does not
//! count for that direction (arXiv 2408.10536), and reports say how many questions each direction has.

use super::{EvalSet, Task, xquad_r};
use crate::Result;
use crate::data::formats::DataSource;
use crate::eval::settings::{FIGURES_WITH_RECALL, MULTILINGUAL_MAP, pooled};

/// The task. Nothing in its data says that it is not XQuAD-R's, so it has to be named.
pub static TASK: Task = Task {
    name: "mlqa-r",
    recognises: |_| Ok(false),
    load,
    searched: pooled,
    figures: &FIGURES_WITH_RECALL,
    main: MULTILINGUAL_MAP,
};

/// As [`xquad_r::load`].
///
/// # Errors
/// Those of [`xquad_r::load`].
pub fn load(source: &DataSource) -> Result<EvalSet> {
    xquad_r::load_as(&TASK, source)
}
