//! Program state that survives.
