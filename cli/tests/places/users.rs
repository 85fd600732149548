//! Two users of one machine.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::Command,
};

use rustix::process::geteuid;

use crate::support::{process, said, store};

/// The user that has nothing.
const NOBODY: u32 = 65534;

fn open_directories(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            open_directories(&path);
        }
    }
}

#[test]
fn another_user_gets_nothing_out_of_a_store_and_is_told_which_file() {
    if !geteuid().is_root() {
        println!("skipped: only root can be two users");
        return;
    }
    let (dir, store) = store();
    // The way to the store is open: what keeps the other out is the store's own.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let program = dir.path().join("session");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(said(&mut process(&store, "write")), "written");
    assert_eq!(
        fs::metadata(&store).unwrap().permissions().mode() & 0o777,
        0o700
    );

    let elsewhere = |act: &str, store: &Path| {
        let mut command = Command::new(&program);
        let like = process(store, act);
        command.args(like.get_args());
        command.envs(
            like.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
        said(&mut command)
    };
    for act in ["read", "write"] {
        let text = elsewhere(act, &store);
        assert!(
            text.starts_with("error: ")
                && text.contains("Permission denied")
                && text.contains(&store.display().to_string()),
            "{act}: {text}"
        );
    }
    // Also where somebody opened the directories: the files are their owner's.
    open_directories(&store);
    for act in ["read", "write"] {
        let text = elsewhere(act, &store);
        assert!(
            text.starts_with("error: ") && text.contains("Permission denied"),
            "{act}: {text}"
        );
    }
    assert_eq!(said(&mut process(&store, "count")), "found 1");

    // Each has a store.
    let theirs = dir.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
    assert_eq!(elsewhere("write", &theirs.join("store")), "written");
    assert_eq!(elsewhere("count", &theirs.join("store")), "found 1");
}
