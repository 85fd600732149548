//! Collections whose memory is a heap in a segment: std's names, a layout of our own.
//!
//! std's and hashbrown's collections change with the compiler and with their versions; these are `repr(C)`, with sizes of 64
//! bits, absolute addresses and hashing fixed by the format. An empty one is all zeros and owns nothing.
//!
//! Reading is on the collection (`notes.read().by_title.get("a")`), writing on its handle
//! (`notes.write().as_mut().by_title.insert("a", "b")`). No collection can be made, cloned or taken outside its image
//! (docs/design/roots.md). Where the heap is full, writing panics with [`HeapError`](crate::heap::HeapError)'s text, as
//! std's do where memory is.
//!
//! | file | what |
//! |---|---|
//! | `raw` | a block of a heap, as an address |
//! | `vec`, `text`, `boxed` | values in a row, UTF-8, one value elsewhere |
//! | `key`, `hash` | what can be a key, how keys are compared and hashed |
//! | `table`, `group`, `hash_map` | open addressing in groups of 16; the map on it |
//! | `btree`, `btree_map`, `btree_iter` | nodes, balance; the map on them; walking in order |

mod boxed;
mod btree;
mod btree_iter;
mod btree_map;
mod group;
mod hash;
mod hash_map;
mod key;
mod raw;
mod table;
mod text;
mod vec;

pub use self::{
    boxed::{Box, BoxMut},
    btree_iter::Range,
    btree_map::{BTreeMap, BTreeMapMut},
    hash::{FormatHasher, Seed},
    hash_map::{Entry, HashMap, HashMapMut, Iter},
    key::{Key, Lookup},
    text::{Text, TextMut},
    vec::{Vec, VecMut},
};
