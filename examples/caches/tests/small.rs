//! The example at a 64th of its size, and at its own.

#![expect(clippy::unwrap_used, reason = "a test's helpers may fail the test")]

use std::process::Command;

/// Runs it; answers what it said, and the bytes with the cache left out by those of everything.
fn ratio_at(mib: &str) -> (String, f64) {
    let run = Command::new(env!("CARGO_BIN_EXE_caches"))
        .arg(mib)
        .output()
        .unwrap();
    let said = String::from_utf8(run.stdout).unwrap();
    assert!(run.status.success(), "{said}");
    let ratio = said
        .split("ratio:")
        .nth(1)
        .and_then(|rest| rest.split(';').next());
    let ratio = ratio.unwrap().trim().parse().unwrap();
    (said, ratio)
}

#[test]
fn three_quarters_are_written_and_the_cache_fills_again_once() {
    let (said, ratio) = ratio_at("16");
    assert!(ratio <= 0.76, "{said}");
    assert!(said.contains("let go of 4194304 bytes"), "{said}");
    assert!(
        said.contains("2048 look-ups made 1024 entries again"),
        "{said}"
    );
}

#[test]
#[ignore = "takes 1 GiB of memory and 2 GiB of disk: cargo xtask test --all"]
fn a_cache_of_256_mib_is_left_out_of_1_gib() {
    let (said, ratio) = ratio_at("1024");
    println!("{said}");
    assert!(ratio <= 0.76, "{said}");
    assert!(said.contains("let go of 268435456 bytes"), "{said}");
    assert!(
        said.contains("131072 look-ups made 65536 entries again"),
        "{said}"
    );
}
