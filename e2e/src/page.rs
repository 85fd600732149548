//! A page of the guide, taken apart: which programs it shows, which commands, and what these print.
//!
//! What a block is for is said in a comment before it, which readers do not see:
//!
//! | comment | the block |
//! |---|---|
//! | `<!-- program: NAME -->` | a whole program: the tests build it, and run it twice if no command of the page does |
//! | `<!-- program: NAME, killed -->` | the same, of one that does not end: it is killed when it has said something |
//! | `<!-- varies -->` | commands whose output depends on the machine: only their success is checked |
//! | `<!-- not run: WHY -->` | is not run |
//! | `<!-- setup` ... `-->` | commands of their own, to make what the commands after it look at |
//!
//! Without a comment, blocks of Rust that have a `main` are programs that no command calls; blocks of `sh` and those that have lines
//! with a `$` are run, and what they print is compared. Blocks of `text` are not commands.

/// One piece of a page that a test has to do with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The line that it begins at, from 1.
    pub line: usize,
    /// What it is.
    pub kind: Kind,
    /// Its lines.
    pub text: String,
}

/// What a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A program, and whether it has to be killed.
    Program(String, Ends),
    /// Commands, and what becomes of their output.
    Commands(Output),
    /// Not run, and why.
    NotRun(String),
    /// Nothing that runs.
    Text,
}

/// How a program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// By itself.
    ByItself,
    /// By `kill -9`.
    Killed,
}

/// What is done with what commands print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Compared with what the page shows.
    Compared,
    /// Depends on the machine.
    Varies,
    /// Readers do not see these commands.
    Hidden,
}

/// Takes a page apart.
///
/// - **Errors**: the lines of blocks that say neither how they are run nor why not.
pub fn pieces(page: &str) -> Result<Vec<Piece>, Vec<usize>> {
    let (mut pieces, mut unmarked) = (Vec::new(), Vec::new());
    let mut lines = page.lines().zip(1..);
    let mut comment = "";
    while let Some((text, line)) = lines.next() {
        if text == "<!-- setup" {
            let text = up_to(&mut lines, "-->");
            let kind = Kind::Commands(Output::Hidden);
            pieces.push(Piece { line, kind, text });
        } else if let Some(info) = text.strip_prefix("```") {
            let text = up_to(&mut lines, "```");
            match kind(comment, info, &text, line) {
                Some(kind) => pieces.push(Piece { line, kind, text }),
                None => unmarked.push(line),
            }
        }
        comment = text
            .strip_prefix("<!-- ")
            .and_then(|text| text.strip_suffix(" -->"))
            .unwrap_or_default();
    }
    if unmarked.is_empty() {
        Ok(pieces)
    } else {
        Err(unmarked)
    }
}

fn up_to<'p>(lines: &mut impl Iterator<Item = (&'p str, usize)>, end: &str) -> String {
    let block = lines.map_while(|(text, _)| (text != end).then_some(text));
    block.flat_map(|text| [text, "\n"]).collect()
}

fn kind(comment: &str, info: &str, text: &str, line: usize) -> Option<Kind> {
    if let Some(why) = comment.strip_prefix("not run: ") {
        return Some(Kind::NotRun(why.to_owned()));
    }
    if let Some(name) = comment.strip_prefix("program: ") {
        return Some(match name.strip_suffix(", killed") {
            Some(name) => Kind::Program(name.to_owned(), Ends::Killed),
            None => Kind::Program(name.to_owned(), Ends::ByItself),
        });
    }
    match info {
        // Looked at by the documentation's tests, which build every block of Rust.
        "rust,compile_fail" | "text" => Some(Kind::Text),
        "rust" | "rust,no_run" if text.contains("fn main()") => {
            Some(Kind::Program(format!("line-{line}"), Ends::ByItself))
        }
        "sh" | "" | "console" if comment == "varies" => Some(Kind::Commands(Output::Varies)),
        "sh" => Some(Kind::Commands(Output::Compared)),
        "" | "console" if text.lines().any(|line| line.starts_with("$ ")) => {
            Some(Kind::Commands(Output::Compared))
        }
        _ => None,
    }
}

/// A command, and the lines that a page shows after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// What is typed.
    pub typed: String,
    /// What is shown.
    pub shown: Vec<String>,
}

/// The commands of a block: lines with a `$`, and lines without one are what those print; or, where there is no `$`, all lines.
#[must_use]
pub fn commands(text: &str) -> Vec<Command> {
    let dollars = text.lines().any(|line| line.starts_with("$ "));
    let mut commands: Vec<Command> = Vec::new();
    for line in text.lines() {
        let typed = if dollars {
            line.strip_prefix("$ ")
        } else {
            Some(line).filter(|line| !line.trim().is_empty())
        };
        match (typed, commands.last_mut()) {
            (Some(typed), _) => commands.push(Command {
                typed: typed.to_owned(),
                shown: Vec::new(),
            }),
            (None, Some(command)) => command.shown.push(line.to_owned()),
            (None, None) => {}
        }
    }
    commands
}

/// Tells whether `said` is what a page shows, but for numbers, ids, times and the width of columns. A shown line of dots stands for any
/// lines, dots at the end of one for any end.
#[must_use]
pub fn agrees(shown: &[String], said: &[String]) -> bool {
    let filled = |lines: &[String]| -> Vec<String> {
        let lines = lines.iter().filter(|line| !line.trim().is_empty());
        lines.map(|line| shape(line)).collect()
    };
    matches(&filled(shown), &filled(said))
}

fn matches(shown: &[String], said: &[String]) -> bool {
    match shown.split_first() {
        None => said.is_empty(),
        Some((first, rest)) if first == "..." => {
            (0..=said.len()).any(|skip| matches(rest, said.get(skip..).unwrap_or_default()))
        }
        Some((first, rest)) => match said.split_first() {
            Some((said, more)) => {
                let same = match first.strip_suffix(" ...") {
                    Some(beginning) => said.starts_with(beginning),
                    None => first == said,
                };
                same && matches(rest, more)
            }
            None => false,
        },
    }
}

/// A line without what differs from run to run.
fn shape(line: &str) -> String {
    let mut shape: Vec<String> = Vec::new();
    for word in line.split_whitespace() {
        let word = word_shape(word);
        let bare = word.trim_end_matches([',', ';', ')']);
        match (bare, shape.last().map(String::as_str)) {
            ("B" | "KiB" | "MiB" | "GiB", Some("#")) => {}
            ("s" | "min" | "h" | "d" | "ms" | "us", Some("#")) => {}
            ("ago", Some("#")) => {}
            ("now" | "(now", _) => shape.push("#".to_owned()),
            (same, Some(last)) if same == last && matches!(same, "▒" | "─") => {}
            _ => shape.push(word),
        }
    }
    shape.join(" ")
}

fn word_shape(word: &str) -> String {
    if !word.is_empty() && word.chars().all(|c| matches!(c, '█' | '▒' | '░' | '·')) {
        return "▒".to_owned();
    }
    if !word.is_empty() && word.chars().all(|c| matches!(c, '─' | '-')) && word.len() > 1 {
        return "─".to_owned();
    }
    let mut shape = String::new();
    let mut rest = word;
    while let Some(first) = rest.chars().next() {
        let hex = rest
            .find(|c: char| !c.is_ascii_hexdigit())
            .unwrap_or(rest.len());
        let digits = rest
            .find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | ',' | ':' | '-' | 'T' | 'Z')))
            .unwrap_or(rest.len());
        let token = rest.get(..hex).unwrap_or_default();
        if hex >= 6 && token.contains(|c: char| c.is_ascii_digit()) {
            shape.push('#');
            rest = rest.get(hex..).unwrap_or_default();
        } else if first.is_ascii_digit() {
            shape.push('#');
            rest = rest.get(digits.max(1)..).unwrap_or_default();
        } else {
            shape.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }
    shape.replace("(#", "#").replace("#)", "#")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_page_comes_apart_into_what_runs_and_what_does_not() {
        let page = "text\n<!-- program: count, killed -->\n```rust,no_run\nfn main() {}\n```\n\n\
                    <!-- setup\ncount &\n-->\n```\n$ segvm images\nIMAGE\n$ x\n```\n<!-- not run: because -->\n```toml\na\n```\n";
        let pieces = pieces(page).unwrap();
        let kinds: Vec<&Kind> = pieces.iter().map(|piece| &piece.kind).collect();
        assert_eq!(
            kinds,
            [
                &Kind::Program("count".to_owned(), Ends::Killed),
                &Kind::Commands(Output::Hidden),
                &Kind::Commands(Output::Compared),
                &Kind::NotRun("because".to_owned()),
            ]
        );
        assert_eq!(
            (pieces[0].line, pieces[0].text.as_str()),
            (3, "fn main() {}\n")
        );
        let commands = commands(&pieces[2].text);
        assert_eq!(commands[0].typed, "segvm images");
        assert_eq!((commands[0].shown.len(), commands[1].shown.len()), (1, 0));
    }

    #[test]
    fn a_block_that_says_nothing_is_told_by_its_line() {
        assert_eq!(pieces("a\n\n```rust\nlet a = 1;\n```\n"), Err(vec![3]));
        let whole = pieces("```rust\nfn main() {}\n```\n").unwrap();
        assert_eq!(
            whole[0].kind,
            Kind::Program("line-1".to_owned(), Ends::ByItself)
        );
        assert_eq!(
            pieces("```\nonly words\n```\n```toml\n```\n"),
            Err(vec![1, 4])
        );
    }

    #[test]
    fn only_what_differs_from_run_to_run_may_differ() {
        let shown = lines("notes  4b0e98bfd943  74 MiB  2 s ago\n\n...\n freed 500 KiB, of 1 pack");
        let said =
            lines("notes   aaaaaaaaaaa1 9 B  now\nanything\nat all\nfreed 1.5 MiB, of 22 pack");
        assert!(agrees(&shown, &said));
        assert!(!agrees(&shown, &said[..3]));
        assert!(!agrees(&lines("1 image"), &lines("1 images")));
        assert!(!agrees(&lines("1 image"), &lines("1 image\nmore")));
        assert!(agrees(&lines("it failed: ..."), &lines("it failed: why")));
        assert!(!agrees(&lines("it failed: ..."), &lines("it worked")));
        assert!(agrees(&lines("  5 MiB  ··█··"), &lines(" 10 MiB  █████")));
    }
}
