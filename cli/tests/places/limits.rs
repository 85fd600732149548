//! Processes that may have little: addresses, open files.

use crate::support::{process, said, store};

fn limited(limit: &str, act: &str, store: &std::path::Path) -> String {
    let like = process(store, act);
    let mut command = std::process::Command::new("/bin/sh");
    command
        .args(["-c", &format!("{limit}\nexec \"$@\""), "sh"])
        .arg(like.get_program())
        .args(like.get_args())
        .envs(
            like.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    said(&mut command)
}

#[test]
fn a_process_with_too_few_addresses_is_told_and_leaves_the_image_alone() {
    let (_dir, store) = store();
    assert_eq!(said(&mut process(&store, "write")), "written");
    // 4 GiB of addresses, and a segment reserves 64.
    let refused = limited("ulimit -v 4194304", "count", &store);
    assert!(
        refused.starts_with("error: ") && refused.contains("Cannot allocate memory"),
        "{refused}"
    );
    assert_eq!(said(&mut process(&store, "count")), "found 1");
}

#[test]
fn a_process_that_may_open_few_files_is_told_and_leaves_the_image_alone() {
    let (_dir, store) = store();
    assert_eq!(said(&mut process(&store, "write")), "written");
    const FEWEST: u32 = 5;
    for files in FEWEST..40 {
        let text = limited(&format!("ulimit -n {files}"), "count", &store);
        if text == "found 1" {
            assert!(files > FEWEST, "{files} files were enough");
            println!("{files} files are enough");
            return;
        }
        assert!(
            text.starts_with("error: ") && text.contains("Too many open files"),
            "{files}: {text}"
        );
    }
    panic!("never enough");
}
