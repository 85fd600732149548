//! A secret that is used, survives a checkpoint, and is in no byte of the store; nor in memory after a resume.
//!
//! `cargo run -p secrets`

use std::{env, fs, io, path::Path};

use segvm::{Attribute, Cause, Error, Session, SessionOptions};

const SECRET: &[u8] = b"correct horse battery staple";
const PUBLIC: &[u8] = b"anybody may know about staples";

fn main() -> Result<(), Error> {
    let place = env::temp_dir().join(format!("segvm-secrets-{}", std::process::id()));
    let result = tell(&place);
    fs::remove_dir_all(&place)?;
    result
}

fn tell(store: &Path) -> Result<(), Error> {
    let session = open(store)?;
    let keys = session.region("keys", 16 << 10, Attribute::Wipe)?;
    let notes = session.segment("notes", 16 << 10)?;
    put(&mut keys.write()?.bytes_mut()[..], SECRET);
    notes.write(0, PUBLIC).map_err(segvm::OpenError::from)?;
    session.checkpoint()?;
    println!(
        "in memory after a checkpoint:   {}",
        holds(keys.read()?.bytes(), SECRET)
    );
    session.suspend()?;
    println!("the note in the store:          {}", is_in(store, PUBLIC)?);
    println!("the secret in the store:        {}", is_in(store, SECRET)?);

    let session = open(store)?;
    let keys = session.region("keys", 16 << 10, Attribute::Wipe)?;
    println!(
        "in memory after a resume:       {}",
        holds(keys.read()?.bytes(), SECRET)
    );
    Ok(())
}

fn open(store: &Path) -> Result<Session, Error> {
    let options = SessionOptions::new()
        .store(store)
        .on_resume("keys", |resuming| {
            if resuming.cause != Cause::Failed {
                println!(
                    "resumed after {:?}: time to ask for the key",
                    resuming.elapsed
                );
            }
        });
    Ok(options.open("secrets")?)
}

fn put(into: &mut [u8], bytes: &[u8]) {
    for (place, byte) in into.iter_mut().zip(bytes) {
        *place = *byte;
    }
}

fn holds(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|piece| piece == wanted)
}

/// Tells whether any file below `place` holds the bytes.
fn is_in(place: &Path, wanted: &[u8]) -> io::Result<bool> {
    for entry in fs::read_dir(place)? {
        let path = entry?.path();
        let found = if path.is_dir() {
            is_in(&path, wanted)?
        } else {
            holds(&fs::read(&path)?, wanted)
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}
