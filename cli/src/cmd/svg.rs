//! The same strips as a drawing.

use std::fmt::Write as _;

use super::map::{Cell, Strip};

/// Cells a line, and the side of a cell.
const WIDTH: usize = 64;
const SIDE: usize = 10;
const MARGIN: usize = 12;
const LINE: usize = 20;

/// Draws strips one below the other, each under its name.
pub(super) fn draw(title: &str, strips: &[(&str, &Strip)]) -> String {
    let mut body = String::new();
    let mut y = MARGIN + LINE;
    text(&mut body, y - 6, 14, title);
    for (name, strip) in strips {
        y += LINE;
        text(&mut body, y - 6, 12, name);
        let cells = strip.cells.iter().enumerate();
        for (at, cell) in cells {
            let (column, row) = (at % WIDTH, at / WIDTH);
            let (x, y) = (MARGIN + column * SIDE, y + row * SIDE);
            // What is written to a string cannot fail.
            let _written = writeln!(
                body,
                r#"<rect x="{x}" y="{y}" width="9" height="9" fill="{}"/>"#,
                fill(strip, at, *cell)
            );
        }
        y += strip.cells.len().div_ceil(WIDTH) * SIDE;
    }
    y += LINE;
    text(
        &mut body,
        y,
        12,
        "orange: changed by this commit; blue: stored; pale: stored in part; grey: hole",
    );
    let (width, height) = (2 * MARGIN + WIDTH * SIDE, y + MARGIN);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

fn fill(strip: &Strip, at: usize, cell: Cell) -> &'static str {
    match cell {
        Cell { changed: 1.., .. } => "#f08c00",
        Cell { stored: 0, .. } => "#e9ecef",
        Cell { stored, .. } if stored < strip.room(at) => "#a5c8f0",
        Cell { .. } => "#3b78c2",
    }
}

fn text(body: &mut String, y: usize, size: usize, text: &str) {
    let _written = writeln!(
        body,
        r#"<text x="{MARGIN}" y="{y}" font-size="{size}">{}</text>"#,
        escaped(text)
    );
}

/// A segment's name is the program's choice.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_not_markup() {
        assert_eq!(
            escaped("<a href=\"x\">&\x1b"),
            "&lt;a href=&quot;x&quot;&gt;&amp;\u{fffd}"
        );
    }
}
