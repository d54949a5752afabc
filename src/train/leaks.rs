//! Evaluation data that the model is trained on.
//!
//! Texts are compared, not files: a benchmark's questions come in many collections. What counts is a query of the
//! evaluation that is a query of the training data word for word, in whichever language, and of these the ones whose answer
//! is a positive of a training group that asks it. A passage alone is no leak: both sides may search the same collection.

use crate::data::catalog::{Role, TextSource, text_hash};
use crate::error::counted;
use crate::eval::tasks::EvalSet;
use std::collections::{HashMap, HashSet};

/// Numbers of evaluation queries that are in the training data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Leaks {
    /// All.
    n_queries: usize,
    /// Those that are there.
    n_known: usize,
    /// Those of them that are there with an answer.
    n_answered: usize,
}

impl Leaks {
    /// Looks for the queries of `set` in `data`.
    pub(super) fn find(set: &EvalSet, data: &dyn TextSource) -> Self {
        let mut by_text: HashMap<u64, Vec<usize>> = HashMap::new();
        for (number, query) in set.queries.iter().enumerate() {
            by_text.entry(text_hash(&query.text)).or_default().push(number);
        }
        let relevant = |query: usize| {
            let relevant = set.queries[query].relevant.iter().filter(|of| of.grade > 0);
            relevant.map(|of| text_hash(&set.passages[of.passage as usize].text))
        };
        let (mut known, mut answered) = (HashSet::<usize>::new(), HashSet::<usize>::new());
        // Training may leave languages out.
        let in_use = data.catalog().langs_in_use();
        for group in 0..data.catalog().n_groups() {
            let queries = data.hashes(group, Role::Query).into_iter().filter(|(lang, _)| in_use.contains(lang));
            let mut here: Vec<usize> = queries.filter_map(|(_, hash)| by_text.get(&hash)).flatten().copied().collect();
            if here.is_empty() {
                continue;
            }
            let positives: HashSet<u64> =
                data.hashes(group, Role::Positive).into_iter().map(|(_, hash)| hash).collect();
            known.extend(&here);
            here.retain(|query| relevant(*query).any(|hash| positives.contains(&hash)));
            answered.extend(here);
        }
        Leaks { n_queries: set.queries.len(), n_known: known.len(), n_answered: answered.len() }
    }

    /// What is said of them, if there are any.
    pub(super) fn in_words(&self) -> Option<String> {
        let Leaks { n_queries, n_known, n_answered } = *self;
        let questions = counted(n_queries as u64, "evaluation question");
        let known =
            format!("{n_known} of {questions} are training questions, too, {n_answered} of them with their answer");
        (n_known > 0).then(|| format!("{known}; figures are too good"))
    }
}
