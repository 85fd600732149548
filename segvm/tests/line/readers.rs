//! Readers: many beside one writer, at any commit, with memory of their own.

use segvm::{Cause, CheckpointError, OpenError};
use segvm_home::PublishError;

use super::*;

#[test]
fn many_readers_and_one_writer_have_memory_of_their_own() {
    let disk = MemDisk::new();
    let (writer, memory) = write(&disk, "notes");
    say(&memory, "one");
    writer.checkpoint().unwrap();
    let readers: Vec<_> = (0..4).map(|_| read(&disk, "notes")).collect();
    let generations: std::collections::BTreeSet<u64> = readers
        .iter()
        .map(|(reader, _)| reader.resumed().unwrap().generation)
        .collect();
    assert_eq!(generations.len(), 4, "copies reseed differently");
    say(&memory, "two");
    writer.checkpoint().unwrap();
    for (at, (_, seen)) in readers.iter().enumerate() {
        assert_eq!(said(seen), "one");
        say(seen, &format!("reader {at}"));
    }
    for (at, (reader, seen)) in readers.iter().enumerate() {
        assert_eq!(said(seen), format!("reader {at}"));
        let error = reader.checkpoint().unwrap_err();
        assert!(matches!(error, CheckpointError::ReadOnly { .. }), "{error}");
    }
    let newest = writer.head();
    for (reader, seen) in &readers {
        assert_eq!(Some(reader.follow().unwrap()), newest);
        assert_eq!(reader.head(), newest);
        assert_eq!(said(seen), "two");
        assert_eq!(reader.resumed().unwrap().cause, Cause::Clone);
    }
    drop(readers);
    assert_eq!(said(&memory), "two");
    writer.suspend().unwrap();
    assert_eq!(
        said(&write(&disk, "notes").1),
        "two",
        "nothing of the readers is left"
    );
}

#[test]
fn a_reader_opens_any_commit() {
    let disk = MemDisk::new();
    let (writer, memory) = write(&disk, "notes");
    let mut commits = Vec::new();
    for text in ["one", "two", "three"] {
        say(&memory, text);
        commits.push(writer.checkpoint().unwrap().commit.to_string());
    }
    writer.tag_at("-1", "second").unwrap();
    let prefix = &commits[0][..12];
    let at = |reference: &str| said(&read(&disk, &format!("notes@{reference}")).1);
    let check = || {
        assert_eq!(at("-0"), "three");
        assert_eq!(at("-2"), "one");
        assert_eq!(at(prefix), "one");
        assert_eq!(at("second"), "two");
        assert_eq!(at("0s"), "three");
        let error = refused(&process(&disk).reader(), "notes@yesterday");
        assert!(matches!(error, OpenError::Resolve(_)), "{error}");
    };
    // While its pack is still written to, when that was left behind, and when it is sealed.
    check();
    drop(writer);
    check();
    write(&disk, "notes").0.suspend().unwrap();
    check();
    let (reader, memory) = read(&disk, "notes@-1");
    assert_eq!(said(&memory), "two");
    assert_eq!(reader.restore(prefix).unwrap().to_string(), commits[0]);
    assert_eq!(said(&memory), "one");
    assert_eq!(reader.follow().unwrap().to_string(), commits[2]);
    assert_eq!(said(&memory), "three");
}

#[test]
fn what_is_no_image_to_read_is_said() {
    let disk = MemDisk::new();
    let reader = process(&disk).reader();
    assert!(matches!(
        refused(&reader, "none"),
        OpenError::NoImage { .. }
    ));
    assert!(matches!(refused(&reader, "none@-1"), OpenError::Resolve(_)));
    assert!(matches!(refused(&reader, "no name"), OpenError::Name(_)));
    assert!(matches!(refused(&reader, "none@"), OpenError::Reference(_)));
    assert!(matches!(
        refused(&reader, "there:none"),
        OpenError::OtherHome { .. }
    ));
    let (writer, _) = write(&disk, "notes");
    writer.checkpoint().unwrap();
    assert!(matches!(
        writer.follow().unwrap_err(),
        OpenError::NotReader { .. }
    ));
    drop(writer);
    for options in [process(&disk), process(&disk).steal()] {
        let error = refused(&options, "notes@-0");
        assert!(matches!(error, OpenError::NeedsReader { .. }), "{error}");
        assert!(error.to_string().contains("`notes@-0`"), "{error}");
    }
    // And nobody was kept out by the attempts.
    write(&disk, "notes").0.checkpoint().unwrap();
}

#[test]
fn a_reader_becomes_the_writer_of_a_branch_of_its_own() {
    let disk = MemDisk::new();
    let (writer, memory) = write(&disk, "notes");
    for text in ["one", "two"] {
        say(&memory, text);
        writer.checkpoint().unwrap();
    }
    let (reader, mine) = read(&disk, "notes@-1");
    assert_eq!(said(&mine), "one");
    mine.write(100_000, b"changed").unwrap();
    // Its writer has not completed the pack: a branch that only names the commit would have to.
    let error = reader.branch("too-early").unwrap_err();
    assert!(matches!(error, OpenError::Unsealed { .. }), "{error}");
    reader.branch_here("mine").unwrap();
    say(&mine, "mine");
    reader.checkpoint().unwrap();
    say(&memory, "three");
    writer.checkpoint().unwrap();
    drop((reader, writer));
    let (mine, memory) = write(&disk, "mine");
    assert_eq!(said(&memory), "mine");
    let mut changed = [0; 7];
    memory.read(100_000, &mut changed).unwrap();
    assert_eq!(&changed, b"changed");
    mine.restore("-2").unwrap();
    assert_eq!(
        said(&memory),
        "one",
        "its history goes on in the image it read"
    );
    assert_eq!(said(&write(&disk, "notes").1), "three");
}

#[test]
fn a_reader_follows_segments_that_come_and_grow() {
    let disk = MemDisk::new();
    let (writer, memory) = write(&disk, "notes");
    say(&memory, "one");
    writer.checkpoint().unwrap();
    let (reader, seen) = read(&disk, "notes");
    let small = SegmentOptions::new()
        .block_size(BlockSize::MIN)
        .reserve(1 << 20);
    let more = writer.segment_with("more", 8192, &small).unwrap();
    more.write(5000, b"more").unwrap();
    say(&memory, "two");
    writer.checkpoint().unwrap();
    reader.follow().unwrap();
    assert_eq!(said(&seen), "two");
    let more_seen = reader.segment("more", 0).unwrap();
    assert_eq!(
        (more_seen.len(), more_seen.as_ptr()),
        (more.len(), more.as_ptr())
    );
    more.grow(100_000).unwrap();
    more.write(90_000, b"grown").unwrap();
    writer.checkpoint().unwrap();
    reader.follow().unwrap();
    let mut found = [0; 5];
    more_seen.read(90_000, &mut found).unwrap();
    assert_eq!(&found, b"grown");
}

fn why(error: CheckpointError) -> PublishError {
    match error {
        CheckpointError::Publish(why) => why,
        other => panic!("{other}"),
    }
}

#[test]
fn a_reader_commits_where_nobody_writes_and_nobody_was_faster() {
    let disk = MemDisk::new();
    let (writer, memory) = write(&disk, "notes");
    say(&memory, "one");
    writer.checkpoint().unwrap();
    say(&memory, "two");
    let two = writer.checkpoint().unwrap().commit;
    let (first, mine) = read(&disk, "notes");
    let (second, other) = read(&disk, "notes");
    let (old, older) = read(&disk, "notes@-1");
    say(&mine, "three");
    let held = why(first.commit().unwrap_err());
    assert!(matches!(held, PublishError::Held { pid, .. } if pid == std::process::id()));
    assert_eq!(first.head(), Some(two));
    assert_eq!(said(&mine), "three", "memory is what it was");
    // Killed: its pack stays unsealed, and older commits need it.
    drop(writer);
    let three = first.commit().unwrap();
    assert!(three.changed && first.head() == Some(three.commit));
    assert!(!first.commit().unwrap().changed);
    for (reader, memory) in [(&second, &other), (&old, &older)] {
        say(memory, "too late");
        let moved = why(reader.commit().unwrap_err());
        assert!(
            matches!(moved, PublishError::Moved { head, .. } if head == Some(three.commit)),
            "{moved}"
        );
    }
    // It goes on as what it was: a reader, whose next commit continues its own.
    say(&mine, "four");
    assert!(matches!(
        first.checkpoint().unwrap_err(),
        CheckpointError::ReadOnly { .. }
    ));
    first.commit().unwrap();
    second.follow().unwrap();
    assert_eq!(said(&other), "four");
    // The next writer seals what the dead one left, and nothing of those who live.
    let (next, memory) = write(&disk, "notes");
    assert_eq!(said(&memory), "four");
    say(&mine, "five");
    why(first.commit().unwrap_err());
    for (back, text) in [
        ("-1", "three"),
        ("-2", "two"),
        ("-3", "one"),
        ("-0", "four"),
    ] {
        next.restore(back).unwrap();
        assert_eq!(said(&memory), text);
    }
    next.suspend().unwrap();
    assert!(matches!(
        why(first.commit().unwrap_err()),
        PublishError::Moved { .. }
    ));
    first.branch_here("kept").unwrap();
    drop(first);
    assert_eq!(said(&write(&disk, "kept").1), "five");
    assert_eq!(said(&write(&disk, "notes").1), "four");
}

#[test]
fn an_orphan_does_not_commit_as_if_it_were_a_reader() {
    let disk = MemDisk::new();
    let (victim, memory) = write(&disk, "notes");
    say(&memory, "saved");
    victim.checkpoint().unwrap();
    drop(steal(&disk, "notes"));
    say(&memory, "lost");
    for _ in 0..2 {
        let error = victim.commit().unwrap_err();
        assert!(matches!(error, CheckpointError::Orphaned { .. }), "{error}");
    }
    let (writer, memory) = write(&disk, "notes");
    say(&memory, "a writer");
    writer.commit().unwrap();
    say(&memory, "later");
    assert_eq!(writer.checkpoint().unwrap().sequence, 3);
}
