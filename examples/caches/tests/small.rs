//! The example at a 64th of its size.

use std::process::Command;

#[test]
fn three_quarters_are_written_and_the_cache_fills_again_once() {
    let run = Command::new(env!("CARGO_BIN_EXE_caches"))
        .arg("16")
        .output()
        .unwrap();
    let said = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{said}");
    let ratio = said
        .split("ratio:")
        .nth(1)
        .and_then(|rest| rest.split(';').next());
    let ratio: f64 = ratio.unwrap().trim().parse().unwrap();
    assert!(ratio <= 0.76, "{said}");
    assert!(said.contains("let go of 4194304 bytes"), "{said}");
    assert!(
        said.contains("2048 look-ups made 1024 entries again"),
        "{said}"
    );
}
