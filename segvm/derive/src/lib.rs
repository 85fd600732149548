//! Derives `Persist`.
