//! The same program a week later: a note has stars. The type as it was stays here for as long as there are images of it.

use segvm::{Error, Migration, SessionOptions, Text, Vec, persist::Persist};

#[derive(Persist)]
#[repr(C)]
struct Notes {
    all: Vec<Note>,
}

#[derive(Persist)]
#[repr(C)]
struct Note {
    text: Text,
    stars: u32,
}

#[derive(Persist)]
#[repr(C)]
struct OldNotes {
    all: Vec<Text>,
}

fn main() -> Result<(), Error> {
    let stars = Migration::from::<OldNotes, Notes>("notes", |old, mut new| {
        for text in &old.all {
            new.all.push_default().text.push_str(text);
        }
    });
    let options = SessionOptions::new().any_program().migration(stars);
    let session = options.open("notes")?;
    let notes = session.root::<Notes>("notes")?;
    for text in std::env::args().skip(1) {
        let mut guard = notes.write();
        let mut notes = guard.as_mut();
        let mut note = notes.all.push_default();
        note.text.push_str(&text);
        *note.stars = 3;
    }
    for note in &notes.read().all {
        println!(
            "- {} {}",
            note.text.as_str(),
            "*".repeat(note.stars as usize)
        );
    }
    session.suspend()?;
    Ok(())
}
