//! The file sink, killed at each operation: the union of the files its log names is exact.

use highwater::prelude::*;
use highwater_testkit::crash::target::Files;
use highwater_testkit::crash::{FileScript, Proof, Setup, Subject, Tally};

use super::SEED;

async fn prove(script: &FileScript, setup: &Setup, points: usize, tally: &mut Tally) {
    let proof = Proof {
        subject: script,
        setup,
        seed: SEED,
        points,
    };
    let proven = proof.run().await;
    tally.add(proven.unwrap_or_else(|e| panic!("{e}")));
}

fn json() -> Setup {
    Setup::new(Files {
        format: "json".into(),
    })
}

/// Every operation of a query with state, and samples of all that append.
#[tokio::test]
async fn files_are_committed_once_whatever_operation_a_process_dies_in() {
    let mut tally = Tally::default();
    let whole = FileScript::named("window-append", SEED).unwrap();
    prove(&whole, &json(), usize::MAX, &mut tally).await;
    for kind in [
        "Before put_opts out/_spark_metadata/N",
        "After put_opts out/_spark_metadata/N",
        "Staged put_opts out/_spark_metadata/N",
    ] {
        assert!(tally.kinds.contains(kind), "{kind}: {:#?}", tally.kinds);
    }
    let appends = FileScript::all(SEED + 1).into_iter();
    for script in appends.filter(|script| script.mode() == OutputMode::Append) {
        prove(&script, &json(), 24, &mut tally).await;
    }
    assert!(tally.points >= 200, "{}", tally.points);
}
