//! What is fuzzed: every decoder of bytes that come from disk.
//!
//! Each function takes arbitrary bytes and must neither panic nor take memory out of proportion to them;
//! where a decoder has an encoder, what decodes must encode to the same bytes. The fuzz targets and the
//! plain test over the saved inputs call the same functions.

/// Takes arbitrary bytes; panics where a decoder is wrong.
pub type Decoder = fn(&[u8]);

/// Every decoder by the name of its fuzz target and of its folder in `corpus/`.
pub const DECODERS: &[(&str, Decoder)] = &[("tree", tree)];

/// A head or a node of a tree.
pub fn tree(bytes: &[u8]) {
    use segvm_blockcache::{TreeObject, decode_any};
    if let Ok(TreeObject::Node { children, .. }) = decode_any(bytes) {
        // Each child is in the bytes, so there cannot be more of them than fit.
        assert!(children.len() * 32 <= bytes.len());
    }
}
