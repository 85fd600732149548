//! Blocks at rest: ids, trees, packs, the index, extent maps.
pub mod disk;
