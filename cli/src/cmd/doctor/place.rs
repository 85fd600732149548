//! The store: free disk, direct writes.

use std::path::Path;

use rustix::{
    fs::{CWD, Mode, OFlags, openat, statvfs},
    io::Errno,
};

use super::{Fact, State};
use crate::{failure::Failure, local::Local, output::bytes};

/// Less than this is worth a word.
const LITTLE: u64 = 1 << 30;

pub(super) fn look(local: &Local) -> Result<Vec<Fact>, Failure> {
    let there = local.is_there()?;
    let path = local.root.display().to_string();
    let store = if there {
        Fact::good("store", path.clone(), path)
    } else {
        let text = format!("{path}, which is made when a program first opens an image");
        Fact::good("store", text, path)
    };
    let mut facts = vec![store, free(&local.root)];
    if there {
        facts.push(direct(&local.root.join("format")));
    }
    Ok(facts)
}

/// The disk that the store is on, or will be.
fn free(root: &Path) -> Fact {
    let name = "free disk";
    let found = root.ancestors().find_map(|path| statvfs(path).ok());
    match found {
        Some(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let fact = Fact::good(name, bytes(free), free);
            if free < LITTLE {
                fact.but(
                    State::Warn,
                    "remove images with `segvm rm`, then `segvm gc`; or move the store: SEGVM_HOME",
                )
            } else {
                fact
            }
        }
        None => Fact::good(name, "not known", ()),
    }
}

fn direct(file: &Path) -> Fact {
    let name = "O_DIRECT";
    match openat(
        CWD,
        file,
        OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Ok(_) => Fact::good(name, "writes go past the page cache", true),
        Err(Errno::INVAL) => Fact::good(name, "refused by this file system", false).but(
            State::Warn,
            "checkpoints are written through the page cache, which costs time; a store on ext4 or xfs does without",
        ),
        Err(errno) => Fact::good(name, format!("not known: {errno}"), ()),
    }
}
