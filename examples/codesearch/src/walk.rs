//! Which files there are: source code below a directory, in a fixed order.

use std::{fs, io, path::Path, time::UNIX_EPOCH};

/// Longer files are data, not source.
const LONGEST: u64 = 2 << 20;

const ENDINGS: [&str; 14] = [
    "rs", "toml", "md", "c", "h", "cc", "cpp", "hpp", "py", "js", "ts", "go", "java", "txt",
];

/// A file to index.
#[derive(Clone, Debug)]
pub(crate) struct SourceFile {
    pub(crate) path: String,
    pub(crate) size: u64,
    /// Nanoseconds since 1970.
    pub(crate) modified: u64,
}

/// All source files below `directory`, sorted by path. Links are not followed.
pub(crate) fn source_files(directory: &Path) -> io::Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    let mut open = vec![directory.canonicalize()?];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let path = entry.path();
            if kind.is_dir() {
                open.push(path);
                continue;
            }
            let source = path
                .extension()
                .and_then(|e| e.to_str())
                .is_some_and(|e| ENDINGS.contains(&e));
            let (true, true, Some(path)) = (kind.is_file(), source, path.to_str()) else {
                continue;
            };
            let data = entry.metadata()?;
            if data.len() > LONGEST {
                continue;
            }
            let modified = data
                .modified()?
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            files.push(SourceFile {
                path: path.to_owned(),
                size: data.len(),
                modified: u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX),
            });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}
