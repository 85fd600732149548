//! Numbers, times and foreign text as people read them.

use segvm_home::Timestamp;

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A size to two or three digits: `1.2 GiB`. Rounded to the nearest, in tenths below ten; `2 MiB` where it is just that.
pub(crate) fn bytes(n: u64) -> String {
    if n < 1024 {
        return format!("{n} B");
    }
    let mut unit = 1_u64 << 10;
    for name in UNITS {
        // In integers: a float would be exact enough, and has to be converted back and forth.
        let tenths = (u128::from(n) * 10 + u128::from(unit) / 2) / u128::from(unit);
        let last = unit == 1 << 60;
        if tenths < 100 && n.is_multiple_of(unit) {
            return format!("{} {name}", n / unit);
        }
        if tenths < 100 {
            return format!("{}.{} {name}", tenths / 10, tenths % 10);
        }
        let whole = (u128::from(n) + u128::from(unit) / 2) / u128::from(unit);
        if whole < 1024 || last {
            return format!("{whole} {name}");
        }
        unit <<= 10;
    }
    format!("{n} B")
}

/// A number with its thousands apart: `1,204`.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number of things: `1 pack`, `1,204 packs`.
pub(crate) fn counted(n: u64, what: &str) -> String {
    let ending = if n == 1 { "" } else { "s" };
    format!("{} {what}{ending}", count(n))
}

/// How long ago something was: `2 min ago`. What lies ahead, because clocks differ, is now.
pub(crate) fn age(now: Timestamp, then: Timestamp) -> String {
    let secs = now.since(then).as_secs();
    match secs {
        0 => "now".to_owned(),
        1..60 => format!("{secs} s ago"),
        60..3600 => format!("{} min ago", secs / 60),
        3600..172_800 => format!("{} h ago", secs / 3600),
        172_800.. => format!("{} days ago", secs / 86_400),
    }
}

/// Text that a program chose, without what would move a terminal's cursor, or turn the direction of what comes after it.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if is_obeyed(c) {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

/// Tells whether a terminal would do something else than show it.
pub(crate) fn is_obeyed(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_or_three_digits() {
        for (n, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (4 << 30, "4 GiB"),
            (1025, "1.0 KiB"),
            (10 << 10, "10 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (1_288_490_189, "1.2 GiB"),
            (310 << 20, "310 MiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn thousands_and_ages() {
        assert_eq!(count(1204), "1,204");
        assert_eq!(count(999), "999");
        assert_eq!(counted(1, "pack"), "1 pack");
        assert_eq!(counted(0, "pack"), "0 packs");
        assert_eq!(count(1_000_000), "1,000,000");
        let at = |secs| Timestamp::new(secs, 0).unwrap();
        assert_eq!(age(at(1000), at(880)), "2 min ago");
        assert_eq!(age(at(1000), at(2000)), "now");
        assert_eq!(age(at(200_000), at(0)), "2 days ago");
    }

    #[test]
    fn foreign_text_moves_no_cursor() {
        assert_eq!(printable("a\x1b[2Jb\n"), "a\u{fffd}[2Jb\u{fffd}");
        assert_eq!(printable("a\u{202e}b\u{2066}é"), "a\u{fffd}b\u{fffd}é");
    }
}
