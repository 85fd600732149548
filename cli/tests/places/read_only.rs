//! A store on a file system that cannot be written to.

use crate::support::{no_mounts, process, said, segvm, store, wrapped};

#[test]
fn a_read_only_store_is_read_and_refuses_writers_by_name() {
    if no_mounts("a read-only store").is_some() {
        return;
    }
    let (_dir, store) = store();
    assert_eq!(said(&mut process(&store, "write")), "written");
    let path = store.display();
    let read_only = format!("mount --bind {path} {path}; mount -o remount,bind,ro {path}");

    assert_eq!(said(&mut wrapped(&read_only, &store, "read")), "read 1");
    let refused = said(&mut wrapped(&read_only, &store, "write"));
    assert!(
        refused.starts_with("error: ")
            && refused.contains("Read-only file system")
            && refused.contains("notes"),
        "{refused}"
    );
    for (arguments, wanted) in [
        (&["images"][..], "notes"),
        (&["log", "notes"], "@-0"),
        (&["show", "notes", "--map"], "memory"),
        (&["export", "notes", "memory", "-"], ""),
        (&["fsck", "--deep"], "nothing is wrong"),
    ] {
        let (code, text) = segvm(&read_only, &store, arguments);
        assert!(
            code == 0 && text.contains(wanted),
            "{arguments:?}: {code} {text}"
        );
    }
    for arguments in [
        &["tag", "notes", "here"][..],
        &["branch", "notes", "other"],
        &["rm", "notes"],
    ] {
        let (code, text) = segvm(&read_only, &store, arguments);
        assert!(
            code == 6 && text.contains("Read-only file system"),
            "{arguments:?}: {code} {text}"
        );
    }
    // Nothing came of what was refused.
    assert_eq!(said(&mut process(&store, "count")), "found 1");
}
