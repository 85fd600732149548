//! Making the names above and in an image's directory durable.

use std::{
    io,
    path::{Path, PathBuf},
};

use segvm_blockcache::disk::Disk;

use super::append::Place;

/// Syncs the image's directory and those that name it, up to the first that is not ours to sync.
///
/// - **Errors**: which directory, and what the file system said.
pub(super) fn sync(disk: &dyn Disk, place: &Place) -> Result<(), (PathBuf, io::Error)> {
    let sync = |dir: &Path| match disk.sync_dir(dir) {
        Ok(()) => Ok(()),
        Err(source) => Err((dir.to_owned(), source)),
    };
    sync(&place.dir)?;
    place.above.iter().try_for_each(|dir| sync(dir))?;
    // The root's own name, and its parents' where they are new too: up to the first that is not ours to sync. What
    // cannot be opened or is read-only was there before, and some file systems refuse to sync a directory.
    let root = place.above.last();
    for dir in root.iter().flat_map(|root| root.ancestors().skip(1)) {
        match sync(dir) {
            Ok(()) => {}
            Err((_, source)) if not_ours(&source) => break,
            Err(failed) => return Err(failed),
        }
    }
    Ok(())
}

fn not_ours(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::Unsupported
    )
}
