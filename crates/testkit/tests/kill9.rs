//! The programs of the testkit, run as programs: the proofs with real processes in a short form, and the conformance
//! runner. When a worker may be killed is decided by what it reports, so that a slow machine only takes longer.

use std::path::Path;
use std::process::{Command, Output};

fn run(program: &str, arguments: &[&str]) -> (Output, String) {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .expect("it runs");
    let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    let said = said.join("\n");
    (output, said)
}

/// Ten kills; few enough batches are kept that old ones are purged meanwhile.
#[test]
fn nothing_is_lost_or_doubled_when_a_process_is_killed_ten_times() {
    let proof = ["proof", "--runs", "10", "--seed", "1", "--retain", "10"];
    let (output, said) = run(env!("CARGO_BIN_EXE_kill9"), &proof);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("\n10 kills, "), "{said}");
    for query in ["projection", "windows", "keys"] {
        let exact = |line: &&str| line.starts_with(query) && line.ends_with(" rows, exact");
        assert_eq!(said.lines().filter(exact).count(), 1, "{query}: {said}");
    }
}

#[test]
fn of_two_processes_on_one_checkpoint_the_second_wins() {
    let fight = ["fight", "--rounds", "3", "--seed", "1"];
    let (output, said) = run(env!("CARGO_BIN_EXE_kill9"), &fight);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("\nround 3: "), "{said}");
}

#[test]
fn a_wrong_command_is_refused() {
    for (wrong, what) in [
        (&[][..], "no command given"),
        (&["proof", "--runs", "many"], "`many` is no number"),
        (&["proof", "--sink", "csv"], "`csv` is no sink"),
    ] {
        let (output, said) = run(env!("CARGO_BIN_EXE_kill9"), wrong);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(what) && said.contains("usage:"), "{said}");
    }
}

#[test]
fn the_conformance_runner_counts_what_it_ran() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/conformance");
    let cases = cases.join("agg_complete.json");
    let cases = cases.to_string_lossy();
    let (output, said) = run(env!("CARGO_BIN_EXE_conformance"), &[&cases]);
    assert!(output.status.success(), "{said}");
    assert!(said.contains(" passed, 0 failed, "), "{said}");
    let (output, said) = run(env!("CARGO_BIN_EXE_conformance"), &[]);
    assert_eq!(output.status.code(), Some(2), "{said}");
}
