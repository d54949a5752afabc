//! Each rule by itself, on rows whose scores are written in them: against the query 1 a passage scores its own number.

use super::{group, mined, named};
use hbt::data::formats::Group;
use hbt::mine::{Languages, Mined, Rules, Sampling};

/// The number that ends a text; 1 where there is none.
fn embed(text: &str) -> Vec<f32> {
    vec![text.rsplit(' ').next().unwrap().parse().unwrap_or(1.0)]
}

/// A row for each positive in English.
fn rows(positives: &[&str]) -> Vec<Group> {
    positives.iter().map(|text| group(text, &[("en", &format!("what is {text}?"))], &[("en", text)], &[])).collect()
}

/// Nothing but ranks from 1 to 100.
fn all() -> Rules {
    Rules { num_negatives: 100, range_min: 1, relative_margin: None, ..Rules::default() }
}

/// Negatives of the first row, without their language.
fn first(rows: &[Group], rules: &Rules) -> Vec<String> {
    let (corpus, mined) = mined(rows, rules, embed).unwrap();
    named(&corpus, &mined)[0].iter().map(|name| name.replace("en:", "")).collect()
}

#[test]
fn margins() {
    let positive = rows(&["a 8", "b 9", "c 8", "d 6", "e 5", "f -2"]);
    let with = |change: &dyn Fn(&mut Rules)| {
        let mut rules = all();
        change(&mut rules);
        first(&positive, &rules)
    };
    assert_eq!(with(&|_| ()), ["b 9", "c 8", "d 6", "e 5", "f -2"]);
    assert_eq!(with(&|rules| rules.relative_margin = Some(0.25)), ["d 6", "e 5", "f -2"]);
    assert_eq!(with(&|rules| rules.relative_margin = Some(0.0)), ["c 8", "d 6", "e 5", "f -2"]);
    assert_eq!(with(&|rules| rules.relative_margin = Some(-0.125)), ["b 9", "c 8", "d 6", "e 5", "f -2"]);
    assert_eq!(with(&|rules| rules.absolute_margin = Some(3.0)), ["e 5", "f -2"]);
    assert_eq!(with(&|rules| rules.max_score = Some(8.0)), ["c 8", "d 6", "e 5", "f -2"]);
    assert_eq!(with(&|rules| rules.min_score = Some(6.0)), ["b 9", "c 8", "d 6"]);
}

/// `positive (1 - margin)` lies above a negative score, and would keep what scores above the positive.
#[test]
fn margins_of_negative_scores_go_down() {
    let rows = rows(&["a -4", "b -3", "c -4", "d -5", "e -6"]);
    assert_eq!(first(&rows, &Rules { relative_margin: Some(0.25), ..all() }), ["d -5", "e -6"]);
    assert_eq!(first(&rows, &Rules { absolute_margin: Some(2.0), ..all() }), ["e -6"]);
}

#[test]
fn ranks_are_counted_before_margins_and_without_answers() {
    let mut rows = rows(&["a 8", "b 9", "c 7", "d 6", "e 5", "f 4"]);
    rows[0].positives.extend(super::texts(&[("en", "a 10"), ("de", "a 11")]));
    // Rank 1 is b, whose place no other passage gets when a margin excludes it.
    let rules = Rules { range_min: 1, range_max: 3, relative_margin: Some(0.0), ..all() };
    assert_eq!(first(&rows, &rules), ["c 7", "d 6"]);
    assert_eq!(first(&rows, &Rules { range_min: 2, num_negatives: 2, ..all() }), ["c 7", "d 6"]);
}

#[test]
fn of_several_positives_the_lowest_score_counts() {
    let mut rows = rows(&["a 9", "b 8", "c 6", "d 4"]);
    rows[0].positives.extend(super::texts(&[("en", "a 7"), ("de", "a 3")]));
    let rules = Rules { relative_margin: Some(0.0), ..all() };
    // In its own language; German candidates are held against the German positive.
    assert_eq!(first(&rows, &rules), ["c 6", "d 4"]);
    rows.push(group("e", &[("de", "was")], &[("de", "e 5"), ("de", "f 2"), ("zh", "g 2"), ("zh", "h 5")], &[]));
    let together = first(&rows, &Rules { languages: Languages::All, ..rules.clone() });
    assert_eq!(together, ["c 6", "d 4", "de:f 2", "zh:g 2"]);
    let german = Languages::Only(vec!["de".into()]);
    assert_eq!(first(&rows, &Rules { languages: german, ..rules }), ["de:f 2"]);
}

#[test]
fn negatives_that_are_there_are_kept_or_replaced() {
    let mut rows = rows(&["a 8", "b 7", "c 6"]);
    rows[0].negatives = super::texts(&[("en", "c 6"), ("en", "d 5")]);
    assert_eq!(first(&rows, &all()), ["b 7"]);
    assert_eq!(first(&rows, &Rules { replace: true, ..all() }), ["b 7", "c 6", "d 5"]);
}

#[test]
fn answers_are_never_mined() {
    let rows = [
        group("1", &[("en", "q1"), ("de", "f1")], &[("en", "p 1"), ("de", "a 1")], &[]),
        // The same English answer, and versions of it, which answer the first question, too.
        group("2", &[("en", "q2")], &[("en", "p 1"), ("de", "b 2"), ("zh", "c 3")], &[]),
        // The same question: what answers the one answers the other. The next shares an answer with this one only.
        group("3", &[("en", "q1")], &[("en", "d 4")], &[]),
        group("4", &[("zh", "q4")], &[("zh", "d 4"), ("en", "e 5")], &[]),
        // A later part of the first group.
        group("1", &[("zh", "q5")], &[("zh", "g 6")], &[]),
        // The question as a passage, and an answer that is only a negative here.
        group("6", &[("en", "q6")], &[("en", "h 7"), ("en", "q2")], &[("de", "p 1")]),
        group("7", &[("en", "q7")], &[("en", "i 8"), ("de", "j 9")], &[("zh", "k 10")]),
    ];
    let (corpus, got) = mined(&rows, &Rules { languages: Languages::All, ..all() }, embed).unwrap();
    let negatives = named(&corpus, &got);
    // All passages, from the best on.
    let ranked = [
        "zh:k 10", "de:j 9", "en:i 8", "en:h 7", "zh:g 6", "en:e 5", "en:d 4", "zh:d 4", "zh:c 3", "de:b 2", "de:a 1",
        "de:p 1", "en:p 1", "en:q2",
    ];
    let none_of = |answers: &[&str]| ranked.into_iter().filter(|name| !answers.contains(name)).collect::<Vec<_>>();
    let first = ["zh:g 6", "en:e 5", "en:d 4", "zh:d 4", "zh:c 3", "de:b 2", "de:a 1", "de:p 1", "en:p 1"];
    let expected = [
        none_of(&first),
        none_of(&["zh:g 6", "zh:c 3", "de:b 2", "de:a 1", "de:p 1", "en:p 1", "en:q2"]),
        none_of(&first),
        none_of(&["en:e 5", "en:d 4", "zh:d 4"]),
        none_of(&first),
        // Its second answer is a question itself, and has answers.
        none_of(&["en:h 7", "en:q2", "en:p 1", "de:b 2", "zh:c 3"]),
        none_of(&["en:i 8", "de:j 9", "zh:k 10"]),
    ];
    for (row, (found, mut expected)) in negatives.iter().zip(expected).enumerate() {
        // A negative that the row has already stays out.
        expected.retain(|name| !(row == 5 && *name == "de:p 1" || row == 6 && *name == "zh:k 10"));
        assert_eq!(*found, expected, "row {row}");
    }
    assert_eq!((got.report.most_answers, got.report.n_sharing_rows()), (9, 6));
}

#[test]
fn random_negatives_are_drawn_from_all_that_qualify_by_the_seed() {
    let texts: Vec<String> = (0..60).map(|i| format!("p {i}")).collect();
    let rows = rows(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    let with = |seed| Rules {
        num_negatives: 5,
        range_min: 11,
        range_max: 50,
        sampling_strategy: Sampling::Random,
        seed,
        ..all()
    };
    let draw = |seed| -> Mined { mined(&rows, &with(seed), embed).unwrap().1 };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1).negatives, draw(2).negatives);
    let mut drawn = vec![0; 60];
    for seed in 0..200 {
        let negatives = first(&rows, &with(seed));
        let scores: Vec<f32> = negatives.iter().map(|text| embed(text)[0]).collect();
        assert!(scores.len() == 5 && scores.is_sorted_by(|a, b| a > b), "{negatives:?}");
        scores.iter().for_each(|&score| drawn[score as usize] += 1);
    }
    // Row p 0 has ranks 11 to 50 from p 49 down to p 10, and each of 40 is expected 25 times in 1,000.
    assert!((0..60).all(|i| (drawn[i] > 0) == (10..50).contains(&i)), "{drawn:?}");
    assert!(drawn.iter().all(|&n| n < 50), "{drawn:?}");
}

#[test]
fn fewer_negatives_than_asked_for_are_counted() {
    let rows = rows(&["a 8", "b 7", "c 6", "d 1"]);
    let (corpus, got) = mined(&rows, &Rules { num_negatives: 2, relative_margin: Some(0.0), ..all() }, embed).unwrap();
    assert_eq!(named(&corpus, &got).iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1, 0]);
    let report = got.report;
    assert_eq!((report.n_rows, report.n_negatives, report.n_short_rows(), report.n_short_searches), (4, 5, 2, 2));
    // Negatives b c, c d, d against the positives a, b, c.
    assert_eq!(report.mean_negative(), f64::from(7 + 6 + 6 + 1 + 1) / 5.0);
    assert_eq!(report.mean_positive(), f64::from(8 + 8 + 7 + 7 + 6) / 5.0);
}

#[test]
fn rules_that_nothing_satisfies_are_errors() {
    let rows = rows(&["a 8", "b 7"]);
    let cases = [
        (Rules { range_min: 5, range_max: 4, ..all() }, "--range-min: 5 is behind --range-max 4"),
        (Rules { range_min: 0, ..all() }, "--range-min: ranks begin at 1"),
        (Rules { relative_margin: Some(f32::NAN), ..all() }, "--relative-margin: has to be a finite number"),
        (Rules { min_score: Some(1.0), max_score: Some(0.5), ..all() }, "--min-score: 1 is above --max-score 0.5"),
        (
            Rules { languages: Languages::Only(vec!["fr".into()]), ..all() },
            "--languages: no passage is in fr; the data has en",
        ),
    ];
    for (rules, expected) in cases {
        let message = mined(&rows, &rules, embed).err().unwrap().to_string();
        assert!(message.starts_with(expected), "{message}");
    }
    let broken = |text: &str| if text == "b 7" { vec![f32::NAN] } else { embed(text) };
    let message = mined(&rows, &all(), broken).err().unwrap().to_string();
    assert!(message.starts_with("the embedding of passage 1 (\"b 7\") is not finite"), "{message}");
    let empty = hbt::mine::Corpus::read(std::iter::empty()).unwrap();
    let none = hbt::retriever::Embeddings::new(1, vec![]);
    let error = hbt::mine::mine_embedded(&hbt::backend::Cpu::<f32>::new(), &empty, &all(), &none, &none).unwrap_err();
    assert!(error.to_string().starts_with("no row in this data"), "{error}");
}

#[test]
fn the_rule_that_excluded_most_is_the_one_to_change() {
    let rows = rows(&["a 8", "b 7", "c 6", "d 5"]);
    let margin = |value| Rules { relative_margin: Some(value), ..all() };
    // Each row has three ranks; of twelve, the rules exclude so many.
    for (rules, excluded, remedy) in [
        (Rules { range_min: 4, ..all() }, "12 rank above --range-min", "lower --range-min"),
        (margin(0.5), "12 within --relative-margin", "lower --relative-margin"),
        (Rules { absolute_margin: Some(4.0), ..all() }, "12 within --absolute-margin", "lower --absolute-margin"),
        (Rules { max_score: Some(1.0), ..all() }, "12 above --max-score", "raise --max-score"),
        (Rules { min_score: Some(9.0), ..all() }, "12 below --min-score", "lower --min-score"),
        // Of the last two ranks, 6 5, 6 5, 7 5 and 7 6, the margin excludes what is above 8, 7, 6 and 5.
        (
            Rules { range_min: 2, min_score: Some(9.0), ..margin(0.0) },
            "4 rank above --range-min, 3 within --relative-margin, 5 below --min-score",
            "lower --min-score",
        ),
        (
            Rules { range_min: 3, max_score: Some(4.0), ..all() },
            "8 rank above --range-min, 4 above --max-score",
            "lower --range-min",
        ),
    ] {
        let message = mined(&rows, &rules, embed).err().unwrap().to_string();
        let begin = "no negative was found among 4 passages, so nothing was written: 4 hold the answer";
        assert_eq!(message, format!("{begin}, {excluded}; {remedy}"));
    }
    let known: Vec<_> = [("a 8", "b 7"), ("b 7", "a 8")]
        .into_iter()
        .map(|(own, other)| group(own, &[("en", &format!("what is {own}?"))], &[("en", own)], &[("en", other)]))
        .collect();
    let message = mined(&known, &all(), embed).err().unwrap().to_string();
    assert!(message.contains("2 are negatives already; raise --range-max, or take others"), "{message}");
    let alone = mined(&rows[..1], &all(), embed).err().unwrap().to_string();
    assert!(alone.ends_with(": 1 hold the answer; the data needs passages that answer other questions"), "{alone}");
}
