//! Subsets that are called by two languages, `ara-deu`, and how many of them lie in a plane.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Fewer subsets are a list.
const LEAST: usize = 6;
/// Share of the cells that a map of all by all has to fill.
const DENSE: f64 = 0.4;
/// Share of the cells that a map of all by one has to fill.
const DENSE_AROUND_ONE: f64 = 0.6;
/// Share of the subsets that a language in common has to be of.
const IN_COMMON: f64 = 0.8;

/// A map of subsets: each language of a row by the languages of the columns.
#[derive(Debug)]
pub(super) struct Shape<'a> {
    pub rows: Vec<&'a str>,
    /// Headings of columns.
    pub columns: Vec<String>,
    /// Subsets that have no place in it.
    pub others: Vec<&'a str>,
    cells: HashMap<(&'a str, usize), &'a str>,
    /// The language that the others are paired with, if not all are with all.
    hub: Option<&'a str>,
}

impl<'a> Shape<'a> {
    /// The map of these subsets, if all are pairs and it is well filled: all first by all second languages, or, where nearly
    /// every pair is within a language or with one and the same other, each language by itself and with that.
    pub(super) fn of(subsets: &[&'a str]) -> Option<Self> {
        let pair = |subset: &&'a str| {
            let (first, second) = subset.split_once('-')?;
            let is_code = |code: &str| !code.is_empty() && !code.contains('-');
            (is_code(first) && is_code(second)).then_some((first, second, *subset))
        };
        let pairs: Vec<_> = subsets.iter().map(pair).collect::<Option<_>>()?;
        if pairs.len() < LEAST {
            return None;
        }
        let rows: BTreeSet<&str> = pairs.iter().map(|pair| pair.0).collect();
        let columns: Vec<&str> = pairs.iter().map(|pair| pair.1).collect::<BTreeSet<_>>().into_iter().collect();
        if pairs.len() as f64 >= DENSE * (rows.len() * columns.len()) as f64 {
            let place = |code| columns.iter().position(|known| *known == code).unwrap_or(0);
            let cells = pairs.iter().map(|&(first, second, subset)| ((first, place(second)), subset)).collect();
            let columns = columns.iter().map(|code| (*code).to_owned()).collect();
            return Some(Shape { rows: rows.into_iter().collect(), columns, others: Vec::new(), cells, hub: None });
        }
        Shape::around_one(&pairs)
    }

    fn around_one(pairs: &[(&'a str, &'a str, &'a str)]) -> Option<Self> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (first, second, _) in pairs.iter().filter(|(first, second, _)| first != second) {
            *counts.entry(first).or_default() += 1;
            *counts.entry(second).or_default() += 1;
        }
        let (hub, _) = counts.into_iter().max_by_key(|(_, n)| *n)?;
        let (mut cells, mut others) = (HashMap::new(), Vec::new());
        for &(first, second, subset) in pairs {
            let place = match (first, second) {
                (a, b) if a == b => (a, 0),
                (a, b) if a == hub => (b, 1),
                (a, b) if b == hub => (a, 2),
                _ => {
                    others.push(subset);
                    continue;
                }
            };
            cells.insert(place, subset);
        }
        let rows: BTreeSet<&str> = cells.keys().map(|(row, _)| *row).collect();
        let columns = ["L-L".to_owned(), format!("{hub}-L"), format!("L-{hub}")];
        let n = cells.len() as f64;
        if n < IN_COMMON * pairs.len() as f64 || n < DENSE_AROUND_ONE * (rows.len() * columns.len()) as f64 {
            return None;
        }
        Some(Shape { rows: rows.into_iter().collect(), columns: columns.into(), others, cells, hub: Some(hub) })
    }

    /// The subset in a cell.
    pub(super) fn subset(&self, row: &str, column: usize) -> Option<&'a str> {
        self.cells.get(&(row, column)).copied()
    }

    /// What lies along the rows and the columns.
    pub(super) fn title(&self) -> String {
        match self.hub {
            None => "the first language of the subset (rows) and the second".to_owned(),
            Some(hub) => format!("language L, by itself and with {hub}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::mteb::table::task;

    fn shape(name: &str) -> Option<Shape<'static>> {
        Shape::of(&task(name).unwrap().subsets().iter().map(|subset| subset.name.as_str()).collect::<Vec<_>>())
    }

    /// Counts are those of mteb's tasks: 7 x 7 languages; 122 alone, 121 either way with English, and 12 pairs of scripts.
    #[test]
    fn pairs_of_mtebs_tasks_have_their_places() {
        let mlqa = shape("MLQARetrieval").unwrap();
        assert_eq!((mlqa.rows.len(), mlqa.columns.len(), mlqa.others.len()), (7, 7, 0));
        assert_eq!(mlqa.subset("ara", mlqa.columns.iter().position(|code| code == "deu").unwrap()), Some("ara-deu"));
        let belebele = shape("BelebeleRetrieval").unwrap();
        assert_eq!((belebele.rows.len(), belebele.others.len()), (122, 12));
        assert_eq!(belebele.columns, ["L-L", "eng_Latn-L", "L-eng_Latn"]);
        let of_german = [0, 1, 2].map(|column| belebele.subset("deu_Latn", column).unwrap());
        assert_eq!(of_german, ["deu_Latn-deu_Latn", "eng_Latn-deu_Latn", "deu_Latn-eng_Latn"]);
        assert_eq!(belebele.subset("eng_Latn", 1), None);
        let flores = shape("FloresBitextMining").unwrap();
        assert_eq!((flores.rows.len(), flores.columns.len()), (204, 204));
        assert_eq!(flores.subset(flores.rows[0], 0), None, "none within a language");
    }

    #[test]
    fn other_subsets_are_lists() {
        for name in ["XQuADRetrieval", "STS17", "ArguAna"] {
            assert!(shape(name).is_none(), "{name}");
        }
        assert!(Shape::of(&["a-b", "b-a", "a-a", "b-b"]).is_none(), "too few");
        assert!(Shape::of(&["a-b", "b-a", "a-a", "b-b", "a-b-c", "c-c"]).is_none(), "three languages");
    }
}
