//! HTML as text: everything that comes from a run, a file or a name passes through [`escaped`].

use std::borrow::Cow;

/// `text` as HTML shows it, in an element or an attribute.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            c => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// A cell of a table.
pub(super) enum Cell {
    /// Left-aligned words.
    Text(String),
    /// A number, or what stands in its place, right-aligned.
    Number(String),
    /// HTML that is whole in itself.
    Html(String),
}

impl Cell {
    fn html(&self) -> String {
        match self {
            Cell::Text(text) => format!("<td>{}", escaped(text)),
            Cell::Number(text) => format!("<td class=n>{}", escaped(text)),
            Cell::Html(html) => html.clone(),
        }
    }
}

/// A table in a box that scrolls where it is wider than the page. The first column names the rows; headings of columns with
/// numbers stand to the right.
pub(super) fn table(headings: &[Cell], rows: &[Vec<Cell>]) -> String {
    let heading = |cell: &Cell| cell.html().replacen("<td", "<th", 1);
    let mut html = String::from("<div class=scroll><table>\n<thead><tr>");
    html.extend(headings.iter().map(heading));
    html += "</thead>\n<tbody>\n";
    for row in rows {
        html += "<tr>";
        html.extend(row.iter().map(Cell::html));
        html.push('\n');
    }
    html + "</tbody></table></div>\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_shown_is_markup() {
        assert_eq!(escaped("a & b"), "a &amp; b");
        assert_eq!(escaped("<script>alert('x')</script>\""), "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;");
        assert!(matches!(escaped("grün"), Cow::Borrowed("grün")));
        let html = table(&[Cell::Text("<a>".into())], &[vec![Cell::Number("<b>".into()), Cell::Text("&".into())]]);
        assert!(html.contains("<th>&lt;a&gt;") && html.contains("<td class=n>&lt;b&gt;<td>&amp;"), "{html}");
    }
}
