//! A program, and its first idea of a note: a text. docs/guide/schema-change.md goes on from here.

use segvm::{Error, SessionOptions, Text, Vec, persist::Persist};

#[derive(Persist)]
#[repr(C)]
struct Notes {
    all: Vec<Text>,
}

fn main() -> Result<(), Error> {
    // Two versions of one program: elsewhere they have one name, and need no `any_program`.
    let session = SessionOptions::new().any_program().open("notes")?;
    let notes = session.root::<Notes>("notes")?;
    notes.write().as_mut().all.extend(std::env::args().skip(1));
    for note in &notes.read().all {
        println!("- {}", note.as_str());
    }
    session.suspend()?;
    Ok(())
}
