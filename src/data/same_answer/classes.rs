//! Passages and rows of a batch that answer the same and are answered by the same, as one.
//!
//! Thousands of rows may be answered by one text ("yes"): each answers each, and a list of who answers whom would have
//! the square of their number. So what makes no difference is taken away first, in time and memory that grow with the
//! texts of the batch: what a row says and asks alone; of questions with the same answers, and of texts that answer the
//! same questions, all but one. Then most rows of such a batch are of few classes.

use super::texts::{Numbers, Texts, ascending};

/// The classes of a batch; all lists ascend.
pub(super) struct Classes {
    /// The class of each passage.
    pub of: Vec<usize>,
    /// Number of classes of rows, with their positives. They come first; the others are of negatives.
    pub n_of_rows: usize,
    /// Passages of each class; rows have the numbers of their positives.
    pub members: Vec<Vec<usize>>,
    /// For each class the texts that it says, and for each text the classes that do.
    pub says: Vec<Vec<usize>>,
    said_by: Vec<Vec<usize>>,
    /// For each class of rows the questions that it asks, and for each question the classes that do.
    pub asks: Vec<Vec<usize>>,
    pub asked_by: Vec<Vec<usize>>,
    /// For each question the texts that answer it, and for each text the questions that it answers.
    pub answers: Vec<Vec<usize>>,
    answered: Vec<Vec<usize>>,
}

impl Classes {
    pub(super) fn new(texts: Texts) -> Self {
        let Texts { n_texts, says, asks, answers } = without_own(texts);
        let (questions, answers) = merged(answers);
        let (texts, answered) = merged(inverted(&answers, n_texts));
        let answers = inverted(&answered, answers.len());

        let mut classes = Numbers::default();
        let (mut of, mut n_of_rows) = (Vec::with_capacity(says.len()), 0);
        for (passage, said) in says.iter().enumerate() {
            let asked = asks.get(passage).map(|asked| renumbered(asked, &questions));
            let is_of_row = asked.is_some();
            of.push(classes.of((asked, renumbered(said, &texts))));
            n_of_rows = if is_of_row { classes.0.len() } else { n_of_rows };
        }
        let (asks, says): (Vec<_>, Vec<_>) = classes.into_keys().into_iter().unzip();
        let asks: Vec<Vec<usize>> = asks.into_iter().flatten().collect();
        let mut members = vec![Vec::new(); says.len()];
        of.iter().enumerate().for_each(|(passage, class): (usize, &usize)| members[*class].push(passage));
        let (said_by, asked_by) = (inverted(&says, answered.len()), inverted(&asks, answers.len()));
        Classes { of, n_of_rows, members, says, said_by, asks, asked_by, answers, answered }
    }

    /// Number of passages of a class, or of rows.
    pub(super) fn len(&self, class: usize) -> usize {
        self.members[class].len()
    }

    /// Classes of rows, and of negatives, that say a text.
    pub(super) fn saying(&self, text: usize) -> (&[usize], &[usize]) {
        let all = &self.said_by[text];
        all.split_at(all.partition_point(|class| *class < self.n_of_rows))
    }

    /// Number of texts.
    pub(super) fn n_texts(&self) -> usize {
        self.answered.len()
    }

    /// Texts that answer the rows of a class; one may come several times.
    pub(super) fn answers_of(&self, class: usize) -> impl Iterator<Item = usize> {
        self.asks[class].iter().flat_map(|question| &self.answers[*question]).copied()
    }

    /// Classes of rows that the passages of a class answer; one may come several times.
    pub(super) fn answered_by(&self, class: usize) -> impl Iterator<Item = usize> {
        let questions = self.says[class].iter().flat_map(|text| &self.answered[*text]);
        questions.flat_map(|question| &self.asked_by[*question]).copied()
    }

    /// Classes of rows of which one answers the other; one may come several times.
    pub(super) fn related(&self, class: usize) -> impl Iterator<Item = usize> {
        self.answers_of(class).flat_map(|text| self.saying(text).0).copied().chain(self.answered_by(class))
    }
}

/// Takes out the answers that one row alone says and the same alone asks for: most rows' own query, and its positive.
fn without_own(texts: Texts) -> Texts {
    let Texts { n_texts, says, asks, mut answers } = texts;
    let mut asking = vec![Who::Nobody; answers.len()];
    for (row, asked) in asks.iter().enumerate() {
        asked.iter().for_each(|question| asking[*question] = asking[*question].or(Who::Only(row)));
    }
    let (mut asking_for, mut saying) = (vec![Who::Nobody; n_texts], vec![Who::Nobody; n_texts]);
    for (texts, row) in answers.iter().zip(&asking) {
        texts.iter().for_each(|text| asking_for[*text] = asking_for[*text].or(*row));
    }
    for (passage, said) in says.iter().enumerate() {
        said.iter().for_each(|text| saying[*text] = saying[*text].or(Who::Only(passage)));
    }
    let is_own = |text: usize| matches!(saying[text], Who::Only(_)) && saying[text] == asking_for[text];
    answers.iter_mut().for_each(|texts| texts.retain(|text| !is_own(*text)));
    Texts { n_texts, says, asks, answers }
}

/// Who does something.
#[derive(Clone, Copy, PartialEq)]
enum Who {
    Nobody,
    Only(usize),
    Several,
}

impl Who {
    /// One or the other does.
    fn or(self, other: Who) -> Who {
        match (self, other) {
            (Who::Nobody, one) | (one, Who::Nobody) => one,
            (one, other) if one == other => one,
            _ => Who::Several,
        }
    }
}

/// Equal lists as one, and for each of the given lists its new number; none for those that are empty.
fn merged(lists: Vec<Vec<usize>>) -> (Vec<Option<usize>>, Vec<Vec<usize>>) {
    let mut numbers = Numbers::default();
    let new = lists.into_iter().map(|list| (!list.is_empty()).then(|| numbers.of(list))).collect();
    (new, numbers.into_keys())
}

/// A list with the new numbers of its members.
fn renumbered(list: &[usize], new: &[Option<usize>]) -> Vec<usize> {
    ascending(list.iter().filter_map(|number| new[*number]).collect())
}

/// For each of `0..n` the numbers of the lists that contain it.
fn inverted(lists: &[Vec<usize>], n: usize) -> Vec<Vec<usize>> {
    let mut inverted = vec![Vec::new(); n];
    for (number, list) in lists.iter().enumerate() {
        list.iter().for_each(|member| inverted[*member].push(number));
    }
    inverted
}
