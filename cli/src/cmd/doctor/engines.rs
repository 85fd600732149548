//! Which ways of tracking writes work here.

use segvm_os::{Availability, Engine, Features, open_engine};

use super::{Fact, State};

/// Each mechanism, each engine, and whether some engine can be used.
pub(super) fn look(features: &Features) -> (Vec<Fact>, bool) {
    let found: Vec<(Engine, Option<String>)> = Engine::ALL
        .iter()
        // The error names the knob or the run option.
        .map(|engine| (*engine, open_engine(*engine).err().map(|e| e.to_string())))
        .collect();
    let (engines, usable) = engines(&found);
    // What the best engine lacks is a loss; where there is none at all, it is why.
    let state = if usable { State::Warn } else { State::Bad };
    let mut facts = vec![
        part(
            "userfaultfd",
            &features.userfaultfd,
            "tracks writes, resolves faults",
            state,
        ),
        part(
            "async write-protect",
            &features.wp_async,
            "the kernel notes writes by itself",
            state,
        ),
        part(
            "PAGEMAP_SCAN",
            &features.pagemap_scan,
            "asks which pages were written",
            state,
        ),
        part(
            "process_vm_readv",
            &features.process_vm_readv,
            "copies memory while it is written to",
            state,
        ),
    ];
    facts.extend(engines);
    (facts, usable)
}

fn part(name: &str, found: &Availability, used: &str, state: State) -> Fact {
    match found {
        Availability::Available => Fact::good(name, used, true),
        // The error names the knob or the run option.
        missing => Fact {
            state,
            ..Fact::good(name, missing.to_string(), false)
        },
    }
}

/// Engines, best first, with why one cannot be used.
fn engines(found: &[(Engine, Option<String>)]) -> (Vec<Fact>, bool) {
    let best = found.iter().find(|(_, missing)| missing.is_none());
    let best = best.map(|(engine, _)| *engine);
    let fact = |(engine, missing): &(Engine, Option<String>)| {
        let name = format!("engine {engine}");
        match missing {
            None if best == Some(*engine) => Fact::good(name, "the one that programs take", true),
            None => Fact::good(name, format!("can be used: SEGVM_ENGINE={engine}"), true),
            Some(missing) => Fact {
                state: if best.is_some() {
                    State::Warn
                } else {
                    State::Bad
                },
                ..Fact::good(name, missing.as_str(), false)
            },
        }
    };
    (found.iter().map(fact).collect(), best.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_engine_is_taken_where_the_best_is_missing() {
        let missing = || Some("allow it".to_owned());
        let (facts, usable) = engines(&[(Engine::WpAsync, missing()), (Engine::Mprotect, None)]);
        assert!(usable);
        let [best, next] = &facts[..] else {
            panic!("{facts:?}")
        };
        assert_eq!((best.state, best.text.as_str()), (State::Warn, "allow it"));
        assert_eq!(
            (next.state, next.text.as_str()),
            (State::Good, "the one that programs take")
        );
        let (facts, usable) =
            engines(&[(Engine::WpAsync, missing()), (Engine::Mprotect, missing())]);
        assert!(!usable && facts.iter().all(|fact| fact.state == State::Bad));
    }
}
