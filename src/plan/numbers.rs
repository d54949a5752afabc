//! Formats numbers for people.

use crate::error::noun_of;

/// MiB, as in `12,345`; one decimal below 100.
pub fn mib(bytes: u64) -> String {
    count(bytes as f64 / f64::from(1 << 20))
}

/// With thousands separators; with one decimal if there are fewer than three digits.
pub fn count(number: f64) -> String {
    if number < 99.95 && number.fract() != 0.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three digits and the letter of a power of 1000, as in `1.23 T`.
pub fn si(number: f64) -> String {
    let (mut number, mut letters) = (number, ["", "k", "M", "G", "T", "P", "E"].iter());
    let mut letter = letters.next();
    while number >= 999.5
        && let Some(next) = letters.next()
    {
        (number, letter) = (number / 1000.0, Some(next));
    }
    let decimals = if number < 9.995 { 2 } else { usize::from(number < 99.95) };
    format!("{number:.decimals$} {}", letter.unwrap_or(&""))
}

/// A duration in a suitable unit.
pub fn duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 1.0 => (s * 1e3, "ms"),
        s if s < 120.0 => (s, "seconds"),
        s if s < 7200.0 => (s / 60.0, "minutes"),
        s => (s / 3600.0, "hours"),
    };
    let decimals = usize::from(value < 99.95);
    format!("{value:.decimals$} {unit}")
}

pub fn plural(n: usize, what: &str) -> String {
    format!("{} {}", count(n as f64), noun_of(n as u64, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            ["0", "7", "12.3", "100", "1,234", "1,234,567"],
            [0.0, 7.0, 12.34, 99.96, 1234.4, 1_234_567.0].map(count).each_ref().map(String::as_str)
        );
        assert_eq!(
            ["0.00 ", "999 ", "1.00 k", "12.3 M", "123 G", "1.98 T"],
            [0.0, 999.0, 999.7, 12.34e6, 123.4e9, 1.98e12].map(si).each_ref().map(String::as_str)
        );
        assert_eq!(
            ["12.0 ms", "100 seconds", "2.0 minutes", "2.0 hours", "120 hours"],
            [0.012, 100.0, 120.0, 7200.0, 432_000.0].map(duration).each_ref().map(String::as_str)
        );
        assert_eq!((plural(1, "chunk"), plural(1200, "step")), ("1 chunk".to_owned(), "1,200 steps".to_owned()));
    }
}
