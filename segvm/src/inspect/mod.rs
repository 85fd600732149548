//! What the bytes of a heap say, read without running the program that made them and without mapping them.
//!
//! Whatever the bytes are, nothing here panics, goes on without end, or takes memory out of proportion: what makes no sense
//! becomes a [`Flaw`] in its place, and what is too much is cut. docs/format.md 8.3 to 8.5 is all that this room knows.
//!
//! | file | what |
//! |---|---|
//! | `segment` | bytes by address, within the segment |
//! | `heap` | the roots of a heap, and what is stored of their types |
//! | `value` | a value by its type |
//! | `maps` | the entries of maps |

mod heap;
mod maps;
mod segment;
mod value;

#[cfg(test)]
mod tests;

pub use self::{
    heap::{RootInfo, roots},
    segment::{Flaw, InspectError, Segment, SegmentBytes},
    value::{Cut, Limits, Value, value},
};
