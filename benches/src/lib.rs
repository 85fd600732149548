//! Both sides of every row of docs/measurements.md, written as an expert would write them.
//!
//! A row alternates its two sides within one run, because the machine's mood changes by the minute, and
//! reports medians with the tenth and ninetieth percentile beside them. Names, units and targets are in
//! `rows.toml`; the measuring is in [`rows`].

pub mod command;
pub mod error;
pub mod file;
pub mod machine;
pub mod measure;
pub mod memory;
pub mod ours;
pub mod peer;
pub mod report;
pub mod rng;
pub mod rows;
pub mod spec;
pub mod stat;
