//! `segvm doctor`: what this machine offers, and the knob or run option that is missing for the rest.
//!
//! | file | for |
//! |---|---|
//! | `machine` | kernel, container, memory, limits |
//! | `place` | the store: free disk, direct writes |
//! | `engines` | which ways of tracking writes work |

mod engines;
mod machine;
mod place;

use serde_json::{Map, Value, json};

use crate::{
    exit::Code,
    failure::Failure,
    local::Local,
    output::{Output, Paint},
};

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing to say.
    Good,
    /// It works, and something is lost.
    Warn,
    /// It does not work.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug)]
struct Fact {
    name: String,
    text: String,
    value: Value,
    state: State,
    /// What would make it better.
    remedy: Option<String>,
}

impl Fact {
    fn good(name: impl Into<String>, text: impl Into<String>, value: impl Into<Value>) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
            value: value.into(),
            state: State::Good,
            remedy: None,
        }
    }

    /// The same, as something to look after.
    fn but(self, state: State, remedy: impl Into<String>) -> Self {
        Self {
            state,
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

pub(super) fn run(local: &Local, out: &mut Output) -> Result<Code, Failure> {
    let features = segvm_os::probe();
    let mut facts = machine::look(&features);
    facts.extend(place::look(local)?);
    let (engines, usable) = engines::look(&features);
    facts.extend(engines);
    if out.is_json() {
        let facts = facts.iter().map(|fact| {
            let fact_json = json!({
                "value": fact.value,
                "state": match fact.state {
                    State::Good => "good",
                    State::Warn => "warn",
                    State::Bad => "bad",
                },
                "text": fact.text,
                "remedy": fact.remedy,
            });
            (fact.name.replace(' ', "_"), fact_json)
        });
        out.json(&Value::Object(facts.collect::<Map<_, _>>()))?;
    } else {
        for fact in &facts {
            show(fact, out)?;
        }
    }
    Ok(if usable { Code::Success } else { Code::Io })
}

fn show(fact: &Fact, out: &mut Output) -> Result<(), Failure> {
    let (paint, sign) = match fact.state {
        State::Good => (Paint::Good, "ok"),
        State::Warn => (Paint::Warn, "!"),
        State::Bad => (Paint::Bad, "no"),
    };
    let sign = out.paint(paint, &format!("{sign:<4}"));
    let name = out.paint(Paint::Bold, &format!("{:<21}", fact.name));
    out.line(format!("{sign}{name}{}", fact.text))?;
    if let Some(remedy) = &fact.remedy {
        out.line(format!("    {:<21}{remedy}", ""))?;
    }
    Ok(())
}
