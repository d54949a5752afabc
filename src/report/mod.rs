//! Runs and results as one page that a browser shows by itself: curves over steps, figures before and after, and by language,
//! several runs side by side.
//!
//! The page needs nothing but itself, asks the network for nothing, and follows the reader's choice of light or dark. It holds
//! no times, so that runs that gave the same figures give the same page.

mod charts;
mod html;
mod input;
mod languages;
mod pairs;
mod results;
mod tables;
mod tasks;

pub use input::{Points, Run, read};
pub use results::of_results;

use crate::Result;
use crate::eval::{EvalReport, FigureKey};
use charts::{N_COLOURS, Series, Style, chart};
use html::escaped;

/// What a page begins with, by which hbt knows one of its own.
const BEGIN: &str = "<!doctype html>\n<html lang=en>\n<meta charset=utf-8>\n<meta name=generator content=\"hbt\">\n";

/// Whether a file that begins like this is a page that hbt wrote.
pub fn is_page(begin: &[u8]) -> bool {
    begin.starts_with(BEGIN.as_bytes())
}

/// Values of steps that have a chart, and their titles.
const CURVES: [(&str, &str, Style); 8] = [
    ("loss", "Loss", Style::Smoothed),
    ("contrastive_loss", "InfoNCE's loss", Style::Smoothed),
    ("distillation_loss", "Loss against the teacher", Style::Smoothed),
    ("learning_rate", "Learning rate", Style::Line),
    ("grad_norm", "Gradient norm", Style::Smoothed),
    ("positive_cosine", "Cosine with positives", Style::Smoothed),
    ("negative_cosine", "Cosine with other candidates", Style::Smoothed),
    ("temperature", "Temperature", Style::Line),
];

/// A benchmark that some of the runs were measured on, with their reports.
struct Benchmark<'a> {
    /// The evaluation's name, or its task's where a run has no other
    name: &'a str,
    split: &'a str,
    /// Number of the run, and its reports.
    reports: Vec<(usize, Pair<'a>)>,
}

/// Reports on one benchmark.
struct Pair<'a> {
    before: Option<&'a EvalReport>,
    after: &'a EvalReport,
}

impl<'a> Benchmark<'a> {
    fn of(runs: &'a [Run]) -> Vec<Self> {
        let mut benchmarks: Vec<Benchmark> = Vec::new();
        for (i, run) in runs.iter().enumerate() {
            let deciding = (run.evaluation.as_deref(), &run.before, &run.after);
            let others = run.others.iter().map(|of| (Some(of.name.as_str()), &of.before, &of.after));
            for (name, before, after) in std::iter::once(deciding).chain(others) {
                // A run that was stopped has none from after it.
                let Some(now) = after.as_ref().or(before.as_ref()) else { continue };
                let before = after.as_ref().and(before.as_ref());
                let before = before.filter(|before| (before.task, &before.split) == (now.task, &now.split));
                let (name, reports) = (name.unwrap_or(now.task), (i, Pair { before, after: now }));
                match benchmarks.iter_mut().find(|known| (known.name, known.split) == (name, &now.split)) {
                    Some(known) => known.reports.push(reports),
                    None => benchmarks.push(Benchmark { name, split: &now.split, reports: vec![reports] }),
                }
            }
        }
        benchmarks
    }

    /// The report before training, if the runs have one and the same.
    fn before(&self) -> Option<&'a EvalReport> {
        let first = self.reports.first()?.1.before?;
        let is_same = |(_, pair): &(usize, Pair)| pair.before.is_some_and(|before| before.figures == first.figures);
        self.reports.iter().all(is_same).then_some(first)
    }

    /// All figures of the reports.
    fn keys(&self) -> Vec<FigureKey> {
        let mut keys: Vec<FigureKey> = Vec::new();
        for figure in self.reports.iter().flat_map(|(_, pair)| &pair.after.figures) {
            if !keys.contains(&figure.key) {
                keys.push(figure.key);
            }
        }
        keys
    }

    /// Whether no run shows a better value.
    fn is_best(&self, key: FigureKey, value: Option<f64>) -> bool {
        let shown = |x: f64| key.shown(Some(x)).parse::<f64>().unwrap_or(x);
        let mut others = self.reports.iter().filter_map(|(_, pair)| pair.after.value(key));
        value.is_some_and(|x| others.all(|other| !key.metric.is_better(shown(other), shown(x))))
    }
}

/// The page on `runs`, in their order.
///
/// # Errors
/// If a chart cannot be drawn, which would be a bug.
pub fn page(runs: &[Run]) -> Result<String> {
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let title = escaped(&names.join(", ")).into_owned();
    let mut page = format!(
        "{BEGIN}<meta name=viewport content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
         <style>\n{}</style>\n<main>\n<h1>{title}</h1>\n{}",
        include_str!("style.css"),
        tables::overview(runs)
    );
    page += &training(runs)?;
    for benchmark in Benchmark::of(runs) {
        let n = benchmark.reports.iter().map(|(_, pair)| pair.after.languages.len()).max().unwrap_or(0);
        let languages = if n == 1 { "1 language".to_owned() } else { format!("{n} languages") };
        page += &format!("<h2>{}, split {}, {languages}</h2>\n", escaped(benchmark.name), escaped(benchmark.split));
        page += &tables::figures(&benchmark, runs);
        page += &languages::heat_maps(&benchmark, runs);
        page += &languages::bars(&benchmark, runs);
    }
    page += &tasks::sections(runs);
    page += &tables::settings(runs);
    Ok(page + &format!("<footer>hbt {}</footer>\n</main>\n", env!("CARGO_PKG_VERSION")))
}

/// Curves over the steps, those of figures first.
fn training(runs: &[Run]) -> Result<String> {
    let mut charts = String::new();
    let mut known: Vec<(&str, &str)> = Vec::new();
    for (task, name, _) in runs.iter().flat_map(|run| &run.figures) {
        if known.contains(&(task.as_str(), name.as_str())) {
            continue;
        }
        known.push((task, name));
        let series: Vec<Series> =
            runs.iter().enumerate().map(|(run, of)| Series { run, points: of.figure(task, name) }).collect();
        // One point is no curve.
        if series.iter().any(|series| series.points.len() > 1) {
            let key = FigureKey::known().into_iter().find(|key| key.to_string() == *name);
            let title = key.map_or_else(|| name.clone(), |key| key.title());
            let lower = key.is_some_and(|key| key.metric.lower_is_better);
            let note = if lower { format!("{task}, lower is better") } else { task.clone() };
            charts += &chart(&title, &note, &series, Style::Dots)?;
        }
    }
    for (name, title, style) in CURVES {
        let series: Vec<Series> =
            runs.iter().enumerate().map(|(run, of)| Series { run, points: of.curve(name) }).collect();
        charts += &chart(title, "", &series, style)?;
    }
    if charts.is_empty() {
        return Ok(charts);
    }
    let legend: String = match runs.len() {
        1 => String::new(),
        _ => {
            let names = runs
                .iter()
                .enumerate()
                .map(|(i, run)| format!("<span>{}{}</span>", swatch(i, runs), escaped(&run.name)));
            format!("<p class=legend>{}</p>\n", names.collect::<String>())
        }
    };
    let note = "<small>thin: steps, of long runs the means of a few; thick: running means</small>";
    Ok(format!("<h2>Training, by step {note}</h2>\n{legend}<div class=charts>\n{charts}</div>\n"))
}

/// The class that gives a run its colour.
fn class(run: usize) -> String {
    format!("r{}", run % N_COLOURS)
}

/// A run's colour before its name, where there are several runs or what was before it.
fn swatch(run: usize, runs: &[Run]) -> String {
    let needs_none = runs.len() == 1 && runs[0].before.is_none();
    if needs_none { String::new() } else { format!("<span class=\"s {}\"></span>", class(run)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const HOSTILE: &str = "<script>alert('1')</script>\"&";

    fn report(model: &str, value: f64, languages: [&str; 2]) -> EvalReport {
        let [a, b] = languages;
        let figure = |setting: Option<&str>, metric: &str, value: f64| {
            let mut figure = json!({"task": "parallel", "setting": setting, "metric": metric, "cutoff": null});
            figure["value"] = value.into();
            figure
        };
        let written = json!({
            "model": model, "task": "parallel", "split": HOSTILE, "languages": languages, "main": "multilingual_map",
            "figures": [figure(Some("multilingual"), "map", value), figure(None, "rank_distance", 10.0 / value)],
            "by_direction": {"map": {a: {a: 0.5, b: value}, b: {b: 1.0}}},
            "by_query_language": {"rank_distance": {a: 10.0 / value, b: 0.0}},
        });
        serde_json::from_value(written).unwrap()
    }

    fn run(name: &str, before: Option<f64>, after: Option<f64>) -> Run {
        let report = |value| report(HOSTILE, value, ["de", HOSTILE]);
        Run {
            name: name.to_owned(),
            curves: vec![("loss".to_owned(), vec![(1, 2.0), (2, 1.0)])],
            figures: vec![(HOSTILE.to_owned(), HOSTILE.to_owned(), vec![(0, 0.25), (2, 0.5)])],
            before: before.map(report),
            after: after.map(report),
            settings: vec![("model".to_owned(), HOSTILE.to_owned()), (HOSTILE.to_owned(), name.to_owned())],
            ..Run::default()
        }
    }

    #[test]
    fn whatever_names_say_is_text() {
        for runs in [
            vec![run(HOSTILE, Some(0.25), Some(0.5))],
            vec![run(HOSTILE, Some(0.25), Some(0.5)), run("b", None, Some(0.125)), run("c", Some(0.5), None)],
            vec![Run { name: HOSTILE.to_owned(), ..Run::default() }],
        ] {
            let page = page(&runs).unwrap();
            assert!(is_page(page.as_bytes()));
            assert!(!page.contains("<script") && !page.contains("alert('") && !page.contains("\"&\""), "{page}");
            assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&quot;&amp;"), "{page}");
            // Every element of these is closed; cells and rows need not be.
            for element in ["table", "div", "figure", "figcaption", "svg", "small", "span", "details", "h2", "h3", "p"]
            {
                let opened =
                    page.matches(&format!("<{element}>")).count() + page.matches(&format!("<{element} ")).count();
                assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}: {page}");
            }
        }
        assert!(!is_page(b"<!doctype html>\n<html>"));
    }

    /// The cells of a table's rows, without markup.
    pub(super) fn cells(html: &str) -> Vec<Vec<String>> {
        let text = |cell: &str| {
            let parts = cell.split('<').skip(1).filter_map(|part| Some(part.split_once('>')?.1.trim()));
            parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
        };
        let rows = html.split("<tr>").skip(1).map(|row| row.split("\n").next().unwrap().replace("<th", "<td"));
        rows.map(|row| row.split("<td").skip(1).map(|cell| text(&format!("<td{cell}"))).collect()).collect()
    }

    #[test]
    fn figures_stand_side_by_side_and_the_best_is_marked() {
        let runs = [run("a", Some(0.25), Some(0.5)), run("b", Some(0.25), Some(0.75))];
        let html = tables::figures(&Benchmark::of(&runs)[0], &runs);
        assert_eq!(
            cells(&html),
            [
                vec!["figure", "before", "a", "b"],
                vec!["multilingual mAP", "0.2500", "0.5000 +0.2500", "0.7500 +0.5000"],
                vec!["rank distance lower is better", "40.0", "20.0 -20.0", "13.3 -26.7"],
            ]
        );
        assert!(html.contains("<b>0.7500</b>") && html.contains("<b>13.3</b>") && html.matches("<b>").count() == 2);
        // Runs that began with other models have no common column, and each its change, if it has one.
        let runs = [run("a", Some(0.25), Some(0.5)), run("b", Some(0.5), Some(0.75)), run("c", None, Some(0.75))];
        let rows = cells(&tables::figures(&Benchmark::of(&runs)[0], &runs));
        assert_eq!(rows[1], ["multilingual mAP", "0.5000 +0.2500", "0.7500 +0.2500", "0.7500"]);
        // One run has its change in a column; a result alone has none.
        let runs = [run("a", Some(0.25), Some(0.5))];
        let rows = cells(&tables::figures(&Benchmark::of(&runs)[0], &runs));
        assert_eq!(
            rows[..2],
            [["figure", "before", "after", "change"], ["multilingual mAP", "0.2500", "0.5000", "+0.2500"]]
        );
        let runs = [run("a", None, Some(0.5))];
        let rows = cells(&tables::figures(&Benchmark::of(&runs)[0], &runs));
        assert_eq!(rows[..2], [["figure", "a"], ["multilingual mAP", "0.5000"]]);
    }

    #[test]
    fn heat_goes_from_nothing_to_the_largest_value_of_all_maps() {
        let runs = [run("a", Some(0.25), Some(0.5))];
        let html = languages::heat_maps(&Benchmark::of(&runs)[0], &runs);
        let heats = html.split("--h:").skip(1).map(|rest| rest.split('<').next().unwrap().trim());
        assert_eq!(heats.collect::<Vec<_>>(), ["50>50.0", "25>25.0", "100>100.0", "50>50.0", "50>50.0", "100>100.0"]);
        let bars = languages::bars(&Benchmark::of(&runs)[0], &runs);
        let widths = bars.split("style=width:").skip(1).map(|rest| rest.split('%').next().unwrap());
        assert_eq!(widths.collect::<Vec<_>>(), ["0", "0", "100", "50"], "nothing twice, then 40 before and 20 after");
    }

    #[test]
    fn settings_of_several_runs_are_those_that_differ() {
        let runs = [run("a", None, None), run("b", None, None)];
        let rows = cells(&tables::settings(&runs));
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[1][1..], ["a", "b"]);
        assert_eq!(cells(&tables::settings(&runs[..1])).len(), 3, "all of one");
        assert_eq!(tables::settings(&[run("a", None, None), run("a", None, None)]), "");
    }
}
