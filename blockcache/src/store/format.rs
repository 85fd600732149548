//! The format file: which version a store has, and which features a program must know to use it.
//!
//! ```text
//! segvm store
//! version 1
//! ```
//!
//! Then one line `feature NAME` for each feature; none is defined yet.

use std::{io, path::Path};

use super::StoreError;
use crate::disk::{Disk, Open};

/// The version this program writes and reads.
const VERSION: u32 = 1;
const TITLE: &str = "segvm store";
/// Features that this program knows.
const KNOWN: [&str; 0] = [];
/// A format file is not longer.
const MAX_LEN: u64 = 64 << 10;

/// Checks the format of the store at `root`, or makes a new one with these directories.
///
/// 1. The directories, each durable in the one above it.
/// 2. The format file under another name, its bytes synced, then renamed: a store with a format file is whole.
/// 3. The names in the root, synced.
pub(super) fn open_or_make(
    disk: &dyn Disk,
    root: &Path,
    directories: &[&Path],
) -> Result<(), StoreError> {
    let path = root.join("format");
    match disk.open(&path, Open::Read) {
        Ok(file) => {
            let io = |source| StoreError::io("read", &path, source);
            let len = file.len().map_err(io)?.min(MAX_LEN);
            let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
            file.read_at(0, &mut bytes).map_err(io)?;
            return check(root, &path, &bytes);
        }
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(StoreError::io("open", path, source)),
    }

    for directory in directories {
        disk.create_dir_all(directory)
            .map_err(|source| StoreError::io("making a directory", *directory, source))?;
    }
    sync(disk, root)?;
    let draft = root.join(format!("format.{}", std::process::id()));
    let write = || {
        let file = disk.open(&draft, Open::Create)?;
        file.set_len(0)?;
        file.write_at(0, format!("{TITLE}\nversion {VERSION}\n").as_bytes())?;
        file.sync()
    };
    write().map_err(|source| StoreError::io("write", &draft, source))?;
    disk.rename(&draft, &path)
        .map_err(|source| StoreError::io("rename", &draft, source))?;
    sync(disk, root)?;
    root.parent().map_or(Ok(()), |above| sync(disk, above))
}

/// Makes the names in a directory durable.
fn sync(disk: &dyn Disk, directory: &Path) -> Result<(), StoreError> {
    // A relative root of one component has an empty parent: the directory the process is in.
    let directory = if directory.as_os_str().is_empty() {
        Path::new(".")
    } else {
        directory
    };
    disk.sync_dir(directory)
        .map_err(|source| StoreError::io("sync of the directory", directory, source))
}

fn check(root: &Path, path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let damaged = |flaw| StoreError::Damaged {
        path: path.to_owned(),
        offset: 0,
        flaw,
    };
    let text = std::str::from_utf8(bytes).map_err(|_binary| damaged("it is not text"))?;
    let mut lines = text.lines();
    if lines.next() != Some(TITLE) {
        return Err(damaged("its first line is not that of a segvm store"));
    }
    let version = lines
        .next()
        .and_then(|line| line.strip_prefix("version "))
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| damaged("its second line has no version"))?;
    if version > VERSION {
        return Err(StoreError::Future {
            root: root.to_owned(),
            version,
            known: VERSION,
        });
    }
    if version == 0 {
        return Err(damaged("there is no version 0"));
    }
    for line in lines {
        let feature = line
            .strip_prefix("feature ")
            .ok_or_else(|| damaged("a line is not a feature"))?;
        if !KNOWN.contains(&feature) {
            return Err(StoreError::UnknownFeature {
                root: root.to_owned(),
                feature: feature.to_owned(),
            });
        }
    }
    Ok(())
}
