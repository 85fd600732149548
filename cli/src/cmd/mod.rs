//! One file a verb: reads what it needs, decides, and writes it.

mod blocks;
mod branch;
mod diff;
mod doctor;
mod export;
mod fsck;
mod gc;
mod images;
mod import;
mod lease;
mod log;
mod made;
mod map;
mod restore;
mod rm;
mod root;
mod seal;
mod show;
mod stats;
mod steal;
mod svg;
mod tag;
mod typed_json;

use serde_json::{Value, json};

use segvm_home::{Holder, Record};

use crate::{
    args::{Args, Verb},
    exit::Code,
    failure::Failure,
    local::Local,
    output::{Output, printable},
};

/// Does what was asked.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<Code, Failure> {
    // Needs no store, and must work where none can be found: packages are built so.
    match &args.verb {
        Verb::Completions { shell } => {
            made::completions(*shell, out)?;
            return Ok(Code::Success);
        }
        Verb::Man { directory } => {
            made::man(directory, out)?;
            return Ok(Code::Success);
        }
        _ => {}
    }
    let local = Local::at(args.store.as_deref())?;
    match &args.verb {
        Verb::Images(args) => images::run(&local, args, out)?,
        Verb::Log(args) => log::run(&local, args, out)?,
        Verb::Lease { image } => lease::run(&local, image, out)?,
        Verb::Show(args) => show::run(&local, args, out)?,
        Verb::Diff { a, b } => diff::run(&local, a, b, out)?,
        Verb::Stats => stats::run(&local, out)?,
        Verb::Branch { from, new } => branch::run(&local, from, new, out)?,
        Verb::Tag(args) => tag::run(&local, args, out)?,
        Verb::Rm { images } => rm::run(&local, images, out)?,
        Verb::Restore { image } => restore::run(&local, image, out)?,
        Verb::Steal { image } => steal::run(&local, image, out)?,
        Verb::Gc { dry_run } => gc::run(&local, *dry_run, out)?,
        Verb::Export(args) => export::run(&local, args, out)?,
        Verb::Import(args) => import::run(&local, args, out)?,
        Verb::Doctor => return doctor::run(&local, out),
        Verb::Completions { .. } | Verb::Man { .. } => {}
        Verb::Fsck { deep } => return fsck::run(&local, *deep, out),
    }
    Ok(Code::Success)
}

/// How long all segments of a commit are together.
fn size_of(record: &Record) -> u64 {
    record
        .commit
        .segments
        .iter()
        .map(|segment| segment.len)
        .sum()
}

/// Who has an image, in JSON.
fn holder_json(holder: Option<&Holder>) -> Value {
    holder.map_or(Value::Null, |holder| {
        json!({
            "pid": holder.pid,
            "host": holder.host,
            "program": holder.program,
            "since": holder.since.to_string(),
        })
    })
}

/// Where a holder is, in few words.
fn whereabouts(holder: &Holder) -> String {
    let host = if holder.host == segvm_os::host_name() {
        "this machine".to_owned()
    } else {
        printable(&holder.host)
    };
    match holder.pid {
        0 => format!("{host}, out of sight"),
        pid => format!("{host}, pid {pid}"),
    }
}
