//! Names of images, and how people point at a commit of one: `[home:]name[@ref]`.

use std::{fmt, str::FromStr, time::Duration};

use crate::time::Timestamp;

/// The name of an image: 1 to 64 of `a-z 0-9 . _ -`, not beginning with a dot.
///
/// It is a directory's name too, so nothing that leads out of one can be made.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName(String);

/// What is wrong with the name of an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{got:?} is not the name of an image: 1 to 64 of a-z 0-9 . _ -, not beginning with a dot")]
pub struct ParseNameError {
    /// The text, cut to 80 characters.
    got: String,
}

impl ImageName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ImageName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, ParseNameError> {
        let fits = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        if (1..=64).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(fits) {
            Ok(Self(text.to_owned()))
        } else {
            let got = text.chars().take(80).collect();
            Err(ParseNameError { got })
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageName({})", self.0)
    }
}

/// Which commit of an image is meant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ref {
    /// `-N`: the one N before the newest.
    Back(u64),
    /// At least 6 lower-case hexadecimal digits that an id begins with.
    Prefix(String),
    /// The newest at an instant: `2026-11-25`, `2026-11-25T12:30:00Z`.
    At(Timestamp),
    /// The newest so long ago: `10s`, `5m`, `2h`, `3d`, and `yesterday`, which is `1d`.
    Ago(Duration),
    /// A tag.
    Tag(ImageName),
}

/// What is wrong with a reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseRefError {
    /// The part before `@`.
    #[error(transparent)]
    Name(#[from] ParseNameError),
    /// The part after `@`.
    #[error(
        "{got:?} is not a commit: give -N, 6 or more digits of its id, a time (2h, yesterday, 2026-11-25), or a tag"
    )]
    Ref {
        /// The text, cut to 80 characters.
        got: String,
    },
    /// The part before `:`.
    #[error("{got:?} is not the name of a home: it is empty")]
    Home {
        /// The whole text, cut to 80 characters.
        got: String,
    },
}

impl FromStr for Ref {
    type Err = ParseRefError;

    fn from_str(text: &str) -> Result<Self, ParseRefError> {
        if let Some(back) = text.strip_prefix('-').and_then(decimal) {
            return Ok(Self::Back(back));
        }
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if let Some(duration) = ago(text) {
            Ok(Self::Ago(duration))
        } else if (6..=64).contains(&text.len()) && text.bytes().all(hex) {
            Ok(Self::Prefix(text.to_owned()))
        } else if let Some(at) = Timestamp::parse(text) {
            Ok(Self::At(at))
        } else if let (false, Ok(tag)) = (text.starts_with('-'), text.parse()) {
            Ok(Self::Tag(tag))
        } else {
            let got = text.chars().take(80).collect();
            Err(ParseRefError::Ref { got })
        }
    }
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Back(n) => write!(f, "-{n}"),
            Self::Prefix(prefix) => f.write_str(prefix),
            Self::At(at) => at.fmt(f),
            Self::Ago(duration) => write!(f, "{}s", duration.as_secs()),
            Self::Tag(tag) => tag.fmt(f),
        }
    }
}

fn decimal(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

fn ago(text: &str) -> Option<Duration> {
    if text == "yesterday" {
        return Some(Duration::from_secs(86_400));
    }
    let (at, unit) = text.char_indices().next_back()?;
    let unit = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    // Six digits and a `d` are the beginning of an id, not a time before writing was invented.
    let count = decimal(text.get(..at)?).filter(|_| at < 6)?;
    Some(Duration::from_secs(count * unit))
}

/// `[home:]name[@ref]`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageRef {
    /// Which home; the one of the store where none is said.
    pub home: Option<String>,
    /// Which image.
    pub name: ImageName,
    /// Which commit; the newest where none is said.
    pub at: Option<Ref>,
}

impl FromStr for ImageRef {
    type Err = ParseRefError;

    fn from_str(text: &str) -> Result<Self, ParseRefError> {
        // No image's name has `@`, and a time has `:`: so the reference is split off first.
        let (place, at) = match text.rsplit_once('@') {
            Some((place, at)) => (place, Some(at.parse()?)),
            None => (text, None),
        };
        let (home, name) = match place.rsplit_once(':') {
            Some(("", _)) => {
                let got = text.chars().take(80).collect();
                return Err(ParseRefError::Home { got });
            }
            Some((home, name)) => (Some(home.to_owned()), name),
            None => (None, place),
        };
        let name = name.parse()?;
        Ok(Self { home, name, at })
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(home) = &self.home {
            write!(f, "{home}:")?;
        }
        self.name.fmt(f)?;
        match &self.at {
            Some(at) => write!(f, "@{at}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_are_refused() {
        let long = "x".repeat(65);
        for bad in [
            "", ".", "..", "../x", "a/b", ".hidden", "A", "a b", "a\0", "é", "a:b", "a@b", &long,
        ] {
            assert!(bad.parse::<ImageName>().is_err(), "{bad:?}");
        }
        for good in ["a", "-", "a..b", "notes.2026_x-1", &long[1..]] {
            assert!(good.parse::<ImageName>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn references() {
        let at = |text: &str| text.parse::<Ref>();
        let secs = |secs| Ok(Ref::Ago(Duration::from_secs(secs)));
        assert_eq!(at("-0"), Ok(Ref::Back(0)));
        assert_eq!(at("-12"), Ok(Ref::Back(12)));
        assert_eq!(at("10s"), secs(10));
        assert_eq!(at("5m"), secs(300));
        assert_eq!(at("2h"), secs(7200));
        assert_eq!(at("3d"), secs(259_200));
        assert_eq!(at("yesterday"), secs(86_400));
        assert_eq!(at("0123456d"), Ok(Ref::Prefix("0123456d".into())));
        assert_eq!(at("abcdef"), Ok(Ref::Prefix("abcdef".into())));
        assert_eq!(at("abcde"), Ok(Ref::Tag("abcde".parse().unwrap())));
        assert_eq!(at("v1.0"), Ok(Ref::Tag("v1.0".parse().unwrap())));
        assert!(matches!(at("2026-11-25"), Ok(Ref::At(_))));
        for bad in ["", "-", "-x", "-99999999999999999999", "../x", "ABCDEF"] {
            assert!(at(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn images_at_homes() {
        let text = "segvm://box.example:4711:notes@2026-11-25T12:30:00Z";
        let parsed: ImageRef = text.parse().unwrap();
        assert_eq!(parsed.home.as_deref(), Some("segvm://box.example:4711"));
        assert_eq!(parsed.name.as_str(), "notes");
        assert_eq!(parsed.to_string(), text);
        let plain: ImageRef = "notes".parse().unwrap();
        assert_eq!((plain.home, plain.at), (None, None));
        for bad in [":notes", "notes@", "@-1", "box:", "a@b@-1"] {
            assert!(bad.parse::<ImageRef>().is_err(), "{bad:?}");
        }
    }
}
