//! Some thousand inputs of each target, always the same.

use fuzz::{Mutations, targets};

const INPUTS: usize = 5_000;

#[test]
fn samples_are_taken_for_what_they_are() {
    let refused = |target: &fuzz::Target| {
        let samples = (target.samples)();
        samples.is_empty() || !samples.iter().all(|sample| (target.run)(sample))
    };
    let refused: Vec<&str> = targets().iter().filter(|t| refused(t)).map(|t| t.name).collect();
    assert_eq!(refused, [""; 0]);
}

#[test]
fn what_is_like_them_is_read_without_harm() {
    for target in targets() {
        for input in Mutations::new((target.samples)(), 1).take(INPUTS) {
            let run = std::panic::catch_unwind(|| (target.run)(&input));
            assert!(run.is_ok(), "{}: {}", target.name, input.escape_ascii());
        }
    }
}
