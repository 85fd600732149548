//! A root that is not of the type that a program wants: what differs, and what to do about it.

use std::{fmt, sync::Arc};

use super::shared::HeapShared;
use crate::schema::{Difference, Schema};

/// Of which type a root is, and of which a program wants it to be.
#[derive(Debug, Clone)]
pub struct Mismatch {
    pub(super) root: String,
    pub(super) image: Arc<str>,
    pub(super) segment: Arc<str>,
    pub(super) wanted: Schema,
    pub(super) found: Option<Schema>,
    pub(super) fingerprint: [u8; 32],
}

impl Mismatch {
    /// What the program wants.
    #[must_use]
    pub const fn wanted(&self) -> &Schema {
        &self.wanted
    }

    /// What is stored; `None` where it says no more than a fingerprint, or is damaged.
    #[must_use]
    pub const fn found(&self) -> Option<&Schema> {
        self.found.as_ref()
    }

    /// The fingerprint of what is stored.
    #[must_use]
    pub const fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// What differs, field by field.
    #[must_use]
    pub fn differences(&self) -> Vec<Difference> {
        let found = self.found.as_ref();
        found.map_or_else(Vec::new, |found| found.differences(&self.wanted))
    }
}

/// Differences that are written out: a type that has nothing to do with the other would fill the screen.
const MOST_LINES: usize = 40;

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (root, image) = (&self.root, &self.image);
        let wanted = self.wanted.to_rust("");
        let wanted = wanted.name();
        write!(
            f,
            "root {root:?} of image {image:?} is not a {wanted} as this program knows it"
        )?;
        let Some(found) = &self.found else {
            f.write_str("; what it is was not stored, its fingerprint is ")?;
            self.fingerprint
                .iter()
                .try_for_each(|byte| write!(f, "{byte:02x}"))?;
            return write!(f, " and this program's type is {}", self.wanted);
        };
        f.write_str(":\n")?;
        let differences = self.differences();
        for difference in differences.iter().take(MOST_LINES) {
            writeln!(f, "  {difference}")?;
        }
        if let Some(more) = differences.len().checked_sub(MOST_LINES + 1) {
            writeln!(f, "  and {} more", more + 1)?;
        }
        let old = found.to_rust("Old");
        let segment = match &*self.segment {
            HeapShared::USUAL => String::new(),
            other => format!(".in_heap({other:?})"),
        };
        f.write_str(
            "The image is as it was. If the type was changed on purpose, keep it as it was beside the new one, and say how one \
             becomes the other when the image is opened:\n\n",
        )?;
        for line in old.to_string().lines() {
            let indent = if line.is_empty() { "" } else { "    " };
            writeln!(f, "{indent}{line}")?;
        }
        let name = old.name();
        write!(
            f,
            "\n    let session = segvm::SessionOptions::new()\n        \
                 .migration(segvm::Migration::from::<{name}, {wanted}>({root:?}, |old, mut new| {{\n            \
                     // copy what `new` needs out of `old`\n        \
                 }}){segment})\n        \
                 .open({image:?})?;\n"
        )
    }
}
