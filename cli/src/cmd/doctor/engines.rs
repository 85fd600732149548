//! Which ways of tracking writes work here.

use segvm_os::{Availability, Features};

use super::{Fact, State};

/// What each mechanism is for, and whether some engine can be used.
pub(super) fn look(features: &Features) -> (Vec<Fact>, bool) {
    let parts = [
        (
            "userfaultfd",
            &features.userfaultfd,
            "tracks writes, resolves faults",
        ),
        (
            "async write-protect",
            &features.wp_async,
            "the kernel notes writes by itself",
        ),
        (
            "PAGEMAP_SCAN",
            &features.pagemap_scan,
            "asks which pages were written",
        ),
        (
            "process_vm_readv",
            &features.process_vm_readv,
            "copies memory while it is written to",
        ),
    ];
    let mut facts: Vec<Fact> = parts
        .iter()
        .map(|(name, found, used)| part(name, found, used))
        .collect();
    let usable = parts.iter().all(|(_, found, _)| found.is_available());
    let engine = if usable {
        Fact::good("engine wp-async", "can be used", true)
    } else {
        Fact::good("engine wp-async", "cannot be used", false).but(
            State::Bad,
            "programs cannot open images here until what is missing above is there",
        )
    };
    facts.push(engine);
    (facts, usable)
}

fn part(name: &'static str, found: &Availability, used: &str) -> Fact {
    let there = Fact::good(name, used, found.is_available());
    match found {
        Availability::Available => there,
        // The error names the knob or the run option.
        missing => Fact {
            text: missing.to_string(),
            ..there
        }
        .but_bad(),
    }
}

impl Fact {
    fn but_bad(self) -> Self {
        Self {
            state: State::Bad,
            ..self
        }
    }
}
