//! What the example says is what it promises.

use std::process::Command;

#[test]
fn the_secret_is_nowhere_but_in_memory() {
    let run = Command::new(env!("CARGO_BIN_EXE_secrets"))
        .output()
        .unwrap();
    let said = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{said}");
    let told = |what: &str| said.lines().find(|line| line.starts_with(what)).unwrap();
    assert!(
        told("in memory after a checkpoint:").ends_with("true"),
        "{said}"
    );
    assert!(told("the note in the store:").ends_with("true"), "{said}");
    assert!(
        told("the secret in the store:").ends_with("false"),
        "{said}"
    );
    assert!(
        told("in memory after a resume:").ends_with("false"),
        "{said}"
    );
    told("resumed after");
}
