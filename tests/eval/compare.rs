//! The comparison table and its paired bootstrap.

use super::Noise;
use hbt::eval::compare::{Comparison, paired_bootstrap};
use hbt::eval::metrics::NDCG;
use hbt::eval::report::QueryOutcome;
use hbt::eval::settings::{FIGURES, MULTILINGUAL_MAP};
use hbt::eval::{EvalReport, Figure, FigureKey};

/// A report over `n_languages` whose query of group `g` in language `l` has the average precision `ap(g, l)`.
fn report(n_groups: u32, n_languages: u16, ap: impl Fn(u32, u16) -> f64) -> EvalReport {
    let queries = (0..n_languages).flat_map(|lang| (0..n_groups).map(move |group| (lang, group)));
    let per_query: Vec<QueryOutcome> =
        queries.map(|(lang, group)| QueryOutcome { stratum: (lang, None), group, value: ap(group, lang) }).collect();
    let map = per_query.iter().map(|q| q.value).sum::<f64>() / per_query.len() as f64;
    let figure = |(key, value): (&FigureKey, f64)| Figure { task: "parallel", key: *key, value: Some(value) };
    EvalReport {
        model: "m".into(),
        task: "parallel",
        split: "all".into(),
        languages: (0..n_languages).map(|l| format!("l{l}")).collect(),
        main: MULTILINGUAL_MAP,
        figures: FIGURES.iter().zip([0.5, 0.25, map, 100.0 - map]).map(figure).collect(),
        by_direction: Default::default(),
        by_query_language: Default::default(),
        n_queries: Default::default(),
        data: String::new(),
        hbt: None,
        per_query,
    }
}

/// Average precisions that differ from one group to the next, but little between the languages of a group: for
/// `spread` 0, not at all.
fn noisy(n_groups: u32, n_languages: u16, spread: f64, seed: u64) -> EvalReport {
    let mut noise = Noise(seed);
    let of_group: Vec<f64> = (0..n_groups).map(|_| noise.unit()).collect();
    let of_query: Vec<f64> = (0..n_groups * u32::from(n_languages)).map(|_| noise.unit()).collect();
    report(n_groups, n_languages, |group, lang| {
        let query = group as usize * usize::from(n_languages) + usize::from(lang);
        (1.0 - spread) * of_group[group as usize] + spread * of_query[query]
    })
}

#[test]
fn interval_is_that_of_the_mean_over_groups() {
    let (n_groups, n_languages) = (400, 8);
    let zero = report(n_groups, n_languages, |_, _| 0.0);
    for spread in [0.0, 1.0] {
        let other = noisy(n_groups, n_languages, spread, 11);
        let got = paired_bootstrap(&other, &zero, 5).unwrap();
        // The mean of each group, and the normal interval of their mean. For spread 0, an interval over single
        // queries would be sqrt(8) times narrower than this.
        let of_group = |g: u32| {
            let aps = other.per_query.iter().filter(|q| q.group == g).map(|q| q.value);
            aps.sum::<f64>() / f64::from(n_languages)
        };
        let means: Vec<f64> = (0..n_groups).map(of_group).collect();
        let n = f64::from(n_groups);
        let mean = means.iter().sum::<f64>() / n;
        let variance = means.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let half = 1.96 * (variance / n).sqrt();
        assert!((got.value - mean).abs() < 1e-12, "{got:?}");
        assert!((got.low - (mean - half)).abs() < 0.2 * half, "{got:?} is not {mean} -+ {half}");
        assert!((got.high - (mean + half)).abs() < 0.2 * half, "{got:?} is not {mean} -+ {half}");
    }
}

#[test]
fn resamples_are_paired_and_seeded() {
    let a = noisy(50, 3, 0.5, 1);
    let same = paired_bootstrap(&a, &a, 9).unwrap();
    assert_eq!((same.value, same.low, same.high), (0.0, 0.0, 0.0));
    // However much the questions differ, a constant gain is certain.
    let shifted = report(50, 3, |g, l| 0.125 + a.per_query[usize::from(l) * 50 + g as usize].value);
    let gain = paired_bootstrap(&shifted, &a, 9).unwrap();
    assert!([gain.value, gain.low, gain.high].iter().all(|x| (x - 0.125).abs() < 1e-12), "{gain:?}");
    let b = noisy(50, 3, 0.5, 2);
    assert_eq!(paired_bootstrap(&a, &b, 9).unwrap(), paired_bootstrap(&a, &b, 9).unwrap());
    assert_ne!(paired_bootstrap(&a, &b, 9).unwrap(), paired_bootstrap(&a, &b, 10).unwrap());
}

#[test]
fn languages_weigh_the_same_however_many_queries_they_have() {
    let mut a = report(40, 2, |_, lang| if lang == 0 { 0.4 } else { 0.8 });
    // Language 1 keeps one query in four.
    a.per_query.retain(|q| q.stratum.0 == 0 || q.group % 4 == 0);
    let mut zero = a.clone();
    zero.per_query.iter_mut().for_each(|q| q.value = 0.0);
    let got = paired_bootstrap(&a, &zero, 1).unwrap();
    assert!((got.value - 0.6).abs() < 1e-12, "{got:?}");
    assert!((got.low - 0.6).abs() < 1e-12 && (got.high - 0.6).abs() < 1e-12, "{got:?}");
}

#[test]
fn reports_on_other_queries_are_refused() {
    let a = noisy(10, 2, 0.5, 1);
    let of_another_figure = EvalReport { main: FIGURES[0], ..a.clone() };
    let on_other_data = EvalReport { data: "other".into(), ..a.clone() };
    for other in [noisy(9, 2, 0.5, 1), of_another_figure.clone(), on_other_data] {
        assert!(paired_bootstrap(&a, &other, 1).unwrap_err().to_string().contains("same queries"));
    }
    let without = EvalReport { per_query: Vec::new(), ..a.clone() };
    for (a, b) in [(&a, &without), (&without, &a), (&without, &without)] {
        assert!(paired_bootstrap(a, b, 1).unwrap_err().to_string().contains("no values of single queries"));
    }
    // The table is there all the same, and says so; of two benchmarks there is none.
    let rows = [("old", without), ("new", a.clone())].map(|(label, report)| (label.to_owned(), report));
    let table = Comparison::new(rows.to_vec(), 1).unwrap();
    assert!(table.differences().is_empty());
    let last = table.to_string().lines().last().unwrap().to_owned();
    assert_eq!(
        last,
        "no intervals: old and new: a report has no values of single queries, as an earlier hbt wrote it; evaluate again"
    );
    let rows = [("a", a), ("b", of_another_figure)].map(|(label, report)| (label.to_owned(), report));
    let error = Comparison::new(rows.to_vec(), 1).unwrap_err().to_string();
    let expected = "a was measured on parallel (multilingual_map), and b on parallel (monolingual_map); compare";
    assert!(error.starts_with(expected), "{error}");
}

/// A report that was written and read back, in whatever order its queries were, gives the same interval to the last bit.
#[test]
fn intervals_of_files_are_those_of_the_reports() {
    let [a, b] = [1, 2].map(|seed| noisy(30, 3, 0.5, seed));
    let [from_file, mut turned] = [(); 2].map(|()| {
        let text = serde_json::to_string_pretty(&b).unwrap();
        assert!(text.lines().count() < 80, "thousands of values are one line: {text}");
        serde_json::from_str::<EvalReport>(&text).unwrap()
    });
    assert_eq!(from_file, b);
    turned.per_query.reverse();
    let expected = paired_bootstrap(&a, &b, 7).unwrap();
    for read in [from_file, turned] {
        assert_eq!(paired_bootstrap(&a, &read, 7).unwrap(), expected);
    }
}

#[test]
fn table_marks_the_best_of_each_column() {
    let flat = |ap: f64| report(20, 2, move |_, _| ap);
    let (before, mono, hybrid) = (flat(0.25), flat(0.5), flat(0.75));
    let rows = [("before", before), ("monolingual", mono), ("hybrid", hybrid)];
    let table = Comparison::new(rows.map(|(label, report)| (label.to_owned(), report)).to_vec(), 1).unwrap();
    let expected = "
               monolingual  cross-lingual   multilingual  rank distance
before             0.5000*        0.2500*        0.2500           99.8
monolingual        0.5000*        0.2500*        0.5000           99.5
hybrid             0.5000*        0.2500*        0.7500*          99.2*
mAP, and rank distance (lower is better); * best of its column

multilingual mAP, difference and 95 % interval (1000 paired resamples of the questions)
hybrid - before       +0.5000  [+0.5000, +0.5000]
hybrid - monolingual  +0.2500  [+0.2500, +0.2500]
";
    assert_eq!(format!("\n{table}"), expected);
    assert_eq!(table.differences().len(), 2);
}

/// Of what the reports share, whatever it is called and however long that is.
#[test]
fn columns_are_the_figures_that_all_reports_have() {
    let ndcg = FigureKey { metric: &NDCG, cutoff: Some(10), ..FIGURES[1] };
    let with_ndcg = |value: f64| {
        let mut report = report(20, 2, |_, _| value);
        report.figures.insert(1, Figure { task: "parallel", key: ndcg, value: Some(value) });
        report.main = ndcg;
        report
    };
    let (mut before, after) = (with_ndcg(0.25), with_ndcg(0.5));
    before.figures.pop();
    before.figures[3].value = None;
    let rows = [("before", before), ("after", after)].map(|(label, report)| (label.to_owned(), report));
    let expected = "
                  monolingual  cross-lingual nDCG@10          cross-lingual           multilingual
before                0.5000*                0.2500                 0.2500*                     -
after                 0.5000*                0.5000*                0.2500*                0.5000*
mAP, and nDCG@10; * best of its column

cross-lingual nDCG@10, difference and 95 % interval (1000 paired resamples of the questions)
after - before  +0.2500  [+0.2500, +0.2500]
";
    assert_eq!(format!("\n{}", Comparison::new(rows.to_vec(), 1).unwrap()), expected);
}
