//! Mining compared with a search that is written from the description: all pairs, f64, sorted.

use super::{mined, named};
use hbt::data::formats::{Group, Text};
use hbt::mine::{Excluded, Languages, Rules};
use std::collections::HashSet;

const LANGS: [&str; 3] = ["de", "en", "zh"];
const DIM: usize = 6;

fn noise(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// Whole numbers of -3 to 3, so scores are exact and tie often.
fn embed(text: &str) -> Vec<f32> {
    let mut state = text.bytes().fold(7, |state: u64, byte| state.wrapping_mul(31).wrapping_add(u64::from(byte)));
    for _ in 0..4 {
        noise(&mut state);
    }
    (0..DIM).map(|_| (noise(&mut state) % 7) as f32 - 3.0).collect()
}

/// Rows with one, two or four queries, positives in one to three languages, some of them in other rows too, and
/// negatives, some of which are positives elsewhere. Some rows are parts of one group.
fn random_rows(state: &mut u64, n: usize) -> Vec<Group> {
    let mut rows = Vec::new();
    for i in 0..n {
        let mut text = |kind: &str, n_texts: u64| {
            let lang = LANGS[(noise(state) % 3) as usize];
            let text = format!("{kind} {}", noise(state) % n_texts);
            Text::new(lang, text)
        };
        let n_queries = [1, 2, 4][i % 3];
        let queries = (0..n_queries).map(|_| text("query", 400)).collect();
        let positives = (0..1 + i % 3).map(|_| text("passage", 150)).collect();
        let negatives = (0..i % 4).map(|_| text("passage", 200)).collect();
        rows.push(Group { id: format!("group {}", i - i % 5 % 2), queries, positives, negatives, ..Group::default() });
    }
    rows
}

/// Everything that can be said of a passage or row by looking at all rows.
struct Naive<'a> {
    rows: &'a [Group],
    /// Queries and positives of the group of each row.
    groups: Vec<(Vec<&'a Text>, Vec<&'a Text>)>,
    /// Answers of each row.
    answers: Vec<Vec<Text>>,
    /// By language, then by first occurrence.
    passages: Vec<Text>,
}

impl<'a> Naive<'a> {
    fn new(rows: &'a [Group]) -> Self {
        let mut passages: Vec<Text> = Vec::new();
        for row in rows {
            for text in row.positives.iter().chain(&row.negatives) {
                if !passages.contains(text) {
                    passages.push(text.clone());
                }
            }
        }
        passages.sort_by(|a, b| a.lang.cmp(&b.lang));
        let group = |row: &Group| {
            let of_group = || rows.iter().filter(|other| other.id == row.id);
            (of_group().flat_map(|row| &row.queries).collect(), of_group().flat_map(|row| &row.positives).collect())
        };
        let groups = rows.iter().map(group).collect();
        let naive = Naive { rows, groups, answers: Vec::new(), passages };
        Naive { answers: (0..rows.len()).map(|i| naive.answers(i)).collect(), ..naive }
    }

    /// Passages that answer the question of row `i`: what groups that ask the same have as positives, in any language;
    /// and of other groups the positives beside such a text, if it is their question or in another language.
    fn answers(&self, i: usize) -> Vec<Text> {
        let texts = |texts: &[&'a Text]| texts.iter().map(|of| of.text.as_str()).collect::<HashSet<&str>>();
        let queries = texts(&self.groups[i].0);
        let mut said = queries.clone();
        for (others, positives) in &self.groups {
            if !texts(others).is_disjoint(&queries) {
                said.extend(texts(positives));
            }
        }
        let is_said = |text: &Text| said.contains(text.text.as_str());
        let mut answers: Vec<Text> = self.passages.iter().filter(|passage| is_said(passage)).cloned().collect();
        for (queries, positives) in &self.groups {
            for &passage in positives {
                let mut versions = positives.iter().filter(|of| of.lang != passage.lang).chain(queries);
                if versions.any(|version| is_said(version)) {
                    answers.push(passage.clone());
                }
            }
        }
        answers
    }

    fn score(&self, row: &Group, passage: &str) -> f64 {
        let dot = |q: &Text| embed(&q.text).iter().zip(embed(passage)).map(|(&a, b)| f64::from(a * b)).sum::<f64>();
        row.queries.iter().map(dot).sum::<f64>() / row.queries.len() as f64
    }

    /// Negatives of row `i` among the passages in `langs`, and why others are none.
    fn search(&self, i: usize, langs: &[&str], rules: &Rules, excluded: &mut Excluded) -> Vec<String> {
        let row = &self.rows[i];
        let answers = &self.answers[i];
        let mut ranking: Vec<&Text> = self.passages.iter().filter(|text| langs.contains(&&*text.lang)).collect();
        ranking.sort_by(|a, b| self.score(row, &b.text).total_cmp(&self.score(row, &a.text)));

        let (mut rank, mut found) = (0, Vec::new());
        for passage in ranking {
            if rank == rules.range_max {
                break;
            }
            if answers.contains(passage) {
                excluded.answers += 1;
                continue;
            }
            rank += 1;
            let score = self.score(row, &passage.text);
            let positives = |any: bool| {
                let of_lang = row.positives.iter().filter(move |text| any || text.lang == passage.lang);
                of_lang.map(|text| self.score(row, &text.text)).reduce(f64::min)
            };
            let positive = positives(false).or_else(|| positives(true)).unwrap();
            let limit = |x: Option<f32>| x.map_or(f64::INFINITY, f64::from);
            if rank < rules.range_min {
                excluded.above += 1;
            } else if row.negatives.contains(passage) && !rules.replace {
                excluded.known += 1;
            } else if rules.relative_margin.is_some()
                && score > positive - limit(rules.relative_margin) * positive.abs()
            {
                excluded.relative_margin += 1;
            } else if rules.absolute_margin.is_some() && score > positive - limit(rules.absolute_margin) {
                excluded.absolute_margin += 1;
            } else if score > limit(rules.max_score) {
                excluded.max_score += 1;
            } else if rules.min_score.is_some_and(|min| score < f64::from(min)) {
                excluded.min_score += 1;
            } else {
                found.push(format!("{}:{}", passage.lang, passage.text));
            }
        }
        found.truncate(rules.num_negatives);
        found
    }

    fn mine(&self, rules: &Rules) -> (Vec<Vec<String>>, Excluded) {
        let mut excluded = Excluded::default();
        let of_row = |i: usize| match &rules.languages {
            Languages::All => self.search(i, &LANGS, rules, &mut excluded),
            Languages::Only(langs) => {
                let langs: Vec<&str> = langs.iter().map(String::as_str).collect();
                self.search(i, &langs, rules, &mut excluded)
            }
            Languages::Same => {
                let has = |lang: &&&str| self.rows[i].positives.iter().any(|text| text.lang == **lang);
                LANGS.iter().filter(has).flat_map(|lang| self.search(i, &[lang], rules, &mut excluded)).collect()
            }
        };
        ((0..self.rows.len()).map(of_row).collect(), excluded)
    }
}

#[test]
fn mining_agrees_with_a_naive_search() {
    let mut n_refused = 0;
    let mut state = 11;
    let margins = [(None, None), (Some(0.25), None), (None, Some(2.5)), (Some(0.5), Some(1.0)), (Some(0.0), None)];
    // More rows than one block of scores has, once.
    for (case, n) in [40, 40, 60, 60, 300].into_iter().enumerate() {
        let rows = random_rows(&mut state, n);
        let naive = Naive::new(&rows);
        for languages in [Languages::Same, Languages::All, Languages::Only(vec!["zh".into(), "de".into()])] {
            let rules = Rules {
                num_negatives: 1 + case,
                range_min: 1 + 2 * case,
                range_max: [3, 20, 40, 9, 1000][case],
                relative_margin: margins[case].0,
                absolute_margin: margins[case].1,
                max_score: (case % 2 == 1).then_some(9.0),
                min_score: (case > 1).then_some(-6.0),
                replace: case == 3,
                languages,
                ..Rules::default()
            };
            let (expected, excluded) = naive.mine(&rules);
            let Ok((corpus, got)) = mined(&rows, &rules, embed) else {
                // An error, as rules may be too narrow for all rows.
                assert!(expected.iter().all(Vec::is_empty), "{rules:?}");
                n_refused += 1;
                continue;
            };
            assert_eq!(named(&corpus, &got), expected, "{rules:?}");
            assert_eq!(got.report.excluded, excluded, "{rules:?}");
            let n_negatives = expected.iter().map(Vec::len).sum::<usize>() as u64;
            assert!(n_negatives > 0 && got.report.n_negatives == n_negatives, "{rules:?}");
        }
    }
    assert!(n_refused < 3, "{n_refused}");
}
