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
    let (engines, usable) = engines(&found, &features.kernel_faults);
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

/// Engines, best first, with why one cannot be used, or not as it should be.
fn engines(found: &[(Engine, Option<String>)], kernel_faults: &Availability) -> (Vec<Fact>, bool) {
    let best = found.iter().find(|(_, missing)| missing.is_none());
    let best = best.map(|(engine, _)| *engine);
    let fact = |(engine, missing): &(Engine, Option<String>)| {
        let name = format!("engine {engine}");
        match missing {
            None if best == Some(*engine) => {
                let fact = Fact::good(name, "the one that programs take", true);
                match kernel_faults {
                    // By `wp-async` nobody waits, by `mprotect` nobody can.
                    Availability::Missing(why) if *engine == Engine::WpSync => fact.but(
                        State::Warn,
                        format!("system calls that write into a segment have to be announced (`Segment::will_write`): {why}"),
                    ),
                    _ => fact,
                }
            }
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
    use segvm_os::KernelError;

    use super::*;

    #[test]
    fn the_next_engine_is_taken_where_the_best_is_missing() {
        let missing = || Some("allow it".to_owned());
        let faults = Availability::Available;
        let found = [(Engine::WpAsync, missing()), (Engine::Mprotect, None)];
        let (facts, usable) = engines(&found, &faults);
        assert!(usable);
        let [best, next] = &facts[..] else {
            panic!("{facts:?}")
        };
        assert_eq!((best.state, best.text.as_str()), (State::Warn, "allow it"));
        assert_eq!(
            (next.state, next.text.as_str()),
            (State::Good, "the one that programs take")
        );
        let found = [(Engine::WpAsync, missing()), (Engine::Mprotect, missing())];
        let (facts, usable) = engines(&found, &faults);
        assert!(!usable && facts.iter().all(|fact| fact.state == State::Bad));
    }

    #[test]
    fn an_engine_that_system_calls_cannot_wait_for_says_so_where_it_is_taken() {
        let faults = Availability::Missing(KernelError::Unavailable {
            feature: "userfaultfd for the faults of system calls",
            remedy: "the knob",
            source: std::io::ErrorKind::PermissionDenied.into(),
        });
        let missing = || Some("allow it".to_owned());
        let found = [
            (Engine::WpAsync, missing()),
            (Engine::WpSync, None),
            (Engine::Mprotect, None),
        ];
        let (facts, _) = engines(&found, &faults);
        let [_, sync, mprotect] = &facts[..] else {
            panic!("{facts:?}")
        };
        assert_eq!(sync.text, "the one that programs take");
        let remedy = sync.remedy.as_deref().unwrap();
        assert!(
            sync.state == State::Warn
                && remedy.contains("the knob")
                && remedy.contains("will_write")
        );
        assert_eq!(mprotect.state, State::Good);
        // Where a better one is taken, it does not matter.
        let found = [(Engine::WpAsync, None), (Engine::WpSync, None)];
        let (facts, _) = engines(&found, &faults);
        assert!(
            facts
                .iter()
                .all(|fact| fact.state == State::Good && fact.remedy.is_none())
        );
    }
}
