//! Program state that can be suspended, resumed, moved, branched and trusted.
//!
//! | room | for |
//! |---|---|
//! | `gate` | the lock that writers share and a checkpoint takes alone |
//! | `persist` | which types can live in a segment, and how they are reached there |
//! | `heap` | the allocator that lives in a segment |
//! | `collections` | `Vec`, `Text`, `Box`, `HashMap`, `BTreeMap` in a heap |
//! | `root` | typed values found by name, and their guards |

pub mod collections;
pub mod gate;
pub mod heap;
pub mod persist;
pub mod root;

// The derive writes `::segvm::...`; this lets it work inside this crate too.
extern crate self as segvm;
