//! Feeds every saved input to its decoder, without the fuzzer.

use std::{collections::BTreeSet, fs, path::Path};

fn names_in(folder: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            path.file_stem().unwrap().to_str().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn every_decoder_has_a_target_and_saved_inputs() {
    let names: BTreeSet<String> = segvm_fuzz::DECODERS
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    assert_eq!(names_in("fuzz_targets"), names);
    assert_eq!(names_in("corpus"), names);
}

#[test]
fn no_saved_input_breaks_its_decoder() {
    for (name, decode) in segvm_fuzz::DECODERS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(name);
        let mut inputs = 0;
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            // Printed only when the test fails: the last one is the culprit.
            println!("{}", path.display());
            let bytes = fs::read(path).unwrap();
            decode(&bytes);
            // Cut short and torn in the middle, which is how files really break.
            for cut in [bytes.len() / 2, bytes.len().saturating_sub(1)] {
                decode(&bytes[..cut]);
                let mut torn = bytes.clone();
                torn[cut..].fill(0);
                decode(&torn);
            }
            inputs += 1;
        }
        assert!(inputs > 0, "no saved input for {name}");
    }
}
