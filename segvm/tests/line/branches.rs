//! Images that start at a commit of another, and names for commits.

use segvm::{Cause, OpenError};

use super::*;

#[test]
fn an_image_is_branched_from_any_of_its_commits() {
    let disk = MemDisk::new();
    let (session, memory) = write(&disk, "notes");
    let mut commits = Vec::new();
    for text in ["one", "two", "three"] {
        say(&memory, text);
        commits.push(session.checkpoint().unwrap().commit);
    }
    session
        .tag_at(&commits[1].to_string()[..8], "good")
        .unwrap();
    session.branch_from("good", "from-good").unwrap();
    session.branch_from("-2", "from-first").unwrap();
    session.branch("newest").unwrap();
    assert!(matches!(
        session.branch_from("-1", "newest").unwrap_err(),
        OpenError::Exists { .. }
    ));
    say(&memory, "four");
    session.suspend().unwrap();
    for (image, text) in [
        ("from-good", "two"),
        ("from-first", "one"),
        ("newest", "three"),
    ] {
        let (branch, memory) = write(&disk, image);
        assert_eq!(said(&memory), text);
        assert_eq!(branch.resumed().unwrap().cause, Cause::Branch);
        say(&memory, image);
        branch.suspend().unwrap();
        assert_eq!(
            write(&disk, image).0.resumed().unwrap().cause,
            Cause::Resume
        );
    }
    assert_eq!(said(&write(&disk, "notes").1), "four");
}

#[test]
fn a_branch_of_a_branch_starts_at_a_commit_of_the_first() {
    let disk = MemDisk::new();
    let (session, memory) = write(&disk, "a");
    for text in ["one", "two"] {
        say(&memory, text);
        session.checkpoint().unwrap();
    }
    session.branch("b").unwrap();
    session.suspend().unwrap();
    let (session, memory) = write(&disk, "b");
    say(&memory, "three");
    session.checkpoint().unwrap();
    // The branch's first commit, the commit it was branched off, and the one before that.
    session.branch_from("-3", "c").unwrap();
    session.suspend().unwrap();
    let (session, memory) = write(&disk, "c");
    assert_eq!(said(&memory), "one");
    // Its history goes on in the image that has that commit, which is not the one it was branched from.
    session.restore("-1").unwrap();
    assert_eq!(said(&memory), "one");
    session.restore("-2").unwrap_err();
}

#[test]
fn tags_are_given_used_and_taken_away() {
    let disk = MemDisk::new();
    let (session, memory) = write(&disk, "notes");
    let error = session.tag("too-early").unwrap_err();
    assert!(matches!(error, OpenError::NothingSaved { .. }), "{error}");
    say(&memory, "one");
    session.checkpoint().unwrap();
    session.tag("first").unwrap();
    say(&memory, "two");
    session.checkpoint().unwrap();
    let error = session.tag("first").unwrap_err();
    assert!(matches!(error, OpenError::Tag(_)), "{error}");
    session.tag("second").unwrap();
    let names = |session: &Session| -> Vec<String> {
        let tags = session.tags().unwrap();
        tags.iter().map(|tag| tag.name.to_string()).collect()
    };
    assert_eq!(names(&session), ["first", "second"]);
    session.restore("first").unwrap();
    assert_eq!(said(&memory), "one");
    assert_eq!(session.resumed().unwrap().cause, Cause::Restore);
    session.untag("first").unwrap();
    session.restore("first").unwrap_err();
    session.restore("second").unwrap();
    assert_eq!(said(&memory), "two");
    // By time: the newest at that instant.
    session.restore("0s").unwrap();
    assert_eq!(said(&memory), "two");
    session.restore("1d").unwrap_err();
    let (reader, _) = read(&disk, "notes@-1");
    reader.tag("by-a-reader").unwrap();
    assert_eq!(names(&session), ["by-a-reader", "second"]);
    session.restore("by-a-reader").unwrap();
    assert_eq!(said(&memory), "one");
}
