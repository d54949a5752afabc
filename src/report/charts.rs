//! Curves over steps as SVG. plotters draws them; its colours become classes, so that the page's style sheet has the say, in
//! light and in dark.

use super::html::escaped;
use crate::{Error, Result};
use plotters::prelude::*;
use plotters::style::FontTransform;
use std::fmt::Display;

/// Width and height in units of which a page shows about one a pixel.
const SIZE: (u32, u32) = (350, 190);

/// More points than these are not told apart on a page.
const MOST_POINTS: usize = 300;

/// More dots than these hide their line.
const MOST_DOTS: usize = 40;

/// Bounds of what is drawn: a chart's axes are counted in steps that have to add something.
const LARGEST_STEP: f64 = 1e12;
const LARGEST: f64 = 1e30;
const SMALLEST: f64 = 1e-12;

/// Colours that stand for classes: of grid, axes and text, and of curves by their run, thin or not.
const GRID: RGBColor = RGBColor(1, 1, 0);
const AXIS: RGBColor = RGBColor(1, 1, 1);
const TEXT: RGBColor = RGBColor(1, 1, 2);
const THIN: u8 = 2;
const FULL: u8 = 3;
const DOTS: u8 = 4;

/// Colours of runs that a page has; more runs share them.
pub(super) const N_COLOURS: usize = 8;

/// What a chart shows of one run.
pub(super) struct Series<'a> {
    /// The run's number, which chooses the colour.
    pub run: usize,
    /// Steps and values, by step.
    pub points: &'a [(u64, f64)],
}

/// How a curve is drawn.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Style {
    /// As it is.
    Line,
    /// With its running mean, before which it steps back.
    Smoothed,
    /// With a dot at each of its points, where they are few.
    Dots,
}

/// A chart with its title; nothing where no run has a point.
///
/// # Errors
/// If it cannot be drawn, which would be a bug.
pub(super) fn chart(title: &str, note: &str, series: &[Series], style: Style) -> Result<String> {
    let series: Vec<&Series> = series.iter().filter(|series| !series.points.is_empty()).collect();
    if series.is_empty() {
        return Ok(String::new());
    }
    let svg = draw(&series, style).map_err(|e| Error::other(format!("cannot draw {title}: {e}")))?;
    let note = if note.is_empty() { String::new() } else { format!(" <small>{}</small>", escaped(note)) };
    Ok(format!("<figure><figcaption>{}{note}</figcaption>\n{svg}</figure>\n", escaped(title)))
}

type Drawn<T> = std::result::Result<T, String>;

fn said(error: impl Display) -> String {
    error.to_string()
}

fn draw(series: &[&Series], style: Style) -> Drawn<String> {
    let curves: Vec<(usize, Vec<(f64, f64)>)> =
        series.iter().map(|series| (series.run % N_COLOURS, thinned(series.points))).collect();
    let (x, y) = ranges(&curves);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&root);
        chart.margin_top(8).margin_right(14).x_label_area_size(24).y_label_area_size(48);
        let mut chart = chart.build_cartesian_2d(x.0..x.1, y.0..y.1).map_err(said)?;
        let font = ("sans-serif", 12).into_font().transform(FontTransform::None).color(&TEXT);
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh().max_light_lines(0).bold_line_style(GRID).axis_style(AXIS).label_style(font);
        let (step, value) = (|x: &f64| in_short(*x, x.abs()), |y: &f64| in_short(*y, y_size(y_range(&curves))));
        mesh.x_labels(5).y_labels(5).x_label_formatter(&step).y_label_formatter(&value).draw().map_err(said)?;
        for (run, points) in &curves {
            let colour = |kind: u8| RGBColor(1, kind, *run as u8);
            let line = |points: Vec<(f64, f64)>, kind, width| LineSeries::new(points, colour(kind).stroke_width(width));
            let full = if style == Style::Smoothed { smoothed(points) } else { points.clone() };
            if style == Style::Smoothed && points.len() > 2 {
                chart.draw_series(line(points.clone(), THIN, 1)).map_err(said)?;
            }
            chart.draw_series(line(full, FULL, 2)).map_err(said)?;
            if (style == Style::Dots && points.len() <= MOST_DOTS) || points.len() == 1 {
                let dots = points.iter().map(|&at| Circle::new(at, 3, colour(DOTS).filled()));
                chart.draw_series(dots).map_err(said)?;
            }
        }
        root.present().map_err(said)?;
    }
    Ok(in_classes(&svg))
}

/// The range of values, and of steps, with room above and below.
fn ranges(curves: &[(usize, Vec<(f64, f64)>)]) -> ((f64, f64), (f64, f64)) {
    let steps = curves.iter().flat_map(|(_, points)| points).map(|point| point.0);
    let (first, last) = bounds(steps);
    let (low, high) = y_range(curves);
    // An axis needs numbers that differ: of a range that is next to nothing, plotters looks for them for ever.
    let is_flat = high - low <= 1e-6 * y_size((low, high));
    let room = if is_flat { (0.1 * y_size((low, high))).max(SMALLEST) } else { 0.06 * (high - low) };
    // What cannot be negative has no axis below 0.
    let floor = if low >= 0.0 { 0.0 } else { f64::MIN };
    ((first, last.max(first + 1.0)), ((low - room).max(floor), high + room))
}

fn y_range(curves: &[(usize, Vec<(f64, f64)>)]) -> (f64, f64) {
    bounds(curves.iter().flat_map(|(_, points)| points).map(|point| point.1))
}

/// How large the values of an axis are.
fn y_size((low, high): (f64, f64)) -> f64 {
    high.abs().max(low.abs())
}

fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
}

/// A number beside an axis whose largest is of `size`: `30`, `12k`, `0.25`, `3e-5`.
fn in_short(x: f64, size: f64) -> String {
    let trimmed = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    // What is left of a zero that was added up.
    if x.abs() < size * 1e-9 || x == 0.0 {
        return "0".to_owned();
    }
    match size {
        1e6.. => trimmed(format!("{:.2}", x / 1e6)) + "M",
        1e4..1e6 => trimmed(format!("{:.1}", x / 1e3)) + "k",
        1e-2..1e4 => trimmed(format!("{x:.4}")),
        _ => {
            let scientific = format!("{x:.1e}");
            scientific.replacen(".0e", "e", 1)
        }
    }
}

/// At most [`MOST_POINTS`] points: each is the mean of as many neighbours. Numbers that no run has are moved to where plotters
/// still counts.
fn thinned(points: &[(u64, f64)]) -> Vec<(f64, f64)> {
    let of_each = points.len().div_ceil(MOST_POINTS).max(1);
    let mean = |part: &[(u64, f64)]| {
        let n = part.len() as f64;
        let sum = part.iter().fold((0.0, 0.0), |sum, &(step, value)| (sum.0 + step as f64, sum.1 + value));
        ((sum.0 / n).min(LARGEST_STEP), (sum.1 / n).clamp(-LARGEST, LARGEST))
    };
    points.chunks(of_each).map(mean).collect()
}

/// Each value as the mean of its neighbourhood, a tenth of the curve, which is smaller where the curve begins and ends.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = points.len() / 20;
    let mean = |i: usize| {
        let reach = reach.min(i).min(points.len() - 1 - i);
        let part = &points[i - reach..=i + reach];
        (points[i].0, part.iter().map(|point| point.1).sum::<f64>() / part.len() as f64)
    };
    (0..points.len()).map(mean).collect()
}

/// plotters' SVG with classes in the place of its colours and fonts, as wide as its place in the page.
fn in_classes(svg: &str) -> String {
    let mut out = svg.replacen(&format!("width=\"{}\" height=\"{}\" ", SIZE.0, SIZE.1), "role=\"img\" ", 1);
    out = out.replace(" font-family=\"sans-serif\"", "").replace(" opacity=\"1\"", "");
    let names = [(GRID, "grid".to_owned()), (AXIS, "axis".to_owned()), (TEXT, "label".to_owned())];
    let runs = (0..N_COLOURS).flat_map(|run| {
        let class = move |kind, name: &str| (RGBColor(1, kind, run as u8), format!("{name} r{run}"));
        [class(THIN, "thin"), class(FULL, "line"), class(DOTS, "dot")]
    });
    for (RGBColor(r, g, b), class) in names.into_iter().chain(runs) {
        for attribute in ["stroke", "fill"] {
            out = out.replace(&format!("{attribute}=\"#{r:02X}{g:02X}{b:02X}\""), &format!("class=\"{class}\""));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_beside_axes_are_short() {
        let shown = |x: f64| in_short(x, x.abs());
        for (x, expected) in [
            (0.0, "0"),
            (30.0, "30"),
            (12_000.0, "12k"),
            (1_250_000.0, "1.25M"),
            (0.25, "0.25"),
            (3e-5, "3e-5"),
            (-2.5, "-2.5"),
        ] {
            assert_eq!(shown(x), expected);
        }
        assert_eq!(in_short(1.5e-5, 3e-5), "1.5e-5");
        assert_eq!(in_short(1e-17, 0.5), "0");
    }

    #[test]
    fn curves_of_any_length_are_drawn_with_as_many_points() {
        let points: Vec<(u64, f64)> = (1..=100_000).map(|step| (step, (step % 2) as f64)).collect();
        let thin = thinned(&points);
        assert!((200..=MOST_POINTS).contains(&thin.len()), "{}", thin.len());
        assert!(thin.iter().all(|point| (point.1 - 0.5).abs() < 0.01), "a mean of zeros and ones");
        assert_eq!(thinned(&points[..3]), [(1.0, 1.0), (2.0, 0.0), (3.0, 1.0)]);
    }

    #[test]
    fn a_running_mean_keeps_a_straight_line_and_both_ends() {
        let line: Vec<(f64, f64)> = (0..100).map(|x| (f64::from(x), 3.0 * f64::from(x))).collect();
        for (got, expected) in smoothed(&line).iter().zip(&line) {
            assert!((got.1 - expected.1).abs() < 1e-9);
        }
        let jagged: Vec<(f64, f64)> = (0..100).map(|x| (f64::from(x), f64::from(x % 2))).collect();
        let smooth = smoothed(&jagged);
        assert_eq!((smooth[0], smooth[99]), (jagged[0], jagged[99]));
        assert!(smooth[5..95].iter().all(|point| (point.1 - 0.5).abs() < 0.06), "{smooth:?}");
    }

    /// Colours of plotters' are none of the page's; and there is something to see.
    #[test]
    fn all_colours_become_classes() {
        let points: Vec<(u64, f64)> = (1..=40).map(|step| (step, 1.0 / step as f64)).collect();
        for style in [Style::Line, Style::Smoothed, Style::Dots] {
            let series = [0, 9].map(|run| Series { run, points: &points });
            let html = chart("<loss>", "& more", &series, style).unwrap();
            assert!(html.contains("<figcaption>&lt;loss&gt; <small>&amp; more</small></figcaption>"), "{html}");
            assert!(!html.contains("=\"#"), "{html}");
            assert!(html.contains("class=\"line r0\"") && html.contains("class=\"line r1\""), "{html}");
            assert_eq!(html.contains("class=\"thin r0\""), style == Style::Smoothed);
            assert_eq!(html.matches("<circle").count(), if style == Style::Dots { 80 } else { 0 });
        }
        assert_eq!(chart("loss", "", &[Series { run: 0, points: &[] }], Style::Line).unwrap(), "");
        for points in [&[(7, 0.0)][..], &[(7, 0.5)], &[(1, -1.0), (2, -1.0)]] {
            assert!(chart("loss", "", &[Series { run: 0, points }], Style::Smoothed).unwrap().contains("<svg"));
        }
    }

    /// Whatever a file says: no panic, no loop without an end, and nothing but numbers in the drawing.
    #[test]
    fn any_numbers_are_drawn() {
        let most = u64::MAX;
        for points in [
            vec![(0, 1e308), (1, -1e308)],
            vec![(1, 1e308), (2, 1e308)],
            vec![(1, 1e-300), (2, 2e-300), (3, 0.0)],
            vec![(1, f64::MIN_POSITIVE), (2, f64::MIN_POSITIVE)],
            vec![(1, 1.0), (2, 1.0 + f64::EPSILON)],
            vec![(1, 1e15), (2, 1e15 + 0.125)],
            vec![(most - 1, 0.5), (most, 0.25)],
            vec![(0, 0.5), (most, 0.25)],
            vec![(1, -0.0)],
        ] {
            for style in [Style::Line, Style::Smoothed, Style::Dots] {
                let html = chart("loss", "", &[Series { run: 0, points: &points }], style).unwrap();
                assert!(!html.contains("NaN") && !html.contains("inf"), "{points:?}: {html}");
            }
        }
    }
}
