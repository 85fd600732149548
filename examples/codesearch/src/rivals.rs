//! The same search without segvm: an index rebuilt from the files, and one loaded from a saved file.

use std::{
    collections::HashMap,
    fs,
    io::{self, BufWriter, Read, Write},
    path::Path,
    time::Instant,
};

use crate::{
    index::words,
    report::{Voice, ms, say},
    walk,
};

type Plain = HashMap<String, Vec<u32>>;

/// Builds, saves, loads and searches, and tells how long each took.
pub(crate) fn compare(voice: Voice, directory: &Path, term: &str) -> io::Result<()> {
    let begun = Instant::now();
    let mut plain = Plain::new();
    for (number, file) in walk::source_files(directory)?.iter().enumerate() {
        let Ok(content) = fs::read(&file.path) else {
            continue;
        };
        let number = u32::try_from(number).map_err(io::Error::other)?;
        for word in words(&content) {
            plain.entry(word).or_default().push(number);
        }
    }
    let hits = plain.get(&term.to_lowercase()).map_or(0, Vec::len);
    let took = begun.elapsed();
    match voice {
        Voice::Events => say(format_args!("rebuilt files={hits} us={}", took.as_micros())),
        Voice::People => say(format_args!(
            "rebuilt and searched in {:.0} ms ({hits} files)",
            ms(took)
        )),
    }?;
    let path = std::env::temp_dir().join(format!("codesearch-{}.index", std::process::id()));
    save(&plain, &path)?;
    drop(plain);
    let begun = Instant::now();
    let loaded = load(&path).map(|plain| plain.get(&term.to_lowercase()).map_or(0, Vec::len));
    let took = begun.elapsed();
    fs::remove_file(&path)?;
    let hits = loaded?;
    match voice {
        Voice::Events => say(format_args!("loaded files={hits} us={}", took.as_micros())),
        Voice::People => say(format_args!(
            "loaded from a saved file and searched in {:.0} ms ({hits} files)",
            ms(took)
        )),
    }
}

fn save(plain: &Plain, path: &Path) -> io::Result<()> {
    let mut out = BufWriter::new(fs::File::create(path)?);
    for (word, list) in plain {
        out.write_all(
            &u32::try_from(word.len())
                .map_err(io::Error::other)?
                .to_le_bytes(),
        )?;
        out.write_all(word.as_bytes())?;
        out.write_all(
            &u32::try_from(list.len())
                .map_err(io::Error::other)?
                .to_le_bytes(),
        )?;
        for number in list {
            out.write_all(&number.to_le_bytes())?;
        }
    }
    out.flush()
}

fn load(path: &Path) -> io::Result<Plain> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.read_to_end(&mut bytes)?;
    let mut rest = bytes.as_slice();
    let mut plain = Plain::new();
    while !rest.is_empty() {
        let len = number(&mut rest)?;
        let word = take(&mut rest, len as usize)?;
        let word = String::from_utf8(word.to_vec()).map_err(io::Error::other)?;
        let count = number(&mut rest)?;
        let list = (0..count)
            .map(|_| number(&mut rest))
            .collect::<io::Result<Vec<u32>>>()?;
        plain.insert(word, list);
    }
    Ok(plain)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> io::Result<&'a [u8]> {
    let (taken, left) = rest
        .split_at_checked(len)
        .ok_or(io::ErrorKind::UnexpectedEof)?;
    *rest = left;
    Ok(taken)
}

fn number(rest: &mut &[u8]) -> io::Result<u32> {
    let bytes = take(rest, 4)?;
    Ok(u32::from_le_bytes(
        bytes.try_into().map_err(io::Error::other)?,
    ))
}
