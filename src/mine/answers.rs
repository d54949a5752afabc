//! Which passages answer a question, by the rule of `data/same_answer.rs`: those that say what the positives of a group
//! say that asks it in the same words. Here there is no other row that would have to agree: a passage that shares an
//! answer with the row is excluded, the other answers of the questions that it answers are not.

use std::collections::HashMap;

/// A data set's answers.
#[derive(Default)]
pub(super) struct Answers {
    /// Hash of each passage's text.
    hashes: Vec<u64>,
    /// Passages with each text, in any language.
    with_text: HashMap<u64, Vec<u32>>,
    /// For each question, by its text, the positives of all groups that ask it.
    of_question: HashMap<u64, Vec<u32>>,
    /// For each passage that has any, the positives of its groups in other languages.
    versions: HashMap<u32, Vec<u32>>,
}

/// Texts of a group: hashes of its queries, and its positives.
#[derive(Clone, Default)]
pub(super) struct GroupTexts {
    pub queries: Vec<u64>,
    pub positives: Vec<u32>,
}

impl Answers {
    /// `hashes`: of the passages' texts. `is_same_lang` says whether two passages are in one language.
    pub(super) fn new(groups: &[GroupTexts], hashes: Vec<u64>, is_same_lang: impl Fn(u32, u32) -> bool) -> Self {
        let mut answers = Answers { hashes, ..Answers::default() };
        for (passage, hash) in (0..).zip(&answers.hashes) {
            answers.with_text.entry(*hash).or_default().push(passage);
        }
        for group in groups {
            for &query in &group.queries {
                answers.of_question.entry(query).or_default().extend(&group.positives);
            }
            for &a in &group.positives {
                let others = group.positives.iter().copied().filter(|&b| !is_same_lang(a, b));
                let mut others = others.peekable();
                if others.peek().is_some() {
                    answers.versions.entry(a).or_default().extend(others);
                }
            }
        }
        answers.of_question.values_mut().chain(answers.versions.values_mut()).for_each(sort);
        answers
    }

    /// The passages that answer any of some questions, given by their texts' hashes; ascending.
    pub(super) fn of(&self, questions: &[u64]) -> Vec<u32> {
        let asked = |question: &u64| self.of_question.get(question).into_iter().flatten().copied();
        let mut positives: Vec<u32> = questions.iter().flat_map(asked).collect();
        sort(&mut positives);
        // What is the question or an answer word for word, then what says the same.
        let mut texts: Vec<u64> = positives.iter().map(|passage| self.hashes[*passage as usize]).collect();
        texts.extend(questions);
        texts.sort_unstable();
        texts.dedup();
        let mut found: Vec<u32> = texts.iter().filter_map(|text| self.with_text.get(text)).flatten().copied().collect();
        let versions: Vec<u32> =
            found.iter().filter_map(|passage| self.versions.get(passage)).flatten().copied().collect();
        found.extend(versions);
        found.extend(texts.iter().flat_map(asked));
        sort(&mut found);
        found
    }
}

fn sort(passages: &mut Vec<u32>) {
    passages.sort_unstable();
    passages.dedup();
}
