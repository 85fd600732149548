//! One simulation, three futures: from one commit, each in a process of its own, compared, and one of them kept.
//!
//! `cargo run -p branching`; a second run lives on in all of them.

mod city;

use std::{
    env, io,
    process::{Child, Command, Stdio},
};

use segvm::{Error, OpenError, Session};

use crate::city::{City, POLICIES, Policy};

/// Days until there are choices to be made, and days that each choice is looked at for.
const PAST: u64 = 40;
const FUTURE: u64 = 120;

fn main() -> Result<(), Error> {
    let words: Vec<String> = env::args().skip(1).collect();
    let policy = words
        .get(1)
        .and_then(|name| POLICIES.iter().find(|policy| policy.name == name));
    match (words.first().map(String::as_str), policy) {
        (Some("live"), Some(policy)) => live(policy),
        (Some("keep"), Some(policy)) => keep(policy),
        _ => explore(),
    }
}

fn image(policy: &Policy) -> String {
    format!("city-{}", policy.name)
}

fn explore() -> Result<(), Error> {
    let session = Session::open("city")?;
    let city = session.root::<City>("city")?;
    while city.read().day < PAST {
        let mut guard = city.write();
        let mut city = guard.as_mut();
        if *city.day == 0 {
            City::found(&mut city);
        }
        City::one_day(&mut city, &POLICIES[0]);
    }
    let saved = session.checkpoint()?;
    println!(
        "day {PAST}: {:.0} have had it; commit {:.12}",
        city.read().had_it(),
        saved.commit
    );

    for policy in &POLICIES {
        match session.branch(&image(policy)) {
            // One small record: all blocks are shared, also in memory.
            Ok(_) => {}
            Err(OpenError::Exists { image }) => println!("{image} is there and lives on"),
            Err(error) => return Err(error.into()),
        }
    }
    // At once, and each in a process of its own: states of one segment want the same addresses.
    let lives: Vec<Child> = POLICIES
        .iter()
        .map(|policy| run("live", policy))
        .collect::<Result<_, _>>()?;
    let mut best: Option<(f64, &Policy)> = None;
    println!(
        "{:<14}{:>5}{:>12}{:>12}{:>14}",
        "image", "day", "had it", "peak", "toll"
    );
    for (policy, life) in POLICIES.iter().zip(lives) {
        let said = said(life)?;
        print!("{said}");
        let toll = said
            .split_whitespace()
            .last()
            .and_then(|toll| toll.parse().ok());
        let toll =
            toll.ok_or_else(|| io::Error::other(format!("{} said {said:?}", policy.name)))?;
        if best.is_none_or(|(least, _)| toll < least) {
            best = Some((toll, policy));
        }
    }
    if let Some((_, policy)) = best {
        print!("{}", said(run("keep", policy)?)?);
        for other in POLICIES.iter().filter(|other| other.name != policy.name) {
            println!("to be rid of the other: segvm rm {}", image(other));
        }
    }
    Ok(())
}

fn run(what: &str, policy: &Policy) -> io::Result<Child> {
    let mut command = Command::new(env::current_exe()?);
    command
        .args([what, policy.name])
        .stdout(Stdio::piped())
        .spawn()
}

fn said(child: Child) -> io::Result<String> {
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!(
            "a future ended: {}",
            output.status
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// One future, whose first commit is the past that all of them share.
fn live(policy: &Policy) -> Result<(), Error> {
    let session = Session::open(&image(policy))?;
    let city = session.root::<City>("city")?;
    for _ in 0..FUTURE {
        City::one_day(&mut city.write().as_mut(), policy);
    }
    let end = city.read();
    println!(
        "{:<14}{:>5}{:>12.0}{:>12.0}{:>14.0}",
        image(policy),
        end.day,
        end.had_it(),
        end.peak,
        end.toll()
    );
    drop(end);
    session.suspend()?;
    Ok(())
}

/// Names the commit, so that it is found again however far the future goes on.
fn keep(policy: &Policy) -> Result<(), Error> {
    let session = Session::open(&image(policy))?;
    let day = session.root::<City>("city")?.read().day;
    let tag = session.tag(&format!("day-{day}"))?;
    println!("kept: {}@{}", image(policy), tag.name);
    Ok(())
}
