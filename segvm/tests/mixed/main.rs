//! One random history of everything at once, over a model in plain memory: writes, checkpoints, suspends, restores, branches, tags,
//! thefts, readers that follow and commit, images that are removed, collections; each of them killed or cut off from power at
//! any operation on the disk. After every death what is on the disk is what was promised, or one step further; at the end each
//! commit and each tag of every image is opened, with every hash checked, before a collection and after it.
//!
//! | room | for |
//! |---|---|
//! | `model` | what should be there, and how sure that is |
//! | `steps` | what happens |
//! | `look` | comparing the two |
//!
//! A failure says its seed: `SEGVM_MIXED=<seed>` runs that history alone. Each process is a model kernel of its own.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test stops where it is surprised"
)]

mod look;
mod model;
mod steps;
#[path = "../support/mod.rs"]
mod support;

use std::{collections::BTreeMap, panic};

use model::World;
use support::Rng;

/// How many things happen in a history.
const STEPS: usize = 45;

/// What every run of the test has to have done, and been interrupted in: a history that never does it shows nothing of it.
const WANTED: [&str; 17] = [
    "open",
    "steal",
    "read",
    "checkpoint",
    "suspend",
    "restore",
    "branch",
    "branch here",
    "tag",
    "follow",
    "commit of a reader",
    "refused: held",
    "refused: moved",
    "orphaned",
    "collection",
    "remove",
    "leave",
];
const INTERRUPTED: [&str; 10] = [
    "checkpoint",
    "suspend",
    "branch",
    "branch here",
    "tag",
    "commit of a reader",
    "collection",
    "remove",
    "steal",
    "open",
];

type Counts = BTreeMap<String, u32>;

fn history(seed: u64) -> Counts {
    let mut world = World::new(Rng::of(seed));
    for _ in 0..STEPS {
        world.step();
    }
    world.everybody_leaves();
    world.look_at_all();
    world.collect_for_good();
    world.look_at_all();
    world.did
}

fn histories(seeds: std::ops::Range<u64>) -> Counts {
    let mut did = Counts::new();
    for seed in seeds {
        let done = panic::catch_unwind(|| history(seed));
        let done = done.unwrap_or_else(|panic| {
            eprintln!("history {seed} failed: SEGVM_MIXED={seed} runs it alone");
            panic::resume_unwind(panic)
        });
        for (what, times) in done {
            *did.entry(what).or_default() += times;
        }
    }
    did
}

#[test]
fn random_histories_with_kills_and_power_cuts_agree_with_a_model() {
    if let Ok(seed) = std::env::var("SEGVM_MIXED") {
        let seed: u64 = seed.parse().unwrap();
        println!("{:?}", histories(seed..seed + 1));
        return;
    }
    let did = histories(0..250);
    let times = |what: &str| did.get(what).copied().unwrap_or_default();
    for what in WANTED {
        assert!(
            times(what) >= 5,
            "`{what}`: {} times only, of {did:?}",
            times(what)
        );
    }
    for what in INTERRUPTED {
        for how in ["killed in", "cut in"] {
            let what = format!("{how} {what}");
            assert!(times(&what) >= 1, "`{what}` never, of {did:?}");
        }
    }
}

#[test]
#[ignore = "a soak: 4,000 histories, for `cargo xtask test --all`"]
fn many_more_random_histories() {
    histories(1_000_000..1_004_000);
}
