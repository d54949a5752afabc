//! Tasks whose results have mteb's form: a table of all of them, and of each the numbers by subset, the models side by side.

use super::html::{Cell, escaped, table};
use super::input::Run;
use super::languages::{HeatMap, heat_map};
use super::pairs::Shape;
use super::swatch;
use crate::eval::mteb::scores::{Part, TaskScores, means};

/// Rows beyond which a list is folded.
const MOST_ROWS: usize = 12;
/// Languages beyond which a heat map is folded.
const MOST_LANGUAGES: usize = 60;

/// The models that have such results, each with its run's number.
struct Models<'a> {
    runs: &'a [Run],
    of: Vec<usize>,
}

impl Models<'_> {
    /// Its name, with its colour if there are several.
    fn titled(&self, model: usize) -> String {
        let run = self.of[model];
        format!("{}{}", swatch(run, self.runs), escaped(&self.runs[run].name))
    }

    fn heading(&self, model: usize) -> Cell {
        Cell::Html(format!("<td class=n>{}", self.titled(model)))
    }
}

/// The sections of all tasks; nothing where no run has such results.
pub(super) fn sections(runs: &[Run]) -> String {
    let of: Vec<usize> = (0..runs.len()).filter(|&run| !runs[run].results.is_empty()).collect();
    let results: Vec<_> = of.iter().map(|&run| runs[run].results.as_slice()).collect();
    let (tasks, models) = (TaskScores::of(&results), Models { runs, of });
    let mut html = String::new();
    if tasks.len() > 1 {
        html += &format!("<h2>{} tasks <small>main scores, means over subsets</small></h2>\n", tasks.len());
        html += &all_tasks(&tasks, &models);
    }
    for (number, task) in tasks.iter().enumerate() {
        html += &format!("<h2 id=t{number}>{} <small>{}</small></h2>\n", escaped(task.name), escaped(&about(task)));
        html += &notes(task);
        html += &section(task, &models);
    }
    html
}

/// What a task is, and how much of it there is.
fn about(task: &TaskScores) -> String {
    let kind = task.kind.map_or(String::new(), |kind| format!("{kind}, "));
    let subsets = match task.parts.as_slice() {
        [(split, "default")] => format!("split {split}"),
        parts => crate::error::counted(parts.len() as u64, "subset"),
    };
    format!("{kind}{}, {subsets}", task.main_score)
}

fn notes(task: &TaskScores) -> String {
    let mut notes = String::new();
    if task.n_common < task.parts.len() {
        let (n, of) = (task.n_common, task.parts.len());
        notes += &format!("<p class=note>Means are over the {n} of {of} subsets that all models have.</p>\n");
    }
    if !task.is_of_one_revision() {
        notes += "<p class=note>Measured on different revisions of the data.</p>\n";
    }
    notes
}

/// A row a task, and the means over those that all have.
fn all_tasks(tasks: &[TaskScores], models: &Models) -> String {
    let mut headings = vec![Cell::Text("task".to_owned())];
    headings.extend((0..models.of.len()).map(|model| models.heading(model)));
    let row = |(number, task): (usize, &TaskScores)| {
        let kind = task.kind.map_or(String::new(), |kind| format!("{kind}, "));
        let name = escaped(task.name);
        let about = escaped(task.main_score);
        let mut cells = vec![Cell::Html(format!("<td><a href=#t{number}>{name}</a> <small>{kind}{about}</small>"))];
        cells.extend(numbers(&(0..models.of.len()).map(|model| task.score(model)).collect::<Vec<_>>()));
        cells
    };
    let mut rows: Vec<Vec<Cell>> = tasks.iter().enumerate().map(row).collect();
    for mean in means(tasks) {
        let mut cells = vec![mean_title(&mean.title)];
        cells.extend(numbers(&mean.values.iter().map(|x| Some(*x)).collect::<Vec<_>>()));
        rows.push(cells);
    }
    table(&headings, &rows)
}

fn mean_title(title: &str) -> Cell {
    Cell::Html(format!("<td><strong>{}</strong>", escaped(title)))
}

/// A row's numbers, the best of several marked.
fn numbers(values: &[Option<f64>]) -> Vec<Cell> {
    let text = |value: Option<f64>| value.map_or("-".to_owned(), |x| format!("{x:.4}"));
    let best = values.iter().flatten().copied().reduce(f64::max).filter(|_| values.iter().flatten().count() > 1);
    let cell = |value: &Option<f64>| match text(*value) {
        shown if value.is_some() && shown == text(best) => Cell::Html(format!("<td class=n><b>{shown}</b>")),
        shown => Cell::Number(shown),
    };
    values.iter().map(cell).collect()
}

fn section(task: &TaskScores, models: &Models) -> String {
    let shown = task.shown();
    let measured: Vec<usize> = (0..task.n_models()).filter(|&model| task.has(model)).collect();
    let shapes = by_split(task).into_iter().map(|(split, parts)| (split, Shape::of(&parts)));
    if let Some(shapes) = shapes.map(|(split, shape)| Some((split, shape?))).collect::<Option<Vec<_>>>() {
        let mut html = means_table(task, models, &measured, &shown);
        html.extend(shapes.iter().map(|(split, shape)| maps(task, models, &measured, split, shape)));
        return html;
    }
    if let [model] = measured[..] {
        return by_number(task, model, &shown);
    }
    // A list that is not folded ends in the mean of its number.
    let has_list = (2..=MOST_ROWS).contains(&task.parts.len());
    let mut html = String::new();
    if shown.len() > 1 || !has_list {
        html += &means_table(task, models, &measured, &shown);
    }
    if task.parts.len() > 1 {
        for (i, number) in shown.iter().enumerate() {
            let list = by_model(task, models, &measured, &task.parts, number);
            let is_folded = i > 0 || !has_list;
            html += &folded(is_folded, &format!("{number} of {} subsets", task.parts.len()), &list);
        }
    }
    html
}

/// The parts of each split, in the order of the splits.
fn by_split<'a>(task: &TaskScores<'a>) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut splits: Vec<(&str, Vec<&str>)> = Vec::new();
    for &(split, subset) in &task.parts {
        match splits.iter_mut().find(|(known, _)| *known == split) {
            Some((_, subsets)) => subsets.push(subset),
            None => splits.push((split, vec![subset])),
        }
    }
    splits
}

/// In a box that opens, if it is to be.
fn folded(is_folded: bool, summary: &str, html: &str) -> String {
    if !is_folded {
        return html.to_owned();
    }
    format!("<details class=more><summary>{}</summary>\n{html}</details>\n", escaped(summary))
}

/// A row a number, each model in its column.
fn means_table(task: &TaskScores, models: &Models, measured: &[usize], shown: &[&str]) -> String {
    let what = if task.n_common > 1 { format!("mean of {}", task.n_common) } else { "score".to_owned() };
    let mut headings = vec![Cell::Text(what)];
    headings.extend(measured.iter().map(|&model| models.heading(model)));
    let row = |number: &&str| {
        let mut cells = vec![Cell::Text((*number).to_owned())];
        cells.extend(numbers(&measured.iter().map(|&model| task.mean(model, number)).collect::<Vec<_>>()));
        cells
    };
    table(&headings, &shown.iter().map(row).collect::<Vec<_>>())
}

fn part_title(task: &TaskScores, (split, subset): Part) -> String {
    match task.parts.iter().all(|(other, _)| *other == split) {
        true => subset.to_owned(),
        false => format!("{subset} ({split})"),
    }
}

/// One model: a row a subset, each number in its column.
fn by_number(task: &TaskScores, model: usize, shown: &[&str]) -> String {
    let mut headings = vec![Cell::Text("subset".to_owned())];
    headings.extend(shown.iter().map(|number| Cell::Number((*number).to_owned())));
    let text = |value: Option<f64>| Cell::Number(value.map_or("-".to_owned(), |x| format!("{x:.4}")));
    let row = |part: &Part| {
        let mut cells = vec![Cell::Text(part_title(task, *part))];
        cells.extend(shown.iter().map(|number| text(task.value(model, *part, number))));
        cells
    };
    let mut rows: Vec<Vec<Cell>> = task.parts.iter().map(row).collect();
    if rows.len() == 1 {
        return table(&headings, &rows);
    }
    let mut mean = vec![mean_title("mean")];
    mean.extend(shown.iter().map(|number| text(task.mean(model, number))));
    if rows.len() > MOST_ROWS {
        let list = folded(true, &format!("{} subsets", rows.len()), &table(&headings, &rows));
        return table(&headings, &[mean]) + &list;
    }
    rows.push(mean);
    table(&headings, &rows)
}

/// One number of these parts: a row a subset, each model in its column; with the mean, if they are all.
fn by_model(task: &TaskScores, models: &Models, measured: &[usize], parts: &[Part], number: &str) -> String {
    let mut headings = vec![Cell::Text(number.to_owned())];
    headings.extend(measured.iter().map(|&model| models.heading(model)));
    let row = |title: Cell, values: Vec<Option<f64>>| std::iter::once(title).chain(numbers(&values)).collect();
    let of_part = |part: &Part| {
        let values = measured.iter().map(|&model| task.value(model, *part, number)).collect();
        row(Cell::Text(part_title(task, *part)), values)
    };
    let mut rows: Vec<Vec<Cell>> = parts.iter().map(of_part).collect();
    if parts.len() == task.parts.len() {
        let values = measured.iter().map(|&model| task.mean(model, number)).collect();
        rows.push(row(mean_title("mean"), values));
    }
    table(&headings, &rows)
}

/// The main score of a split whose subsets are pairs of languages, in the same colours for all models.
fn maps(task: &TaskScores, models: &Models, measured: &[usize], split: &str, shape: &Shape) -> String {
    let value = |model: usize, subset: &str| task.value(model, (split, subset), task.main_score);
    let all = task.parts.iter().filter(|(of, _)| *of == split).map(|(_, subset)| *subset);
    let values = all.flat_map(|subset| measured.iter().filter_map(move |&model| value(model, subset)));
    let (low, high) = super::languages::range(values);
    let what = match by_split(task).len() {
        1 => String::new(),
        _ => format!(", split {}", escaped(split)),
    };
    let mut html =
        format!("<h3>{} × 100 by {}{what}</h3>\n<div class=maps>\n", task.main_score, escaped(&shape.title()));
    for &model in measured {
        let map =
            HeatMap { title: &models.titled(model), rows: &shape.rows, columns: &shape.columns, range: (low, high) };
        let cell = |row: &str, column: usize| value(model, shape.subset(row, column)?);
        html += &heat_map(&map, cell, |x| format!("{:.1}", 100.0 * x));
    }
    html += "</div>\n";
    if !shape.others.is_empty() {
        let parts: Vec<Part> = shape.others.iter().map(|subset| (split, *subset)).collect();
        let list = by_model(task, models, measured, &parts, task.main_score);
        html += &folded(true, &format!("{} more subsets", parts.len()), &list);
    }
    folded(shape.rows.len() > MOST_LANGUAGES, &format!("{} languages", shape.rows.len()), &html)
}

#[cfg(test)]
mod tests {
    use super::super::tests::cells;
    use super::*;
    use crate::eval::mteb::entries::Entry;
    use crate::eval::mteb::files::{Settings, TaskResult};

    const HOSTILE: &str = "<script>alert('1')</script>\"&";

    /// A run with results of tasks, each with subsets and their nDCG@10; recall is as much more as is missing to 1.
    fn run(name: &str, tasks: &[(&str, &[(&str, f64)])]) -> Run {
        let result = |(task, rows): &(&str, &[(&str, f64)])| {
            let mut result = TaskResult::new(task, "abc", Settings::new());
            for &(subset, score) in *rows {
                let numbers = [("ndcg_at_10", score), ("recall_at_100", 1.0 - score)];
                let numbers = numbers.map(|(name, x)| (name.to_owned(), x)).into();
                let (groups, languages, hf_subset) = (Vec::new(), Vec::new(), subset.to_owned());
                result.record("test", Entry { numbers, groups, main_score: score, hf_subset, languages });
            }
            result
        };
        Run { name: name.to_owned(), results: tasks.iter().map(result).collect(), ..Run::default() }
    }

    #[test]
    fn one_model_has_a_row_a_subset() {
        let html = sections(&[run("a", &[("XQuADRetrieval", &[("de", 0.5), ("en", 0.25)])])]);
        assert!(
            html.contains("<h2 id=t0>XQuADRetrieval <small>Retrieval, ndcg_at_10, 2 subsets</small></h2>"),
            "{html}"
        );
        let expected = [
            ["subset", "ndcg_at_10", "recall_at_100"],
            ["de", "0.5000", "0.5000"],
            ["en", "0.2500", "0.7500"],
            ["mean", "0.3750", "0.6250"],
        ];
        assert_eq!(cells(&html), expected);
        assert_eq!(sections(&[Run::default()]), "");
        // A long list is folded, its mean is not.
        let names: Vec<String> = (0..20).map(|i| format!("l{i}")).collect();
        let rows: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 0.5)).collect();
        let html = sections(&[run("a", &[("XQuADRetrieval", &rows)])]);
        let (before, folded) = html.split_once("<details class=more><summary>20 subsets</summary>").unwrap();
        assert_eq!((cells(before).len(), cells(folded).len()), (2, 21));
    }

    #[test]
    fn models_stand_side_by_side_and_the_best_is_marked() {
        let runs = [
            run(
                "a",
                &[("XQuADRetrieval", &[("de", 0.5), ("en", 0.25), ("ar", 1.0)]), ("ArguAna", &[("default", 0.5)])],
            ),
            run("b", &[("XQuADRetrieval", &[("de", 0.75), ("en", 0.25)]), ("STS17", &[("de-en", 0.5)])]),
            Run::default(),
        ];
        let html = sections(&runs);
        assert!(html.contains("<p class=note>Means are over the 2 of 3 subsets that all models have.</p>"), "{html}");
        let rows = cells(&html);
        let expected = [
            vec!["task", "a", "b"],
            vec!["XQuADRetrieval Retrieval, ndcg_at_10", "0.3750", "0.5000"],
            vec!["ArguAna Retrieval, ndcg_at_10", "0.5000", "-"],
            vec!["STS17 STS, cosine_spearman", "-", "0.5000"],
        ];
        assert_eq!(
            rows[..4].iter().map(|row| row.iter().map(|cell| cell.trim_end()).collect()).collect::<Vec<Vec<_>>>(),
            expected
        );
        let of_task = [
            ["mean of 2", "a", "b"],
            ["ndcg_at_10", "0.3750", "0.5000"],
            ["recall_at_100", "0.6250", "0.5000"],
            ["ndcg_at_10", "a", "b"],
            ["de", "0.5000", "0.7500"],
            ["en", "0.2500", "0.2500"],
            ["ar", "1.0000", "-"],
            ["mean", "0.3750", "0.5000"],
        ];
        assert_eq!(rows[4..12], of_task);
        let list = html.split_once("<td>de<").unwrap().1;
        assert!(list.starts_with("td class=n>0.5000<td class=n><b>0.7500</b>\n"), "{list}");
        assert!(list.contains("<td class=n><b>0.2500</b><td class=n><b>0.2500</b>\n"), "two of a kind: {list}");
        assert!(list.contains("<tr><td>ar<td class=n>1.0000<td class=n>-\n"), "none to be better than: {list}");
        assert!(html.contains("<summary>recall_at_100 of 3 subsets</summary>"));
    }

    #[test]
    fn pairs_of_languages_are_a_map() {
        let subsets = ["ara-ara", "ara-deu", "deu-ara", "deu-deu", "ara-eng", "deu-eng"];
        let rows: Vec<(&str, f64)> = subsets.iter().zip(1..).map(|(name, i)| (*name, f64::from(i) / 8.0)).collect();
        let html = sections(&[run("a", &[("MLQARetrieval", &rows)]), run("b", &[("MLQARetrieval", &rows[..5])])]);
        let maps: Vec<&str> = html.split("<table class=heat>").skip(1).collect();
        assert_eq!(maps.len(), 2);
        assert_eq!(cells(maps[0])[0], ["", "ara", "deu", "eng"]);
        // 1/8, 2/8 and 5/8 of 6/8 in the first row.
        for (heat, shown) in [(17, "12.5"), (33, "25.0"), (83, "62.5"), (100, "75.0")] {
            assert!(maps[0].contains(&format!("style=--h:{heat}>{shown}")), "{}", maps[0]);
        }
        assert_eq!(maps[1].matches("--h:").count(), 5);
        assert!(!html.contains("<details"), "{html}");
    }

    #[test]
    fn whatever_names_say_is_text() {
        let names: Vec<String> = (0..8).map(|i| format!("{HOSTILE}{i}-{HOSTILE}{}", i + 1)).collect();
        let pairs: Vec<(&str, f64)> = names.iter().map(|name| (name.as_str(), 0.5)).collect();
        let of = |name| run(name, &[(HOSTILE, &pairs), ("ArguAna", &[(HOSTILE, 0.5), ("default", 0.25)])]);
        for runs in [vec![of(HOSTILE)], vec![of(HOSTILE), of("b")]] {
            let html = sections(&runs);
            assert!(
                !html.contains("<script") && !html.contains("alert('") && html.contains("&lt;script&gt;"),
                "{html}"
            );
            for element in ["table", "div", "small", "span", "details", "h2", "h3", "p", "b", "strong", "a"] {
                let opened =
                    html.matches(&format!("<{element}>")).count() + html.matches(&format!("<{element} ")).count();
                assert_eq!(opened, html.matches(&format!("</{element}>")).count(), "{element}: {html}");
            }
        }
    }
}
