//! Sets of rows in which each answers each, and the negatives that answer exactly one set.

use super::classes::Classes;
use crate::data::union_find::UnionFind;

/// Classes of rows that are connected.
#[derive(Clone, Copy, PartialEq)]
enum Set {
    /// Each row answers each: a label says so.
    Whole,
    /// Rows of one class that do not answer each other.
    Apart,
    /// Some answer each other.
    Mixed,
}

/// Whom the negatives of a class answer.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Answered {
    Nobody,
    /// The rows of a whole set, given by its first.
    Set(usize),
    /// Other rows.
    Rows,
}

/// The sets of a batch.
pub(super) struct Sets<'a> {
    classes: &'a Classes,
    /// For each class of rows the first one that it is connected with.
    roots: Vec<usize>,
    /// For each root the number of rows that are connected.
    sizes: Vec<usize>,
    sets: Vec<Set>,
    /// For each class of negatives.
    answered: Vec<Answered>,
}

impl<'a> Sets<'a> {
    pub(super) fn new(classes: &'a Classes) -> Self {
        let roots = connected(classes);
        let mut of_root = vec![Vec::new(); classes.n_of_rows];
        roots.iter().enumerate().for_each(|(class, root): (usize, &usize)| of_root[*root].push(class));
        let n_rows = |of: &[usize]| of.iter().map(|class| classes.len(*class)).sum();
        let sizes: Vec<usize> = of_root.iter().map(|of| n_rows(of)).collect();
        let n_saying: Vec<usize> = (0..classes.n_texts()).map(|text| n_rows(classes.saying(text).0)).collect();
        let most = |texts: &Vec<usize>| texts.iter().map(|text| n_saying[*text]).max().unwrap_or(0);
        let most: Vec<usize> = classes.answers.iter().map(most).collect();

        let mut seen = Seen::new(classes.n_of_rows);
        let mut set = |of: &Vec<usize>, size: usize| {
            // Who asks for a text that all rows of the set say is answered by all, without counting them.
            let all_say = |class: usize| classes.asks[class].iter().any(|question| most[*question] == size);
            let mut is_whole = |class: usize| all_say(class) || n_related(classes, class, &mut seen) == size;
            match of.iter().all(|class| is_whole(*class)) {
                true => Set::Whole,
                false if of.len() == 1 => Set::Apart,
                false => Set::Mixed,
            }
        };
        let sets = of_root.iter().zip(&sizes).map(|(of, size)| set(of, *size)).collect();
        let mut sets = Sets { classes, roots, sizes, sets, answered: Vec::new() };
        sets.answered =
            (classes.n_of_rows..classes.members.len()).map(|class| sets.answered(class, &mut seen)).collect();
        sets
    }

    /// Whether the rows of a class are of a set in which only some answer each other.
    pub(super) fn is_mixed(&self, class: usize) -> bool {
        self.sets[self.roots[class]] == Set::Mixed
    }

    /// The first row of the set that the label of a passage stands for, if it stands for one.
    pub(super) fn set_of(&self, passage: usize) -> Option<usize> {
        let class = self.classes.of[passage];
        match class.checked_sub(self.classes.n_of_rows) {
            None => self.whole(class),
            Some(of_negatives) => match self.answered[of_negatives] {
                Answered::Set(row) => Some(row),
                Answered::Nobody | Answered::Rows => None,
            },
        }
    }

    /// Whether labels do not say whom the negatives of a class answer.
    pub(super) fn answers_others(&self, class: usize) -> bool {
        self.answered[class - self.classes.n_of_rows] == Answered::Rows
    }

    /// Whether labels say everything.
    pub(super) fn are_all(&self) -> bool {
        !self.sets.contains(&Set::Mixed) && !self.answered.contains(&Answered::Rows)
    }

    /// The first row of the set of a class of rows, if each of the set answers each.
    fn whole(&self, class: usize) -> Option<usize> {
        let root = self.roots[class];
        (self.sets[root] == Set::Whole).then(|| self.classes.members[root][0])
    }

    /// Whom the negatives of a class answer.
    fn answered(&self, class: usize, seen: &mut Seen) -> Answered {
        let (mut answered, mut n_rows) = (None, 0);
        seen.clear();
        for class in self.classes.answered_by(class) {
            if !seen.is_new(class) {
                continue;
            }
            let root = self.roots[class];
            if self.sets[root] != Set::Whole || *answered.get_or_insert(root) != root {
                return Answered::Rows;
            }
            n_rows += self.classes.len(class);
        }
        match answered {
            None => Answered::Nobody,
            Some(root) if n_rows == self.sizes[root] => Answered::Set(self.classes.members[root][0]),
            Some(_) => Answered::Rows,
        }
    }
}

/// For each class of rows the first class that it is connected with.
fn connected(classes: &Classes) -> Vec<usize> {
    // Texts are members, too: whoever says one is connected with whoever asks for it, but not those who ask with each
    // other where only negatives say it.
    let text_of = |text: usize| classes.n_of_rows + text;
    let mut union = UnionFind::new(classes.n_of_rows + classes.n_texts());
    for class in 0..classes.n_of_rows {
        classes.says[class].iter().for_each(|text| union.join(class, text_of(*text)));
    }
    for (texts, asked_by) in classes.answers.iter().zip(&classes.asked_by) {
        let mut said = texts.iter().filter(|text| !classes.saying(**text).0.is_empty()).peekable();
        if let Some(&&first) = said.peek() {
            said.for_each(|text| union.join(text_of(*text), text_of(first)));
            asked_by.iter().for_each(|class| union.join(*class, text_of(first)));
        }
    }
    (0..classes.n_of_rows).map(|class| union.root(class)).collect()
}

/// Number of rows that answer a row of a class or are answered by it; itself counts.
fn n_related(classes: &Classes, class: usize, seen: &mut Seen) -> usize {
    seen.clear();
    let itself = Some(class).filter(|class| classes.len(*class) == 1);
    let related = itself.into_iter().chain(classes.related(class)).filter(|class| seen.is_new(*class));
    related.map(|class| classes.len(class)).sum()
}

/// Classes of rows that a search has come across.
struct Seen {
    /// The last search that came across each class.
    by: Vec<usize>,
    search: usize,
}

impl Seen {
    fn new(n_classes: usize) -> Self {
        Seen { by: vec![0; n_classes], search: 0 }
    }

    /// Begins a search.
    fn clear(&mut self) {
        self.search += 1;
    }

    /// Whether the search comes across a class for the first time.
    fn is_new(&mut self, class: usize) -> bool {
        std::mem::replace(&mut self.by[class], self.search) != self.search
    }
}
